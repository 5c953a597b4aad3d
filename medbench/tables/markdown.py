"""Sheets in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from medbench.tables.sheets import Sheet, Text


def as_markdown(sheets: Sequence[Sheet]) -> str:
    """Return sheets as tables in Markdown: the best in bold, the second underlined."""
    return "\n\n".join(_sheet(sheet) for sheet in sheets)


def _sheet(sheet: Sheet) -> str:
    heads = [" ".join(filter(None, head)) for head in sheet.heads]
    written = [f"**{part}**" for part in (_words(sheet.warning), sheet.title) if part]
    lines = [*(line for part in written for line in (part, ""))]
    lines.append(_line(["", "", *heads]))
    lines.append(_line(["---"] * (len(heads) + 2)))
    for line in sheet.lines:
        lines.append(_line([line.group, line.label, *map(_text, line.texts)]))
    notes = [*map(_escaped, sheet.notes), *sheet.legend("Bold", "underlined")]
    # Two blanks at the end of a line break it in Markdown.
    return "\n".join([*lines, "", "  \n".join(notes)])


def _words(warning: str) -> str:
    return "Partial runs" if warning == "PARTIAL" else warning


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _escaped(text: str) -> str:
    return text.replace("|", "&#124;")


def _text(text: Text) -> str:
    if text.rank == "best":
        return f"**{text.text}**"
    return f"<u>{text.text}</u>" if text.rank == "second" else text.text
