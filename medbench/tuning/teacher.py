"""An expert's views on the student's grid, and the losses of a forward pass against them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from medbench import images
from medbench.expert import resample
from medbench.method import Target
from medbench.model.llava import Backbone
from medbench.provider import ExpertView
from medbench.task import Sample
from medbench.tuning import distillation
from medbench.tuning.distillation import Norm, Reduction
from medbench.tuning.extensions import part
from medbench.tuning.step import TrainView
from medbench.tuning.visual_map import VisualMap

# Names of targets in a batch.
SIMILARITY, ATTENTION, INSIDE = "similarity", "expert_attention", "inside"
# MedAlign's layer 20 of 32.
FRACTION = 0.625
_KEPT = 64


def chosen_layers(
    layers: Sequence[int], *, depth: int, fraction: float = FRACTION
) -> tuple[int, ...]:
    """Return the decoder layers whose input or attention is compared with the expert's.

    Args:
        layers: from 0; a 0 stands for the layer at that fraction of the depth, rounded down.
        depth: number of decoder layers.

    Raises:
        ValueError: a layer is not there, or none stands before it.
    """
    found = sorted({layer or int(fraction * depth) for layer in layers})
    for layer in found:
        if not 0 < layer < depth:
            raise ValueError(f"layer {layer} is not one of 1 to {depth - 1}")
    return tuple(found)


def targets(
    views: Callable[[Sample], ExpertView],
    backbone: Backbone,
    *,
    similarity: bool = False,
    attention: bool = False,
    inside: bool = False,
) -> Mapping[str, Target]:
    """Return what gives a sample's targets on the student's patch grid of N patches.

    Args:
        views: of the expert.
        similarity: whether to give S_e, [1, N, N]; attention: the class token's attention,
            [1, N]; inside: which patches have their centre in the image and not in its padding,
            [1, N].
    """
    target = backbone.geometry.grid

    def spread(view: ExpertView) -> Tensor | None:
        if view.grid == target:
            return None
        if view.grid not in spreads:
            spreads[view.grid] = resample.weights(view.grid, target)
        return spreads[view.grid]

    def similar(view: ExpertView) -> Tensor:
        return resample.similarity(torch.from_numpy(view.gram), spread(view))[None]

    def looked_at(view: ExpertView) -> Tensor:
        attention, to_grid = torch.from_numpy(view.attention), spread(view)
        return (attention if to_grid is None else to_grid @ attention)[None]

    def in_image(view: ExpertView) -> Tensor:
        mask = backbone.geometry.mask_to_grid(np.ones(view.size, bool))
        return torch.from_numpy(mask).view(1, -1)

    spreads: dict[tuple[int, int], Tensor] = {}
    wanted = {
        SIMILARITY: similar if similarity else None,
        ATTENTION: looked_at if attention else None,
        INSIDE: in_image if inside else None,
    }
    return {name: _by_picture(views, make) for name, make in wanted.items() if make is not None}


def similarity_loss(view: TrainView) -> Tensor:
    """Return L_vis of each sample, [samples], the mean over the visual map's layers."""
    steered = part(view.extension, VisualMap)
    assert steered is not None and steered.states
    wanted = view.batch.targets[SIMILARITY]
    count = wanted.values.shape[-1]
    present, inside = _compared(view, SIMILARITY), _inside(view)
    if not present.any():
        return torch.zeros(len(present), device=present.device)
    # A class token among the visual tokens stands first and is compared with nothing.
    each = [
        distillation.similarity(states[:, -count:], wanted.values[:, 0], present, inside=inside)
        for _, states in sorted(steered.states.items())
    ]
    return torch.stack(each).mean(0)


def attention_loss(
    view: TrainView, *, norm: Norm = "sum", reduction: Reduction = "sum", tau: float = 1.0
) -> Tensor:
    """Return L_att of each sample, [samples], the mean over the layers that were read.

    Args:
        norm, reduction, tau: as in `distillation.attention`.
    """
    assert view.attention is not None and view.valid is not None
    wanted = view.batch.targets[ATTENTION]
    count = wanted.values.shape[-1]
    present, inside = _compared(view, ATTENTION), _inside(view)
    if not present.any():
        return torch.zeros(len(present), device=present.device)
    each = [
        distillation.attention(
            distillation.student_map(rows[..., -count:], view.valid),
            wanted.values[:, 0],
            present,
            norm=norm,
            reduction=reduction,
            tau=tau,
            inside=inside,
        )
        for rows in view.attention.unbind(1)
    ]
    return torch.stack(each).mean(0)


def _compared(view: TrainView, name: str) -> Tensor:
    """Return who has both an image and a target, bool [samples]."""
    return view.batch.targets[name].present[:, 0] & view.batch.masks.visual.any(1)


def _inside(view: TrainView) -> Tensor | None:
    target = view.batch.targets.get(INSIDE)
    return None if target is None else target.values[:, 0] > 0


def _by_picture(
    views: Callable[[Sample], ExpertView], make: Callable[[ExpertView], Tensor]
) -> Target:
    """Return what makes a sample's target, and keeps those of the last few pictures."""
    kept: OrderedDict[str, Tensor] = OrderedDict()

    def target(sample: Sample) -> Tensor:
        name = images.name(sample)
        if name not in kept:
            kept[name] = make(views(sample))
            if len(kept) > _KEPT:
                kept.popitem(last=False)
        kept.move_to_end(name)
        return kept[name]

    return target
