"""Step time and peak memory of each tuner, against lora and against the published way to a3tune.

    python benchmarks/tuning.py                             # mid-size random model, CPU
    python benchmarks/tuning.py --seven-b --device cuda     # LLaVA-shaped, 7 billion weights

A step is forward, backward and AdamW on one micro-batch. In one process, tuners take turns in
every round, forwards and backwards; ratios are of one round, and the table gives their median with
the lowest and highest. On a CPU time is the process's own CPU time, which a busy machine
moves less than the clock, and memory is the peak of a process of its own above what the loaded
model holds. "eager" is a3tune as published: eager attention, every map of every layer
kept and copied into one tensor, the image's columns cut out, heads chosen and averaged afterwards.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from model import SHAPES, Shape, random_backbone
from torch import Tensor

from medbench import plugins, spec
from medbench.errors import UserError
from medbench.method import Tuner
from medbench.model import attention
from medbench.model.llava import Backbone
from medbench.model.rows import positions, where
from medbench.tuning import alignment
from medbench.tuning.adapter import Adapter, attached
from medbench.tuning.batch import Example, TrainBatch, collate
from medbench.tuning.step import language_loss, losses

# Name -> the tuner's spec; "eager" is a3tune with other losses.
TUNERS = {"lora": "lora", "a3tune": "a3tune", "medalign": "medalign", "eager": "a3tune"}
# Tokens of a prompt before the image and after it, and of an answer.
BEFORE, QUESTION, ANSWER = 35, 64, 25
SEGMENTS = 4


@dataclass(frozen=True)
class Step:
    """One step: seconds, and of its peak bytes above the loaded model."""

    seconds: float
    peak: int = 0


def main() -> None:
    """Read the command line, time, and print the table."""
    options = command_line()
    if options.only:
        name, samples = options.only.split(",")
        print(json.dumps(peak_here(options, name, int(samples))))
        return
    torch.manual_seed(0)
    backbone = backbone_of(options)
    names, notes = there(options)
    print(describe(options, backbone), *notes, sep="\n", flush=True)
    for samples in options.batches:
        rounds = [one_round(backbone, options, names, samples, n) for n in range(options.rounds)]
        print(table(rounds, names, samples), flush=True)


def command_line() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="")
    parser.add_argument("--seven-b", action="store_true", help="7 billion weights, in bfloat16")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--image", type=int, default=336, help="side in pixels; patches have 14")
    parser.add_argument("--tuners", default=",".join(TUNERS))
    parser.add_argument("--batches", default="1,2", help="samples a step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="timed steps a round")
    parser.add_argument(
        "--memory-rounds", type=int, default=3, help="processes a tuner; 0 for none"
    )
    parser.add_argument("--aligned", type=float, default=1 / 8, help="part of the heads: R")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.batches = [int(part) for part in options.batches.split(",")]
    options.dtype = options.dtype or ("bfloat16" if options.seven_b else "float32")
    return options


def backbone_of(options: argparse.Namespace) -> Backbone:
    """Return the random model that is asked for; its vision tower is small, and not used."""
    small: dict[str, Any] = {"vision_layers": 2, "vision_width": 64, "size": options.image}
    if options.seven_b:
        shape = replace(SHAPES["7b"], **small)
    else:
        inner = options.width * 11 // 4
        heads = options.heads
        shape = Shape(options.layers, options.width, inner, heads, heads, 32000, **small, patch=14)
    return random_backbone(shape, torch.device(options.device), getattr(torch, options.dtype))


def there(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return which of the tuners asked for there are, and a note for each that is not."""
    names, notes = [], []
    for name in options.tuners.split(","):
        try:
            plugins.get("method", TUNERS[name])
            names.append(name)
        except UserError:
            notes.append(f"no method {name} here")
    return names, notes


def make_tuner(options: argparse.Namespace, backbone: Backbone, name: str) -> Tuner:
    """Return a tuner with the settings of its paper, made for a model of this depth."""
    heads = max(1, int(backbone.layers * backbone.heads * options.aligned))
    written = {"lora": "", "medalign": ""}.get(name, f"align_weight=0.1,R={heads}")
    checkpointing = "gradient_checkpointing=true" if options.checkpointing else ""
    values = ",".join(filter(None, (written, checkpointing)))
    return plugins.create("method", spec.parse(f"{TUNERS[name]}[{values}]"))[1]


def one_round(
    backbone: Backbone, options: argparse.Namespace, names: list[str], samples: int, number: int
) -> dict[str, Step]:
    """Measure every tuner once; every other round takes them from the end."""
    found: dict[str, Step] = {}
    for name in names if number % 2 == 0 else names[::-1]:
        with stepping(backbone, options, name, samples) as step:
            step()  # what is slow only once
            seconds = []
            with watched(backbone) as peak:
                for _ in range(options.steps):
                    begin = now(backbone)
                    step()
                    seconds.append(now(backbone) - begin)
        found[name] = Step(median(seconds), peak())
    if backbone.device.type == "cpu" and number < options.memory_rounds:
        found = {
            name: replace(one, peak=peak_elsewhere(name, samples)) for name, one in found.items()
        }
    return found


@contextmanager
def stepping(
    backbone: Backbone, options: argparse.Namespace, name: str, samples: int
) -> Generator[Callable[[], None]]:
    """Yield what takes an optimiser step with a fresh adapter on the backbone."""
    tuner = make_tuner(options, backbone, name)
    examples = [make_example(backbone, tuner, number) for number in range(samples)]
    compute = eager_losses if name == "eager" else losses
    with attached(backbone, tuner) as adapter:
        weights = list(adapter.trainable().values())
        optimizer = torch.optim.AdamW(weights, lr=1e-4)
        adapter.train(True)

        def step() -> None:
            parts = compute(tuner, adapter, collate(adapter.backbone, examples))
            loss = torch.stack([part.sum() for part in parts.values()]).sum() / samples
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        yield step


def make_example(backbone: Backbone, tuner: Tuner, number: int) -> Example:
    """Return a sample of random tokens, features, and targets."""
    draw = torch.Generator().manual_seed(number)
    width = backbone.language_model.config.hidden_size
    image = backbone.image_tokens
    features = torch.randn(image, width, generator=draw).to(backbone.device, backbone.dtype)
    before, question, answer = (
        torch.randint(200, 2000, (count,), generator=draw).tolist()
        for count in (BEFORE, QUESTION, ANSWER)
    )
    ids = [*before, *[backbone.image_token_id] * image, *question]
    targets: dict[str, Tensor] = {}
    if tuner.name == "a3tune":
        targets["segments"] = (torch.rand(SEGMENTS, image, generator=draw) < 0.1).float()
    if tuner.name == "medalign":
        targets["similarity"] = torch.rand(1, image, image, generator=draw)
        targets["expert_attention"] = torch.rand(1, image, generator=draw)
    return Example(str(number), backbone.prompt_from_ids(ids, features), answer, targets)


def eager_losses(tuner: Any, adapter: Adapter, batch: TrainBatch) -> dict[str, Tensor]:
    """Return a3tune's losses the published way; one sample at a time has no padding to leave out.

    The published code concatenates the maps of all layers, cuts rows and columns out, and averages
    all heads' maps times the choice.
    """
    for state in adapter.backbone.row_states:
        state.begin(batch.masks)
    plain = adapter.model.get_base_model()
    plain.set_attn_implementation("eager")
    try:
        output = adapter.model(
            inputs_embeds=batch.embeddings,
            attention_mask=batch.masks.filled.long(),
            position_ids=positions(batch.masks.filled),
            use_cache=False,
            output_attentions=True,
            logits_to_keep=ANSWER + 1,
        )
    finally:
        plain.set_attn_implementation(attention.NAME)
    columns, _ = where(batch.masks.visual)
    first, last = int(columns[0, 0]), int(columns[0, -1]) + 1
    every = torch.stack(output.attentions, dim=1)
    rows = every[..., last:, :]
    seen = rows[..., first:last]
    ratio = seen.sum((-1, -2)) / rows.sum((-1, -2))
    heads = alignment.top_heads(ratio.float(), tuner.R)
    visual_map = (seen * heads[..., None, None]).mean((1, 2)).float()
    segments = batch.targets["segments"]
    valid = torch.ones(visual_map.shape[:2], dtype=torch.bool, device=visual_map.device)
    energy = alignment.energy(
        visual_map, valid, segments.values, segments.present, reduce="mean_of_squares"
    )
    labels = batch.labels[:, 1 - output.logits.shape[1] :]
    return {
        "language": language_loss(output.logits, labels),
        "alignment": tuner.align_weight * energy,
    }


def now(backbone: Backbone) -> float:
    """Return seconds: of the process's CPUs, or of the clock once a GPU has done its work."""
    if backbone.device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


@contextmanager
def watched(backbone: Backbone) -> Generator[Callable[[], int]]:
    """Yield what tells a GPU's peak above the start in bytes; 0 on a CPU."""
    gpu = backbone.device.type == "cuda"
    gc.collect()
    weights = torch.cuda.memory_allocated() if gpu else 0
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    yield lambda: torch.cuda.max_memory_allocated() - weights if gpu else 0


def peak_elsewhere(name: str, samples: int) -> int:
    """Return the peak of two steps in a process of its own, in bytes above the loaded model."""
    command = [sys.executable, *sys.argv, "--only", f"{name},{samples}"]
    # What is freed goes back at once, so that what is resident is what is held.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout))


def peak_here(options: argparse.Namespace, name: str, samples: int) -> int:
    """Load, take two steps, and return the growth of the highest resident memory, in bytes."""
    backbone = backbone_of(options)
    gc.collect()
    if platform.system() == "Linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    start = forget_peak()
    with stepping(backbone, options, name, samples) as step:
        step()
        step()
    return highest() - start


def forget_peak() -> int:
    """Let the highest resident memory be what is held now, where the system can; return it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return highest()


def highest() -> int:
    """Return the highest resident memory so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(one for one in status.read_text().splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def table(rounds: list[dict[str, Step]], names: list[str], samples: int) -> str:
    """Return the table in Markdown."""

    def spread(values: list[float], digits: int = 2) -> str:
        middle, low, high = median(values), min(values), max(values)
        return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"

    def ratios(value: Callable[[Step], float], name: str, base: str) -> str:
        both = [(value(one[name]), value(one[base])) for one in rounds if base in one]
        both = [(mine, theirs) for mine, theirs in both if mine and theirs]
        return spread([mine / theirs for mine, theirs in both]) if both else "-"

    def more(name: str) -> str:
        """Return the ratio of what is held beyond lora, to eager."""
        found = [one for one in rounds if {"lora", "eager"} <= one.keys() and one["lora"].peak]
        extra = [
            (one[name].peak - one["lora"].peak) / (one["eager"].peak - one["lora"].peak)
            for one in found
        ]
        return spread(extra) if extra and name != "lora" else "-"

    lines = [
        f"| tuner, batch {samples} | step, s | : lora | eager : it | peak, MiB | : lora "
        "| beyond lora : eager's |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        peaks = [one[name].peak / 2**20 for one in rounds if one[name].peak]
        eager = [one["eager"].seconds / one[name].seconds for one in rounds if "eager" in one]
        cells = [
            spread([one[name].seconds for one in rounds]),
            ratios(lambda one: one.seconds, name, "lora"),
            spread(eager) if eager else "-",
            f"{median(peaks):.0f}" if peaks else "-",
            ratios(lambda one: one.peak, name, "lora"),
            more(name),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def describe(options: argparse.Namespace, backbone: Backbone) -> str:
    """Return what was run, and on what."""
    weights = sum(weight.nelement() for weight in backbone.language_model.parameters())
    gpu = torch.cuda.get_device_name() if backbone.device.type == "cuda" else ""
    length = BEFORE + backbone.image_tokens + QUESTION + ANSWER
    return (
        f"{weights / 1e6:.0f} M weights in {backbone.layers} layers, {backbone.heads} heads, "
        f"{backbone.image_tokens} image tokens of {length}, {options.dtype}, {options.rounds} "
        f"rounds of {options.steps} steps; {gpu or platform.machine()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
