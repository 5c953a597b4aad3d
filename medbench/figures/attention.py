"""Where runs look: attention over the image beside the region, and what the runs answered.

Maps come from the runs' lines, images and regions from the task's data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from PIL.Image import Image

from medbench import plugins, store
from medbench.choose import Side
from medbench.comparing.comparable import check_settings
from medbench.data.pictures import open_image
from medbench.errors import UserError
from medbench.figures import placement
from medbench.figures.notes import setting
from medbench.figures.placement import Extent, Fit
from medbench.metrics.attention import decode_map, decode_mask
from medbench.restricted import check_texts, withholding
from medbench.rows import Row
from medbench.run_images import digest_of, read_asked
from medbench.store import RunRecord
from medbench.task import Sample
from medbench.verdict import RULES, Verdict, verdict

# Samples without --sample; and regions that are looked at to find out how images were placed.
_FIRST, _LOOKED_AT = 3, 40
_INSIDE = "attention/in_roi"


@dataclass(frozen=True)
class Panel:
    """Where one run looked.

    Attributes:
        attention: share of the answer's attention on each patch, [rows, columns].
        extent: where the patches lie, in the image's pixels.
        answer: what the run said; verdict: on it.
        inside: share of the attention on the image that lies in the region; None where the region
            has no patch.
    """

    attention: np.ndarray
    extent: Extent
    answer: str
    verdict: Verdict
    inside: float | None


@dataclass(frozen=True)
class Line:
    """One sample: its image, its region [height, width], and a panel for each run."""

    id: str
    question: str
    gold: str
    image: Image
    region: np.ndarray
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Attention:
    """What stands in the figure: a line a sample, a column a run."""

    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    note: str


@dataclass(frozen=True)
class _Shown:
    """A run and its lines by sample."""

    run: RunRecord
    rows: Mapping[str, Row]


def arrange(
    sides: Sequence[Side],
    *,
    samples: Sequence[str] = (),
    data: str = "",
    fit: Fit | None = None,
    show_restricted: bool = False,
) -> Attention:
    """Return what stands in the figure.

    Args:
        sides: runs; of several seeds the first is shown.
        samples: ids; by default the first ones of three images.
        data: folder of the task's files; by default the one that the first run read.
        fit: how the backbone places images, where it cannot be found out.
        show_restricted: whether a restricted task's images and texts may be shown.

    Raises:
        UserError: runs may not stand beside each other, a sample is not there, a run has no
            attention or no texts, or the data are not those that the runs read.
    """
    records = [side.runs[0] for side in sides]
    for one in records:
        check_texts(one.folder, withheld=one.withheld, what="plot attention")
    if any(one.restricted for one in records) and not show_restricted:
        raise UserError(
            f"{records[0].task} is restricted",
            "The figure shows patients' images and texts.",
            "Add --show-restricted, and keep what is drawn to yourself.",
        )
    for other in sides[1:]:
        check_settings(sides[0], other)
    shown = [
        _Shown(one, {row["id"]: row for row in store.read_rows(one.folder)}) for one in records
    ]
    task, known = read_asked(records[0], data)
    with withholding(task, known):
        by_id = {sample.id: sample for sample in known}
        _check(samples, shown, restricted=task.restricted)
        wanted = list(samples) or _common(shown, known)
        fits: list[Fit] = [fit or _fit(one, by_id, wanted) for one in shown]
        lines = tuple(_line(_sample(by_id, name), shown, fits) for name in wanted)
    return Attention(tuple(map(_name, sides)), lines, _note(records))


def _check(asked: Sequence[str], shown: Sequence[_Shown], *, restricted: bool) -> None:
    """Make sure that the samples asked for can be shown.

    Raises:
        UserError: a run does not have one, or has no attention for it.
    """
    for one in shown:
        if not any(map(_has_region, one.rows.values())):
            raise UserError(
                f"the run of {one.run.method} holds no attention on a region",
                f"{one.run.folder} was made by another program, or its samples have no regions.",
                "Take a task with regions (medbench list tasks), and runs of medbench.",
            )
        for name in asked:
            if name not in one.rows or not _has_region(one.rows[name]):
                has = "no attention on a region" if name in one.rows else "no answer"
                raise UserError(
                    f"the run of {one.run.method} has {has} for the sample '{name}'",
                    "" if restricted else plugins.close(name, list(one.rows)),
                    "Ids stand in the run's samples.jsonl.",
                )


def _common(shown: Sequence[_Shown], known: Iterable[Sample]) -> list[str]:
    """Return the first samples of some images, with attention of all runs and a region on the grid.

    Raises:
        UserError: there are none.
    """
    first: dict[str, str] = {}
    for sample in known:
        if len(first) < _FIRST and all(_is_complete(one.rows.get(sample.id)) for one in shown):
            first.setdefault(sample.group, sample.id)
    if not first:
        raise UserError(
            "no question of the task has attention of all these runs and a region",
            "They answered others, or the data are not those that they read.",
            "Name the folder of the runs' data: --data DIR",
        )
    return list(first.values())


def _is_complete(row: Row | None) -> bool:
    """Say whether a row has attention, and a region with a patch to compare it with."""
    return row is not None and (
        "attention" in row and "roi" in row and bool(decode_mask(row["roi"]).any())
    )


def _has_region(row: Row) -> bool:
    # Where steps were recorded, samples without a region have attention as well.
    return "attention" in row and "roi" in row


def _sample(by_id: Mapping[str, Sample], name: str) -> Sample:
    sample = by_id.get(name)
    if sample is None or sample.roi is None:
        raise UserError(
            f"the task has no sample '{name}' with a region",
            "The run answered it, so the data are others than it read.",
            "Name the folder of the run's data: --data DIR",
        )
    return sample


def _fit(one: _Shown, by_id: Mapping[str, Sample], wanted: Sequence[str]) -> Fit:
    """Return how a run's backbone placed images.

    Raises:
        UserError: its regions do not tell.
    """
    regions = list(_regions(one, by_id, wanted))
    if all(mask.shape[0] == mask.shape[1] for mask, _ in regions[: len(wanted)]):
        return placement.OF_SQUARES
    return placement.only(regions, one.run.backbone)


def _regions(
    one: _Shown, by_id: Mapping[str, Sample], wanted: Sequence[str]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield regions over the image and on the grid: those to be shown, and some others."""
    for name in islice(dict.fromkeys((*wanted, *one.rows)), _LOOKED_AT):
        row, sample = one.rows[name], by_id.get(name)
        if "roi" in row and sample is not None and sample.roi is not None:
            yield np.asarray(sample.roi(), bool), decode_mask(row["roi"])


def _line(sample: Sample, shown: Sequence[_Shown], fits: Sequence[Fit]) -> Line:
    image = open_image(sample.image)
    assert sample.roi is not None, "it was looked up because it has one"
    digest = digest_of(image)
    for one in shown:
        if one.rows[sample.id].get("image", digest) != digest:
            raise UserError(
                f"the run of {one.run.method} saw another image of sample {sample.name}",
                "Their pixels differ.",
                "Name the folder of the run's data: --data DIR",
            )
    extents = [placement.extent(fit, image.width, image.height) for fit in fits]
    return Line(
        id=sample.id,
        question=sample.question,
        gold=sample.answer,
        image=image,
        region=np.asarray(sample.roi(), bool),
        panels=tuple(
            _panel(one.rows[sample.id], extent) for one, extent in zip(shown, extents, strict=True)
        ),
    )


def _panel(row: Row, extent: Extent) -> Panel:
    assert "attention" in row, "it was wanted because it has"
    inside = row.get("scores", {}).get(_INSIDE)
    return Panel(decode_map(row["attention"]), extent, row["output"], verdict(row), inside)


def _name(side: Side) -> str:
    """Return the head of a run's column."""
    one = side.runs[0]
    return f"{one.method}, seed {one.seed}" if len(side.runs) > 1 or one.seed else one.method


def _note(records: Sequence[RunRecord]) -> str:
    rules = ", ".join(RULES.values())
    return (
        f"{setting(records)} Outline: the region. Colour: share of the answer's attention that a "
        "patch gets, in percent; one scale a row. In region: share of the attention on the image "
        f"({_INSIDE}). Right and wrong: {rules}."
    )
