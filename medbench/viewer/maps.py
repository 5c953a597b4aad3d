"""Attention as the page holds it: a byte a patch."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from medbench.errors import UserError
from medbench.metrics.attention import decode_map
from medbench.rows import Row


def attention(row: Row) -> dict[str, Any] | None:
    """Return where an answer looked, None where the row does not tell.

    Returns:
        "grid": [rows, columns]; "tops": the highest share of each map, the mean over the answer
        first and then one for each step, if the row has them; "data": the maps in base64, a byte a
        patch, 255 for their top.

    Raises:
        UserError: a map cannot be read.
    """
    if "attention" not in row:
        return None
    maps = decode_map(row["attention"])[None]
    if "steps" in row:
        steps = decode_map(row["steps"]["attention"])
        if steps.ndim != 3 or steps.shape[1:] != maps.shape[1:]:
            raise UserError(
                "stored maps do not fit",
                f"Attention is on a grid of {maps.shape[1:]}, that of the steps {steps.shape}.",
                "The run's samples.jsonl is damaged or was edited.",
            )
        maps = np.concatenate([maps, steps])
    maps = np.nan_to_num(maps, posinf=0.0, neginf=0.0).clip(0)
    tops = maps.max(axis=(1, 2))
    shares = maps / np.where(tops > 0, tops, 1)[:, None, None]
    return {
        "grid": list(maps.shape[1:]),
        "tops": [float(f"{top:.4g}") for top in tops],
        "data": base64.b64encode(np.rint(255 * shares).astype(np.uint8).tobytes()).decode("ascii"),
    }
