"""Scores and what stands beside them as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medbench.counting import counted


def as_lines(scores: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line a score: name, percent, interval, denominator, and counts that are not zero.

    Args:
        scores: metric -> as in scores.json.
    """
    width = max([18, *map(len, scores)])
    for name, score in scores.items():
        yield f"{name:<{width}} {score_text(score)}"


def unscored_lines(
    unscored: Mapping[str, Sequence[str]], told: str = "not scored"
) -> Iterator[str]:
    """Yield a line for each reason why metrics have no score.

    Args:
        unscored: metric -> what, why, what to do.
        told: what begins each line.
    """
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, (what, _, do) in unscored.items():
        reasons.setdefault((what, do), []).append(name)
    for (what, do), names in reasons.items():
        yield f"{told}: {', '.join(names)}: {what}{f'; {do}' if do else ''}"


def count_lines(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line on the answers, and where they apply one on yes and no, and one on the rules.

    Args:
        content: of a scores.json.
    """
    health: Mapping[str, Any] = content["health"]
    cut = "" if health["cut"] is None else f", {health['cut']} cut at the length limit"
    yield f"{counted(health['rows'], 'answer')}: {health['empty']} empty{cut}"
    # Runs of an older medbench lack it.
    golds: Mapping[str, Mapping[str, int]] = content.get("confusion", {})
    parts = [
        f"gold {gold} {sum(said.values())} -> "
        + ", ".join(f"{word} {number}" for word, number in said.items() if number)
        for gold, said in golds.items()
        if any(said.values())
    ]
    if parts:
        yield f"yes-no questions: {'; '.join(parts)}"
    differing: Mapping[str, int] = content["disagreements"]
    if differing:
        counts = ", ".join(f"{name} {number}" for name, number in differing.items())
        yield f"paper and strict rules differ on: {counts}"


def score_text(score: Mapping[str, Any]) -> str:
    """Return a score's percent, interval, denominator, and counts that are not zero."""
    if score["value"] is None:
        return "–  (applies to no sample)"
    text = f"{100 * score['value']:6.2f}"
    if score["low"] is not None:
        text += f"  [{100 * score['low']:.2f}, {100 * score['high']:.2f}]"
    text += f"  n={score['n']}, {score['groups']} images"
    notes: Mapping[str, Any] = score["notes"]
    shares = [f"{name}={100 * x:.2f} %" for name, x in notes.items() if name.endswith("_rate")]
    counts = [f"{name}={n}" for name, n in notes.items() if name.startswith("n_") and n]
    return ", ".join([text, *shares, *counts])
