"""Where runs look: attention over the image beside the region, what stands there, then its drawing.

Maps come from the runs' lines, images and regions from the task's data.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from PIL.Image import Image

from medbench import plugins, spec, store
from medbench.choose import Side
from medbench.data.pictures import open_image
from medbench.errors import UserError
from medbench.figures import placement, runs, style
from medbench.figures.placement import Extent, Fit
from medbench.metrics.attention import CoverageMinmax, IntensityMinmax, decode_map, decode_mask
from medbench.restricted import read_split, withholding
from medbench.rows import Row
from medbench.store import RunRecord
from medbench.task import Sample, Task

# Samples without --sample; and regions that are looked at to find out how images were placed.
_FIRST, _LOOKED_AT = 3, 40
# Inches of a picture's side, and letters of an answer.
_SIDE, _LETTERS = 1.25, 22
# By the kind of the question, the rule that says whether an answer is right.
_RULES = {"closed": "closed/strict", "open": "recall/strict", "choice": "choice/strict"}


@dataclass(frozen=True)
class Panel:
    """Where one run looked.

    Attributes:
        attention: share of the answer's attention on each patch, [rows, columns].
        extent: where the patches lie, in the image's pixels.
        answer: what the run said; verdict: "right", "wrong", "partly right" or "not judged".
        coverage, intensity: of the map stretched to 0..1; None where the region has no patch.
    """

    attention: np.ndarray
    extent: Extent
    answer: str
    verdict: str
    coverage: float | None
    intensity: float | None


@dataclass(frozen=True)
class Line:
    """One sample: its image, its region [height, width], and a panel for each run."""

    id: str
    question: str
    gold: str
    image: Image
    region: np.ndarray
    panels: tuple[Panel, ...]

    @property
    def highest(self) -> float:
        """The end of the colour scale that all panels share."""
        return max(float(panel.attention.max()) for panel in self.panels) or 1.0


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
        samples: ids; by default the first three whose attention all runs have.
        data: folder of the task's files; by default the one that the first run read.
        fit: how the backbone places images, where it cannot be found out.
        show_restricted: whether a restricted task's images and texts may be shown.

    Raises:
        UserError: a sample is not there, a run has no attention, or the data are not those that
            the runs read.
    """
    records = [side.runs[0] for side in sides]
    if any(one.restricted for one in records) and not show_restricted:
        raise UserError(
            f"{records[0].task} is restricted",
            "The figure shows patients' images and texts.",
            "Add --show-restricted, and keep what is written to yourself.",
        )
    _check_task(records)
    shown = [_read(one) for one in records]
    task = _task(records[0], data)
    known = read_split(task, "test")
    with withholding(task, known):
        by_id = {sample.id: sample for sample in known}
        wanted = _wanted(samples, shown, task)
        fits: list[Fit] = [_fit(one, by_id, wanted, fit) for one in shown]
        lines = tuple(_line(_sample(by_id, name), shown, fits) for name in wanted)
    return Attention(tuple(_names(sides)), lines, _note(records))


def _read(one: RunRecord) -> _Shown:
    return _Shown(one, {row["id"]: row for row in store.read_rows(one.folder)})


def _check_task(records: Sequence[RunRecord]) -> None:
    digests = {str(one.identity["task"].get("samples")) for one in records}
    if len(digests) > 1:
        raise UserError(
            "these runs did not answer the same samples",
            f"They are of {' and '.join(dict.fromkeys(one.task for one in records))}, "
            "or of different copies of the data.",
            "Name runs of one task; --task narrows methods to one.",
        )


def _task(one: RunRecord, data: str) -> Task:
    """Return the task as a run read it."""
    from medbench.loading import load_task

    folder = data or _data_of(one)
    return load_task(one.task, data=Path(folder).expanduser() if folder else None)


def _data_of(one: RunRecord) -> str:
    """Return the folder that a run's command names, "" for none."""
    words = shlex.split(one.command)
    options = dict(zip(words, words[1:], strict=False))
    written = dict(spec.parse(options.get("--task", one.task)).values)
    return written.get("data") or options.get("--data", "")


def _wanted(asked: Sequence[str], shown: Sequence[_Shown], task: Task) -> list[str]:
    """Return the samples to show.

    Raises:
        UserError: a run does not have one, or has no attention for it.
    """
    for one in shown:
        if not any("attention" in row for row in one.rows.values()):
            raise UserError(
                f"the run of {one.run.method} holds no attention",
                f"{one.run.folder} was made by another program, or its samples have no regions.",
                "Take a task with regions (medbench list tasks), and runs of medbench.",
            )
    common = [
        name
        for name, row in shown[0].rows.items()
        if all("attention" in one.rows.get(name, {}) for one in shown)
        and "roi" in row
        and decode_mask(row["roi"]).any()  # else there is nothing to compare the map with
    ]
    for name in asked:
        for one in shown:
            if "attention" not in one.rows.get(name, {}):
                has = "no region, and so no attention," if name in one.rows else "no answer"
                close = "" if task.restricted else plugins.close(name, list(one.rows))
                raise UserError(
                    f"the run of {one.run.method} has {has} for the sample '{name}'",
                    close,
                    "Ids stand in the run's samples.jsonl.",
                )
    return list(asked) or common[:_FIRST]


def _sample(by_id: Mapping[str, Sample], name: str) -> Sample:
    if name not in by_id:
        raise UserError(
            f"the task has no sample '{name}'",
            "The run answered it, so the data are others than it read.",
            "Name the folder of the run's data: --data DIR",
        )
    return by_id[name]


def _fit(one: _Shown, by_id: Mapping[str, Sample], wanted: Sequence[str], fit: Fit | None) -> Fit:
    """Return how a run's backbone placed images.

    Raises:
        UserError: its regions do not tell.
    """
    if fit is not None:
        return fit
    regions = list(_regions(one, by_id, wanted))
    if all(mask.shape[0] == mask.shape[1] for mask, _ in regions[: len(wanted)]):
        return "squash"  # where squares lie is the same in all ways
    possible = placement.found(regions)
    if len(possible) == 1:
        return possible.pop()
    told = f"its regions fit {' and '.join(sorted(possible))}" if possible else "no way fits"
    raise UserError(
        f"cannot tell where the patches of {one.run.backbone} lie on its images",
        f"Laid on the grid, {told}.",
        "Say how the backbone places images: --fit pad, crop or squash.",
    )


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
    assert sample.roi is not None, "rows have attention only where there is a region"
    digest = hashlib.sha256(image.tobytes()).hexdigest()
    for one in shown:
        if one.rows[sample.id].get("image", digest) != digest:
            raise UserError(
                f"the run of {one.run.method} saw another image of sample {sample.name}",
                "Their pixels differ.",
                "Name the folder of the run's data: --data DIR",
            )
    return Line(
        id=sample.id,
        question=sample.question,
        gold=sample.answer,
        image=image,
        region=np.asarray(sample.roi(), bool),
        panels=tuple(
            _panel(one.rows[sample.id], placement.extent(fit, image.width, image.height))
            for one, fit in zip(shown, fits, strict=True)
        ),
    )


def _panel(row: Row, extent: Extent) -> Panel:
    assert "attention" in row and "roi" in row, "it was wanted because it has"
    attention, region = decode_map(row["attention"]), decode_mask(row["roi"])
    judged = region.any()
    return Panel(
        attention=attention,
        extent=extent,
        answer=row["output"],
        verdict=_verdict(row),
        coverage=CoverageMinmax().item(attention, region) if judged else None,
        intensity=IntensityMinmax().item(attention, region) if judged else None,
    )


def _verdict(row: Row) -> str:
    value = row.get("scores", {}).get(_RULES.get(row["kind"], ""))
    if value is None:
        return "not judged"
    return "right" if value >= 1 else "wrong" if value <= 0 else "partly right"


def _names(sides: Sequence[Side]) -> Iterator[str]:
    """Yield the columns' heads, which tell runs apart."""
    records = [side.runs[0] for side in sides]
    for side, one in zip(sides, records, strict=True):
        same = [other for other in records if other.method == one.method]
        name = one.method
        if len({other.backbone for other in records}) > 1:
            name += f" ({one.backbone})"
        elif len(same) > 1:
            name += f" ({one.key})"
        yield f"{name}, seed {one.seed}" if len(side.runs) > 1 or one.seed else name


def _note(records: Sequence[RunRecord]) -> str:
    return (
        f"{runs.about(records)} White: the region. Colour: share of the answer's attention that a "
        "patch gets, in percent; one scale a row. Coverage and intensity: coverage/minmax and "
        "intensity/minmax of the question. Right or wrong: closed/strict, recall/strict."
    )


def draw(figure: Attention, path: Path) -> None:
    """Draw a figure to a file.

    Raises:
        UserError: matplotlib is not installed.
    """
    count = len(figure.columns)
    with style.styled():
        width = max(style.COLUMN, 1.15 + _SIDE * (1 + count) + 0.5)
        canvas = style.new_figure(width, 0.7 + (_SIDE + 0.4) * len(figure.lines))
        axes = canvas.subplots(
            len(figure.lines),
            count + 2,
            squeeze=False,
            width_ratios=[1.05 / _SIDE, *[1] * (1 + count)],
        )
        for ax, name in zip(axes[0, 1:], ("image and region", *figure.columns), strict=True):
            ax.set_title("\n".join(wrap(name, 22)), loc="center")
        for row, line in zip(axes, figure.lines, strict=True):
            _draw_words(row[0], line)
            _draw_image(row[1], line)
            drawn = [
                _draw_map(ax, line, panel) for ax, panel in zip(row[2:], line.panels, strict=True)
            ]
            bar = canvas.colorbar(drawn[0], ax=list(row[1:]), fraction=0.05, pad=0.02, aspect=14)
            bar.outline.set_linewidth(0.5)
            bar.ax.set_facecolor(style.INK)  # as under the maps, where an image is dark
            bar.ax.set_title("%", fontsize=style.SMALL, loc="center")
        style.below(canvas, figure.note)
        style.save(canvas, path)


def _draw_words(ax: Any, line: Line) -> None:
    ax.axis("off")
    ax.set_box_aspect(_SIDE / 1.05)
    ax.set_anchor("N")
    words = [*wrap(line.question, 24), "", *wrap(f"gold: {line.gold}", 24)]
    ax.text(
        0, 1, "\n".join(words), va="top", ha="left", transform=ax.transAxes, fontsize=style.SMALL
    )
    ax.text(
        0, 0, line.id, va="bottom", transform=ax.transAxes, fontsize=style.TINY, color="#555555"
    )


def _draw_image(ax: Any, line: Line) -> None:
    ax.imshow(line.image, extent=(0, line.image.width, line.image.height, 0))
    _outline(ax, line)
    _bare(ax)


def _draw_map(ax: Any, line: Line, panel: Panel) -> Any:
    """Draw a map over the image in grey, so that all colour is attention."""
    width, height = line.image.size
    grey = np.asarray(line.image.convert("L"))
    ax.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    drawn = ax.imshow(
        100 * panel.attention,
        cmap=_colours(),
        vmin=0,
        vmax=100 * line.highest,
        extent=panel.extent,
        interpolation="nearest",
    )
    left, right, bottom, top = panel.extent
    ax.set_xlim(min(left, 0), max(right, width))
    ax.set_ylim(max(bottom, height), min(top, 0))
    _outline(ax, line)
    _bare(ax)
    told = [f"{_shortened(panel.answer)}: {panel.verdict}"]
    if panel.coverage is not None and panel.intensity is not None:
        told += [f"coverage {100 * panel.coverage:.0f} %", f"intensity {panel.intensity:.2f}"]
    ax.set_xlabel("\n".join(told), fontsize=style.TINY, labelpad=2)
    return drawn


def _colours() -> Any:
    """Return colours that get lighter and denser: without attention the image stays as it is."""
    from matplotlib import colormaps  # pyright: ignore[reportMissingImports]
    from matplotlib.colors import ListedColormap  # pyright: ignore[reportMissingImports]

    steps = np.linspace(0, 1, 256)
    colours = colormaps["inferno"](0.25 + 0.75 * steps)
    colours[:, 3] = 0.9 * np.sqrt(steps)
    return ListedColormap(colours)


def _outline(ax: Any, line: Line) -> None:
    """Outline the region in white on black, which shows on any ground."""
    # A border of nothing, so that regions at the image's edge are closed.
    mask = np.pad(line.region.astype(float), 1)
    across = np.arange(mask.shape[1]) - 0.5
    down = np.arange(mask.shape[0]) - 0.5
    if line.region.any():
        ax.contour(across, down, mask, levels=[0.5], colors="black", linewidths=1.8)
        ax.contour(across, down, mask, levels=[0.5], colors="white", linewidths=0.8)


def _bare(ax: Any) -> None:
    ax.set_anchor("N")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def _shortened(text: str) -> str:
    words = " ".join(text.split())
    return f"{words[: _LETTERS - 1]}…" if len(words) > _LETTERS else words or "(nothing)"
