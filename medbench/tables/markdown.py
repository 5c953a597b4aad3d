"""Sheets in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from medbench.tables.sheets import Sheet, Text

# What Markdown reads as markup; within a word it leaves an underscore alone.
_MARKUP = re.compile(r"[\\`*<~]|(?<!\w)_|_(?!\w)")


def as_markdown(sheets: Sequence[Sheet]) -> str:
    """Return sheets as tables in Markdown: the best in bold, the second underlined."""
    return "\n\n".join(_sheet(sheet) for sheet in sheets)


def _sheet(sheet: Sheet) -> str:
    heads = [" ".join(filter(None, head)) for head in sheet.heads]
    lines = [f"**{_escaped(sheet.heading)}**", ""] if sheet.heading else []
    lines.append(_line(["", "", *map(_escaped, heads)]))
    lines.append(_line(["---"] * (len(heads) + 2)))
    for line in sheet.lines:
        names = map(_escaped, (line.group, line.label))
        lines.append(_line([*names, *map(_text, line.texts)]))
    notes = [*map(_escaped, sheet.notes), *sheet.legend("Bold", "underlined")]
    # Two blanks at the end of a line break it in Markdown.
    return "\n".join([*lines, "", "  \n".join(notes)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    text = _MARKUP.sub(r"\\\g<0>", text.replace("&", "&amp;"))
    return text.replace("|", "&#124;")


def _text(text: Text) -> str:
    written = _escaped(text.text)
    if text.rank == "best":
        return f"**{written}**"
    return f"<u>{written}</u>" if text.rank == "second" else written
