"""What the page says of the runs before it shows their samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from medbench import few_images, store
from medbench.choose import Side
from medbench.comparing.comparable import differing
from medbench.comparing.compare import HEADLINE
from medbench.counting import counted
from medbench.figures.notes import ranges, setting
from medbench.metrics.counts import health
from medbench.score_lines import count_lines, score_text, unscored_lines
from medbench.tables.cells import unwell
from medbench.viewer.chosen import Chosen

# Of a run's folder: task, backbone, method and key. What lies above is nobody else's business.
_PARTS = 4
_UNCLEAR = {"neither": "neither yes nor no", "both": "both yes and no"}


def head(chosen: Sequence[Chosen]) -> dict[str, Any]:
    """Return what the page says of the runs.

    Returns:
        "runs": for each "name", "setting", "facts" (pairs of a name and a text), "lines" with more
        of them, and "alarms"; "scores": for each metric its name, whether it is a "main" one, and
        for each run its text, "" for none, and what is not sound about its answers; "differs": what
        else differs between the runs.
    """
    metrics = dict.fromkeys(name for one in chosen for name in one.run.scores)
    main = [name for name in HEADLINE if name in metrics] or list(metrics)
    return {
        "runs": [
            {
                "name": one.name,
                "setting": setting([one.run]),
                "facts": _facts(one),
                "lines": list(_lines(one)),
                "alarms": list(_alarms(one)),
            }
            for one in chosen
        ],
        "scores": [
            {
                "metric": name,
                "main": name in main,
                "cells": [_cell(one, name) for one in chosen],
            }
            for name in sorted(metrics, key=lambda name: name not in main)
        ],
        "differs": [line for other in chosen[1:] for line in _differs(chosen[0], other)],
    }


def _cell(one: Chosen, metric: str) -> dict[str, Any]:
    if metric not in one.run.scores:
        return {"text": "", "unwell": []}
    text = score_text(one.run.scores[metric]).strip()
    return {"text": text, "unwell": unwell([one.run.health], metric)}


def _facts(one: Chosen) -> list[tuple[str, str]]:
    seeds = f"{one.run.seed}"
    if len(one.seeds) > 1:
        seeds += f", the first of {ranges(one.seeds)}"
    counts = one.run.health or health(list(one.rows.values()))
    (answers,) = count_lines({"health": counts, "disagreements": {}})
    unclear = [f"{counts[name]} {words}" for name, words in _UNCLEAR.items() if counts[name]]
    if unclear:
        answers += f"; of {counts['yes_no']} to yes-no questions {', '.join(unclear)}"
    return [("seed", seeds), ("answers", answers)]


def _lines(one: Chosen) -> Iterator[str]:
    yield "/".join(one.run.folder.parts[-_PARTS:])
    content = store.read_scores(one.run.folder)
    if content is not None:
        yield from list(count_lines(content))[1:]
        yield from unscored_lines(content.get("unscored", {}))


def _alarms(one: Chosen) -> Iterator[str]:
    """Yield what a reader must know before anything else."""
    run = one.run
    if run.state == "unfinished":
        yield (
            f"UNFINISHED: {len(one.rows)} of {counted(run.total, 'sample')} are answered, and "
            "there are no scores; right and wrong are said here."
        )
    if run.state == "partial":
        yield "PARTIAL: it left samples out, and is not to be compared with whole runs."
    if run.note:
        yield f"{run.edition or 'data'}: {run.note}"
    suffered = dict.fromkeys(text for name in run.scores for text in unwell([run.health], name))
    if suffered:
        yield f"† Answers that are not sound: {', '.join(suffered)}."
    groups = [score["groups"] for score in run.scores.values() if score["low"] is not None]
    yield from few_images.warnings(groups)


def _differs(one: Chosen, other: Chosen) -> Iterator[str]:
    """Yield what differs between two runs beside their methods and seeds."""
    if one.run.preset != other.run.preset:
        yield (
            f"{one.name} is of preset {one.run.preset}, {other.name} of {other.run.preset}: they "
            "pick tokens by different rules."
        )
    sides = [Side(each.name, (each.run,)) for each in (one, other)]
    facts = {
        path: values for path, values in differing(*sides, metrics=()).items() if path != "preset"
    }
    if facts:
        told = "; ".join(f"{path}: {a} or {b}" for path, (a, b) in facts.items())
        yield f"{one.name} and {other.name} also differ in {told}."
