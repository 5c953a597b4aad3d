"""A run's answers as numbers: each sample's scores and what it cost, for tables and tests.

Reading them from `samples.jsonl` takes a twentieth of a second a run; what was read is remembered
as long as the file stays as it is.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medbench import digests, store
from medbench.rows import Row
from medbench.sharing.withholding import renamed

# Raise when what is remembered changes.
_FORMAT = "items 1"
# Scores and values are stored with all their digits.
_SAME = 1e-6
_COSTS = ("seconds", "forwards", "peak_bytes")


@dataclass(frozen=True)
class Items:
    """The answers of a run.

    Attributes:
        samples, groups: hashes of the ids of samples and of their images, uint64 [n] (`told`).
        scores: metric -> float64 [n], NaN where it does not apply.
        costs: "seconds", "forwards" (see `medbench.rows`), "peak_bytes" and "tokens" (how many new
            ones) -> float64 [n], NaN where the run does not tell.
    """

    samples: np.ndarray
    groups: np.ndarray
    scores: dict[str, np.ndarray]
    costs: dict[str, np.ndarray]


def read_items(folder: Path, *, restricted: bool = False) -> Items:
    """Read a run's answers as numbers; those of a restricted task are not in the run's order.

    Args:
        folder: of the run.
        restricted: whether its task is; then nothing of it is remembered elsewhere.

    Raises:
        UserError: a line is broken.
    """
    path = folder / store.SAMPLES
    known = {} if restricted else digests.recall([path], _FORMAT)
    if path in known:
        return _unpack(known[path])
    items = of_rows(told(store.read_rows(folder), restricted=restricted))
    if restricted:
        # An export is in another order than the run that it is of.
        return taken(items, np.argsort(items.samples))
    digests.remember({path: _pack(items)}, _FORMAT)
    return items


def told(rows: Sequence[Row], *, restricted: bool) -> Sequence[Row]:
    """Return rows with the names that items have: of a restricted task, those of its exports.

    So runs with texts stand beside those of others that came without.
    """
    return renamed(rows) if restricted else rows


def of_rows(rows: Sequence[Row]) -> Items:
    """Return rows as numbers."""
    metrics = dict.fromkeys(name for row in rows for name in row.get("scores", {}))
    costs = {name: _numbers(row.get(name) for row in rows) for name in _COSTS}
    costs["tokens"] = _numbers(len(row["tokens"]) if "tokens" in row else None for row in rows)
    return Items(
        samples=hashed(row["id"] for row in rows),
        groups=hashed(row["group"] for row in rows),
        scores={
            name: _numbers(row.get("scores", {}).get(name) for row in rows) for name in metrics
        },
        costs=costs,
    )


def is_mean(values: Sequence[float] | np.ndarray, score: float) -> bool:
    """Say whether a run's score is the mean of its samples' values, as that of most metrics is."""
    return bool(abs(float(np.mean(values)) - score) < _SAME)


def places(samples: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return where each of the wanted samples stands; both hold the same ones."""
    order = np.argsort(samples)
    return order[np.searchsorted(samples, wanted, sorter=order)]


def taken(items: Items, where: np.ndarray) -> Items:
    """Return items at some places, in their order."""
    return Items(
        items.samples[where],
        items.groups[where],
        {name: values[where] for name, values in items.scores.items()},
        {name: values[where] for name, values in items.costs.items()},
    )


def hashed(names: Iterable[str]) -> np.ndarray:
    """Return names as uint64 [n]: equal names are equal numbers."""
    digests_ = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(b"".join(digests_), dtype="<u8")


def _numbers(values: Iterable[Any]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _pack(items: Items) -> bytes:
    arrays = {"samples": items.samples, "groups": items.groups}
    arrays |= {f"scores {name}": values for name, values in items.scores.items()}
    arrays |= {f"costs {name}": values for name, values in items.costs.items()}
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _unpack(content: bytes) -> Items:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    named: dict[str, dict[str, np.ndarray]] = {"scores": {}, "costs": {}}
    for name, values in kept.items():
        kind, _, one = name.partition(" ")
        if one:
            named[kind][one] = values
    return Items(kept["samples"], kept["groups"], named["scores"], named["costs"])
