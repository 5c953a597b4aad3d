"""The picture of scores against costs: a marker, an interval and a name for each method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medbench.figures import style
from medbench.figures.cost import Cost, Family, Kind
from medbench.figures.labels import write_names

_LOOKS: dict[Family, dict[str, Any]] = {
    "model as it is": {"marker": "o", "markersize": 5, "color": style.BLUE},
    "LoRA, then …": {"marker": "s", "markersize": 4.5, "color": style.VERMILLION},
    "tuned otherwise": {"marker": "^", "markersize": 5.5, "color": style.INK},
}
_INTERVAL: dict[str, Any] = {"linewidth": 0.6, "alpha": 0.55, "zorder": 2}
_X_LABELS: dict[Kind, str] = {
    "seconds": "seconds a question",
    "forwards": "tokens through the language model for each new one",
}
# A log axis whose ends are closer than that gets the ticks of a plain one.
_NARROW = 3.0


def draw(figure: Cost, path: Path) -> None:
    """Draw a figure to a file.

    Raises:
        UserError: matplotlib is not installed.
    """
    with style.styled():
        style.save(picture(figure), path)


def picture(figure: Cost) -> Any:
    """Return a figure as matplotlib's own."""
    canvas = style.new_figure(style.PAGE, 4.4)
    style.head(canvas, f"{figure.metric} against cost", _legend(figure))
    style.below(canvas, figure.note)
    ax = canvas.subplots()
    cell = figure.dots[0].cell
    ax.set_ylabel(f"{figure.metric}, percent (n = {cell.n}, {cell.groups} images)")
    ax.set_xlabel(_X_LABELS[figure.kind])
    _scale(ax, figure)
    for dot in figure.dots:
        look = _LOOKS[dot.family]
        style.interval(ax, dot.cost, dot.cell, color=look["color"], **_INTERVAL)
        ax.plot(dot.cost, 100 * dot.cell.value, linestyle="none", zorder=4, **look)
    write_names(
        ax,
        [(dot.cost, 100 * dot.cell.value) for dot in figure.dots],
        [dot.label for dot in figure.dots],
        [_LOOKS[dot.family]["color"] for dot in figure.dots],
    )
    return canvas


def _scale(ax: Any, figure: Cost) -> None:
    from matplotlib.ticker import (  # pyright: ignore[reportMissingImports]
        FuncFormatter,
        LogLocator,
        MaxNLocator,
        NullLocator,
    )

    low, high = figure.dots[0].cost, figure.dots[-1].cost
    # Room for names on both sides, also where all cost the same.
    room = max(high / low, 2.0) ** 0.08
    ax.set_xscale("log")
    ax.set_xlim(low / room, high * room)
    few = high / low < _NARROW
    plain = MaxNLocator(7, steps=[1, 2, 5, 10])
    ax.xaxis.set_major_locator(plain if few else LogLocator(subs=(1, 2, 3, 5, 7)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(_tick))


def _tick(value: float, _: int | None = None) -> str:
    return f"{value:g}"


def _legend(figure: Cost) -> list[tuple[Any, str]]:
    from matplotlib.lines import Line2D  # pyright: ignore[reportMissingImports]

    families = {dot.family for dot in figure.dots}
    entries = [
        (Line2D([], [], linestyle="none", **look), family)
        for family, look in _LOOKS.items()
        if family in families
    ]
    line = Line2D([], [], color=style.GREY, marker="|", markersize=5, linewidth=0.6)
    return [*entries, (line, "95 % interval over images")]
