"""The questions of a download: which splits are there, and whether they are the published ones."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbench.data.look import Picture
from medbench.data.passport import hash_ids, hash_questions
from medbench.errors import UserError
from medbench.restricted import read_split
from medbench.task import Edition, Sample, StoredImage, Task

if TYPE_CHECKING:
    import numpy as np

_USUAL = ("train", "validation", "test")
# What the errors say that are no fault of a file: there is no such split, or no file at all.
_NO_SPLIT = "has no split"
_NO_FILE = ("no data folder given", "is not a folder", "not found in")


@dataclass(frozen=True)
class Region:
    """A region to look at: what computes it, the files it is read from, and its picture."""

    compute: Callable[[], np.ndarray]
    files: tuple[Path, ...]
    picture: Hashable
    sample: str


@dataclass(frozen=True)
class Split:
    """A split's questions, reduced to what is compared; texts and samples are not kept.

    Attributes:
        edition: the copy it was read from; expected: counts and hashes that this copy must have.
        is_whole: whether the task's parameters leave no question out, so that counts must agree.
        ids, questions: hashes as in a passport; twice: ids that come more than once.
        pictures: for each question the key of its picture in `sources`, None if it is drawn.
        stamps: for each question its stamp.
        sources: the pictures by key; first: the id of the first question about each.
        groups: ids of images; texts: digests of questions with their answers, and how many.
        regions: those to look at, each once; with_region: questions that have one.
    """

    name: str
    edition: Edition
    expected: Mapping[str, Any]
    is_whole: bool
    rows: int
    ids: str
    questions: str
    twice: int
    kinds: Mapping[str, int]
    empty_answers: int
    pictures: tuple[Hashable, ...]
    stamps: tuple[str, ...]
    sources: Mapping[Hashable, Picture]
    first: Mapping[Hashable, str]
    groups: frozenset[str]
    texts: Mapping[bytes, int]
    regions: tuple[Region, ...]
    with_region: int


@dataclass(frozen=True)
class Found:
    """The splits that could be read, and what kept others from being read."""

    splits: tuple[Split, ...] = ()
    errors: Mapping[str, UserError] = field(default_factory=dict[str, UserError])

    @property
    def is_absent(self) -> bool:
        """Whether the folder holds no questions of the task at all."""
        return self.is_absent_beside(())

    def is_absent_beside(self, others: Collection[Path]) -> bool:
        """Say whether the folder holds no questions of the task, but those in others' files."""
        words = (*_NO_FILE, *map(str, others))
        errors = self.errors.values()
        return not self.splits and all(any(one in error.what for one in words) for error in errors)


def read_splits(task: Task) -> Found:
    """Read every split that a task has in its data folder."""
    known = {*task.passport, *(split for one in task.mirrors.values() for split in one)}
    splits: list[Split] = []
    errors: dict[str, UserError] = {}
    for name in dict.fromkeys((*_USUAL, *task.passport, *sorted(known))):
        try:
            split = _read(task, name)
        except UserError as error:
            if _NO_SPLIT not in error.what:
                errors[name] = error
            continue
        except Exception as error:
            # A task need not have the splits that are asked for because others have them.
            if name in known:
                raise
            why = f"{type(error).__name__}: {error}".partition("\n")[0]
            errors[name] = UserError(f"{task.name}: cannot read a split '{name}'", why)
            continue
        if split.rows or split.expected:
            splits.append(split)
    if splits:
        # A copy need not have all splits; and one never heard of is no loss where others are.
        copy = splits[0].edition.name
        has = task.passport if copy == "official" else task.mirrors.get(copy, known)
        errors = {name: error for name, error in errors.items() if name in has}
    return Found(tuple(splits), errors)


def _read(task: Task, name: str) -> Split:
    samples = read_split(task, name)
    sources: dict[Hashable, Picture] = {}
    first: dict[Hashable, str] = {}
    keys = [_key(sample) for sample in samples]
    for sample, key in zip(samples, keys, strict=True):
        if key is not None and key not in sources:
            assert isinstance(sample.image, Path | StoredImage), "others have no key"
            sources[key], first[key] = sample.image, sample.id
    regions = _regions(samples, keys)
    return Split(
        name=name,
        edition=task.edition(name),
        expected=task.expects(name),
        is_whole=_is_whole(task),
        rows=len(samples),
        ids=hash_ids(sample.id for sample in samples),
        questions=hash_questions(samples),
        twice=sum(count > 1 for count in Counter(sample.id for sample in samples).values()),
        kinds=Counter(sample.kind for sample in samples),
        empty_answers=sum(not sample.answer for sample in samples),
        pictures=tuple(keys),
        stamps=tuple(sample.stamp for sample in samples),
        sources=sources,
        first=first,
        groups=frozenset(sample.group for sample in samples),
        texts=Counter(_text_mark(sample) for sample in samples),
        regions=regions,
        with_region=sum(sample.roi is not None for sample in samples),
    )


def _key(sample: Sample) -> Hashable:
    """Return what is the same for all questions about a picture; None for a drawn one."""
    image = sample.image
    if isinstance(image, Path):
        return image
    if not isinstance(image, StoredImage):
        return None
    return sample.stamp or _mark(image)


def _mark(thing: object) -> Hashable:
    try:
        hash(thing)
    except TypeError:
        return id(thing)
    return thing


def _regions(samples: list[Sample], keys: list[Hashable]) -> tuple[Region, ...]:
    found: dict[Hashable, Region] = {}
    for sample, key in zip(samples, keys, strict=True):
        if sample.roi is not None and key is not None:
            mark = (_mark(sample.roi), key)
            found.setdefault(mark, Region(sample.roi, sample.roi_files, key, sample.id))
    return tuple(found.values())


def _text_mark(sample: Sample) -> bytes:
    text = json.dumps([sample.question, sample.answer]).encode()
    return hashlib.blake2b(text, digest_size=16).digest()


def _is_whole(task: Task) -> bool:
    """Say whether all parameters that may leave questions out have their defaults."""
    own = (one for one in fields(task) if one.name not in ("data", "max_new_tokens"))
    return all(getattr(task, one.name) == one.default for one in own)
