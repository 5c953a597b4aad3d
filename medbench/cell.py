"""From spec strings to a cell: everything about a run that is known before a model is loaded.

    spec -> plan -> key -> folder

A mistake in names, values, data files or needs ends here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from medbench import plugins, provenance, spec
from medbench.backbone import Checkpoint
from medbench.errors import UserError
from medbench.files import with_images
from medbench.method import Decoder, Method, Tuner
from medbench.metric import Metric
from medbench.plugins import Plugin
from medbench.scoring import check_golden, load_metric
from medbench.task import Sample, Task

# Raise when the same inputs give other answers: part of every key.
ENGINE = 1
KEY_LENGTH = 12
# In float32 answers do not depend on the batch (tested), elsewhere they may.
EXACT_BATCH, SAFE_BATCH = 16, 1


@dataclass(frozen=True)
class Request:
    """One run as asked for: spec strings and options."""

    method: str
    task: str
    backbone: str = "phantom"
    data: str = ""
    seed: int = 0
    limit: int | None = None
    batch_size: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    preset: str = "matched"
    allow_missing_images: bool = False
    out: Path = Path("results/runs")


@dataclass(frozen=True)
class AdapterPlan:
    """The adapter a run needs: where it is or will be, and what its key is made of."""

    key: str
    folder: Path
    identity: dict[str, Any]
    train: tuple[Sample, ...]
    given: bool = False

    @property
    def ready(self) -> bool:
        """Whether it has been trained."""
        return (self.folder / "adapter.json").exists()


@dataclass(frozen=True)
class Cell:
    """One run, resolved: method x task x backbone x seed, and its folder.

    Attributes:
        samples: of the test split, in the fixed order that runs and limits follow, cut to the
            limit; every: all of them.
        identity: everything that can move an answer; key: its hash.
        missing: ids left out for want of an image.
        display: task, backbone and method as shown in tables.
    """

    request: Request
    task: Task
    checkpoint: Checkpoint
    tuner: Tuner | None
    decoder: Decoder
    samples: tuple[Sample, ...]
    every: tuple[Sample, ...]
    missing: tuple[str, ...]
    metrics: tuple[Metric, ...]
    device: str
    dtype: str
    batch_size: int
    identity: dict[str, Any]
    key: str
    folder: Path
    display: dict[str, str]
    adapter: AdapterPlan | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def partial(self) -> bool:
        """Whether some samples of the split are left out."""
        return bool(self.missing) or len(self.samples) < len(self.every)


def plan(request: Request) -> Cell:
    """Resolve a request.

    Raises:
        UserError: anything about it that cannot work.
    """
    task_spec, backbone_spec = spec.parse(request.task), spec.parse(request.backbone)
    chain = spec.parse_chain(request.method)
    # All names and values first, from source alone: a typo must not wait for torch.
    task_plugin, backbone_plugin = (
        plugins.get("task", task_spec.name),
        plugins.get("backbone", backbone_spec.name),
    )
    method_plugins = [plugins.get("method", one.name) for one in chain]
    _check_chain(request.method, method_plugins)
    _check_options(request)
    tuning = task_plugin.attributes.get("tuning", {})
    for plugin, one in zip(method_plugins, chain, strict=True):
        plugins.values(plugin, one, tuning if plugin.role == "tuner" else {})
    plugins.values(task_plugin, task_spec)
    plugins.values(backbone_plugin, backbone_spec)
    offers = (
        *backbone_plugin.attributes.get("offers", ()),
        *task_plugin.attributes.get("offers", ()),
    )
    for plugin in method_plugins:
        _check_needs(plugin, offers, request)

    task = _create_task(request, task_spec)
    metrics = tuple(load_metric(name) for name in task.metrics)
    for metric in metrics:
        check_golden(metric)
    every, missing = _samples(request, task, "test")
    samples = every[: request.limit] if request.limit else every
    checkpoint: Checkpoint = plugins.create("backbone", backbone_spec)[1]
    methods = [
        plugins.create("method", one, tuning if plugin.role == "tuner" else {})[1]
        for plugin, one in zip(method_plugins, chain, strict=True)
    ]
    tuner = methods[0] if isinstance(methods[0], Tuner) else None
    decoder = methods[-1] if isinstance(methods[-1], Decoder) else _greedy()

    from medbench.decoding.select import resolve
    from medbench.model.load import resolve_device

    device, dtype = resolve_device(request.device, request.dtype)
    batch_size = request.batch_size or (EXACT_BATCH if dtype == "float32" else SAFE_BATCH)
    selection = resolve(decoder, request.preset)
    backbone_identity = {
        **_identity(backbone_plugin, checkpoint),
        "weights": provenance.hash_files(checkpoint.files()),
        "dtype": dtype,
        "device": device.partition(":")[0],
    }
    adapter = None
    if tuner is not None:
        adapter = _plan_adapter(request, task, task_plugin, method_plugins[0], tuner, backbone_identity)
    decoder_plugin = method_plugins[-1] if methods[-1] is decoder else plugins.get("method", "greedy")
    identity = {
        "engine": ENGINE,
        "task": {
            **_identity(task_plugin, task),
            "version": task.version,
            "split": "test",
            "samples": provenance.hash_samples(every),
        },
        "backbone": backbone_identity,
        "tuner": adapter.identity["tuner"] if adapter else None,
        "adapter": adapter.key if adapter else None,
        "decoder": {**_identity(decoder_plugin, decoder), "selection": vars(selection)},
        "preset": request.preset,
        "seed": request.seed,
        "limit": request.limit if len(samples) < len(every) else None,
        "batch_size": batch_size,
    }
    key = provenance.digest(identity)[:KEY_LENGTH]
    names = "+".join(one.name for one in chain)
    folder = request.out / task_spec.name / backbone_spec.name / names / key
    return Cell(
        request=request,
        task=task,
        checkpoint=checkpoint,
        tuner=tuner,
        decoder=decoder,
        samples=samples,
        every=every,
        missing=missing,
        metrics=metrics,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        identity=identity,
        key=key,
        folder=folder,
        display={
            "task": _shown(task_spec, task),
            "backbone": _shown(backbone_spec, checkpoint),
            "method": "+".join(str(one) for one in chain),
        },
        adapter=adapter,
    )


def in_order(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Return samples in the fixed order of runs: by a hash of their ids.

    The first N in this order are a fair draw, and stay the same draw when N grows.
    """
    return tuple(sorted(samples, key=lambda sample: _place("order", sample.id)))


def partners(samples: Sequence[Sample], seed: int) -> dict[str, Sample]:
    """Return for each sample another one with another image, drawn by the seed.

    Raises:
        UserError: all samples share one image.
    """
    ring = sorted(samples, key=lambda sample: _place(f"partner {seed}", sample.id))
    found: dict[str, Sample] = {}
    for place, sample in enumerate(ring):
        after = (ring[(place + step) % len(ring)] for step in range(1, len(ring)))
        partner = next((other for other in after if other.group != sample.group), None)
        if partner is None:
            raise UserError("no other image to take", "All samples of the split share one image.")
        found[sample.id] = partner
    return found


def _place(purpose: str, name: str) -> bytes:
    return hashlib.sha256(f"{purpose}\n{name}".encode()).digest()


def _check_chain(text: str, chain: Sequence[Plugin]) -> None:
    roles = [plugin.role for plugin in chain]
    if roles not in (["tuner"], ["decoder"], ["tuner", "decoder"]):
        raise UserError(
            f"'{text}' is not a chain that can run",
            f"It reads {' then '.join(roles)}.",
            "A chain is one tuner, one decoder, or a tuner then a decoder.",
        )


def _check_options(request: Request) -> None:
    from medbench.presets import PRESETS

    if request.preset not in PRESETS:
        raise UserError(f"no preset '{request.preset}'", "", f"Take {' or '.join(PRESETS)}.")
    for name, value in (("--limit", request.limit), ("--batch-size", request.batch_size)):
        if value is not None and value < 1:
            raise UserError(f"{name} {value} makes no sense", "It is a count.", "Take 1 or more.")


def _check_needs(plugin: Plugin, offers: Sequence[str], request: Request) -> None:
    missing = [need for need in plugin.attributes.get("needs", ()) if need not in offers]
    if missing:
        raise UserError(
            f"{plugin.name} cannot run on {request.task} with {request.backbone}",
            f"It needs {', '.join(missing)}; on offer are {', '.join(offers) or 'nothing'}.",
            "medbench list shows what methods need and what backbones and tasks offer.",
        )


def _create_task(request: Request, task_spec: spec.Spec) -> Task:
    task: Task = plugins.create("task", task_spec)[1]
    if request.data and not task.data:
        task = replace(task, data=request.data)
    return task


def _samples(request: Request, task: Task, split: str) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """Return a split's samples in the order of runs, and the ids left out for want of an image."""
    found, missing = with_images(
        task, split, task.samples(split), allow_missing=request.allow_missing_images
    )
    return in_order(found), tuple(missing)


def _greedy() -> Decoder:
    return plugins.create("method", spec.parse("greedy"))[1]


def _identity(plugin: Plugin, instance: Any) -> dict[str, Any]:
    """Return what of a plugin goes into keys: name, values, and its source."""
    return {
        "name": plugin.name,
        "parameters": _keyed(instance),
        "source": plugins.source_hash(plugin),
    }


def _keyed(instance: Method | Task | Checkpoint) -> dict[str, Any]:
    return {
        one.name: getattr(instance, one.name)
        for one in fields(instance)
        if one.name not in instance.unkeyed
    }


def _shown(written: spec.Spec, instance: Task | Checkpoint) -> str:
    """Return a spec for display, without paths and what does not move answers."""
    kept = tuple((k, v) for k, v in written.values if k not in instance.unkeyed)
    return str(spec.Spec(written.name, kept))


def _plan_adapter(
    request: Request,
    task: Task,
    task_plugin: Plugin,
    plugin: Plugin,
    tuner: Tuner,
    backbone: dict[str, Any],
) -> AdapterPlan:
    if tuner.adapter:
        return _given_adapter(Path(tuner.adapter).expanduser(), plugin, tuner, backbone)
    if tuner.epochs is None:
        raise UserError(
            f"{plugin.name} does not know how long to train",
            f"{task.name} sets no epochs.",
            f'Write "{plugin.name}[epochs=N]".',
        )
    train, _ = _samples(request, task, "train")
    identity = {
        "engine": ENGINE,
        "tuner": _identity(plugin, tuner),
        "task": {
            **_identity(task_plugin, task),
            "version": task.version,
            "split": "train",
            "samples": provenance.hash_samples(train),
        },
        "backbone": backbone,
        "seed": request.seed,
    }
    key = provenance.digest(identity)[:KEY_LENGTH]
    folder = request.out / "adapters" / task_plugin.name / backbone["name"] / plugin.name / key
    return AdapterPlan(key, folder, identity, train)


def _given_adapter(
    folder: Path, plugin: Plugin, tuner: Tuner, backbone: dict[str, Any]
) -> AdapterPlan:
    """Check an adapter that the user names, and take it as it is."""
    import json

    path = folder / "adapter.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        identity, key = record["identity"], record["key"]
        trained, made_by = identity["backbone"], identity["tuner"]["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"no adapter in {folder}",
            f"{path} cannot be read ({type(error).__name__}).",
            "Give a folder that medbench trained, the one that holds adapter.json.",
        ) from error
    if made_by != plugin.name:
        raise UserError(
            f"the adapter in {folder} was made by {made_by}, not {plugin.name}",
            "",
            f'Write "{made_by}[adapter=...]".',
        )
    if (trained["name"], trained["weights"], trained["parameters"]) != (
        backbone["name"],
        backbone["weights"],
        backbone["parameters"],
    ):
        raise UserError(
            f"the adapter in {folder} belongs to another backbone",
            f"It was trained on {trained['name']} with weights {trained['weights'][:12] or 'drawn'}"
            f", this is {backbone['name']} with {backbone['weights'][:12] or 'drawn'}.",
            "Take the backbone it was trained on, or train a new one.",
        )
    if made_by == plugin.name and identity["tuner"]["parameters"] != _keyed(tuner):
        mine, theirs = _keyed(tuner), identity["tuner"]["parameters"]
        other = [name for name in mine if mine[name] != theirs.get(name)]
        raise UserError(
            f"the adapter in {folder} was trained with other settings",
            f"They differ in {', '.join(other)}.",
            "Write the settings it was trained with beside adapter=.",
        )
    return AdapterPlan(key, folder, identity, (), given=True)
