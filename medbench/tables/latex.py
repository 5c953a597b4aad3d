"""Sheets as a LaTeX document that compiles alone: booktabs, landscape, one table a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from medbench.tables.sheets import Sheet, Text

_PREAMBLE = r"""\documentclass[10pt]{article}
\usepackage[utf8]{inputenc}
\usepackage[a4paper,landscape,margin=12mm]{geometry}
\usepackage{booktabs,graphicx}
\setlength{\parindent}{0pt}
\pagestyle{empty}
\begin{document}
"""
_END = "\\end{document}\n"
# Without T1 fonts, which not every TeX has as outlines, a straight quote is two apostrophes. After
# the end of a line, a bracket or a star would belong to it.
_SIGNS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "−": "$-$", "–": "--", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
    "†": r"\textdagger{}", "°": r"$^\circ$", "<": r"$<$", ">": r"$>$", "|": r"$\vert$",
    '"': "''", "'": r"\textquotesingle{}", "[": "{[}", "*": "{*}",
}  # fmt: skip
# The interval is smaller than the value, so that columns stay narrow and values stand out.
_INTERVAL = re.compile(r" (\[[^\]]*\])")


def as_latex(sheets: Sequence[Sheet]) -> str:
    """Return a LaTeX document of the sheets: the best in bold, the second underlined."""
    return _PREAMBLE + "\n\\clearpage\n".join(_sheet(sheet) for sheet in sheets) + _END


def _sheet(sheet: Sheet) -> str:
    heading = _escaped(sheet.heading)
    above = [f"\\textbf{{{heading}}}\\par\\medskip"] if heading else []
    notes = [*sheet.notes, *sheet.legend("Bold", "underlined")]
    below = [f"{_breakable(note)}\\par" for note in notes]
    return "\n".join(
        [
            *above,
            "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
            *_tabular(sheet),
            "}\\par\\medskip",
            "{\\footnotesize\\raggedright",
            *below,
            "}",
            "",
        ]
    )


def _tabular(sheet: Sheet) -> list[str]:
    count = len(sheet.heads)
    lines = [f"\\begin{{tabular}}{{l{'l' * count}}}", "\\toprule"]
    for line in sheet.spans():
        lines += _head(line)
    for group, members in groupby(sheet.lines, key=lambda line: line.group):
        lines += [
            "\\midrule",
            f"\\multicolumn{{{count + 1}}}{{l}}{{\\textit{{{_escaped(group)}}}}} \\\\",
        ]
        for line in members:
            cells = [_escaped(line.label), *map(_text, line.texts)]
            lines.append(f"{' & '.join(cells)} \\\\")
    return [*lines, "\\bottomrule", "\\end{tabular}"]


def _head(line: Sequence[tuple[str, int]]) -> list[str]:
    """Return one line of heads; one over several columns has a rule below."""
    cells, rules, at = [""], list[str](), 2
    for name, width in line:
        if width == 1 or not name:
            cells += [_escaped(name)] * width
        else:
            cells.append(f"\\multicolumn{{{width}}}{{c}}{{{_escaped(name)}}}")
            rules.append(f"\\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    return [f"{' & '.join(cells)} \\\\", *([" ".join(rules)] if rules else [])]


def _text(text: Text) -> str:
    value, space, rest = text.text.partition(" ")
    value = _escaped(value)
    if text.rank == "best":
        value = f"\\textbf{{{value}}}"
    elif text.rank == "second":
        value = f"\\underline{{{value}}}"
    written = _INTERVAL.sub(lambda found: f" {{\\scriptsize {found[1]}}}", f"{space}{rest}")
    # Braces and backslashes in what follows are ours; the signs are still to be written.
    return value + "".join(
        _SIGNS.get(sign, sign) if sign in "±−–↑↓†<%" else sign for sign in written
    )


def _escaped(text: str) -> str:
    # TeX would make a dash of the two hyphens that an option of a command begins with.
    return "-{}-".join(
        "".join(_SIGNS.get(sign, sign) for sign in part) for part in text.split("--")
    )


def _breakable(text: str) -> str:
    """Return a note; commands may break after commas, which TeX would not do by itself."""
    return _escaped(text).replace(",", ",\\allowbreak{}")
