"""Counts that stand beside the scores and tell what a mean hides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from medbench.metric import Metric
from medbench.metrics.choice import ChoicePaper, ChoiceStrict, has_options
from medbench.metrics.vqa import (
    ClosedPaper,
    ClosedStrict,
    RecallPaper,
    RecallStrict,
    Verdict,
    verdict,
    yes_or_no,
)
from medbench.rows import Row

_SAID: tuple[Verdict, ...] = ("yes", "no", "both", "neither")
_PAIRS: tuple[tuple[str, Metric, Metric], ...] = (
    ("closed", ClosedPaper(), ClosedStrict()),
    ("recall", RecallPaper(), RecallStrict()),
    ("choice", ChoicePaper(), ChoiceStrict()),
)


def health(rows: Sequence[Row]) -> dict[str, int | float | None]:
    """Return counts that tell a broken run from a bad model.

    `empty`: answers without a visible character; `cut`: stopped by the length limit (None where no
    row tells why it ended). Over closed rows whose gold is yes or no (`yes_no`): `neither` and
    `both` count the answers with none or both of the words, `in_format` is the share with exactly
    one (None where there is no such row).
    """
    stops = [row["stop"] for row in rows if "stop" in row]
    said = Counter(verdict(row["output"]) for row in rows if _gold(row))
    return {
        "rows": len(rows),
        "empty": sum(not row["output"].strip() for row in rows),
        "cut": stops.count("length") if stops else None,
        "yes_no": said.total(),
        "neither": said["neither"],
        "both": said["both"],
        "in_format": (said["yes"] + said["no"]) / said.total() if said else None,
    }


def confusion(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Return how the closed rows whose gold is yes, and those whose gold is no, were answered.

    Gold -> "yes", "no", "both" or "neither" (`vqa.verdict`) -> rows; empty if there are no such
    rows.
    """
    found = Counter((gold, verdict(row["output"])) for row in rows if (gold := _gold(row)))
    if not found:
        return {}
    return {gold: {said: found[gold, said] for said in _SAID} for gold in ("yes", "no")}


def disagreements(rows: Sequence[Row]) -> dict[str, int]:
    """Return on how many rows a published and a strict rule differ, for the pairs that apply.

    "closed", "recall" and "choice" are there if some row is of their kind.
    """
    found: dict[str, int] = {}
    for name, paper, strict in _PAIRS:
        asked = [row for row in rows if paper.applies(row)]
        if name == "choice":
            # A task may have choices of its own making, scored by metrics of its own.
            asked = [row for row in asked if has_options(row)]
        if asked:
            values = zip(paper.items(asked), strict.items(asked), strict=True)
            # Shares are ratios of small integers: a real difference is far larger.
            found[name] = sum(abs(one - other) > 1e-9 for one, other in values)
    return found


def _gold(row: Row) -> str:
    """Return "yes" or "no" for a closed row whose gold that is, else ""."""
    return yes_or_no(row["gold"]) if row["kind"] == "closed" else ""
