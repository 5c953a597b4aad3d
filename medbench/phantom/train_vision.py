"""First stage: the vision tower learns to say, patch by patch, which organ and lesion is there.

Dense labels teach it in two minutes what answers to questions would take hours to teach. The
head that reads the labels is thrown away; the tower is frozen from then on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from medbench.phantom.draw import Mask, draw, lesion_mask, organ_mask
from medbench.phantom.model import DEVIATION, GRID, PATCH, TOKENS, to_pixels, visual_features
from medbench.phantom.world import LESIONS, ORGAN_NAMES, Scene

Bytes: TypeAlias = npt.NDArray[np.uint8]
Report: TypeAlias = Callable[[str], None]

SIZES = ("small", "large")
MAPS = (*ORGAN_NAMES, *LESIONS, *SIZES)
_LESION_MAPS = slice(len(ORGAN_NAMES), len(MAPS))
_FULL_COVERAGE = 0.3  # a patch with this share of its pixels inside counts as a full positive


@dataclass(frozen=True)
class VisionRecipe:
    """Step counts and rates of the first stage."""

    steps: int = 2000
    batch: int = 16
    learning_rate: float = 2e-3
    warmup: int = 50
    lesion_weight: float = 3.0


@dataclass(frozen=True)
class Pictures:
    """Drawn scenes: grey images uint8 [n, 64, 64] and patch labels uint8 [n, 64, maps]."""

    images: Bytes
    labels: Bytes


def draw_all(scenes: Sequence[Scene], workers: int = 1) -> Pictures:
    """Draw scenes and their patch labels, in several processes if asked."""
    parts = [scenes[start : start + 500] for start in range(0, len(scenes), 500)]
    if workers > 1 and len(parts) > 1:
        with ProcessPoolExecutor(workers) as pool:
            drawn = list(pool.map(_draw_part, parts))
    else:
        drawn = [_draw_part(part) for part in parts]
    images = np.concatenate([images for images, _ in drawn])
    return Pictures(images, np.concatenate([labels for _, labels in drawn]))


def patch_labels(scene: Scene) -> Bytes:
    """Return how much each map covers each patch, uint8 [64, maps]; 255 is a full positive."""
    maps = np.zeros((len(MAPS), TOKENS), np.float32)
    for organ in scene.organs:
        maps[MAPS.index(organ.name)] = _cover(organ_mask(scene, organ.name))
    for lesion in scene.lesions:
        cover = _cover(lesion_mask(lesion))
        for name in (lesion.type, lesion.size):
            row = MAPS.index(name)
            maps[row] = np.maximum(maps[row], cover)
    return np.rint(255 * np.minimum(maps.T / _FULL_COVERAGE, 1)).astype(np.uint8)


def train_vision(
    model: LlavaForConditionalGeneration,
    pictures: Pictures,
    *,
    recipe: VisionRecipe,
    seed: int,
    say: Report,
) -> list[dict[str, float]]:
    """Train the vision tower on patch labels; return the log."""
    tower = model.model.vision_tower
    head = nn.Linear(tower.config.hidden_size, len(MAPS))
    parameters = [*tower.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: cosine_after_warmup(step, recipe.warmup, recipe.steps)
    )
    weight = torch.ones(len(MAPS))
    weight[_LESION_MAPS] = recipe.lesion_weight
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.from_numpy(pictures.images), torch.from_numpy(pictures.labels)
    log: list[dict[str, float]] = []
    total, start = 0.0, time.process_time()
    tower.train()
    for step in range(1, recipe.steps + 1):
        rows = torch.randint(len(images), (recipe.batch,), generator=generator)
        pixels = jitter(to_pixels(images[rows].numpy()), generator)
        logits = head(visual_features(model, pixels))
        loss = nn.functional.binary_cross_entropy_with_logits(
            logits, labels[rows].float() / 255, pos_weight=weight
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % 100 == 0 or step == recipe.steps:
            count = step % 100 or 100
            log.append(
                {
                    "step": step,
                    "loss": round(total / count, 5),
                    "cpu_seconds": round(time.process_time() - start, 1),
                }
            )
            say(f"vision {log[-1]}")
            total = 0.0
    tower.eval().requires_grad_(False)
    return log


@torch.no_grad()
def encode(model: LlavaForConditionalGeneration, images: Bytes) -> Tensor:
    """Return the frozen tower's features of all images, float16 [images, 64, width]."""
    parts = [
        visual_features(model, to_pixels(images[start : start + 128])).to(torch.float16)
        for start in range(0, len(images), 128)
    ]
    return torch.cat(parts)


def jitter(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Vary brightness and noise, so that the tower doesn't rely on either."""
    rows = len(pixels)
    gain = 0.85 + 0.3 * torch.rand(rows, 1, 1, 1, generator=generator)
    level = 0.03 * torch.rand(rows, 1, 1, 1, generator=generator) / DEVIATION
    noise = torch.randn(rows, 1, *pixels.shape[2:], generator=generator)
    return pixels * gain + level * noise


def cosine_after_warmup(step: int, warmup: int, steps: int) -> float:
    """Return the learning rate's factor at a step: a linear rise, then half a cosine."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.5 * (1 + float(np.cos(np.pi * done)))


def _cover(mask: Mask) -> npt.NDArray[np.float32]:
    patches = mask.reshape(GRID, PATCH, GRID, PATCH).mean((1, 3), dtype=np.float32)
    return patches.reshape(TOKENS)


def _draw_part(scenes: Sequence[Scene]) -> tuple[Bytes, Bytes]:
    images = np.stack([draw(scene) for scene in scenes])
    return images, np.stack([patch_labels(scene) for scene in scenes])
