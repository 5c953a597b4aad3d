"""What the answers in a table's cells cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medbench.items import Items
from medbench.tables.model import Cost, Place, Table


def costs(table: Table, answers: Mapping[Path, Items]) -> dict[Place, Cost]:
    """Return what answering cost, over all seeds; a cell's cost is that of its runs as a whole.

    Args:
        table: with runs; answers: of these.
    """
    return {
        place: _cost([answers[run.folder] for run in same]) for place, same in table.runs.items()
    }


def _cost(answers: Sequence[Items]) -> Cost:
    seconds, forwards, peaks, tokens = (
        _known(answers, name) for name in ("seconds", "forwards", "peak_bytes", "tokens")
    )
    return Cost(
        seconds=float(seconds.mean()) if seconds is not None else None,
        forwards=float(forwards.sum() / tokens.sum())
        if forwards is not None and tokens is not None and tokens.sum()
        else None,
        peak_bytes=float(peaks.max()) if peaks is not None else None,
    )


def _known(answers: Sequence[Items], name: str) -> np.ndarray | None:
    """Return what all answers tell of a cost, None if one does not."""
    values = np.concatenate([items.costs[name] for items in answers])
    return None if np.isnan(values).any() else values
