"""Sheets as aligned text, split into bands where the terminal is too narrow for one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby

from medbench.tables.sheets import Sheet, Text

_BEST, _SECOND = "*", "°"


def as_text(
    sheets: Sequence[Sheet], bold: Callable[[str], str] | None = None, width: int | None = None
) -> str:
    """Return sheets aligned with blanks; the best of a column has a `*`, the second a `°`.

    Args:
        sheets: what to write.
        bold: makes a text bold where that can be shown, in place of the `*`.
        width: columns of the terminal; None for as many as it takes.
    """
    return "\n\n".join(_sheet(sheet, bold, width) for sheet in sheets)


def _sheet(sheet: Sheet, bold: Callable[[str], str] | None, width: int | None) -> str:
    bands = _bands(sheet, width)
    written = [part for part in ("PARTIAL" if sheet.partial else "", sheet.title) if part]
    for number, band in enumerate(bands):
        written += [""] * bool(number) + _band(band, bold)
    return "\n".join(
        [*written, "", *sheet.notes, *sheet.legend("bold" if bold else _BEST, _SECOND)]
    )


def _bands(sheet: Sheet, width: int | None) -> list[Sheet]:
    """Return a sheet in parts that fit, each with all its lines."""
    if width is None:
        return [sheet]
    first = max((len(name) for name in _names(sheet)), default=0)
    bands: list[list[int]] = [[]]
    used = first
    for at, size in enumerate(_widths(sheet)):
        if bands[-1] and used + size + 2 > width:
            bands.append([])
            used = first
        bands[-1].append(at)
        used += size + 2
    return [
        replace(
            sheet,
            heads=tuple(sheet.heads[at] for at in band),
            lines=tuple(
                replace(line, texts=tuple(line.texts[at] for at in band)) for line in sheet.lines
            ),
        )
        for band in bands
    ]


def _band(sheet: Sheet, bold: Callable[[str], str] | None) -> list[str]:
    first = max((len(name) for name in _names(sheet)), default=0)
    widths = _widths(sheet)
    depth = max((len(head) for head in sheet.heads), default=0)
    written = [
        "  ".join(
            [
                " " * first,
                *(head[level].ljust(w) for head, w in zip(sheet.heads, widths, strict=True)),
            ]
        ).rstrip()
        for level in range(depth)
    ]
    for group, lines in groupby(sheet.lines, key=lambda line: line.group):
        written.append(group)
        for line in lines:
            texts = [
                _marked(text, size, bold) for text, size in zip(line.texts, widths, strict=True)
            ]
            written.append(" ".join([f"  {line.label}".ljust(first), *texts]).rstrip())
    return [line for line in written if line]


def _marked(text: Text, width: int, bold: Callable[[str], str] | None) -> str:
    padded = text.text.ljust(width)
    if text.rank == "second":
        return f"{_SECOND}{padded}"
    if text.rank == "best":
        return f"{_BEST}{padded}" if bold is None else f" {bold(padded)}"
    return f" {padded}"


def _names(sheet: Sheet) -> list[str]:
    return [name for line in sheet.lines for name in (line.group, f"  {line.label}")]


def _widths(sheet: Sheet) -> list[int]:
    columns = zip(*(line.texts for line in sheet.lines), strict=True) if sheet.lines else ()
    sizes = [max(len(text.text) for text in column) for column in columns]
    return [max(size, *map(len, head)) for size, head in zip(sizes, sheet.heads, strict=True)]
