"""Whether two sides of runs may be compared, by what, and what differs beside their methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from medbench import plugins, store
from medbench.choose import Side
from medbench.differences import brief, computed_by, differences
from medbench.errors import UserError
from medbench.items import Items, is_mean, places, read_items, taken
from medbench.spec import normalise

_VERSIONS = ("medbench", "torch", "transformers")


@dataclass(frozen=True)
class Answers:
    """A side with its runs' answers as numbers, all in one order of questions."""

    label: Literal["A", "B"]
    side: Side
    items: tuple[Items, ...]

    @classmethod
    def of(cls, label: Literal["A", "B"], side: Side) -> Answers:
        """Read a side's answers, in the order of its first run.

        Raises:
            UserError: a line of a run is broken.
        """
        items = [read_items(run.folder, restricted=run.restricted) for run in side.runs]
        for run, one in zip(side.runs, items, strict=True):
            if not np.array_equal(np.sort(one.samples), np.sort(items[0].samples)):
                raise UserError(
                    f"{side.name}'s runs did not answer the same samples",
                    f"{run.folder} has others than {side.runs[0].folder}.",
                    "Its samples.jsonl was changed; run it again.",
                )
        return cls(label, side, tuple(_ordered(one, items[0].samples) for one in items))

    def in_order_of(self, other: Answers) -> Answers:
        """Return the same in the order of another side, which has the same samples."""
        return replace(self, items=tuple(_ordered(one, other.samples) for one in self.items))

    @property
    def samples(self) -> np.ndarray:
        """Hashes of the questions' ids."""
        return self.items[0].samples

    @property
    def groups(self) -> np.ndarray:
        """Hashes of the questions' images."""
        return self.items[0].groups

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the runs."""
        return tuple(run.seed for run in self.side.runs)

    def values(self, metric: str) -> np.ndarray:
        """Return a metric's values, float64 [runs, questions]; NaN where it does not apply."""
        return np.stack([items.scores[metric] for items in self.items])

    def scores(self, metric: str) -> list[float]:
        """Return the runs' scores by a metric."""
        return [float(run.scores[metric]["value"]) for run in self.side.runs]

    def has(self, metric: str) -> bool:
        """Say whether each run has a score by a metric, and values that it comes from."""
        nothing = np.array([np.nan])
        return all(
            run.scores.get(metric, {}).get("value") is not None
            and not np.isnan(items.scores.get(metric, nothing)).all()
            for run, items in zip(self.side.runs, self.items, strict=True)
        )


def check_runs(a: Side, b: Side) -> None:
    """Make sure that no run is on both sides.

    Raises:
        UserError: one is.
    """
    ours, theirs = ({run.folder.resolve() for run in side.runs} for side in (a, b))
    if ours == theirs:
        more = f" and {len(ours) - 1} more" if len(ours) > 1 else ""
        raise UserError(
            "A and B are the same runs",
            f"Both are {a.runs[0].folder}{more}.",
            "Name two methods, or two folders.",
        )
    if ours & theirs:
        raise UserError(
            "A and B have runs in common",
            f"{min(ours & theirs)} is among both.",
            "Name folders that hold the runs of one side only.",
        )


def check_settings(a: Side, b: Side) -> None:
    """Make sure that both sides were asked for the same, as far as their run.json tells.

    Raises:
        UserError: tasks, presets, or limits differ, or one is partial and the other whole.
    """
    one, other = a.runs[0], b.runs[0]
    tasks = one.identity["task"], other.identity["task"]
    if tasks[0]["name"] != tasks[1]["name"]:
        raise UserError(
            "A and B are of different tasks",
            f"A ({a.name}) is of {one.task}, B ({b.name}) of {other.task}.",
            "Narrow both by --task, or name folders of one task.",
        )
    # The text of its file may change without a score; the data are compared with the answers.
    kept = [{k: v for k, v in task.items() if k not in ("source", "samples")} for task in tasks]
    facts = differences(kept)
    if facts:
        shown = "; ".join(f"{path} {values[0]} and {values[1]}" for path, values in facts.items())
        raise UserError(
            f"A and B are of different kinds of {tasks[0]['name']}",
            f"They have {shown}.",
            "Narrow both by --task, or run one of them again.",
        )
    if one.preset != other.preset:
        raise UserError(
            "A and B are of different presets",
            f"A ({a.name}) is {one.preset}, B ({b.name}) is {other.preset}.",
            "Narrow both by --preset, or name folders of one preset.",
        )
    if one.state != other.state:
        raise UserError(
            "a partial run cannot be compared with a whole one",
            f"A ({a.name}) is {one.state} with {one.total} samples, "
            f"B ({b.name}) {other.state} with {other.total}.",
            "Compare runs over the same samples.",
        )
    if one.limit != other.limit:
        limits = [f"--limit {run.limit}" if run.limit else "no --limit" for run in (one, other)]
        raise UserError(
            "A and B have different limits",
            f"A ({a.name}) has {limits[0]}, B ({b.name}) {limits[1]}.",
            "Compare runs over the same samples.",
        )


def check_samples(first: Answers, second: Answers) -> None:
    """Make sure that both sides answered the same questions about the same images.

    Raises:
        UserError: they did not.
    """
    shared = np.intersect1d(first.samples, second.samples).size
    if not shared:
        raise UserError(
            "A and B share no samples",
            f"No id of A's {first.samples.size} samples is among B's {second.samples.size}.",
            "Compare runs on the same data.",
        )
    if not shared == first.samples.size == second.samples.size:
        raise UserError(
            "A and B share only some of their samples",
            f"A has {first.samples.size}, B has {second.samples.size}, and {shared} are the same.",
            "Compare runs over the same samples.",
        )
    data = [one.side.runs[0].identity["task"]["samples"] for one in (first, second)]
    if data[0] != data[1]:
        raise UserError(
            "A and B read different data",
            "Their samples have the same ids, but other texts, golds or images "
            f"({brief(data[0])} and {brief(data[1])}).",
            "Run one of them again on the other's data.",
        )


def choose_metrics(
    first: Answers, second: Answers, asked: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """Return the metrics to compare, and why others that there are cannot be.

    Raises:
        UserError: there are none, or one that was asked for is not among them.
    """
    every = [run for one in (first, second) for run in one.side.runs]
    known = dict.fromkeys(name for run in every for name in run.scores)
    faults = {name: _fault(first, second, name) for name in known}
    common = [name for name in known if not faults[name]]
    wanted: set[str] = set()
    for text in asked:
        meant = [name for name in known if _is_metric(text, name)]
        if not meant:
            raise UserError(
                f"A and B have no score named '{text}'",
                plugins.close(text, known) or f"There are: {', '.join(known)}.",
                "To compute one: medbench rescore RUNS --metric NAME",
            )
        if not set(meant) & set(common):
            raise UserError(
                f"'{text}' cannot be compared",
                f"{meant[0]}: {faults[meant[0]]}.",
                f"Where it is missing: medbench rescore RUNS --metric {meant[0]}",
            )
        wanted |= set(meant)
    if not common:
        has = [", ".join(filter(one.has, known)) or "none" for one in (first, second)]
        raise UserError(
            "A and B have no metric in common",
            f"A has {has[0]}; B has {has[1]}.",
            "Score both by the same: medbench rescore RUNS --metric NAME",
        )
    shown = wanted or set(known)
    return (
        [name for name in common if name in shown],
        {name: fault for name, fault in faults.items() if fault and name in shown},
    )


def is_pooled(answers: Answers, metric: str) -> bool:
    """Say whether a score follows otherwise than as a mean from the values of its questions."""
    return not all(
        is_mean(values[~np.isnan(values)], score)
        for values, score in zip(answers.values(metric), answers.scores(metric), strict=True)
    )


def differing(a: Side, b: Side, metrics: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return what differs beside the methods: path -> A's and B's value.

    Args:
        metrics: that are compared; what computed them may differ too.
    """
    one, other = a.runs[0].identity, b.runs[0].identity
    found = {
        path: (values[0], values[1])
        for path, values in differences([one, other]).items()
        if not _is_method(path, one, other)
    }
    found |= _adapters(a, b)
    for name in _VERSIONS:
        found |= _unlike(name, _versions(a, name), _versions(b, name))
    for name in metrics:
        found |= _unlike(f"what computed {name}", _made_with(a, name), _made_with(b, name))
    return found


def _fault(first: Answers, second: Answers, name: str) -> str:
    """Return why a metric cannot be compared, or "" if it can."""
    for one in (first, second):
        if not one.has(name):
            several = len(one.side.runs) > 1
            return f"{one.label} {'does not have it in every run' if several else 'has none'}"
    apply = ~np.isnan(np.concatenate([first.values(name), second.values(name)]))
    if not apply.all(axis=0).any():
        return "no question has a value in all runs"
    if (apply != apply[0]).any() and (is_pooled(first, name) or is_pooled(second, name)):
        return "it is no mean over questions, and the runs' scores are of different ones"
    return ""


def _is_metric(asked: str, name: str) -> bool:
    return normalise(asked) in (normalise(name), normalise(name).partition("/")[0])


def _ordered(items: Items, samples: np.ndarray) -> Items:
    """Return items in the order of samples, which are the same."""
    if np.array_equal(items.samples, samples):
        return items
    return taken(items, places(items.samples, samples))


def _is_method(path: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Say whether a difference is one between the methods, which is what is compared."""
    part, _, rest = path.partition(".")
    if part == "imported":
        return rest == "method"
    if part not in ("tuner", "decoder"):
        return False
    names = [(identity.get(part) or {}).get("name") for identity in (one, other)]
    # A method of one name and two sources is not the one that its name says.
    return rest != "source" or names[0] != names[1]


def _adapters(a: Side, b: Side) -> dict[str, tuple[str, str]]:
    """Return which adapters differ although tuner and seed are the same."""
    if a.runs[0].identity.get("tuner") != b.runs[0].identity.get("tuner"):
        return {}
    theirs = {run.seed: str(run.identity.get("adapter")) for run in b.runs}
    ours = {run.seed: str(run.identity.get("adapter")) for run in a.runs if run.seed in theirs}
    return {
        f"adapter of seed {seed}": (adapter, theirs[seed])
        for seed, adapter in ours.items()
        if adapter != theirs[seed]
    }


def _versions(side: Side, name: str) -> list[str]:
    """Return a package's versions over the runs, those included that went on with another one."""
    found: dict[str, None] = {}
    for run in side.runs:
        times = cast("list[dict[str, Any]]", store.read_run(run.folder).get("continued", []))
        given = [run.versions, *(one["versions"] for one in times)]
        found |= dict.fromkeys(str(one.get(name)) for one in given)
    return list(found)


def _made_with(side: Side, metric: str) -> list[str]:
    return list(dict.fromkeys(computed_by(run.scores[metric]) for run in side.runs))


def _unlike(name: str, ours: list[str], theirs: list[str]) -> dict[str, tuple[str, str]]:
    """Return a fact, unless all runs of both sides agree in it."""
    if len({*ours, *theirs}) < 2:
        return {}
    return {name: (" and ".join(ours), " and ".join(theirs))}
