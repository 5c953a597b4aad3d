"""A baseline: scores that were looked at and agreed on, kept in one file beside the code.

It is read in pull requests: one line a score, everything sorted, and the same runs make the same
bytes. It holds no text of any sample.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from medbench.atomic import write_atomically
from medbench.errors import UserError

SCHEMA = 1
# Half a point: of 700 answers, three.
TOLERANCE = 0.005
# Of scores; values in runs have more than any two machines agree in.
DIGITS = 6
# Letters of an object that stands on one line.
_SHORT = 80


@dataclass(frozen=True)
class Score:
    """One score of a cell.

    Attributes:
        value: as a fraction, rounded to six digits; n: answers in the denominator.
        made_with: versions and hashes of weights of the packages that computed it.
    """

    value: float
    n: int
    made_with: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Answers:
    """Which answers were right, by a metric that says right or wrong of each.

    Attributes:
        of: hash of which of the run's answers the metric applies to.
        right: one bit an answer that it applies to, packed, in the order that the samples have in
            every run of them.
    """

    of: str
    right: bytes

    def unpacked(self, n: int) -> np.ndarray:
        """Return 0 and 1, int8 [n]."""
        bits = np.unpackbits(np.frombuffer(self.right, dtype=np.uint8), count=n)
        return bits.astype(np.int8)


@dataclass(frozen=True)
class Entry:
    """What a baseline keeps of a run.

    Attributes:
        name: of the cell, as `medbench run` heads it.
        run: "method", "task" and "backbone" as tables show them.
        scores: by metric; answers: of those metrics that say right or wrong.
        key: parts of the run's identity that must be equal for two runs to be compared.
        made_with: "sources" of plugins and "versions" of packages, which may differ.
    """

    name: str
    run: Mapping[str, str]
    scores: Mapping[str, Score]
    answers: Mapping[str, Answers]
    key: Mapping[str, Any]
    made_with: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Baseline:
    """The content of a baseline's file.

    Attributes:
        tolerance: how far a score may fall, as a fraction.
        entries: by the name of their cell.
    """

    tolerance: float = TOLERANCE
    entries: Mapping[str, Entry] = field(default_factory=dict[str, Entry])


def read(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        UserError: there is none, it is broken, or it is from a newer medbench.
    """
    if not path.exists():
        raise UserError(
            f"no baseline at {path}",
            "A check compares runs with scores that were kept.",
            f"Make one of finished runs: medbench check RUN --against {path} --update",
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema = int(content["schema"])
        if schema <= SCHEMA:
            return _baseline(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        lacks = isinstance(error, KeyError)
        raise UserError(
            f"cannot read {path}",
            f"It lacks {error}." if lacks else f"{type(error).__name__}: {error}",
            "Take it back from version control, or delete it and make it anew with --update.",
        ) from error
    raise UserError(
        f"{path} is from a newer medbench",
        f"Its schema is {schema}; this version reads up to {SCHEMA}.",
        "Upgrade medbench, or check against another file.",
    )


def write(path: Path, baseline: Baseline) -> None:
    """Write a baseline; the same content is the same bytes.

    Raises:
        UserError: the file cannot be written.
    """
    content = {
        "schema": SCHEMA,
        "tolerance": baseline.tolerance,
        "cells": {name: _to_json(one) for name, one in sorted(baseline.entries.items())},
    }
    text = _laid_out(content) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda target: target.write_bytes(text.encode("utf-8")))
    except OSError as error:
        raise UserError(
            f"cannot write {path}", f"{error.strerror or error}.", "Choose another with --against."
        ) from error


def _to_json(entry: Entry) -> dict[str, Any]:
    """Return what stands in the file: what is read first comes first, all below it is sorted."""
    content: dict[str, Any] = {
        "run": entry.run,
        "scores": {
            name: {
                "value": one.value,
                "n": one.n,
                **({"made_with": _sorted(one.made_with)} if one.made_with else {}),
            }
            for name, one in sorted(entry.scores.items())
        },
        "answers": {
            name: {"of": one.of, "right": base64.b64encode(one.right).decode("ascii")}
            for name, one in entry.answers.items()
        },
        "key": entry.key,
        "made_with": entry.made_with,
    }
    return {part: one if part == "scores" else _sorted(one) for part, one in content.items()}


def _sorted(value: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(value, sort_keys=True, default=dict))


def _baseline(content: Mapping[str, Any]) -> Baseline:
    tolerance = float(content["tolerance"])
    if not 0 <= tolerance < 1:
        raise ValueError(f"a tolerance is a fraction, not {tolerance}")
    return Baseline(tolerance, {name: _entry(name, one) for name, one in content["cells"].items()})


def _entry(name: str, content: Mapping[str, Any]) -> Entry:
    scores = {
        metric: Score(float(one["value"]), int(one["n"]), dict(one.get("made_with", {})))
        for metric, one in content["scores"].items()
    }
    answers = {
        metric: Answers(str(one["of"]), base64.b64decode(one["right"], validate=True))
        for metric, one in content["answers"].items()
        # Who takes a score out by hand need not look for its answers.
        if metric in scores
    }
    for metric, one in scores.items():
        # A value that is no number would be neither above nor below any other.
        if not math.isfinite(one.value):
            raise ValueError(f"{name} has {one.value} for {metric}")
        if metric in answers and len(answers[metric].right) != math.ceil(one.n / 8):
            raise ValueError(f"{name} has not one answer for each of its {metric}")
    key = dict(content["key"])
    for part in {"task", "seed", "preset", "limit"} - key.keys():
        raise KeyError(part)
    return Entry(
        name,
        {part: str(content["run"][part]) for part in ("backbone", "method", "task")},
        scores,
        answers,
        key,
        {part: dict(content["made_with"][part]) for part in ("sources", "versions")},
    )


def _laid_out(value: Any, indent: str = "") -> str:
    """Return JSON in which an object that is short and holds no other stands on one line."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict):
        return flat
    inside = cast("dict[str, Any]", value)
    if len(flat) < _SHORT and not any(isinstance(one, dict) for one in inside.values()):
        return flat
    deeper = indent + "  "
    lines = [
        f"{deeper}{json.dumps(name, ensure_ascii=False)}: {_laid_out(one, deeper)}"
        for name, one in inside.items()
    ]
    return "\n".join(["{", ",\n".join(lines), indent + "}"])
