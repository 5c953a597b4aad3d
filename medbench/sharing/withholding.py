"""What leaves the machine of a restricted task's run: numbers, under names that lead to nobody.

A sample's name is a hash of its id, keyed by all ids and texts that the run was asked about. So two
exports over the same samples name them alike and can be compared question by question, and who has
the data finds them again. Who has not would have to guess all texts at once; of a plain hash, ids
of eight digits would be tried in seconds.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any, cast

from medbench import provenance
from medbench.rows import Row

# What is not named here does not leave, whatever rows and files may come to hold.
_OF_ROWS = ("kind", "stop", "seconds", "forwards", "peak_bytes", "scores")
# All that a row without texts has.
SHARED = frozenset(("id", "group", *_OF_ROWS))
_OF_RUNS = (
    *("schema", "key", "identity", "display", "samples", "partial", "missing_images"),
    *("missing_answers", "samples_with_region", "data", "adapter", "metrics", "device", "command"),
    *("versions", "hardware", "git", "started", "continued", "imported"),
)
_OF_SCORES = ("schema", "scores", "unscored", "health", "confusion", "disagreements")
_DIGITS = 16


def renamed(rows: Sequence[Row]) -> list[Row]:
    """Return rows, in their order, with ids and groups as an export without texts has them.

    Args:
        rows: all of a run; those that were exported without texts stay as they are.
    """
    if any("gold" not in row for row in rows):
        return list(rows)
    asked = sorted([row["id"], row["group"], row.get("question", ""), row["gold"]] for row in rows)
    key = provenance.digest(asked)
    return [
        cast(
            "Row",
            {**row, "id": _name(key, "id", row["id"]), "group": _name(key, "group", row["group"])},
        )
        for row in rows
    ]


def rows_without_texts(rows: Sequence[Row]) -> list[Row]:
    """Return what of a run's rows may be shared, in the order of their new names.

    A run's own order follows from the ids, and would tell roughly where a known one stands.
    """
    kept = [
        cast("Row", {name: value for name, value in row.items() if name in SHARED})
        for row in renamed(rows)
    ]
    return sorted(kept, key=lambda row: row["id"])


def run_without_texts(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a run.json may be shared; names of files are left out."""
    kept = {name: run[name] for name in _OF_RUNS if name in run}
    hashes = kept["data"].get("files", {}).values()
    numbered = {f"file {number}": sha256 for number, sha256 in enumerate(hashes, start=1)}
    kept["data"] = {**kept["data"], "files": numbered}
    if "imported" in kept:
        kept["imported"] = {**kept["imported"], "file": ""}
    return {**kept, "withheld": True}


def scores_without_texts(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a scores.json may be shared: of the notes those that are numbers."""
    kept = {name: scores[name] for name in _OF_SCORES if name in scores}
    kept["scores"] = {
        metric: {**score, "notes": _numbers(score.get("notes", {}))}
        for metric, score in kept["scores"].items()
    }
    return kept


def _numbers(notes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: note for name, note in notes.items() if isinstance(note, int | float)}


def _name(key: str, what: str, name: str) -> str:
    text = f"{what}\n{name}".encode()
    return hmac.new(key.encode(), text, hashlib.sha256).hexdigest()[:_DIGITS]
