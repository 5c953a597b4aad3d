"""Cells and parts of cells as tasks of a Ray cluster, whose machines share their files.

A task that is lost with its worker or machine is started again elsewhere, and goes on with the
answers that are on disk. Adapters are tasks of their own, so that cells that share one do not hold
GPUs while they wait for it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medbench.cell import Request
from medbench.errors import UserError
from medbench.extras import importing
from medbench.shard import Shard
from medbench.sweeping.attempt import Outcome, attempt, train
from medbench.sweeping.failure import Failure, attempted
from medbench.sweeping.survey import Surveyed, survey

# How often a task is started again after its worker or machine was lost.
_RETRIES = 5
# Seconds for which a task waits for the locks of one that was lost: it may die a little later.
_PATIENCE = 120.0
# What workers need to know of the environment: where further plugins lie.
_PASSED_ON = ("MEDBENCH_PLUGINS",)


@dataclass(frozen=True)
class Cluster:
    """A cluster to which this process is connected.

    Attributes:
        ray: the package.
        resources: what a task takes, as `ray.remote` knows it.
        place: the folder that tasks work in, on every machine.
    """

    ray: Any
    resources: dict[str, float]
    place: Path


def connect(cpus: float, gpus: float) -> Cluster:
    """Connect to the cluster of `$RAY_ADDRESS`, or of this machine; start one if there is none.

    Args:
        cpus, gpus: that a task takes; GPUs only where the cluster has some.

    Raises:
        UserError: Ray is not installed, or no machine of the cluster has so much.
    """
    with importing("ray"):
        import ray  # pyright: ignore[reportMissingImports]
    # Of a cluster started here: nothing is sent to anyone.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    ray.init(
        log_to_driver=False,
        include_dashboard=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": passed},
    )
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    asked = {"CPU": cpus, "GPU": gpus if any(node.get("GPU") for node in nodes) else 0.0}
    if not any(all(node.get(k, 0) >= v for k, v in asked.items()) for node in nodes):
        most = " or ".join(f"{n.get('CPU', 0):g} CPUs and {n.get('GPU', 0):g} GPUs" for n in nodes)
        raise UserError(
            f"no machine of the cluster has {asked['CPU']:g} CPUs and {asked['GPU']:g} GPUs",
            f"They have {most or 'nothing'}.",
            "Ask for less under [ray] in the sweep's file.",
        )
    return Cluster(ray, {"num_cpus": asked["CPU"], "num_gpus": asked["GPU"]}, Path.cwd())


def survey_there(cluster: Cluster, requests: Sequence[Request]) -> list[Surveyed]:
    """Plan all cells where they will run: a machine without GPU would take them for other runs."""
    return cluster.ray.get(_remote(cluster, _survey).remote(cluster.place, requests))


def run_there(
    cluster: Cluster, left: Sequence[Surveyed], parts: Sequence[Shard]
) -> Iterator[Outcome]:
    """Run cells, and yield what came of each as it ends.

    Args:
        parts: into which each cell is cut, a task each; none for one task a cell.
    """
    training = _train_adapters(cluster, left)
    send = _remote(cluster, _attempt)
    waiting: dict[Any, Request] = {}
    ended: dict[Request, list[Outcome]] = {}
    for one in left:
        for part in parts or [None]:
            ref = send.remote(cluster.place, one.request, part, training.get(one.adapter))
            waiting[ref] = one.request
        ended[one.request] = []
    while waiting:
        [ref], _ = cluster.ray.wait(list(waiting), num_returns=1)
        request = waiting.pop(ref)
        ended[request].append(_received(cluster, ref, request))
        if len(ended[request]) < max(1, len(parts)):
            continue
        outcome = _together(ended[request])
        if outcome.state == "part":
            # All parts are there, but each left the scoring to another.
            waiting[send.remote(cluster.place, request, None, None)] = request
        else:
            yield outcome


def _train_adapters(cluster: Cluster, left: Sequence[Surveyed]) -> dict[Path | None, Any]:
    """Start the training of each adapter once; return the tasks by the adapter's folder."""
    send = _remote(cluster, _train)
    first = {one.adapter: one.request for one in reversed(left) if one.adapter is not None}
    return {folder: send.remote(cluster.place, request) for folder, request in first.items()}


def _remote(cluster: Cluster, function: Any) -> Any:
    return cluster.ray.remote(max_retries=_RETRIES, **cluster.resources)(function)


def _received(cluster: Cluster, ref: Any, request: Request) -> Outcome:
    """Return what a task returned, or that it was lost too often."""
    found = attempted(lambda: cluster.ray.get(ref))
    return Outcome(request, "failed", failure=found) if isinstance(found, Failure) else found


def _together(outcomes: Sequence[Outcome]) -> Outcome:
    """Return what the tasks of one cell amount to."""
    by_state = {one.state: one for one in reversed(outcomes)}
    chosen = by_state.get("done") or by_state.get("failed") or by_state["part"]
    return replace(chosen, seconds=sum(one.seconds for one in outcomes))


def _survey(place: Path, requests: Sequence[Request]) -> list[Surveyed]:
    _enter(place)
    return survey(requests)


def _train(place: Path, request: Request) -> Failure | None:
    _enter(place)
    return train(request)


def _attempt(
    place: Path, request: Request, part: Shard | None, untrained: Failure | None
) -> Outcome:
    if untrained is not None:
        return Outcome(request, "failed", failure=untrained)
    _enter(place)
    return attempt(request, shard=part, wait=_PATIENCE)


def _enter(place: Path) -> None:
    """Work in the folder that the sweep was started in: plugins and paths are looked for there.

    Raises:
        UserError: this machine does not have it.
    """
    try:
        os.chdir(place)
    except OSError as error:
        raise UserError(
            f"{os.uname().nodename} has no folder {place}",
            "The machines of the cluster share no files.",
            "Start the sweep in a folder that all of them have.",
        ) from error
