"""Auditing a download: what is missing, broken, other than published, or in two splits at once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

from medbench.data.audit_finding import Finding
from medbench.data.audit_pictures import (
    Pictures,
    Progress,
    check_regions,
    list_odd,
    list_unusable,
    look_at_pictures,
)
from medbench.data.audit_splits import Found, Split
from medbench.data.passport import hash_ids
from medbench.errors import UserError
from medbench.task import Task

Verdict = Literal["as expected", "differs", "not known", "not all there"]

# Names of files and folders, and numbers as long as those of patients and studies.
_TELLING = re.compile(r"\S*(?:[/\\.]\w|\d{5})\S*")


@dataclass(frozen=True)
class Compared:
    """A hash, None where it cannot be computed, and what came of comparing it with the known."""

    found: str | None
    verdict: Verdict


@dataclass(frozen=True)
class SplitAudit:
    """A split's counts and hashes.

    Attributes:
        edition, note: the copy it was read from, and what a reader of scores must know of it.
        expected_rows: None where the number is not known.
        whole: False where the task's parameters leave questions out.
        without_image: questions whose image is missing or cannot be opened.
    """

    name: str
    edition: str
    note: str
    rows: int
    expected_rows: int | None
    whole: bool
    kinds: Mapping[str, int]
    empty_answers: int
    without_image: int
    ids: Compared
    questions: Compared
    images: Compared


@dataclass(frozen=True)
class Shared:
    """How much of a later split an earlier one has too, each with the number it has in all.

    Attributes:
        groups: ids of images; contents: bytes of images, of those that are there; questions:
            those that stand there with the same answer.
    """

    earlier: str
    later: str
    groups: tuple[int, int]
    contents: tuple[int, int]
    questions: tuple[int, int]


@dataclass(frozen=True)
class Audit:
    """All that was found out about a task's download.

    Attributes:
        images: number of different images; drawn: questions about images that the task draws.
        modes, formats: of the images that open, in Pillow's words, the most frequent first.
        with_region: questions that have a region; regions: different ones that were computed.
        problems: what keeps the download from being good; warnings: what else to know of it.
    """

    task: str
    data: str
    restricted: bool
    splits: tuple[SplitAudit, ...]
    images: int
    drawn: int
    modes: Mapping[str, int]
    formats: Mapping[str, int]
    with_region: int
    regions: int
    shared: tuple[Shared, ...]
    problems: tuple[Finding, ...]
    warnings: tuple[Finding, ...]

    @property
    def good(self) -> bool:
        """Whether nothing is missing, broken, or other than published."""
        return not self.problems


def audit(task: Task, found: Found, progress: Progress) -> Audit:
    """Compare a task's splits with what is known of them, and open every image and region.

    Args:
        found: the splits as read.
        progress: called with what is looked at, how many are done, and of how many.
    """
    pictures = look_at_pictures(task, found.splits, progress)
    splits = tuple(_compare(split, pictures) for split in found.splits)
    unusable = list(list_unusable(task, found.splits, pictures))
    regions, bad_regions, odd_regions = check_regions(task, found.splits, pictures, progress)
    good = [look for key, look in pictures.looks.items() if pictures.open_well(key)]
    unread = [_unread(task, name, error) for name, error in found.errors.items()]
    return Audit(
        task=task.name,
        data=task.data,
        restricted=task.restricted,
        splits=splits,
        images=len(pictures.looks),
        drawn=sum(key is None for split in found.splits for key in split.pictures),
        modes=_by_frequency(look.mode or "unknown" for look in good),
        formats=_by_frequency(look.format or "unknown" for look in good),
        with_region=sum(split.with_region for split in found.splits),
        regions=regions,
        shared=tuple(_shared(*pair, pictures) for pair in combinations(found.splits, 2)),
        problems=(*unread, *_list_different(task, found, splits), *unusable, *bad_regions),
        warnings=(
            *list_odd(task, found.splits, pictures),
            *odd_regions,
            *_list_lacking(task, found.splits),
        ),
    )


def _compare(split: Split, pictures: Pictures) -> SplitAudit:
    rows = split.expected.get("rows")
    # Of part of the questions nothing is known.
    known = split.expected if rows in (None, split.rows) else {}
    without_image = sum(key is not None and not pictures.open_well(key) for key in split.pictures)
    return SplitAudit(
        name=split.name,
        edition=split.edition.name,
        note=split.edition.note,
        rows=split.rows,
        expected_rows=rows,
        whole=split.is_whole,
        kinds=dict(split.kinds),
        empty_answers=split.empty_answers,
        without_image=without_image,
        ids=_compared(split.ids, known.get("ids")),
        questions=_compared(split.questions, known.get("questions")),
        images=Compared(None, "not all there")
        if without_image
        else _compared(_hash_images(split, pictures), known.get("images")),
    )


def _hash_images(split: Split, pictures: Pictures) -> str | None:
    """Return the hash that a passport has for the images; None if drawn ones have no stamp."""
    marks = [
        pictures.looks[key].content if isinstance(key, Path) else stamp
        for key, stamp in zip(split.pictures, split.stamps, strict=True)
    ]
    return hash_ids(marks) if all(marks) else None


def _compared(found: str | None, known: str | None) -> Compared:
    if found is None or known is None:
        return Compared(found, "not known")
    return Compared(found, "as expected" if found == known else "differs")


def _unread(task: Task, name: str, error: UserError) -> Finding:
    """Return the finding for a split that cannot be read.

    A restricted task's errors are printed without their reasons, which may name a patient's file.
    """
    what = f"{name}: {error.what}"
    if task.restricted:
        what = _TELLING.sub("...", what)
        do = "Details are withheld here; medbench run --plan tells them."
        return Finding("unread split", 1, what, do)
    return Finding("unread split", 1, what, error.do, why=error.why)


def _list_different(task: Task, found: Found, splits: tuple[SplitAudit, ...]) -> Iterator[Finding]:
    """Yield what differs from what is known of the published files."""
    again = f"Download the official files again ({task.source}); copies that circulate differ."
    for split, checked in zip(found.splits, splits, strict=True):
        if split.twice:
            what = f"{split.name}: {split.twice} ids come more than once."
            yield Finding("repeated ids", split.twice, what, "A run needs ids that differ.")
        expected = checked.expected_rows
        if expected not in (None, split.rows) and split.is_whole:
            what = f"{split.name}: {split.rows} of {expected} questions found."
            yield Finding("rows", abs(split.rows - expected), what, again)
        for part, compared in (
            ("ids", checked.ids),
            ("questions", checked.questions),
            ("images", checked.images),
        ):
            if compared.verdict == "differs":
                what = f"{split.name}: {_PARTS[part]}"
                yield Finding(f"other {part}", 1, what, again)


def _list_lacking(task: Task, splits: Sequence[Split]) -> Iterator[Finding]:
    """Yield that no region was found where the data set has some."""
    asked = sum(split.rows for split in splits)
    if "roi" in task.offers and asked and not any(split.with_region for split in splits):
        what = "No question has a region: masks and boxes are not there."
        yield Finding("no regions", asked, what, "Scores that need regions apply to no question.")


_PARTS = {
    "ids": "some ids are others, or stand in another order.",
    "questions": "some questions or answers are not the published ones.",
    "images": "some images are not the published files.",
}


def _shared(earlier: Split, later: Split, pictures: Pictures) -> Shared:
    contents = [
        {pictures.looks[key].content for key in split.sources} - {""} for split in (earlier, later)
    ]
    return Shared(
        earlier.name,
        later.name,
        (len(earlier.groups & later.groups), len(later.groups)),
        (len(contents[0] & contents[1]), len(contents[1])),
        (sum(n for text, n in later.texts.items() if text in earlier.texts), later.rows),
    )


def _by_frequency(words: Iterator[str]) -> dict[str, int]:
    return dict(Counter(words).most_common())
