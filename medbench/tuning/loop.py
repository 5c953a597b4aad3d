"""The training loop: batches -> losses -> steps, with checkpoints and exact resume.

Several processes (`medbench.processes`) take each step together: its samples are dealt out, their
gradients summed, and every process changes its own weights by the sum.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_cosine_schedule_with_warmup

from medbench.atomic import write_atomically
from medbench.errors import UserError
from medbench.method import Tuner
from medbench.processes import Team
from medbench.tuning.adapter import Adapter
from medbench.tuning.batch import Example, collate
from medbench.tuning.recompute import recomputing
from medbench.tuning.step import TrainView, forward, seen_losses

CHECKPOINT = "checkpoint.pt"
LOG = "train.jsonl"
# A checkpoint is written when training has gone on for this many times what writing one takes.
PATIENCE = 20
SHORTEST = 10.0
# How many of the tuples that a tuner observes stand in a line of the log.
MOST_FREQUENT = 5


@dataclass(frozen=True)
class Progress:
    """How far training is, for whoever shows it."""

    step: int
    steps: int
    loss: float


def train(
    tuner: Tuner,
    adapter: Adapter,
    count: int,
    example: Callable[[int], Example],
    folder: Path,
    *,
    seed: int,
    epochs: int,
    soon: Callable[[Sequence[int]], None] = lambda _: None,
    report: Callable[[Progress], None] = lambda _: None,
    team: Team | None = None,
) -> None:
    """Train an attached adapter; going on from the folder's checkpoint if there is one.

    Every step draws its order and its dropout from the seed and the step's number, so a run that
    was killed and continued takes the same steps as one that was not.

    Args:
        count: number of training samples; example: encodes the i-th of them.
        folder: gets `train.jsonl`, one line a step, and `checkpoint.pt`, which whoever saves the
            adapter deletes when that is done.
        soon: is told before each step which samples this process takes in it and in the next.
        report: called after each step.
        team: the processes that train together; all of them call this, and the leading one
            writes. By default this process alone.

    Raises:
        UserError: no samples, a loss that is not finite, or a checkpoint that cannot be read.
    """
    if not count:
        raise UserError("nothing to train on", "The training split is empty.")
    team = team or Team()
    optimizer = torch.optim.AdamW(
        adapter.trainable().values(), lr=tuner.learning_rate, weight_decay=tuner.weight_decay
    )
    per_epoch = math.ceil(count / tuner.batch_size)
    steps = per_epoch * epochs
    schedule = get_cosine_schedule_with_warmup(
        optimizer, math.ceil(steps * tuner.warmup_ratio), steps
    )
    team.copy(list(adapter.state().values()))
    done = _restored(folder, adapter, optimizer, schedule, team)
    if team.leads:
        _cut_log(folder / LOG, done)
    last_saved, cost = time.monotonic(), 0.0
    log = (folder / LOG).open("a", encoding="utf-8") if team.leads else None
    recompute = recomputing(adapter) if tuner.gradient_checkpointing else nullcontext()
    with recompute, log or nullcontext():
        order = [*_order(count, tuner.batch_size, epochs, seed)]
        for step, (chosen, following) in enumerate(zip(order, [*order[1:], []], strict=True)):
            if step < done:
                continue
            soon([*team.share(chosen), *team.share(following)])
            decided = {} if step else _calibrated(tuner, adapter, chosen, example, team)
            entry = _step(tuner, adapter, chosen, example, optimizer, seed, step, team)
            schedule.step()
            if log is None:
                continue
            log.write(json.dumps(entry | decided) + "\n")
            log.flush()
            report(Progress(step + 1, steps, entry["loss"]))
            if time.monotonic() - last_saved > max(SHORTEST, PATIENCE * cost):
                # A checkpoint must never be ahead of the log, not even after a power cut.
                os.fsync(log.fileno())
                cost = _save(folder, step + 1, adapter, optimizer, schedule)
                last_saved = time.monotonic()


def last_loss(folder: Path) -> float | None:
    """Return the loss of the last step in a folder's log; None if there was none."""
    lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    return json.loads(lines[-1])["loss"] if lines else None


def _calibrated(
    tuner: Tuner,
    adapter: Adapter,
    chosen: Sequence[int],
    example: Callable[[int], Example],
    team: Team,
) -> dict[str, Any]:
    """Let the tuner decide in the leading process, and give the others what it decided."""
    decided = team.exchange(
        lambda: tuner.calibrate(_views(tuner, adapter, chosen, example)) if team.leads else {}
    )
    if adapter.extension is not None:
        team.copy(list(adapter.extension.buffers()))
    return decided[0]


@torch.no_grad()
def _views(
    tuner: Tuner, adapter: Adapter, chosen: Sequence[int], example: Callable[[int], Example]
) -> Iterator[TrainView]:
    """Yield what the model shows on these samples, a micro-batch at a time, as it is asked for."""
    for start in range(0, len(chosen), tuner.micro_batch):
        examples = [example(i) for i in chosen[start : start + tuner.micro_batch]]
        yield forward(tuner, adapter, collate(adapter.backbone, examples))[0]


@dataclass
class _Seen:
    """What one process has to tell of its share of a step.

    Attributes:
        totals: losses by name, its part of the mean over the effective batch.
        reached: for each weight, whether a gradient came.
        norms: of each loss's gradient; observed: what `Tuner.observe` said.
    """

    ids: list[str]
    totals: dict[str, float] = field(default_factory=dict[str, float])
    reached: list[bool] = field(default_factory=list[bool])
    norms: dict[str, float] = field(default_factory=dict[str, float])
    observed: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])


def _step(
    tuner: Tuner,
    adapter: Adapter,
    chosen: Sequence[int],
    example: Callable[[int], Example],
    optimizer: torch.optim.Optimizer,
    seed: int,
    step: int,
    team: Team,
) -> dict[str, Any]:
    """Take one optimiser step over an effective batch, and return its line of the log."""
    weights = list(adapter.trainable().values())
    optimizer.zero_grad(set_to_none=True)
    every = tuner.log_terms_every
    tells_norms = team.leads and every > 0 and step % every == 0
    share = team.share(chosen)
    draws = _seed(seed, "dropout" if team.leads else f"dropout in process {team.index}", step)
    seen = team.exchange(
        lambda: _backward(
            tuner,
            adapter,
            [example(i) for i in share],
            weights,
            of=len(chosen),
            draws=draws,
            step=step,
            tells_norms=tells_norms,
        )
    )
    team.add_up(weights, [any(ones) for ones in zip(*(one.reached for one in seen), strict=True)])
    norm = torch.nn.utils.clip_grad_norm_(weights, tuner.max_grad_norm)
    if not norm.isfinite():
        ids = [name for one in seen for name in one.ids]
        team.exchange(lambda: _require_finite({"gradient of the": norm}, ids, step))
    rate = optimizer.param_groups[0]["lr"]
    optimizer.step()
    totals = {name: sum(one.totals.get(name, 0.0) for one in seen) for name in seen[0].totals}
    entry: dict[str, Any] = {
        "step": step + 1,
        "loss": sum(totals.values()),
        **totals,
        "gradient_norm": float(norm),
        "learning_rate": rate,
        **_summary([one.observed for one in seen]),
    }
    return entry | ({"gradient_norms": seen[0].norms} if seen[0].norms else {})


def _backward(
    tuner: Tuner,
    adapter: Adapter,
    examples: Sequence[Example],
    weights: Sequence[nn.Parameter],
    *,
    of: int,
    draws: int,
    step: int,
    tells_norms: bool,
) -> _Seen:
    """Put the gradients of some samples of an effective batch on the weights.

    Args:
        of: size of the effective batch; draws: seed of the dropout.
    """
    seen = _Seen([one.id for one in examples])
    device = adapter.backbone.device
    adapter.train(True)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(draws)
        for start in range(0, len(examples), tuner.micro_batch):
            batch = collate(adapter.backbone, examples[start : start + tuner.micro_batch])
            view, parts = seen_losses(tuner, adapter, batch)
            loss = torch.stack([part.sum() for part in parts.values()]).sum() / of
            _require_finite(parts, batch.ids, step)
            with torch.no_grad():
                for name, values in tuner.observe(view).items():
                    seen.observed.setdefault(name, []).extend(values)
            if tells_norms and not start and len(parts) > 1:
                seen.norms = _norms(parts, weights)
            loss.backward()
            for name, part in parts.items():
                seen.totals[name] = seen.totals.get(name, 0.0) + float(part.detach().sum()) / of
    adapter.train(False)
    seen.reached = [weight.grad is not None for weight in weights]
    return seen


def _norms(parts: Mapping[str, Tensor], weights: Sequence[nn.Parameter]) -> dict[str, float]:
    """Return the norm of each loss's own gradient, of its mean over a micro-batch.

    It puts nothing on the weights and draws nothing.
    """
    found: dict[str, float] = {}
    for name, part in parts.items():
        gradients = (
            torch.autograd.grad(part.mean(), weights, retain_graph=True, allow_unused=True)
            if part.requires_grad
            else ()
        )
        reached = cast("Sequence[Tensor | None]", gradients)
        norms = [one.norm() for one in reached if one is not None]
        found[name] = float(torch.stack(norms).norm()) if norms else 0.0
    return found


def _summary(observed: Sequence[Mapping[str, Sequence[Any]]]) -> dict[str, Any]:
    """Return what processes observed, in short: means of numbers, the most frequent tuples."""
    found: dict[str, list[Any]] = {}
    for one in observed:
        for name, values in one.items():
            found.setdefault(name, []).extend(values)
    short: dict[str, Any] = {}
    for name, values in found.items():
        if values and isinstance(values[0], tuple):
            counts = Counter(cast("list[tuple[int, ...]]", values))
            # Ties in order, so that it does not matter who saw what first.
            ranked = sorted(counts, key=lambda value: (-counts[value], value))
            short[name] = [list(value) for value in ranked[:MOST_FREQUENT]]
        elif values:
            short[name] = round(sum(values) / len(values), 6)
    return short


def _order(count: int, batch: int, epochs: int, seed: int) -> Iterator[list[int]]:
    """Yield the sample numbers of each step; every epoch is a new permutation."""
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed(_seed(seed, "order", epoch))
        order = torch.randperm(count, generator=generator).tolist()
        for start in range(0, count, batch):
            yield order[start : start + batch]


def _seed(seed: int, purpose: str, number: int) -> int:
    digest = hashlib.sha256(f"{seed}\n{purpose}\n{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _require_finite(parts: dict[str, Tensor], ids: Sequence[str], step: int) -> None:
    for name, part in parts.items():
        if not torch.isfinite(part).all():
            raise UserError(
                f"the {name} loss is not finite at step {step + 1}",
                f"Samples of the batch: {', '.join(ids)}.",
                "Lower the learning rate, or train in float32.",
            )


def _save(
    folder: Path,
    step: int,
    adapter: Adapter,
    optimizer: torch.optim.Optimizer,
    schedule: LambdaLR,
) -> float:
    """Write a checkpoint by rename; return the seconds it took."""
    begin = time.monotonic()
    state = {
        "step": step,
        "adapter": adapter.state(),
        "optimizer": optimizer.state_dict(),
        "schedule": {k: v for k, v in schedule.state_dict().items() if k != "lr_lambdas"},
    }
    write_atomically(folder / CHECKPOINT, lambda path: torch.save(state, path))
    return time.monotonic() - begin


def _restored(
    folder: Path,
    adapter: Adapter,
    optimizer: torch.optim.Optimizer,
    schedule: LambdaLR,
    team: Team,
) -> int:
    """Load the folder's checkpoint in every process; return the number of steps taken.

    It says nothing of processes: any number of them can go on from it.
    """
    steps = team.exchange(lambda: _restore(folder, adapter, optimizer, schedule))
    if len(set(steps)) > 1:
        raise UserError(
            "the processes see different checkpoints",
            f"In {folder} they find {', '.join(map(str, steps))} steps.",
            "Write to a folder that all machines share, with --out.",
        )
    return steps[0]


def _restore(
    folder: Path,
    adapter: Adapter,
    optimizer: torch.optim.Optimizer,
    schedule: LambdaLR,
) -> int:
    """Load the folder's checkpoint, if any, and return the number of steps taken."""
    if not (folder / CHECKPOINT).exists():
        return 0
    try:
        state = torch.load(folder / CHECKPOINT, weights_only=True, map_location="cpu")
        for name, tensor in adapter.state().items():
            tensor.copy_(state["adapter"][name])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"] | {"lr_lambdas": [None]})
        return int(state["step"])
    except Exception as error:  # a broken file breaks in a dozen ways
        raise UserError(
            f"cannot go on from {folder / CHECKPOINT}",
            f"{type(error).__name__}: {error}".splitlines()[0],
            "Delete it to train from the beginning.",
        ) from error


def _cut_log(path: Path, steps: int) -> None:
    """Drop the log lines of steps that will be taken again."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[:steps]
        write_atomically(path, lambda target: target.write_text("".join(lines), encoding="utf-8"))
