"""The picture of an ablation: a panel for each metric, points and their intervals."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any

from medbench.figures import style
from medbench.figures.ablation import Ablation
from medbench.tables.model import Column, Row

# What the papers call their metrics.
_NAMES = {"recall/paper": "Open", "closed/paper": "Closed"}
_MEAN: dict[str, Any] = {"color": style.BLUE, "marker": "o", "markersize": 4, "linewidth": 1.2}
_INTERVAL: dict[str, Any] = {"color": style.INK, "linewidth": 0.8}
_SEED: dict[str, Any] = {
    "color": style.VERMILLION, "marker": "D", "markersize": 2, "linestyle": "none",
}  # fmt: skip
_REFERENCE: dict[str, Any] = {"color": style.GREY, "linewidth": 1.1, "linestyle": "--"}
# Letters of a line of a method's name.
_WIDEST = 9
# In widths of a place: beside the mean stand the seeds; half of what marks a place.
_BESIDE, _MARKED = 0.2, 0.3


def draw(figure: Ablation, path: Path) -> None:
    """Draw a figure to a file.

    Raises:
        UserError: matplotlib is not installed.
    """
    with style.styled():
        style.save(picture(figure), path)


def picture(figure: Ablation) -> Any:
    """Return a figure as matplotlib's own."""
    columns = [column for column in figure.table.columns if figure.points(column)]
    canvas = style.new_figure(style.COLUMN, 1.25 + 1.4 * len(columns))
    axes = canvas.subplots(len(columns), 1, sharex=True, squeeze=False)[:, 0]
    style.head(canvas, figure.title, _legend(figure))
    for ax, column in zip(axes, columns, strict=True):
        _draw_panel(ax, column, figure)
    labels = [row.label for row, _ in figure.places]
    names = labels if figure.x_label else [fill(label, _WIDEST) for label in labels]
    axes[-1].set_xticks([at for _, at in figure.places], names)
    axes[-1].set_xlim(figure.places[0][1] - 0.5, figure.places[-1][1] + 0.5)
    axes[-1].set_xlabel(figure.x_label)
    if not figure.x_label:
        _draw_groups(axes[-1], figure, lines=max(name.count("\n") + 1 for name in names))
    style.below(canvas, figure.note)
    return canvas


def _draw_panel(ax: Any, column: Column, figure: Ablation) -> None:
    from matplotlib.ticker import MaxNLocator  # pyright: ignore[reportMissingImports]

    cells = figure.table.cells
    ax.set_title(_title(column, figure))
    ax.set_ylabel("percent")
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    if figure.marked:
        at = figure.marked[0]
        ax.axvspan(at - _MARKED, at + _MARKED, color=style.PALE, linewidth=0, zorder=0)
    if figure.reference and (figure.reference, column) in cells:
        ax.axhline(100 * cells[figure.reference, column].value, zorder=1, **_REFERENCE)
    points = figure.points(column)
    values = [100 * cells[row, column].value for _, row in points]
    ax.plot([at for at, _ in points], values, zorder=4, **_mean(figure))
    for at, row in points:
        style.interval(ax, at, cells[row, column], capsize=2.5, zorder=3, **_INTERVAL)
        _draw_seeds(ax, at, row, column, figure)


def _draw_seeds(ax: Any, at: float, row: Row, column: Column, figure: Ablation) -> None:
    scores = [100 * run.scores[column.metric]["value"] for run in figure.table.runs[row, column]]
    if len(scores) > 1:
        ax.plot([at + _BESIDE] * len(scores), scores, zorder=5, **_SEED)


def _draw_groups(ax: Any, figure: Ablation, *, lines: int) -> None:
    """Write the names of groups below those of their methods, which take that many lines."""
    under = lines * 1.25 * style.SMALL + 8
    groups = dict.fromkeys(row.group for row, _ in figure.places)
    for name in groups:
        ats = [at for row, at in figure.places if row.group == name]
        ax.annotate(
            name,
            ((ats[0] + ats[-1]) / 2, 0),
            xycoords=ax.get_xaxis_transform(),
            xytext=(0, -under),
            textcoords="offset points",
            ha="center",
            va="top",
        )


def _mean(figure: Ablation) -> dict[str, Any]:
    """Return how means are drawn: joined where they lie along a parameter."""
    return _MEAN if figure.x_label else {**_MEAN, "linestyle": "none"}


def _title(column: Column, figure: Ablation) -> str:
    size = figure.table.denominators.get(column)
    n = f"n = {size[0]}, {size[1]} images" if size else "n below"
    name = _NAMES.get(column.metric)
    return f"{f'{name} ({column.metric})' if name else column.metric}, {n}"


def _legend(figure: Ablation) -> list[tuple[Any, str]]:
    """Return what the legend shows, and how it is called."""
    from matplotlib.lines import Line2D  # pyright: ignore[reportMissingImports]
    from matplotlib.patches import Patch  # pyright: ignore[reportMissingImports]

    drawn = [
        figure.table.cells[row, at] for at in figure.table.columns for _, row in figure.points(at)
    ]
    several = any(len(cell.seeds) > 1 for cell in drawn)
    mean = Line2D([], [], **_mean(figure))
    entries: list[tuple[Any, str]] = [(mean, "mean of the seeds" if several else "score")]
    if any(cell.low is not None for cell in drawn):
        entries.append(
            (Line2D([], [], marker="|", markersize=5, **_INTERVAL), "95 % interval over images")
        )
    if several:
        entries.append((Line2D([], [], **_SEED), "single seeds"))
    if figure.reference and any(row == figure.reference for row, _ in figure.table.cells):
        entries.append((Line2D([], [], **_REFERENCE), figure.reference.label))
    if figure.marked:
        entries.append((Patch(color=style.PALE, linewidth=0), figure.marked[1]))
    return entries
