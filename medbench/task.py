"""Tasks: where the samples come from, how they are asked, which metrics score them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

Kind = Literal["open", "closed", "choice", "report"]


@dataclass(frozen=True)
class Sample:
    """One question about one image.

    Attributes:
        id: unique within the task and split; hashed, and printed unless `alias` says otherwise.
        image: a file, or a function that returns a PIL image (a `StoredImage` where it lies
            within another file); opened late.
        question: as asked, without template or image placeholder.
        answer: the gold answer; may be empty where the data set's is.
        kind: which metrics apply.
        group: id of the image, so that intervals and splits can cluster by it.
        stamp: of an image that is not a file of its own, text that changes when its content does
            (seed of a drawing, hash of a table's cell); goes into the data hash. Files are hashed.
        roi: a function that returns the ground-truth region as bool [height, width] in the
            image's own pixels, or None where the data set has none.
        roi_files: files that `roi` reads beside the image; hashed as the image is.
        meta: modality, location, question type, the data set's own id, ...
        alias: what messages call the sample of a restricted task (`medbench.restricted`), set
            when it is taken into a run; "" elsewhere.
    """

    id: str
    image: Path | Callable[[], Image]
    question: str
    answer: str
    kind: Kind
    group: str
    stamp: str = ""
    roi: Callable[[], np.ndarray] | None = None
    roi_files: tuple[Path, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    alias: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """What messages call the sample: its id, unless that may not be told."""
        return self.alias or self.id

    def __repr__(self) -> str:
        """Name the sample and tell nothing of it: assertions, logs and debuggers print this."""
        return f"Sample({self.name!r}, {self.kind})"


@runtime_checkable
class StoredImage(Protocol):
    """An image that lies within another file: a table's cell, a member of an archive."""

    def __call__(self) -> Image:
        """Decode the image."""
        ...

    def content(self) -> bytes:
        """Return the image file's bytes as they are stored."""
        ...


@dataclass(frozen=True)
class Edition:
    """Which copy of a data set lies in the data folder.

    Attributes:
        name: "official", or what a mirror or another split is known by, e.g. "huggingface".
        files: those that questions and answers are read from.
        note: what a reader of the scores must know, in one sentence; "" for nothing.
    """

    name: str = "official"
    files: tuple[Path, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Task:
    """Yields the samples of a split from the official files on disk.

    A task is one frozen dataclass in one file; as with methods, annotated attributes are
    parameters and the others are literals read from the source.

    Class attributes:
        name, version: `version` rises when a change moves scores.
        paper, licence, source: where the data come from, for `medbench show`.
        offers: what it has beyond questions, e.g. "roi".
        metrics: full names of the metrics that make its scores.
        passport: split -> what the official files must hold: {"rows": n, "ids": sha256,
            "questions": sha256} as far as it is known (`medbench.data.passport`).
        mirrors: the same for other editions: edition -> split -> counts and hashes.
        examples: the first two test samples (id, kind, question, answer) of a task that needs no
            files, so that `medbench show` need not make them.
        tuning: defaults that a tuner takes from this task (epochs, learning rate, ...).
        supervision: provider -> defaults that it takes from this task.
        region_text: what a question's region is called when segments are compared with it: pairs
            of a word and a text with `{question}` and `{location}` in it; the first pair counts
            whose word stands in the sample's location, in any case.
        region_text_published: the same as the published code writes it, where that differs; there
            case counts.
        prompt: how a question is put, `{question}` standing for it.
        shared_images: why images of the test split are training images too, where the published
            split has it so; "" where none may be.
        restricted: True where text and images may not leave the user's machine. Its own errors
            name no id and no file of a sample; of all others `medbench.restricted` sees to that.
        unkeyed: parameters that move no answer by themselves; the samples are hashed instead.

    Args:
        data: folder with the downloaded files ("" where none are needed).
        max_new_tokens: longest answer.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    paper: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    source: ClassVar[str] = ""
    offers: ClassVar[tuple[str, ...]] = ()
    metrics: ClassVar[tuple[str, ...]] = ()
    passport: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    mirrors: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {}
    examples: ClassVar[tuple[tuple[str, str, str, str], ...]] = ()
    tuning: ClassVar[Mapping[str, Any]] = {}
    supervision: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    region_text: ClassVar[tuple[tuple[str, str], ...]] = (("", "{question}"),)
    region_text_published: ClassVar[tuple[tuple[str, str], ...]] = ()
    prompt: ClassVar[str] = "{question}"
    shared_images: ClassVar[str] = ""
    restricted: ClassVar[bool] = False
    unkeyed: ClassVar[tuple[str, ...]] = ("data",)

    data: str = ""
    max_new_tokens: int = 1024

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield the samples of `split` ("train", "validation" or "test") in the files' order.

        Every sample comes, whether or not its image is there: opening is late, and what to do
        about missing images is the run's business.

        Raises:
            UserError: the folder or a file is missing or broken, or counts differ from the
                passport.
        """
        raise NotImplementedError

    def edition(self, split: str) -> Edition:
        """Say which copy of the data set lies in the data folder.

        Raises:
            UserError: none that is known; look-alikes are named.
        """
        return Edition()

    def expects(self, split: str) -> Mapping[str, Any]:
        """Return what the files of this edition must hold: counts and hashes; empty if unknown."""
        name = self.edition(split).name
        known = self.passport if name == "official" else self.mirrors.get(name, {})
        return known.get(split, {})

    def ask(self, sample: Sample) -> str:
        """Return the text put to the model for a sample."""
        return self.prompt.format(question=sample.question)

    def name_region(self, sample: Sample, *, published: bool = False) -> str:
        """Return the text that a sample's segments are compared with."""
        location = str(sample.meta.get("location", ""))
        if published and self.region_text_published:
            rules = self.region_text_published
        else:
            rules, location = self.region_text, location.replace("_", " ").lower()
        for word, text in rules:
            if word in location:
                return text.format(question=sample.question, location=location)
        return sample.question
