"""What a baseline keeps of a run, and in what two such entries differ."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from medbench import plugins, spec, store, supervise
from medbench.checking.baseline import DIGITS, Answers, Entry, Score
from medbench.differences import brief, differences
from medbench.errors import UserError
from medbench.items import Items, is_mean, read_items

# Parts of a run's identity that are a plugin, and the kind of each.
PLUGINS: Mapping[str, plugins.Kind] = {
    "task": "task",
    "backbone": "backbone",
    "tuner": "method",
    "decoder": "method",
}
_PACKAGES = ("medbench", "numpy", "torch", "transformers")
# What a run's identity has that follows from the rest, or that a check is there to compare.
_NOT_COMPARED = ("adapter", "answers")
# Parts whose path does not say what they are.
_SAID = {"task.samples": "data (task.samples)", "engine": "decoding engine"}
_HASH = 8


def entry_of(folder: Path) -> tuple[Entry, Items]:
    """Return what a baseline keeps of a finished run, and the run's answers as numbers.

    Raises:
        UserError: a file of it is broken.
    """
    run = store.read_run(folder)
    content = store.read_scores(folder)
    assert content is not None, "the run is finished"
    items = read_items(folder, restricted=run["data"].get("restricted", False))
    scores = {
        name: Score(
            round(score["value"], DIGITS),
            score["n"],
            {what: brief(one) for what, one in score.get("made_with", {}).items()},
        )
        for name, score in content["scores"].items()
        if score["value"] is not None
    }
    answers = {
        name: found
        for name, score in scores.items()
        if (found := _answers(items.scores.get(name), score)) is not None
    }
    identity = run["identity"]
    shown = {part: run["display"][part] for part in ("backbone", "method", "task")}
    made_with = {"sources": _sources(identity), "versions": _versions(run)}
    name, key = name_of(shown, identity), key_parts(identity, shown)
    return Entry(name, shown, scores, answers, key, made_with), items


def name_of(shown: Mapping[str, str], identity: Mapping[str, Any]) -> str:
    """Return what a cell is called: what was run on what, as `medbench run` says it.

    Args:
        shown: "method", "task" and "backbone" as tables show them.
        identity: of the run.
    """
    limit = f", limit {identity['limit']}" if identity["limit"] else ""
    return (
        f"{shown['method']} on {shown['task']} with {shown['backbone']}, "
        f"seed {identity['seed']}, {identity['preset']}{limit}"
    )


def key_parts(identity: Mapping[str, Any], shown: Mapping[str, str]) -> dict[str, Any]:
    """Return the parts of a run's identity that must be equal for two runs to be compared.

    The text of plugins is not among them, since a check says what a change of it does.
    """
    kept = {
        part: _without_source(value)
        for part, value in identity.items()
        if part not in _NOT_COMPARED
    }
    targets = _targets(shown["method"], shown["task"])
    if targets and kept.get("tuner"):
        # An adapter's key knows these, and the run's identity only that key.
        kept["tuner"] = {**kept["tuner"], "supervision": targets}
    return kept


def apart(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the key parts that differ, with both values short."""
    # One level deeper, since the seed counts here.
    found = differences([{"key": then}, {"key": now}])
    told: list[str] = []
    for path, values in found.items():
        part = path.removeprefix("key.")
        before, after = ("none" if value == "None" else value for value in values)
        told.append(f"{_SAID.get(part, part)}: {before} -> {after}")
    if then != now and not told:
        told.append("a part without a value, which only one of them has")
    return told


def causes(then: Entry, now: Entry) -> list[str]:
    """Return what else differs between two runs: sources of plugins and versions of packages."""
    sources = then.made_with["sources"], now.made_with["sources"]
    changed = [part for part in PLUGINS if sources[0].get(part) != sources[1].get(part)]
    told = [
        f"{file_of(PLUGINS[part], name)} changed"
        for part in changed
        if (name := (now.key.get(part) or {}).get("name"))
    ]
    adapters = [one.get("adapter") for one in sources]
    # Its key follows from the tuner's, the task's and the backbone's sources; else it is news.
    if adapters[0] != adapters[1] and not {"tuner", "task", "backbone"} & {*changed}:
        told.append(f"another adapter or training data ({adapters[0]} -> {adapters[1]})")
    told += _versions_apart(then.made_with["versions"], now.made_with["versions"])
    for metric in sorted(then.scores.keys() & now.scores.keys()):
        found = _versions_apart(then.scores[metric].made_with, now.scores[metric].made_with)
        told += [f"{metric}: {one}" for one in found]
    return told


def file_of(kind: plugins.Kind, name: str) -> str:
    """Return a plugin's file as it is called in its checkout; the name where it is gone."""
    try:
        path = plugins.get(kind, name).path
    except UserError:
        return name
    # In a package they lie in medbench/, in a checkout beside it.
    return f"{plugins.FOLDERS[kind]}/{path.name}"


def _without_source(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: one for name, one in cast("Mapping[str, Any]", value).items() if name != "source"}


def _targets(method: str, task: str) -> dict[str, str]:
    """Return the providers that a tuner takes its targets from, without their paths."""
    try:
        one = spec.parse_chain(method)[0]
        plugin = plugins.get("method", one.name)
        parameters = plugin.attributes.get("supervision", {})
        if not parameters:
            return {}
        tuning = plugins.get("task", spec.parse(task).name).attributes.get("tuning", {})
        values = plugins.values(plugin, one, tuning)
        return {name: supervise.shown_provider(str(values[name])) for name in parameters}
    except UserError:  # a plugin that is gone, or the name of another program
        return {}


def _sources(identity: Mapping[str, Any]) -> dict[str, str]:
    parts = {name: identity.get(name) or {} for name in PLUGINS}
    found = {name: part["source"][:_HASH] for name, part in parts.items() if "source" in part}
    if identity.get("adapter"):
        found["adapter"] = identity["adapter"][:_HASH]
    return found


def _versions(run: Mapping[str, Any]) -> dict[str, str]:
    """Return versions of packages; where a run went on under others, all of them."""
    each = [run.get("versions", {}), *(one["versions"] for one in run.get("continued", []))]
    told = {
        name: " then ".join(dict.fromkeys(one[name] for one in each if name in one))
        for name in _PACKAGES
    }
    return {name: versions for name, versions in told.items() if versions}


def _answers(values: np.ndarray | None, score: Score) -> Answers | None:
    """Return which answers are right; None of a metric that gives shares, or is no mean."""
    if values is None:
        return None
    applies = ~np.isnan(values)
    kept = values[applies]
    judged = kept.size == score.n > 0 and bool(((kept == 0) | (kept == 1)).all())
    if not judged or not is_mean(kept, score.value):
        return None
    of = hashlib.sha256(np.packbits(applies).tobytes() + str(applies.size).encode()).hexdigest()
    return Answers(of[:_HASH], np.packbits(kept.astype(bool)).tobytes())


def _versions_apart(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [
        f"{name} {then.get(name, 'none')} -> {now.get(name, 'none')}"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]
