"""From spec strings to a cell: everything about a run that is known before a model is loaded.

    spec -> plan -> key -> folder

A mistake in names, values, data files or needs ends here.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from medbench import adapter_plan, chains, keys, plugins, provenance, spec, supervise
from medbench.adapter_plan import AdapterPlan
from medbench.backbone import Checkpoint
from medbench.errors import UserError
from medbench.method import Decoder, Method, Tuner
from medbench.metric import Metric
from medbench.needs import check_depth, require
from medbench.order import partners
from medbench.plugins import Plugin
from medbench.provider import Provider
from medbench.read_splits import Split, Splits
from medbench.run_folder import run_folder
from medbench.task import Sample, Task
from medbench.task_scores import ready_metrics

# In float32 answers do not depend on the batch (tested), elsewhere they may.
EXACT_BATCH, SAFE_BATCH = 16, 1


@dataclass(frozen=True)
class Request:
    """One run as asked for: spec strings and options.

    `record_steps` keeps the attention of every step beside the answers; it moves none of them.
    """

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
    record_steps: bool = False
    out: Path = Path("results/runs")

    @property
    def command(self) -> str:
        """The command line that asks for this run."""
        words = ["medbench", "run"]
        for one in fields(self):
            value = getattr(self, one.name)
            if one.default is MISSING or value != one.default:
                words.append(f"--{one.name.replace('_', '-')}")
                words += [] if value is True else [str(value)]
        return shlex.join(words)


@dataclass(frozen=True)
class Cell:
    """One run, resolved: method x task x backbone x seed, and its folder.

    Attributes:
        samples: of the test split, in the fixed order that runs and limits follow, cut to the
            limit; every: all of them.
        passport: counts and hashes of what was read (`medbench.data.passport`).
        identity: everything that can move an answer; key: its hash.
        missing: ids left out for want of an image.
        metrics: those of the task that answered their golden examples.
        unavailable: of the others, what they lack on this machine; answers do not wait for it.
        providers: of the tuner's targets, by its parameter.
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
    passport: Mapping[str, Any]
    metrics: tuple[Metric, ...]
    unavailable: Mapping[str, UserError]
    device: str
    dtype: str
    batch_size: int
    identity: dict[str, Any]
    key: str
    folder: Path
    display: dict[str, str]
    adapter: AdapterPlan | None = None
    providers: Mapping[str, Provider] = field(default_factory=dict[str, Provider])

    @property
    def partial(self) -> bool:
        """Whether some samples of the split are left out."""
        return bool(self.missing) or len(self.samples) < len(self.every)


def plan(request: Request, splits: Splits | None = None) -> Cell:
    """Resolve a request.

    Args:
        splits: what reads the task's samples; those of other plans, so that they share the reading.

    Raises:
        UserError: anything about it that cannot work.
    """
    named = look_up(request)
    check_options(request)
    _check_needs(named, request)
    task = create_task(named.task_spec, request.data)
    splits = splits or Splits()
    found = splits.read(task, "test", allow_missing=request.allow_missing_images)
    every = found.samples
    samples = every[: request.limit] if request.limit else every
    checkpoint: Checkpoint = plugins.create("backbone", named.backbone_spec)[1]
    methods: list[Method] = [
        plugins.create("method", one, named.tuning if plugin.role == "tuner" else {})[1]
        for plugin, one in zip(named.methods, named.chain, strict=True)
    ]
    depth = checkpoint.depth()
    for method in methods:
        check_depth(method, depth)
    tuner = methods[0] if isinstance(methods[0], Tuner) else None
    decoder_plugin, decoder = named.methods[-1], methods[-1]
    if not isinstance(decoder, Decoder):
        decoder_plugin, decoder = plugins.create("method", spec.parse("greedy"))
    if decoder.image == "other":
        partners(every, request.seed)
    if "roi" in decoder.needs and not any(sample.roi for sample in samples):
        raise UserError(
            f"{decoder.name} cannot run on these samples",
            f"It needs a region; none of the {len(samples)} samples of {request.task} has one.",
            "Take data with regions, or more samples.",
        )

    from medbench.decoding.select import resolve
    from medbench.model.load import resolve_device

    device, dtype = resolve_device(request.device, request.dtype)
    batch_size = request.batch_size or (EXACT_BATCH if dtype == "float32" else SAFE_BATCH)
    task_identity = {**keys.identity(named.task, task), "version": task.version}
    backbone_identity = {
        **keys.identity(named.backbone, checkpoint),
        "weights": provenance.hash_files(checkpoint.files()),
        "dtype": dtype,
        "device": device.partition(":")[0],
    }
    adapter, providers = None, dict[str, tuple[Plugin, Provider]]()
    if tuner is not None and tuner.adapter:
        adapter = adapter_plan.given(tuner, named.methods[0], backbone=backbone_identity)
    elif tuner is not None:
        providers = supervise.create(tuner, named.task.attributes, _offers(named))
        supervision = supervise.identity(providers)
        train = splits.read(task, "train", allow_missing=request.allow_missing_images)
        adapter = _plan_training(
            request, tuner, named, train, task_identity, backbone_identity, supervision
        )
    identity = {
        "engine": keys.ENGINE,
        "task": {**task_identity, "split": "test", "samples": found.digest},
        "backbone": backbone_identity,
        "tuner": adapter.identity["tuner"] if adapter else None,
        "adapter": adapter.key if adapter else None,
        "decoder": {
            **keys.identity(decoder_plugin, decoder),
            "selection": vars(resolve(decoder, request.preset)),
        },
        "preset": request.preset,
        "seed": request.seed,
        "limit": request.limit if len(samples) < len(every) else None,
        "batch_size": batch_size,
    }
    metrics, unavailable = ready_metrics(task, device)
    key = keys.key(identity)
    folder = run_folder(
        request.out, task=request.task, backbone=request.backbone, method=request.method, key=key
    )
    return Cell(
        request=request,
        task=task,
        checkpoint=checkpoint,
        tuner=tuner,
        decoder=decoder,
        samples=samples,
        every=every,
        missing=found.missing,
        passport=found.passport,
        metrics=metrics,
        unavailable=unavailable,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        identity=identity,
        key=key,
        folder=folder,
        display={
            "task": shown(named.task_spec, task),
            "backbone": shown(named.backbone_spec, checkpoint),
            "method": "+".join(map(shown, named.chain, methods)),
        },
        adapter=adapter,
        providers={name: provider for name, (_, provider) in providers.items()},
    )


@dataclass(frozen=True)
class Named:
    """What a request names: specs, and the plugins as their source describes them.

    `tuning` is what the task sets for tuners.
    """

    task_spec: spec.Spec
    backbone_spec: spec.Spec
    chain: tuple[spec.Spec, ...]
    task: Plugin
    backbone: Plugin
    methods: tuple[Plugin, ...]
    tuning: dict[str, Any]


def look_up(request: Request) -> Named:
    """Find all names and read all values, from source alone: a typo must not wait for torch.

    Raises:
        UserError: a name is unknown, or a value makes no sense.
    """
    task_spec, backbone_spec = spec.parse(request.task), spec.parse(request.backbone)
    chain = spec.parse_chain(request.method)
    task = plugins.get("task", task_spec.name)
    backbone = plugins.get("backbone", backbone_spec.name)
    methods = tuple(plugins.get("method", one.name) for one in chain)
    chains.check(request.method, methods)
    tuning = dict(task.attributes.get("tuning", {}))
    for plugin, one in zip(methods, chain, strict=True):
        values = plugins.values(plugin, one, tuning if plugin.role == "tuner" else {})
        supervise.check_names(plugin, values, task.attributes)
    plugins.values(task, task_spec)
    plugins.values(backbone, backbone_spec)
    return Named(task_spec, backbone_spec, chain, task, backbone, methods, tuning)


def check_options(request: Request) -> None:
    """Make sure that preset and counts make sense.

    Raises:
        UserError: they do not.
    """
    from medbench.presets import PRESETS

    if request.preset not in PRESETS:
        raise UserError(f"no preset '{request.preset}'", "", f"Take {' or '.join(PRESETS)}.")
    for name, value in (("--limit", request.limit), ("--batch-size", request.batch_size)):
        if value is not None and value < 1:
            raise UserError(f"{name} {value} makes no sense", "It is a count.", "Take 1 or more.")


def _check_needs(named: Named, request: Request) -> None:
    offers = _offers(named)
    where = f"on {request.task} with {request.backbone}"
    for plugin in named.methods:
        require(plugin.name, plugin.attributes.get("needs", ()), offers, where)


def _offers(named: Named) -> list[str]:
    return [
        *named.backbone.attributes.get("offers", ()),
        *named.task.attributes.get("offers", ()),
    ]


def prepare_task(
    written: str, data: str, split: str, *, allow_missing: bool = False
) -> tuple[Task, Split]:
    """Return a task and a split of it, in the order of runs.

    Raises:
        UserError: the spec is wrong, there are no samples, or an image is broken.
    """
    task = create_task(spec.parse(written), data)
    return task, Splits().read(task, split, allow_missing=allow_missing)


def create_task(task_spec: spec.Spec, data: str) -> Task:
    """Return the task of a spec; `data` is its folder where the spec names none.

    Raises:
        UserError: the name or a value is wrong.
    """
    task: Task = plugins.create("task", task_spec)[1]
    return replace(task, data=data) if data and not task.data else task


def _plan_training(
    request: Request,
    tuner: Tuner,
    named: Named,
    train: Split,
    task_identity: dict[str, Any],
    backbone_identity: dict[str, Any],
    supervision: dict[str, Any],
) -> AdapterPlan:
    if tuner.epochs is None:
        raise UserError(
            f"{tuner.name} does not know how long to train",
            f"{named.task_spec.name} sets no epochs.",
            f'Write "{tuner.name}[epochs=N]".',
        )
    return adapter_plan.to_train(
        tuner,
        named.methods[0],
        train=train.samples,
        task={**task_identity, "split": "train", "samples": train.digest},
        backbone=backbone_identity,
        supervision=supervision,
        seed=request.seed,
        root=request.out / "adapters",
    )


def shown(written: spec.Spec, instance: Method | Task | Checkpoint) -> str:
    """Return a spec for display, without paths and what does not move answers."""
    kept = tuple((k, v) for k, v in written.values if k not in instance.unkeyed)
    told = spec.Spec(written.name, kept)
    return str(supervise.shown(told, instance) if isinstance(instance, Tuner) else told)
