"""Sheets as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

from medbench.tables.sheets import Sheet, Text

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; border-block: 2px solid; white-space: nowrap; }}
th, td {{ padding: .2rem .8rem; text-align: left; font-variant-numeric: tabular-nums; }}
thead tr:last-child th, tr.group th {{ border-bottom: 1px solid; }}
tr.group th {{ border-top: 1px solid; font-style: italic; font-weight: normal; }}
tbody th {{ font-weight: normal; }}
td small {{ opacity: .75; }}
.notes {{ font-size: 13px; overflow-wrap: anywhere; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def as_html(sheets: Sequence[Sheet]) -> str:
    """Return a page of the sheets: the best in bold, the second underlined."""
    title = next((sheet.title for sheet in sheets if sheet.title), "medbench")
    return _PAGE.format(title=escape(title), body="\n".join(_sheet(sheet) for sheet in sheets))


def _sheet(sheet: Sheet) -> str:
    notes = [*sheet.notes, *sheet.legend("Bold", "underlined")]
    return "\n".join(
        [
            *([f"<h2>{escape(sheet.heading)}</h2>"] if sheet.heading else []),
            '<div class="wide"><table>',
            "<thead>",
            *_heads(sheet),
            "</thead>",
            "<tbody>",
            *_body(sheet),
            "</tbody>",
            "</table></div>",
            f'<p class="notes">{"<br>".join(escape(note) for note in notes)}</p>',
        ]
    )


def _heads(sheet: Sheet) -> list[str]:
    return [f"<tr><td></td>{''.join(_head(*one) for one in line)}</tr>" for line in sheet.spans()]


def _head(name: str, width: int) -> str:
    over = f' scope="colgroup" colspan="{width}"' if width > 1 else ' scope="col"'
    return f"<th{over}>{escape(name)}</th>"


def _body(sheet: Sheet) -> list[str]:
    lines: list[str] = []
    for group, members in groupby(sheet.lines, key=lambda line: line.group):
        span = len(sheet.heads) + 1
        lines.append(f'<tr class="group"><th colspan="{span}">{escape(group)}</th></tr>')
        for line in members:
            cells = "".join(f"<td>{_text(text)}</td>" for text in line.texts)
            lines.append(f'<tr><th scope="row">{escape(line.label)}</th>{cells}</tr>')
    return lines


def _text(text: Text) -> str:
    value, _, rest = text.text.partition(" ")
    tag = {"best": "b", "second": "u", "": ""}[text.rank]
    written = f"<{tag}>{escape(value)}</{tag}>" if tag else escape(value)
    return f"{written} <small>{escape(rest)}</small>" if rest else written
