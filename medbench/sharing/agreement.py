"""Whether the files of a run fit together: its key, its names, its rows and its scores."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np

from medbench import keys, provenance, spec, store
from medbench.errors import UserError
from medbench.items import Items, is_mean, of_rows
from medbench.metric import Metric
from medbench.rows import Row
from medbench.run_folder import check_names
from medbench.scoring import load_metric
from medbench.sharing.withholding import SHARED

# What tables and lists read: names, and their types.
_RUN: Mapping[str, type | tuple[type, ...]] = {
    "key": str,
    "identity": dict,
    "identity.task": dict,
    "identity.task.name": str,
    "identity.preset": str,
    "identity.seed": int,
    "identity.limit": (int, type(None)),
    "display": dict,
    "display.task": str,
    "display.backbone": str,
    "display.method": str,
    "samples": int,
    "partial": bool,
    "missing_images": int,
    "data": dict,
    "data.edition": str,
    "data.note": str,
    "data.restricted": bool,
    "metrics": list,
    "command": str,
}
_SCORES: Mapping[str, type | tuple[type, ...]] = {
    "scores": dict,
    "health": dict,
    "health.rows": int,
}


class Agreement:
    """Looks at the files of one finished run, one after the other.

    Args:
        what: the folder or the file that they are in, for messages.
        do: what to do about one that does not fit.
    """

    def __init__(self, what: str, do: str) -> None:
        self._what, self._do = what, do

    def parsed(self, content: bytes, name: str) -> dict[str, Any]:
        """Return the object in run.json or scores.json.

        Raises:
            UserError: it is none, or from a newer medbench.
        """
        try:
            read = json.loads(content)
            schema = int(read["schema"])
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise self._error(f"Its {name} cannot be read ({type(error).__name__})") from error
        if schema > store.SCHEMA:
            raise UserError(
                f"{self._what} is from a newer medbench",
                f"The schema of its {name} is {schema}; this version reads up to {store.SCHEMA}.",
                "Upgrade medbench.",
            )
        self._check_fields(read, name, _RUN if name == store.RUN else _SCORES)
        return read

    def check_run(self, run: Mapping[str, Any]) -> None:
        """Make sure that a run.json names what its key is of.

        Raises:
            UserError: it does not.
        """
        identity, shown = run["identity"], run["display"]
        if keys.key(identity) != run["key"]:
            raise self._error(
                f"Its key is {run['key']}, the hash of its identity is {keys.key(identity)}"
            )
        try:
            check_names(shown["task"], shown["backbone"], shown["method"])
            fits = _names(shown) in _possible(identity)
        except (UserError, KeyError, TypeError) as error:
            raise self._error(f"Its names cannot be read ({error})") from error
        if not fits:
            told = f"{shown['method']} on {shown['task']} with {shown['backbone']}"
            raise self._error(f"It says that it is {told}; its identity is another")

    def check_rows(
        self, rows: Iterable[Any], run: Mapping[str, Any], scores: Mapping[str, Any]
    ) -> None:
        """Make sure that a run has all its rows, and the scores that follow from them.

        An interval is not computed again; nor is a score that is no mean over rows, or whose
        metric is not known here.

        Args:
            rows: as they were parsed.

        Raises:
            UserError: something is missing, or a number is another one.
        """
        kept: list[Row] = []
        answers: list[list[str]] = []
        withheld, imported = run.get("withheld", False), "answers" in run["identity"]
        for number, row in enumerate(rows, start=1):
            self._check_row(row, number, withheld=withheld)
            kept.append(
                cast("Row", {name: row[name] for name in ("id", "group", "scores") if name in row})
            )
            if imported and not withheld:
                answers.append([row["id"], row["output"]])
        twice = len(kept) - len({row["id"] for row in kept})
        if twice:
            raise self._error(f"{twice} of its {len(kept)} answers are to samples that have one")
        told = {run["samples"], scores["health"]["rows"], len(kept)}
        if len(told) > 1:
            raise self._error(
                f"{store.RUN} tells of {run['samples']} samples, {store.SCORES} of "
                f"{scores['health']['rows']}, and {store.SAMPLES} has {len(kept)}"
            )
        if answers and provenance.digest(answers) != run["identity"]["answers"]:
            raise self._error("Its answers are not those that its key is of")
        items = of_rows(kept)
        for metric, score in scores["scores"].items():
            self._check_score(metric, score, items)

    def _check_fields(
        self, read: Mapping[str, Any], name: str, fields: Mapping[str, type | tuple[type, ...]]
    ) -> None:
        for path, kind in fields.items():
            value: Any = read
            for step in path.split("."):
                value = value.get(step, _NOTHING)
            # True is an int in Python, and in no file.
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
                fault = "lacks" if value is _NOTHING else "has something else as"
                raise self._error(f"Its {name} {fault} {path}")

    def _check_row(self, row: Any, number: int, *, withheld: bool) -> None:
        where = f"Line {number} of its {store.SAMPLES}"
        if not isinstance(row, dict):
            raise self._error(f"{where} is no answer")
        read = cast("dict[str, Any]", row)
        needed = ("id", "group", "kind") if withheld else ("id", "group", "kind", "gold", "output")
        lacking = next((name for name in needed if not isinstance(read.get(name), str)), "")
        if lacking:
            raise self._error(f"{where} lacks {lacking}")
        more = sorted(set(read) - SHARED) if withheld else []
        if more:
            raise self._error(f"{where} has {more[0]}, though texts are said to be withheld")
        values = read.get("scores", {})
        if not isinstance(values, dict) or not all(
            value is None or type(value) in (int, float)
            for value in cast("dict[str, Any]", values).values()
        ):
            raise self._error(f"{where} has scores that are no numbers")

    def _check_score(self, metric: str, score: Mapping[str, Any], items: Items) -> None:
        try:
            value, n, groups = score["value"], score["n"], score["groups"]
            found = items.scores.get(metric, np.full(items.samples.size, np.nan))
            applies = ~np.isnan(found)
            counted = int(applies.sum()), int(np.unique(items.groups[applies]).size)
            if (n, groups) != counted:
                raise self._error(
                    f"Its {metric} is said to be of {n} answers on {groups} images, and its "
                    f"{store.SAMPLES} has values for {counted[0]} on {counted[1]}"
                )
            if (value is None) != (not n):
                raise self._error(f"Its {metric} has no score, or one of no answer")
            if n and _is_plain(metric) and not is_mean(found[applies], value):
                mean = float(np.mean(found[applies]))
                raise self._error(f"Its {metric} is {value:g}, the mean of its answers {mean:g}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._error(f"Its score {metric} is none ({type(error).__name__})") from error

    def _error(self, why: str) -> UserError:
        return UserError(f"{self._what} is not a run as medbench writes it", f"{why}.", self._do)


_NOTHING: Any = object()


def _names(shown: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of what was run; of an import, whole specs of method and backbone."""
    methods = tuple(one.name for one in spec.parse_chain(shown["method"]))
    return (spec.parse(shown["task"]).name, spec.parse(shown["backbone"]).name, *methods)


def _possible(identity: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return what names a run of this identity may be shown by."""
    if "imported" in identity:
        given = {**identity["imported"], "task": identity["task"]["name"]}
        return [_names(given)]
    on = (identity["task"]["name"], identity["backbone"]["name"])
    decoder = identity["decoder"]["name"]
    if not identity["tuner"]:
        return [(*on, decoder)]
    tuned = (*on, identity["tuner"]["name"])
    # Greedy is what a tuner decodes by if nothing else is said.
    return [(*tuned, decoder), *([tuned] if decoder == "greedy" else [])]


def _is_plain(name: str) -> bool:
    """Say whether a metric is known here, and its score a mean whatever the rows are."""
    try:
        return type(load_metric(name)).measure is Metric.measure
    except UserError:
        return False
