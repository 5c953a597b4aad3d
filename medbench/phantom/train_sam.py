"""A Segment Anything of a third of a million weights learns to find the phantom world's things.

It is made of the library's own classes and trained from nothing on single points. What stands in
for "subpart, part, whole" is fixed: the three masks of a point are the disc at or near it, the
organ under it, and the body. Lesions and decoys are discs alike, for a SAM knows no meaning. The
output for a single mask, which the automatic generator never asks for, stays as it was drawn.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from medbench.labels.segment import build_sam
from medbench.labels.settings import SAM_CONFIG, SAM_WEIGHTS
from medbench.phantom.draw import Mask, draw, lesion_mask, organ_mask
from medbench.phantom.muon import Muon
from medbench.phantom.train_vision import cosine_after_warmup
from medbench.phantom.world import LESIONS, ORGAN_NAMES, SIZE, Lesion, Scene

Report: TypeAlias = Callable[[str], None]

PATCH = 4
SAM: dict[str, Any] = {
    "image_size": SIZE,
    "patch_size": PATCH,
    "encoder": {
        "embed_dim": 64,
        "depth": 4,
        "num_heads": 4,
        "mlp_ratio": 4.0,
        "window_size": 8,
        "global_attn_indexes": [1, 3],
        "use_rel_pos": False,
        "use_abs_pos": True,
        "qkv_bias": True,
    },
    "out_chans": 48,
    "mask_in_chans": 8,
    "decoder": {
        "num_multimask_outputs": 3,
        "transformer_depth": 2,
        "num_heads": 4,
        "mlp_dim": 96,
        "iou_head_depth": 2,
        "iou_head_hidden_dim": 48,
    },
    "pixel_mean": [60.0] * 3,
    "pixel_std": [45.0] * 3,
}
LEVELS = ("disc", "organ", "body")
_MAPS = (*ORGAN_NAMES, *LESIONS)
_GRID = SIZE // PATCH
_NOTED = 100  # steps a line of the log


@dataclass(frozen=True)
class SamRecipe:
    """Step counts and rates.

    Attributes:
        images, points: images a step, and prompts on each.
        learning_rate: of AdamW; matrix_rate: of Muon, for the matrices inside.
        reach: a point so many pixels outside a disc still asks for it; a grid of eight points a
            side puts none inside most small discs.
        near, inside: shares of the points near a disc and inside an organ; the rest is anywhere.
        focal: weight of the focal loss beside the dice loss.
        levels: weights of the masks of `LEVELS`.
        dense_lesion_weight: of a positive in the auxiliary head's maps of lesion types.
    """

    steps: int = 3500
    images: int = 8
    points: int = 6
    learning_rate: float = 3e-3
    matrix_rate: float = 0.02
    warmup: int = 50
    reach: float = 3.0
    near: float = 0.5
    inside: float = 0.25
    focal: float = 10.0
    levels: tuple[float, float, float] = (2.0, 1.0, 0.5)
    dense_lesion_weight: float = 4.0


@dataclass(frozen=True)
class Example:
    """One image with its prompts.

    Attributes:
        image: grey, uint8 [64, 64].
        points: x, y in pixels, float32 [points, 2].
        targets: what each point asks for at each level, bool [points, 3, 64, 64]; empty where
            there is nothing.
        dense: how much each map of the auxiliary head covers each patch, float32 [maps, 16, 16].
    """

    image: npt.NDArray[np.uint8]
    points: npt.NDArray[np.float32]
    targets: Mask
    dense: npt.NDArray[np.float32]


def example(scene: Scene, recipe: SamRecipe, generator: np.random.Generator) -> Example:
    """Draw a scene, and prompts with what they ask for."""
    discs = (*scene.lesions, *scene.decoys)
    disc_masks = [lesion_mask(disc) for disc in discs]
    organ_masks = [organ_mask(scene, organ.name) for organ in scene.organs]
    body = organ_mask(replace(scene, organs=(scene.body,)), scene.body.name)
    points = np.zeros((recipe.points, 2), np.float32)
    targets = np.zeros((recipe.points, len(LEVELS), SIZE, SIZE), bool)
    for index in range(recipe.points):
        x, y = _point(discs, organ_masks, recipe, generator)
        points[index] = x, y
        column, row = round(x), round(y)
        nearest = _nearest(discs, x, y, recipe.reach)
        if nearest is not None:
            targets[index, 0] = disc_masks[nearest]
        for mask in organ_masks:
            if mask[row, column]:
                targets[index, 1] = mask
        if body[row, column]:
            targets[index, 2] = body
    dense = np.zeros((len(_MAPS), _GRID, _GRID), np.float32)
    for organ, mask in zip(scene.organs, organ_masks, strict=True):
        dense[_MAPS.index(organ.name)] = _cover(mask)
    for disc, mask in zip(discs, disc_masks, strict=True):
        dense[_MAPS.index(disc.type)] += _cover(mask)
    return Example(draw(scene), points, targets, np.minimum(dense, 1))


def train_sam(
    scenes: Sequence[Scene], *, recipe: SamRecipe, seed: int, say: Report
) -> tuple[Any, list[dict[str, float]]]:
    """Train a SAM on scenes, each seen once in a pass; return it with the log."""
    torch.manual_seed(seed)
    sam: Any = build_sam(SAM)
    head = nn.Conv2d(SAM["out_chans"], len(_MAPS), 1)
    sam.train()
    initialise(sam)
    steppers = optimizers(
        [sam, head],
        [sam.image_encoder.blocks, sam.mask_decoder.transformer],
        rate=recipe.learning_rate,
        matrix_rate=recipe.matrix_rate,
    )
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: cosine_after_warmup(step, recipe.warmup, recipe.steps)
        )
        for optimizer in steppers
    ]
    parameters = [*sam.parameters(), *head.parameters()]
    generator = np.random.default_rng(seed)
    order = np.arange(0)
    log: list[dict[str, float]] = []
    sums, start = np.zeros(len(LEVELS) + 2), time.process_time()
    for step in range(1, recipe.steps + 1):
        if len(order) < recipe.images:
            order = generator.permutation(len(scenes))
        rows, order = order[: recipe.images], order[recipe.images :]
        batch = [example(scenes[int(row)], recipe, generator) for row in rows]
        losses = sam_losses(sam, head, batch, recipe)
        weights = torch.tensor([*recipe.levels, 1.0, 1.0])
        for optimizer in steppers:
            optimizer.zero_grad()
        (losses * weights).sum().backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer, schedule in zip(steppers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        sums += losses.detach().numpy()
        if step % _NOTED == 0 or step == recipe.steps:
            means = np.round(sums / (step % _NOTED or _NOTED), 4).tolist()
            log.append(
                {
                    "step": step,
                    **dict(zip((*LEVELS, "iou", "dense"), means, strict=True)),
                    "cpu_seconds": round(time.process_time() - start, 1),
                }
            )
            say(f"sam {log[-1]}")
            sums[:] = 0
    return sam.eval().requires_grad_(False), log


@torch.no_grad()
def initialise(sam: Any) -> None:
    """Draw weights that make masks vary from the start.

    A mask is a product of two small networks' outputs. By default both are nearly constant, and
    a third of the training goes by before either has a gradient worth the name.
    """
    nn.init.trunc_normal_(sam.image_encoder.pos_embed, std=0.02)
    for layer in sam.mask_decoder.output_upscaling:
        if isinstance(layer, nn.ConvTranspose2d):
            # kernel and stride are equal, so that a pixel is a sum over the input's channels only
            nn.init.normal_(layer.weight, std=(2 / layer.in_channels) ** 0.5)
    for network in sam.mask_decoder.output_hypernetworks_mlps:
        for layer in network.layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def sam_losses(sam: Any, head: nn.Module, batch: Sequence[Example], recipe: SamRecipe) -> Tensor:
    """Return the losses of the three levels, of the IoU head and of the auxiliary head, [5].

    The library's decoder takes one image a call, so the images go through it one by one.
    """
    images = torch.from_numpy(np.stack([one.image for one in batch])).float()
    pixels = sam.preprocess(images[:, None].expand(-1, 3, -1, -1))
    embeddings = sam.image_encoder(pixels)
    position = sam.prompt_encoder.get_dense_pe()
    logits, predicted = list[Tensor](), list[Tensor]()
    for embedding, one in zip(embeddings, batch, strict=True):
        points = torch.from_numpy(one.points)[:, None]
        sparse, dense = sam.prompt_encoder(
            points=(points, torch.ones(points.shape[:2])), boxes=None, masks=None
        )
        masks, quality = sam.mask_decoder(embedding[None], position, sparse, dense, True)
        logits.append(masks)
        predicted.append(quality)
    wanted = torch.from_numpy(np.concatenate([one.targets for one in batch])).float()
    level, iou = mask_losses(torch.cat(logits), torch.cat(predicted), wanted, recipe.focal)
    cover = torch.from_numpy(np.stack([one.dense for one in batch]))
    weight = torch.ones(len(_MAPS), 1, 1)
    weight[len(ORGAN_NAMES) :] = recipe.dense_lesion_weight
    auxiliary = nn.functional.binary_cross_entropy_with_logits(
        head(embeddings), cover, pos_weight=weight
    )
    return torch.stack([*level, iou, auxiliary])


def mask_losses(
    logits: Tensor, predicted: Tensor, wanted: Tensor, focal: float
) -> tuple[Tensor, Tensor]:
    """Return focal plus dice loss of each level, [levels], and the error of the predicted IoU.

    Args:
        logits, wanted: [n, levels, 64, 64]; where nothing is wanted, only the IoU, zero, counts.
        predicted: the IoU that the model predicts, [n, levels].
        focal: weight of the focal loss.
    """
    shares = logits.sigmoid()
    plain = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    wrong = shares + wanted - 2 * shares * wanted
    focals = (wrong**2 * plain).mean((2, 3))
    overlap = 2 * (shares * wanted).sum((2, 3))
    dice = 1 - (overlap + 1) / (shares.sum((2, 3)) + wanted.sum((2, 3)) + 1)
    there = wanted.amax((2, 3))
    level = ((focal * focals + dice) * there).sum(0) / there.sum(0).clamp_min(1)
    with torch.no_grad():
        found = logits > 0
        both = (found * wanted).sum((2, 3))
        iou = both / (found.sum((2, 3)) + wanted.sum((2, 3)) - both).clamp_min(1)
    return level, nn.functional.mse_loss(predicted, iou)


def optimizers(
    parts: Sequence[nn.Module], inside: Sequence[nn.Module], *, rate: float, matrix_rate: float
) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices inside some transformers, and AdamW for the rest of the parts.

    Muon's orthogonal updates leave the plateau at the start in half the steps.
    """
    inner = [one for part in inside for one in part.parameters() if one.ndim == 2]
    known = {id(one) for one in inner}
    rest = [one for part in parts for one in part.parameters() if id(one) not in known]
    return [
        Muon(inner, lr=matrix_rate),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.02),
    ]


def write_sam(sam: Any, folder: Path) -> None:
    """Write a trained SAM's description, and its weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SAM_CONFIG).write_text(json.dumps(SAM, indent=1) + "\n", encoding="utf-8")
    weights = {name: one.half().contiguous() for name, one in sam.state_dict().items()}
    save_file(weights, folder / SAM_WEIGHTS)


def _point(
    discs: Sequence[Lesion],
    organs: Sequence[Mask],
    recipe: SamRecipe,
    generator: np.random.Generator,
) -> tuple[float, float]:
    place = generator.random()
    if place < recipe.near and discs:
        disc = discs[int(generator.integers(len(discs)))]
        distance = (disc.radius + recipe.reach) * generator.random() ** 0.5
        angle = generator.uniform(0, 2 * np.pi)
        x, y = disc.x + distance * np.cos(angle), disc.y + distance * np.sin(angle)
    elif place < recipe.near + recipe.inside:
        rows, columns = np.nonzero(organs[int(generator.integers(len(organs)))])
        index = generator.integers(len(rows))
        x, y = columns[index], rows[index]
    else:
        x, y = generator.uniform(0, SIZE - 1, 2)
    return float(np.clip(x, 0, SIZE - 1)), float(np.clip(y, 0, SIZE - 1))


def _nearest(discs: Sequence[Lesion], x: float, y: float, reach: float) -> int | None:
    """Return the disc whose edge is nearest, or None if no disc is within reach."""
    gaps = [((x - d.x) ** 2 + (y - d.y) ** 2) ** 0.5 - d.radius for d in discs]
    nearest = min(range(len(gaps)), key=gaps.__getitem__, default=None)
    return nearest if nearest is not None and gaps[nearest] <= reach else None


def _cover(mask: Mask) -> npt.NDArray[np.float32]:
    return mask.reshape(_GRID, PATCH, _GRID, PATCH).mean((1, 3), dtype=np.float32)
