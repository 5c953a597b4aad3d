"""An examination as a page that can be pasted where others are asked for help."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import wrap

from medbench.counting import counted
from medbench.doctor.finding import Finding, State

MARKS: dict[State, str] = {"good": "ok", "note": "--", "problem": "!!"}
_WIDTH = 98
_INDENT = " " * 6


def lines(finding: Finding) -> list[str]:
    """Return a finding's lines: its mark and what it is, then what to do, which is never broken."""
    whole = wrap(
        finding.what,
        _WIDTH,
        initial_indent=f"  {MARKS[finding.state]}  ",
        subsequent_indent=_INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [*whole, f"{_INDENT}-> {finding.do}"] if finding.do else whole


def verdict(findings: Iterable[Finding]) -> str:
    """Return the last line, which counts the problems."""
    states = [finding.state for finding in findings]
    problems, notes = states.count("problem"), states.count("note")
    noted = f"; {counted(notes, 'note')} (--)" if notes else ""
    if not problems:
        return f"Nothing stands in the way{noted}."
    return f"{counted(problems, 'problem')} (!!){noted}."
