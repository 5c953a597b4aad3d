"""Tokens per second and peak memory of each decoder, against greedy and against the old way.

    python benchmarks/decoding.py                            # mid-size random model, CPU
    python benchmarks/decoding.py --shape 7b --device cuda --dtype bfloat16

In one process, methods take turns in every round; ratios are of one round, and the table gives
their median with the lowest and highest. "Sequential" is what the published implementations do: one
sample, one forward pass per branch, and for OPERA one per candidate. Decoding is timed from the
first pass after the prompts; "cost" is everything, image and prompt included.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import platform
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import torch
from model import SHAPES, random_backbone
from torch import Tensor, nn

import medbench
from medbench.decoding.context import DecodeContext
from medbench.decoding.generate import create_decoder
from medbench.decoding.lookahead import BeamStack, Proposals
from medbench.decoding.reading import Reading
from medbench.decoding.stack import RowStack
from medbench.images import encode
from medbench.model.llava import Backbone

METHODS = (
    "greedy", "beam", "vcd", "dola", "avisc", "m3id", "damro", "pai", "opera", "controlmllm",
)  # fmt: skip
# The published passes of these are the ones made here: batch 1 is their sequential way.
SAME_PASSES = ("beam", "controlmllm")
QUESTION = "is there a nodule in the left lung of this patient"


@dataclass(frozen=True)
class Timing:
    """One call: seconds of all of it and of what came after the prompts, and bytes at the peak."""

    whole: float
    decoding: float
    peak: int


def main() -> None:
    """Read the command line, time, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="mid")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    backbone = random_backbone(SHAPES[options.shape], device, dtype)
    names = options.methods.split(",")
    print(describe(options, backbone), flush=True)
    for name in names:
        stacked(backbone, name, 1, 2)  # what is slow only once
    rounds = [
        {name: one_round(backbone, name, options) for name in names} for _ in range(options.rounds)
    ]
    print(table(rounds, names, options))


def one_round(backbone: Backbone, name: str, options: argparse.Namespace) -> dict[str, Timing]:
    """Time a method once in each way."""
    tokens, batch = options.tokens, options.batch
    timed = {
        "one": timing(backbone, lambda: stacked(backbone, name, 1, tokens)),
        "batch": timing(backbone, lambda: stacked(backbone, name, batch, tokens)),
    }
    if name in SAME_PASSES:
        return timed | {"sequential": timed["one"]}
    published = published_opera if name == "opera" else sequential
    timed["sequential"] = timing(backbone, lambda: published(backbone, name, tokens))
    return timed


def stacked(backbone: Backbone, method: str, batch: int, tokens: int) -> None:
    """Decode a batch as medbench does."""
    pixels, rois = inputs(backbone, batch)
    medbench.generate(
        backbone,
        method=method,
        pixel_values=pixels,
        prompts=[QUESTION] * batch,
        rois=rois,
        max_new_tokens=tokens,
        batch_size=batch,
    )


@torch.no_grad()
def sequential(backbone: Backbone, method: str, tokens: int) -> None:
    """Decode one sample with a stack, and so a forward pass, for every branch."""
    decoder = create_decoder(method)
    pixels, _ = inputs(backbone, 1)
    features, looked = encode(backbone, decoder, pixels)
    prompts = [backbone.prompt(QUESTION, features)]
    main = RowStack(backbone, prompts, decoder.reading(backbone.depth) or Reading())
    context = DecodeContext(
        backbone,
        ("0",),
        pixel_values=pixels,
        looked=None if looked is None else looked[None],
        prompt_attention=main.prompt_attention,
    )
    others = {
        name: RowStack(backbone, rows, joins=True)
        for name, rows in decoder.branches(prompts, context).items()
    }
    for step in range(tokens):
        logits = {"main": main.logits, **{name: stack.logits for name, stack in others.items()}}
        if main.early is not None:
            logits["early"] = main.early
        picked = decoder.combine(logits, step).argmax(-1)
        if step + 1 < tokens:
            for stack in (main, *others.values()):
                stack.append(picked)


def published_opera(backbone: Backbone, method: str, tokens: int) -> None:
    """Decode one sample by OPERA with a pass for each candidate, and one for what is taken."""
    module = sys.modules[type(create_decoder(method)).__module__]
    with mock.patch.object(module, "BeamStack", PassByPass):
        stacked(backbone, method, 1, tokens)


class PassByPass(BeamStack):
    """Beams whose candidates are looked at one after the other."""

    def propose(self, candidates: Tensor) -> Proposals:
        """Look one token ahead in K passes, which are forgotten one by one."""
        looks: list[Proposals] = []
        for candidate in candidates.split(1, dim=1):
            looks.append(super().propose(candidate))
            self.discard()
        self._candidates = candidates
        return Proposals(
            torch.cat([look.logits for look in looks], dim=1),
            torch.cat([look.rows for look in looks], dim=2),
            None,
        )

    def accept(self, parents: Tensor, choices: Tensor) -> None:
        """Go on with these proposals, by a pass of their own."""
        tokens = self._candidates[parents, choices]
        self.keep(parents, same_prompts=True)
        self.append(tokens)


def inputs(backbone: Backbone, batch: int) -> tuple[torch.Tensor, list[np.ndarray]]:
    """Return random pixels, and a region in the lower right quarter for each image."""
    size = backbone.geometry.size
    draw = torch.Generator().manual_seed(0)
    roi = np.zeros((size, size), dtype=bool)
    roi[size // 2 :, size // 2 :] = True
    return torch.randn(batch, 3, size, size, generator=draw), [roi] * batch


def timing(backbone: Backbone, call: Callable[[], None]) -> Timing:
    """Time a call; the peak is what it holds beyond what was held before."""
    starts: list[float] = []

    def note(_module: nn.Module, _inputs: Any, arguments: dict[str, Any]) -> None:
        cache = arguments["past_key_values"] if arguments["use_cache"] else None
        # The first pass that finds something in the cache is the first after the prompts.
        if not starts and cache is not None and cache.get_seq_length():
            starts.append(now(backbone))

    hook = backbone.language_model.register_forward_pre_hook(note, with_kwargs=True)
    gc.collect()
    with hook, Watch(backbone) as watch:
        begin = now(backbone)
        call()
        end = now(backbone)
    return Timing(end - begin, end - starts[0], watch.peak)


def now(backbone: Backbone) -> float:
    """Return the time in seconds once the device has done what it was told."""
    if backbone.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class Watch:
    """Watches memory for its peak above the start: a GPU's own count, or that of the process.

    Resident memory is looked at from a thread.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.gpu = backbone.device.type == "cuda"
        self.peak = 0

    def __enter__(self) -> Watch:
        if self.gpu:
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated()
            return self
        if platform.system() == "Linux":
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # else what was freed still counts as held
        self.start, self.ended = resident(), threading.Event()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.gpu:
            self.peak = torch.cuda.max_memory_allocated() - self.start
            return
        self.ended.set()
        self.thread.join()

    def look(self) -> None:
        """Look every few milliseconds until told to end."""
        while not self.ended.wait(0.005):
            self.peak = max(self.peak, resident() - self.start)


def resident() -> int:
    """Return this process's resident bytes; 0 where there is no /proc."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * 4096 if path.exists() else 0


def table(
    rounds: list[dict[str, dict[str, Timing]]], names: list[str], options: argparse.Namespace
) -> str:
    """Return the table in Markdown."""
    new, batch = options.tokens - 1, options.batch

    def spread(values: list[float], digits: int = 2) -> str:
        middle, low, high = median(values), min(values), max(values)
        return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"

    lines = [
        f"| method | sequential, tokens/s | batch 1, tokens/s | batch {batch}, tokens/s "
        f"| batch {batch} : sequential | cost : greedy, batch {batch} "
        f"| decoding : greedy, batch {batch} | peak, MiB, batch {batch} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        one = [r[name]["one"] for r in rounds]
        many = [r[name]["batch"] for r in rounds]
        greedy = [r["greedy"]["batch"] for r in rounds] if "greedy" in names else many
        alone = [r[name]["sequential"] for r in rounds]
        faster = [batch * a.decoding / m.decoding for a, m in zip(alone, many, strict=True)]
        cells = [
            f"{median(new / a.decoding for a in alone):.1f}",
            f"{median(new / a.decoding for a in one):.1f}",
            f"{median(batch * new / m.decoding for m in many):.1f}",
            spread(faster),
            spread([m.whole / g.whole for m, g in zip(many, greedy, strict=True)]),
            spread([m.decoding / g.decoding for m, g in zip(many, greedy, strict=True)]),
            f"{median(m.peak for m in many) / 2**20:.0f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def describe(options: argparse.Namespace, backbone: Backbone) -> str:
    """Return what was run, and on what."""
    weights = sum(weight.nelement() for weight in backbone.language_model.parameters())
    gpu = torch.cuda.get_device_name() if backbone.device.type == "cuda" else ""
    return (
        f"{options.shape}: {weights / 1e6:.0f} M weights in {backbone.layers} layers, "
        f"{backbone.image_tokens} image tokens, {options.dtype}, {options.tokens} new tokens, "
        f"{options.rounds} rounds; {gpu or platform.processor() or platform.machine()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
