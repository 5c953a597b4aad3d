"""Describing what a split asks: how many of which kind, and what answering blindly would score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from medbench.metrics.text import published
from medbench.restricted import read_split
from medbench.task import Sample, Task

_MOST_VALUES = 30
_MOST_ANSWERS = 10
_BAR_WIDTH = 30
_TEXT_LENGTH = 40
# What may be told of restricted data: fields that say nothing of a patient.
_HARMLESS = frozenset(("view", "modality", "location", "question_type", "answer_type"))


@dataclass(frozen=True)
class Answers:
    """The answers to questions of one kind, counted as the published scores compare them.

    Attributes:
        different: number of different ones; frequent: the most frequent ones, the first of which
            is what a constant answer can get right.
    """

    rows: int
    different: int
    frequent: Mapping[str, int]


@dataclass(frozen=True)
class Description:
    """What a split holds.

    Attributes:
        edition, note: the copy it was read from, and what a reader of scores must know of it.
        images: number of images; fewest, most: questions about one image.
        with_region: questions that have a region.
        fields: name -> value -> questions, for the kind and what else the data set tells.
        answers: by kind; empty where they may not be shown.
    """

    task: str
    split: str
    edition: str
    note: str
    rows: int
    images: int
    fewest: int
    most: int
    with_region: int
    fields: Mapping[str, Mapping[str, int]]
    answers: Mapping[str, Answers]


def describe(task: Task, split: str) -> Description:
    """Count what a split asks.

    Of a restricted task no answers are counted, and only fields that tell no patient apart.

    Raises:
        UserError: the questions cannot be read.
    """
    samples = read_split(task, split)
    edition = task.edition(split)
    per_image = Counter(sample.group for sample in samples).values()
    kinds = dict(Counter(sample.kind for sample in samples).most_common())
    return Description(
        task=task.name,
        split=split,
        edition=edition.name,
        note=edition.note,
        rows=len(samples),
        images=len(per_image),
        fewest=min(per_image, default=0),
        most=max(per_image, default=0),
        with_region=sum(sample.roi is not None for sample in samples),
        fields={"kind": kinds, **_fields(samples, restricted=task.restricted)},
        answers={} if task.restricted else {kind: _answers(samples, kind) for kind in kinds},
    )


def _fields(samples: Sequence[Sample], *, restricted: bool) -> dict[str, dict[str, int]]:
    """Count the values of those fields that sort the questions into a few sorts."""
    names = dict.fromkeys(
        name for sample in samples for name in sample.meta if name in _HARMLESS or not restricted
    )
    found: dict[str, dict[str, int]] = {}
    for name in names:
        values = [sample.meta.get(name, "") for sample in samples]
        if not all(isinstance(value, str) for value in values):
            continue
        counts = Counter(map(str, values))
        # Where most questions have a value of their own, it is a text or an id.
        if 2 <= len(counts) <= _MOST_VALUES and 2 * len(counts) <= len(samples):
            found[name] = dict(counts.most_common())
    return found


def _answers(samples: Iterable[Sample], kind: str) -> Answers:
    counts = Counter(published(sample.answer) for sample in samples if sample.kind == kind)
    return Answers(counts.total(), len(counts), dict(counts.most_common(_MOST_ANSWERS)))


def lines(told: Description) -> Iterator[str]:
    """Yield a description as text, each count with its share and a bar."""
    yield f"{told.task} {told.split}, {told.edition} edition"
    if told.note:
        yield f"  {told.note}"
    if not told.rows:
        yield "  no questions"
        return
    mean = told.rows / told.images
    yield f"  {told.rows} questions on {told.images} images"
    if told.most > 1:
        yield f"  {told.fewest} to {told.most} questions an image, {mean:.1f} on average"
    if told.with_region:
        share = 100 * told.with_region / told.rows
        yield f"  {told.with_region} questions with a region ({share:.1f} %)"
    for name, counts in told.fields.items():
        yield from _table(name.replace("_", " "), counts, told.rows)
    for kind, answers in told.answers.items():
        heading = f"answers of kind {kind}: {answers.different} different ones"
        yield from _table(heading, answers.frequent, answers.rows)
        (best, count), *_ = answers.frequent.items()
        share = 100 * count / answers.rows
        yield f"  always '{_short(best)}' is right in {count} of {answers.rows} ({share:.1f} %)"


def _table(heading: str, counts: Mapping[str, int], total: int) -> Iterator[str]:
    yield ""
    yield heading
    names = [_short(name) or "(empty)" for name in counts]
    width = max(map(len, names))
    digits = len(str(max(counts.values())))
    for name, count in zip(names, counts.values(), strict=True):
        bar = "#" * round(_BAR_WIDTH * count / total)
        share = f"{100 * count / total:5.1f} %"
        yield f"  {name:<{width}}  {count:>{digits}}  {share}  {bar:.<{_BAR_WIDTH}}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _TEXT_LENGTH else f"{text[: _TEXT_LENGTH - 3]}..."
