"""Scores along a method's parameter, or as bars: what stands in the figure, then its drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import Any

from medbench import canonical, plugins, spec
from medbench.errors import UserError
from medbench.figures import runs, style
from medbench.figures.along import Along, along
from medbench.figures.layout import NAMES, Layout
from medbench.figures.runs import Where
from medbench.store import RunRecord
from medbench.tables.cells import pool
from medbench.tables.model import Cell

_REFERENCE_NAMES = {"lora": "LoRA alone"}
_INK: dict[str, Any] = {"color": style.INK, "linewidth": 0.8}
_INTERVAL: dict[str, Any] = {**_INK, "capsize": 2.5, "capthick": 0.8, "linestyle": "none"}
_SPREAD: dict[str, Any] = {
    "color": style.ORANGE, "linewidth": 9, "alpha": 0.6, "solid_capstyle": "butt",
}  # fmt: skip
_SINGLE: dict[str, Any] = {
    "color": style.INK, "marker": "o", "markersize": 1.8, "linestyle": "none",
}  # fmt: skip
# A bar's value, at its foot, where neither interval nor seeds are.
_AT_FOOT: dict[str, Any] = {
    "xytext": (0, 3), "textcoords": "offset points", "ha": "center", "fontsize": style.SMALL,
    "bbox": {"facecolor": "white", "linewidth": 0, "pad": 0.8},
}  # fmt: skip
# Letters of a line below a bar.
_WIDEST = 9
# Between groups of bars, in widths of a bar's place.
_GAP = 0.6
# Half the width of what marks a place.
_MARKED = 0.16


@dataclass(frozen=True)
class Point:
    """A method's score, as a fraction.

    Attributes:
        at: place on the x axis; label: what stands below it.
        cell: its value, interval, seeds and denominator, as in a table.
        singles: the score of each seed.
    """

    at: float
    label: str
    cell: Cell
    singles: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """One metric: its points from left to right, and the score drawn as a line."""

    metric: str
    points: tuple[Point, ...]
    reference: Point | None = None


@dataclass(frozen=True)
class Ablation:
    """What stands in the figure.

    Attributes:
        x_label: "" where there are bars.
        ticks: places on the x axis and their labels.
        groups: names of groups of bars, and their first and last place.
        marked: place that is marked, and why.
        note: below it.
        missing: lines on what has no runs, with the commands that would make them.
    """

    title: str
    x_label: str
    panels: tuple[Panel, ...]
    ticks: tuple[tuple[float, str], ...]
    groups: tuple[tuple[str, float, float], ...] = ()
    marked: tuple[float, str] | None = None
    note: str = ""
    missing: tuple[str, ...] = ()

    @property
    def bars(self) -> bool:
        """Whether the points are bars."""
        return not self.x_label


@dataclass(frozen=True)
class _Place:
    """A place on the x axis: its label, and the runs found for it."""

    label: str
    group: str
    method: str
    found: tuple[RunRecord, ...]
    at: float = 0.0


def arrange(layout: Layout, records: Sequence[RunRecord], where: Where) -> Ablation:
    """Return what stands in a figure.

    Args:
        layout: of the figure.
        records: finished runs of the task, backbone and preset asked for.
        where: they were looked for.

    Raises:
        UserError: there are no runs for it, or some that may not stand beside each other.
    """
    varied = along(layout.method, layout.parameter) if layout.parameter else None
    places = _along(varied, layout, records) if varied else _bars(layout, records)
    reference = _of_method(layout.reference, records) if layout.reference else []
    used = [one for place in places for one in place.found]
    if not used:
        raise _nothing(layout, places, where)
    runs.check_alike([*used, *reference])
    there = _spaced(
        [
            replace(place, found=tuple(runs.by_seed(place.found, place.method)))
            for place in places
            if place.found
        ]
    )
    name = _REFERENCE_NAMES.get(layout.reference, layout.reference)
    line = _Place(name, "", layout.reference, tuple(runs.by_seed(reference, layout.reference)))
    lines = [line] if reference else []
    panels = [
        Panel(metric, _points(there, metric), next(iter(_points(lines, metric)), None))
        for metric in _metrics(layout, used)
    ]
    return Ablation(
        title=layout.title,
        x_label=f"{layout.parameter} of {layout.method}" if varied else "",
        panels=tuple(panels),
        ticks=tuple((place.at, place.label) for place in there),
        groups=tuple(_groups(there)),
        marked=_mark(varied, layout, there) if varied else None,
        note=_note(layout, there, lines, panels),
        missing=tuple(_missing(varied, layout, places, reference, where)),
    )


def _along(varied: Along, layout: Layout, records: Sequence[RunRecord]) -> list[_Place]:
    """Return the values that runs or the layout have, in order."""
    found: dict[str, list[RunRecord]] = {}
    for one in records:
        value = varied.value(one)
        if value is not None:
            found.setdefault(value, []).append(one)
    return [
        _Place(value, "", varied.method_with(value), tuple(found.get(value, ())))
        for value in varied.in_order([*found, *layout.values])
    ]


def _bars(layout: Layout, records: Sequence[RunRecord]) -> list[_Place]:
    return [
        _Place(bar.label, bar.group, bar.method, tuple(_of_method(bar.method, records)))
        for bar in layout.bars
    ]


def _of_method(method: str, records: Sequence[RunRecord]) -> list[RunRecord]:
    return [
        one
        for one in records
        if canonical.method(one.method, one.task) == canonical.method(method, one.task)
    ]


def _spaced(places: Sequence[_Place]) -> list[_Place]:
    """Return places side by side, with a gap where a group begins."""
    spaced: list[_Place] = []
    at = 0.0
    for number, place in enumerate(places):
        at += _GAP if number and place.group != places[number - 1].group else 0.0
        spaced.append(replace(place, at=number + at))
    return spaced


def _groups(places: Sequence[_Place]) -> list[tuple[str, float, float]]:
    found: dict[str, list[float]] = {}
    for place in places:
        if place.group:
            found.setdefault(place.group, []).append(place.at)
    return [(name, min(ats), max(ats)) for name, ats in found.items()]


def _metrics(layout: Layout, used: Sequence[RunRecord]) -> list[str]:
    """Return those of the layout's metrics that its runs have.

    Raises:
        UserError: they have none of them.
    """
    known = list(
        dict.fromkeys(
            name
            for one in used
            for name, score in one.scores.items()
            if score.get("value") is not None
        )
    )
    by_name = {spec.normalise(name): name for name in known}
    found = [by_name[one] for one in map(spec.normalise, layout.metrics) if one in by_name]
    if not found:
        raise UserError(
            f"these runs have no score named '{layout.metrics[0]}'",
            plugins.close(layout.metrics[0], known),
            f"There are: {', '.join(known)}.",
        )
    return found


def _points(places: Sequence[_Place], metric: str) -> tuple[Point, ...]:
    """Return the points of those places all of whose runs have the metric."""
    found: list[Point] = []
    for place in places:
        values: list[Any] = [one.scores.get(metric, {}).get("value") for one in place.found]
        if values and None not in values:
            cell = pool(place.found, metric)
            found.append(Point(place.at, place.label, cell, tuple(values)))
    return tuple(found)


def _mark(varied: Along, layout: Layout, places: Sequence[_Place]) -> tuple[float, str] | None:
    """Return the place of the paper's value on its own task, elsewhere that of the task's."""
    task = places[0].found[0].task
    value, why = varied.default(task), f"value for {spec.parse(task).name}"
    if layout.paper and canonical.task(layout.task) == canonical.task(task):
        value, why = layout.paper, "the paper's value"
    at = next((place.at for place in places if place.label == value), None)
    return None if at is None else (at, why)


def _note(
    layout: Layout,
    places: Sequence[_Place],
    reference: Sequence[_Place],
    panels: Sequence[Panel],
) -> str:
    used = [one for place in places for one in place.found]
    lines = [f"{layout.source}." if layout.source else "", runs.about(used)]
    seeds = {
        f"{layout.parameter}={place.label}" if layout.parameter else place.label: [
            one.seed for one in place.found
        ]
        for place in places
    }
    seeds |= {place.label: [one.seed for one in place.found] for place in reference}
    lines.append(runs.seeds_told(seeds))
    for panel in panels:
        uneven = {point.label: point.cell.n for point in panel.points}
        if len(set(uneven.values())) > 1:
            told = ", ".join(f"{label}: {n}" for label, n in uneven.items())
            lines.append(f"n of {panel.metric}: {told}.")
    return " ".join(filter(None, lines))


def _missing(
    varied: Along | None,
    layout: Layout,
    places: Sequence[_Place],
    reference: Sequence[RunRecord],
    where: Where,
) -> list[str]:
    used = [one for place in places for one in place.found]
    lost = [place for place in places if not place.found]
    methods = [place.method for place in lost]
    names = [place.label for place in lost]
    if varied and lost:
        methods = [varied.method_with("|".join(names), runs.method_asked(used[0]))]
        names = [f"{layout.parameter} = {', '.join(names)}"]
    if layout.reference and not reference:
        methods.append(layout.reference)
        names.append(layout.reference)
    if not methods:
        return []
    made = runs.command(methods, like=used[0], seeds={one.seed for one in used}, where=where)
    return [f"Left out for want of runs: {', '.join(names)}. Make them: {made}"]


def _nothing(layout: Layout, places: Sequence[_Place], where: Where) -> UserError:
    task = where.task or layout.task
    methods = [place.method for place in places]
    what, why = layout.title, f"It shows runs of {', '.join(methods)}."
    if layout.parameter:
        varied = along(layout.method, layout.parameter)
        methods = [varied.method_with("|".join(layout.values) or "VALUE|VALUE")]
        what = f"{layout.parameter} of {layout.method}"
        why = f"It shows runs of {layout.method} with any value of {layout.parameter}."
    methods += [layout.reference] if layout.reference else []
    made = runs.command(methods, like=None, seeds=(), where=replace(where, task=task))
    on = "".join(f" {word} {one}" for word, one in (("on", task), ("with", where.backbone)) if one)
    return UserError(
        f"no finished runs for '{what}'{on} in {where.root}", why, f"Make them: {made}"
    )


def draw(figure: Ablation, path: Path) -> None:
    """Draw a figure to a file.

    Raises:
        UserError: matplotlib is not installed.
    """
    with style.styled():
        canvas = style.new_figure(style.COLUMN, 1.25 + 1.4 * len(figure.panels))
        axes = canvas.subplots(len(figure.panels), 1, sharex=True, squeeze=False)[:, 0]
        style.head(canvas, figure.title, _legend(figure))
        for ax, panel in zip(axes, figure.panels, strict=True):
            _draw_panel(ax, panel, figure)
        last = axes[-1]
        names = [fill(name, _WIDEST) if figure.bars else name for _, name in figure.ticks]
        last.set_xticks([at for at, _ in figure.ticks], names)
        last.set_xlabel(figure.x_label)
        under = max(name.count("\n") + 1 for name in names) * 1.25 * style.SMALL + 8
        for name, first, end in figure.groups:
            _draw_group(last, name, (first + end) / 2, under)
        style.below(canvas, figure.note)
        style.save(canvas, path)


def _draw_panel(ax: Any, panel: Panel, figure: Ablation) -> None:
    from matplotlib.ticker import MaxNLocator  # pyright: ignore[reportMissingImports]

    ax.set_title(_panel_title(panel))
    ax.set_ylabel("percent")
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.margins(x=0.06)
    if figure.marked:
        at = figure.marked[0]
        ax.axvspan(at - _MARKED, at + _MARKED, color=style.PALE, linewidth=0, zorder=0)
    if panel.reference:
        value = 100 * panel.reference.cell.value
        ax.axhline(value, color=style.VERMILLION, linewidth=1.1, linestyle="--", zorder=1)
    ats = [point.at for point in panel.points]
    values = [100 * point.cell.value for point in panel.points]
    if figure.bars:
        for number, (at, value) in enumerate(zip(ats, values, strict=True)):
            look = style.bar(number)
            ax.bar(at, value, width=0.72, linewidth=0.9, zorder=2, **look)
            ax.annotate(f"{value:.1f}", (at, 0), **_AT_FOOT)
    else:
        ax.plot(ats, values, color=style.BLUE, marker="o", markersize=4, linewidth=1.2, zorder=4)
    for point in panel.points:
        _draw_spreads(ax, point)


def _draw_spreads(ax: Any, point: Point) -> None:
    """Draw the interval as a thin line with ends, the seeds' spread as a broad one, and seeds."""
    cell = point.cell
    if cell.low is not None and cell.high is not None:
        ends = [[100 * (cell.value - cell.low)], [100 * (cell.high - cell.value)]]
        ax.errorbar(point.at, 100 * cell.value, ends, zorder=3, **_INTERVAL)
    if cell.spread is not None:
        around = (100 * (cell.value - cell.spread), 100 * (cell.value + cell.spread))
        ax.plot([point.at, point.at], around, zorder=3.5, **_SPREAD)
        singles = [100 * value for value in point.singles]
        ax.plot([point.at + 0.2] * len(singles), singles, zorder=5, **_SINGLE)


def _draw_group(ax: Any, name: str, middle: float, under: float) -> None:
    """Write a group's name that many points below the axis."""
    ax.annotate(
        name,
        (middle, 0),
        xycoords=ax.get_xaxis_transform(),
        xytext=(0, -under),
        textcoords="offset points",
        ha="center",
        va="top",
    )


def _panel_title(panel: Panel) -> str:
    cell = panel.points[0].cell
    uneven = len({point.cell.n for point in panel.points}) > 1
    n = "n below" if uneven else f"n = {cell.n}, {cell.groups} images"
    name = NAMES.get(panel.metric)
    return f"{f'{name} ({panel.metric})' if name else panel.metric}, {n}"


def _legend(figure: Ablation) -> list[tuple[Any, str]]:
    """Return what the legend shows, and how it is called."""
    from matplotlib.lines import Line2D  # pyright: ignore[reportMissingImports]
    from matplotlib.patches import Patch  # pyright: ignore[reportMissingImports]

    points = [point for panel in figure.panels for point in panel.points]
    several = any(point.cell.spread is not None for point in points)
    entries: list[tuple[Any, str]] = []
    if not figure.bars:
        name = "mean of the seeds" if several else "score"
        mean = Line2D([], [], color=style.BLUE, marker="o", markersize=4, linewidth=1.2)
        entries.append((mean, name))
    if any(point.cell.low is not None for point in points):
        entries.append(
            (Line2D([], [], marker="|", markersize=5, **_INK), "95 % interval over images")
        )
    if several:
        look: dict[str, Any] = {
            "color": _SPREAD["color"],
            "alpha": _SPREAD["alpha"],
            "linewidth": 0,
        }
        entries.append((Patch(**look), "± sd between seeds"))
        entries.append((Line2D([], [], **_SINGLE), "single seeds"))
    reference = next((panel.reference for panel in figure.panels if panel.reference), None)
    if reference:
        line = Line2D([], [], color=style.VERMILLION, linewidth=1.1, linestyle="--")
        entries.append((line, reference.label))
    if figure.marked:
        entries.append((Patch(color=style.PALE, linewidth=0), figure.marked[1]))
    return entries
