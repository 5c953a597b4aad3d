"""What all figures share: colours that colour-blind readers tell apart, sizes, and saving.

Colour is never the only cue: whatever has a colour of its own has a marker or a line style of its
own as well, and so is told apart in grey print.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import Any

from medbench.atomic import write_atomically
from medbench.errors import UserError
from medbench.extras import importing
from medbench.tables.model import Cell

# Of Okabe and Ito's colours, those that are dark enough for lines on white.
BLUE, VERMILLION = "#0072B2", "#D55E00"
INK, GREY, PALE = "#000000", "#555555", "#E2E2E2"
# Inches: a column of a two-column page, and the page.
COLUMN, PAGE = 3.35, 6.9
TEXT, SMALL, TINY = 7.5, 6.5, 5.8
ENDINGS = (".svg", ".png")
# Of a place in a figure, as a share of it.
_DIGITS = 5

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that pictures are alike everywhere
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.labelsize": TEXT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 300,
    # Text stays text: it can be searched, read aloud, and edited before print.
    "svg.fonttype": "none",
    # Names of parts of an SVG are otherwise drawn at random.
    "svg.hashsalt": "medbench",
}
# What would make two pictures of the same numbers differ.
_METADATA: dict[str, dict[str, Any]] = {
    ".svg": {"Date": None, "Creator": None},
    ".png": {"Software": None},
}


def check_output(path: Path) -> None:
    """Refuse a file that could not be written, before anything is read or drawn.

    Raises:
        UserError: its ending is unknown, or its folder is not there.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"cannot draw to {path}", "", f"Name it {' or '.join(ENDINGS)}.")
    if not path.absolute().parent.is_dir():
        raise UserError(f"no folder {path.parent}", f"{path.name} is to be written there.")


@contextmanager
def styled() -> Generator[None]:
    """Draw in our style inside the block, whatever the user's own settings; then give them back.

    Raises:
        UserError: matplotlib is not installed.
    """
    with importing("plot"):
        import matplotlib.style  # pyright: ignore[reportMissingImports]

    with matplotlib.style.context(["default", _STYLE]):
        yield


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure of a size in inches, drawn by Agg and known to no global list."""
    from matplotlib.backends.backend_agg import (  # pyright: ignore[reportMissingImports]
        FigureCanvasAgg,
    )
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def head(figure: Any, title: str, entries: Sequence[tuple[Any, str]]) -> None:
    """Write a figure's title and, below it, its legend in two columns."""
    figure.legend(
        [handle for handle, _ in entries],
        [name for _, name in entries],
        title=title,
        title_fontproperties={"size": TEXT + 0.5, "weight": "bold"},
        alignment="left",
        # The place that keeps room for itself above the axes.
        loc="outside upper left",
        ncols=2,
        borderaxespad=0.2,
        columnspacing=1.2,
        handlelength=2.2,
        labelspacing=0.3,
    )


def below(figure: Any, text: str) -> None:
    """Write a note below a figure, folded to its width."""
    letters = int(figure.get_figwidth() * 72 / (0.56 * TINY))
    figure.supxlabel(fill(text, letters), x=0.01, ha="left", fontsize=TINY, color=GREY)


def interval(ax: Any, at: float, cell: Cell, **look: Any) -> None:
    """Draw a cell's interval, in percent, at a place on the x axis; none where it has none."""
    if cell.low is not None and cell.high is not None:
        ends = [[100 * (cell.value - cell.low)], [100 * (cell.high - cell.value)]]
        ax.errorbar(at, 100 * cell.value, ends, linestyle="none", **look)


def save(figure: Any, path: Path) -> None:
    """Write a figure; the same figure gives the same bytes."""
    ending = path.suffix.lower()
    _settle(figure)

    def write(target: Path) -> None:
        with target.open("wb") as file:
            figure.savefig(file, format=ending.removeprefix("."), metadata=_METADATA[ending])

    write_atomically(path, write)


def _settle(figure: Any) -> None:
    """Solve the layout once and round it: its last digits differ between two solutions.

    Names of parts of an SVG are hashes of such places.
    """
    figure.canvas.draw()
    figure.set_layout_engine("none")
    for ax in figure.axes:
        ax.set_position([round(one, _DIGITS) for one in ax.get_position().bounds])
