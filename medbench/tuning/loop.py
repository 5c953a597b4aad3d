"""The training loop: batches -> losses -> steps, with checkpoints and exact resume."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_cosine_schedule_with_warmup

from medbench.atomic import write_atomically
from medbench.errors import UserError
from medbench.method import Tuner
from medbench.tuning.adapter import Adapter
from medbench.tuning.batch import Example, collate
from medbench.tuning.step import TrainView, forward, losses

CHECKPOINT = "checkpoint.pt"
LOG = "train.jsonl"
# A checkpoint is written when training has gone on for this many times what writing one takes.
PATIENCE = 20
SHORTEST = 10.0


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
    report: Callable[[Progress], None] = lambda _: None,
) -> None:
    """Train an attached adapter; going on from the folder's checkpoint if there is one.

    Every step draws its order and its dropout from the seed and the step's number, so a run that
    was killed and continued takes the same steps as one that was not.

    Args:
        count: number of training samples; example: encodes the i-th of them.
        folder: gets `train.jsonl`, one line a step, and `checkpoint.pt`, which whoever saves the
            adapter deletes when that is done.
        report: called after each step.

    Raises:
        UserError: no samples, a loss that is not finite, or a checkpoint that cannot be read.
    """
    if not count:
        raise UserError("nothing to train on", "The training split is empty.")
    parameters = adapter.trainable()
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=tuner.learning_rate, weight_decay=tuner.weight_decay
    )
    per_epoch = math.ceil(count / tuner.batch_size)
    steps = per_epoch * epochs
    schedule = get_cosine_schedule_with_warmup(
        optimizer, math.ceil(steps * tuner.warmup_ratio), steps
    )
    done = _restore(folder, adapter, optimizer, schedule)
    _cut_log(folder / LOG, done)
    last_saved, cost = time.monotonic(), 0.0
    with (folder / LOG).open("a", encoding="utf-8") as log:
        for step, chosen in enumerate(_order(count, tuner.batch_size, epochs, seed)):
            if step < done:
                continue
            decided = tuner.calibrate(_views(tuner, adapter, chosen, example)) if not step else {}
            entry = _step(tuner, adapter, [example(i) for i in chosen], optimizer, seed, step)
            schedule.step()
            log.write(json.dumps(entry | decided) + "\n")
            log.flush()
            report(Progress(step + 1, steps, entry["loss"]))
            if time.monotonic() - last_saved > max(SHORTEST, PATIENCE * cost):
                # A checkpoint must never be ahead of the log, not even after a power cut.
                os.fsync(log.fileno())
                cost = _save(folder, step + 1, adapter, optimizer, schedule)
                last_saved = time.monotonic()


@torch.no_grad()
def _views(
    tuner: Tuner, adapter: Adapter, chosen: Sequence[int], example: Callable[[int], Example]
) -> Iterator[TrainView]:
    """Yield what the model shows on these samples, a micro-batch at a time, as it is asked for."""
    for start in range(0, len(chosen), tuner.micro_batch):
        examples = [example(i) for i in chosen[start : start + tuner.micro_batch]]
        yield forward(tuner, adapter, collate(adapter.backbone, examples))[0]


def _step(
    tuner: Tuner,
    adapter: Adapter,
    examples: Sequence[Example],
    optimizer: torch.optim.Optimizer,
    seed: int,
    step: int,
) -> dict[str, Any]:
    """Take one optimiser step over an effective batch, a micro-batch at a time."""
    adapter.train(True)
    optimizer.zero_grad(set_to_none=True)
    totals: dict[str, float] = {}
    device = adapter.backbone.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(_seed(seed, "dropout", step))
        for start in range(0, len(examples), tuner.micro_batch):
            batch = collate(adapter.backbone, examples[start : start + tuner.micro_batch])
            parts = losses(tuner, adapter, batch)
            loss = torch.stack([part.sum() for part in parts.values()]).sum() / len(examples)
            _require_finite(parts, batch.ids, step)
            loss.backward()
            for name, part in parts.items():
                totals[name] = totals.get(name, 0.0) + float(part.detach().sum()) / len(examples)
    adapter.train(False)
    norm = torch.nn.utils.clip_grad_norm_(adapter.trainable().values(), tuner.max_grad_norm)
    _require_finite({"gradient of the": norm}, [one.id for one in examples], step)
    rate = optimizer.param_groups[0]["lr"]
    optimizer.step()
    return {
        "step": step + 1,
        "loss": sum(totals.values()),
        **totals,
        "gradient_norm": float(norm),
        "learning_rate": rate,
    }


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
