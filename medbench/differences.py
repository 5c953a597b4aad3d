"""What differs between runs beside their seeds, as messages tell it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

# Parts of a run's identity that differ between seeds by themselves.
SEEDED = ("seed", "adapter", "answers")
_HASH, _SHOWN = 64, 8


def differences(identities: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the parts in which identities differ: path -> their values, in the order given.

    Args:
        identities: of runs (`run.json`); seeds and what follows from them are passed over.
    """
    if not identities:
        return {}
    kept = [{k: v for k, v in identity.items() if k not in SEEDED} for identity in identities]
    if all(identity == kept[0] for identity in kept):
        return {}
    flat = [dict(_leaves(identity)) for identity in kept]
    paths = dict.fromkeys(path for leaves in flat for path in leaves)
    told = {path: [brief(leaves.get(path)) for leaves in flat] for path in paths}
    return {path: values for path, values in told.items() if len(set(values)) > 1}


def brief(value: object) -> str:
    """Return a value as messages show it: hashes short."""
    text = str(value)
    return text[:_SHOWN] if len(text) == _HASH else text


def computed_by(score: Mapping[str, Any]) -> str:
    """Return the versions and weights that a score was computed by; hashes are short."""
    made: Mapping[str, Any] = score.get("made_with") or {}
    return ", ".join(f"{name} {brief(made[name])}" for name in sorted(made)) or "not told"


def _leaves(identity: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in identity.items():
        if isinstance(value, Mapping):
            yield from _leaves(cast("Mapping[str, Any]", value), f"{above}{key}.")
        else:
            yield f"{above}{key}", value
