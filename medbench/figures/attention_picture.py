"""The picture of where runs look: a row a sample, with its image and each run's attention."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten, wrap
from typing import Any

import numpy as np

from medbench.figures import style
from medbench.figures.attention import Attention, Line, Panel

# Inches of a picture's side, of the words before it and the colour bar after it.
_MOST, _LEAST, _WORDS, _BAR = 1.25, 0.9, 1.05, 0.6
# Letters of a line of these words; the most lines of a question, and of a gold answer.
_LETTERS, _QUESTION, _GOLD = 24, 6, 3


def draw(figure: Attention, path: Path) -> None:
    """Draw a figure to a file.

    Raises:
        UserError: matplotlib is not installed.
    """
    with style.styled():
        style.save(picture(figure), path)


def picture(figure: Attention) -> Any:
    """Return a figure as matplotlib's own."""
    pictures = 1 + len(figure.columns)
    side = min(_MOST, max(_LEAST, (style.PAGE - _WORDS - _BAR) / pictures))
    width = max(style.COLUMN, _WORDS + side * pictures + _BAR)
    canvas = style.new_figure(width, 0.7 + (side + 0.45) * len(figure.lines))
    axes = canvas.subplots(
        len(figure.lines),
        1 + pictures,
        squeeze=False,
        width_ratios=[_WORDS, *[side] * pictures],
    )
    letters = int(side * 72 / (0.6 * style.SMALL))
    for ax, name in zip(axes[0, 1:], ("image and region", *figure.columns), strict=True):
        parts = name.replace("[", " [").split(",")
        words = wrap(", ".join(part.strip() for part in parts), letters)
        ax.set_title("\n".join(words), loc="center", fontsize=style.SMALL)
    for row, line in zip(axes, figure.lines, strict=True):
        _draw_words(row[0], line, side)
        _draw_image(row[1], line)
        highest = max(float(panel.attention.max()) for panel in line.panels) or 1.0
        drawn = [
            _draw_map(ax, line, panel, highest)
            for ax, panel in zip(row[2:], line.panels, strict=True)
        ]
        for ax, panel in zip(row[2:], line.panels, strict=True):
            ax.set_xlabel(_told(panel, letters), fontsize=style.TINY, labelpad=2)
        bar = canvas.colorbar(drawn[-1], ax=list(row[1:]), fraction=0.05, pad=0.02, aspect=14)
        bar.outline.set_linewidth(0.5)
        bar.ax.set_facecolor(style.INK)  # as under the maps, where an image is dark
        bar.ax.set_title("%", fontsize=style.SMALL, loc="center")
    style.below(canvas, figure.note)
    return canvas


def _draw_words(ax: Any, line: Line, side: float) -> None:
    ax.axis("off")
    ax.set_box_aspect(side / _WORDS)
    ax.set_anchor("N")
    ax.set_title("\n".join(wrap(line.id, _LETTERS)), fontsize=style.TINY, color=style.GREY)
    words = [*_wrapped(line.question, _QUESTION), "", *_wrapped(f"gold: {line.gold}", _GOLD)]
    ax.text(0, 1, "\n".join(words), transform=ax.transAxes, va="top", fontsize=style.SMALL)


def _wrapped(text: str, most: int) -> list[str]:
    return wrap(text, _LETTERS, max_lines=most, placeholder=" …")


def _draw_image(ax: Any, line: Line) -> None:
    ax.imshow(line.image, extent=(0, line.image.width, line.image.height, 0))
    _outline(ax, line)
    _bare(ax)


def _draw_map(ax: Any, line: Line, panel: Panel, highest: float) -> Any:
    """Draw a map over the image in dark grey, so that all colour and all light is attention."""
    width, height = line.image.size
    grey = np.asarray(line.image.convert("L"))
    ax.set_facecolor(style.INK)  # where padding goes beyond the image
    ax.imshow(grey, cmap="gray", vmin=0, vmax=1.5 * 255, extent=(0, width, height, 0))
    drawn = ax.imshow(
        100 * panel.attention,
        cmap=_colours(),
        vmin=0,
        vmax=100 * highest,
        extent=panel.extent,
        interpolation="nearest",
    )
    left, right, bottom, top = panel.extent
    ax.set_xlim(min(left, 0), max(right, width))
    ax.set_ylim(max(bottom, height), min(top, 0))
    _outline(ax, line)
    _bare(ax)
    return drawn


def _told(panel: Panel, letters: int) -> str:
    """Return what stands below a map, in lines of that many letters."""
    answer = shorten(panel.answer, 2 * letters - 8, placeholder="…") or "(nothing)"
    lines = wrap(f"{answer}: {panel.verdict}", letters)
    if panel.inside is not None:
        lines.append(f"{100 * panel.inside:.0f} % in region")
    return "\n".join(lines)


def _colours() -> Any:
    """Return colours that get lighter and denser: without attention the image stays as it is."""
    from matplotlib import colormaps  # pyright: ignore[reportMissingImports]
    from matplotlib.colors import ListedColormap  # pyright: ignore[reportMissingImports]

    steps = np.linspace(0, 1, 256)
    colours = colormaps["inferno"](0.35 + 0.65 * steps)
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
