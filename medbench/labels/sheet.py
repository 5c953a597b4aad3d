"""A contact sheet: samples with their regions outlined, for a person to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from medbench.provider import Region

# Told apart by colour-blind readers too (Okabe and Ito).
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
_PICTURE, _GAP, _LINE, _COLUMNS = 256, 16, 16, 4
_TEXT_LINES = 4
_LEGEND = "Regions are numbered, the best first, with their scores; white: ground truth."


@dataclass(frozen=True)
class Tile:
    """One sample on the sheet.

    Attributes:
        image: as it is; text: the question and what else to say, wrapped.
        regions: outlined in colours, the best first; truth: outlined in white, or None.
    """

    image: Image.Image
    text: str
    regions: Sequence[Region]
    truth: np.ndarray | None = None


def sheet(tiles: Sequence[Tile]) -> Image.Image:
    """Return the tiles side by side in rows of four."""
    lines = _TEXT_LINES + 1
    width = _COLUMNS * (_PICTURE + _GAP) + _GAP
    height = _PICTURE + lines * _LINE + _GAP
    rows = -(-len(tiles) // _COLUMNS)
    page = Image.new("RGB", (width, _LINE + max(rows, 1) * height + _GAP), "white")
    ImageDraw.Draw(page).text((_GAP, _GAP // 2), _LEGEND, fill="black", font=_font())
    for number, tile in enumerate(tiles):
        left = _GAP + number % _COLUMNS * (_PICTURE + _GAP)
        top = _GAP + _LINE + number // _COLUMNS * height
        _draw(page, tile, left, top)
    return page


def _draw(page: Image.Image, tile: Tile, left: int, top: int) -> None:
    picture = tile.image.convert("RGB")
    scale = _PICTURE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.NEAREST if scale > 2 else None)
    # The best last, so that it lies on top where outlines meet.
    for number, region in reversed(list(enumerate(tile.regions))):
        _outline(picture, region.mask, _COLOURS[number % len(_COLOURS)])
    if tile.truth is not None:
        _outline(picture, tile.truth, "white")
    page.paste(picture, (left, top))
    pen, font = ImageDraw.Draw(page), _font()
    x, y = left, top + _PICTURE + 2
    for number, region in enumerate(tile.regions):
        label = f"{number + 1}" if region.score is None else f"{number + 1}: {region.score:.1f}"
        pen.rectangle((x, y + 3, x + 9, y + 12), fill=_COLOURS[number % len(_COLOURS)])
        pen.text((x + 13, y), label, fill="black", font=font)
        x += 64
    if not tile.regions:
        pen.text((x, y), "no region", fill="#D55E00", font=font)
    for number, line in enumerate(wrap(tile.text, 42)[:_TEXT_LINES]):
        pen.text((left, y + (number + 1) * _LINE), line, fill="black", font=font)


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(12)


def _outline(picture: Image.Image, mask: np.ndarray, colour: str) -> None:
    """Draw a mask's edge, two pixels wide, inside it."""
    whole = Image.fromarray(np.asarray(mask, bool).astype(np.uint8) * 255)
    whole = whole.resize(picture.size, Image.Resampling.NEAREST)
    inner = whole.filter(ImageFilter.MinFilter(5))
    edge = Image.fromarray(np.where(np.asarray(inner) > 0, 0, np.asarray(whole)))
    picture.paste(colour, mask=edge)
