"""Whether an answer is right, by the strict rule for its kind of question."""

from __future__ import annotations

from typing import Literal

from medbench.rows import Row

# Kind of question -> the metric that says whether an answer is right; reports have none.
RULES = {"closed": "closed/strict", "open": "recall/strict", "choice": "choice/strict"}

Verdict = Literal["right", "wrong", "partly right", "not judged"]


def verdict(row: Row) -> Verdict:
    """Say whether an answer is right."""
    value = row.get("scores", {}).get(RULES.get(row["kind"], ""))
    if value is None:
        return "not judged"
    return "right" if value >= 1 else "wrong" if value <= 0 else "partly right"
