"""A real run of a method on `phantom` with `toy`, cut in the middle and continued."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medbench import store
from medbench.cell import Cell, Request, plan
from medbench.contract.breach import breach, telling
from medbench.runner import execute

LIMIT, BATCH = 8, 4


def check_run(
    method: str, folder: Path, prepare: Callable[[Cell], Cell] = lambda cell: cell
) -> None:
    """Run a method, cut its answers in half, go on, and compare.

    Args:
        method: its spec.
        folder: an empty one, for the run.
        prepare: changes the cell between plan and run.
    """
    request = Request(
        method=method,
        task="phantom",
        backbone="toy",
        limit=LIMIT,
        batch_size=BATCH,
        device="cpu",
        dtype="float32",
        out=folder,
    )
    with telling(f"{request.command} fails"):
        cell = prepare(plan(request))
        run = execute(cell)
    whole = (run.folder / store.SCORES).read_bytes()
    answers = _answers(run.folder)
    samples = run.folder / store.SAMPLES
    content = samples.read_bytes()
    samples.write_bytes(content[: len(content) // 2])
    (run.folder / store.SCORES).unlink()
    with telling("the run does not go on from half of its answers"):
        execute(cell)
    if len(answers) != LIMIT or _answers(run.folder) != answers:
        breach(
            "a run that was cut in the middle and continued has other answers",
            "An answer depends on what was answered before it in the same process.",
            "Keep nothing between batches, and draw from context.generators only.",
        )
    if (run.folder / store.SCORES).read_bytes() != whole:
        breach("a run that was cut in the middle and continued has other scores")


def _answers(folder: Path) -> list[Any]:
    """Return the rows of a run without what they cost."""
    cost = ("seconds", "peak_bytes")
    rows: list[dict[str, Any]] = [
        json.loads(line)
        for line in (folder / store.SAMPLES).read_text(encoding="utf-8").split("\n")
        if line
    ]
    return [{name: row[name] for name in row if name not in cost} for row in rows]
