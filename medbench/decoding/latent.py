"""Gradients with respect to the image's embeddings, through the attention that they receive."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from medbench.model.attention import AttentionProbe
from medbench.model.llava import Backbone
from medbench.model.prompt import Prompt
from medbench.model.rows import RowMasks, left_padded, positions, where


def energy_gradient(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    features: Tensor,
    energy: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Return an energy of the attention on the image, and its gradient by the image's embeddings.

    The weights are left alone; samples do not see each other, so that each gets its own gradient.

    Args:
        features: [samples, N, width], in the places of the prompts' own.
        energy: from `relevance` [samples, N] to [samples].

    Returns:
        The energies, float32 [samples], and float32 [samples, N, width].
    """
    with torch.enable_grad():
        latent = features.detach().float().requires_grad_(True)
        energies = energy(relevance(backbone, prompts, latent))
        (gradient,) = torch.autograd.grad(energies.sum(), latent)
    return energies.detach(), gradient


def relevance(backbone: Backbone, prompts: Sequence[Prompt], features: Tensor) -> Tensor:
    """Return the attention that what follows the image pays to it, float32 [samples, N].

    The mean over decoder layers, heads, and the positions after the image; zeros where there are
    none.

    Args:
        features: [samples, N, width], in the places of the prompts' own.
    """
    placed = [p.with_features(one) for p, one in zip(prompts, features, strict=True)]
    filled = left_padded([torch.ones_like(prompt.visual) for prompt in placed])
    visual = left_padded([prompt.visual for prompt in placed])
    question = left_padded([prompt.question for prompt in placed])
    for state in backbone.row_states:
        state.begin(RowMasks(filled, visual, question, filled))
    seen = visual.long().cumsum(1)
    queries, real = where(filled & ~visual & (seen == seen[:, -1:]))
    columns, _ = where(visual)
    # A prompt that ends with its image has nobody who looks at it.
    weight = (real / real.sum(1, keepdim=True).clamp(min=1)).unsqueeze(-1)
    layers: list[Tensor] = []
    probe = AttentionProbe(
        queries, columns, lambda _, rows: layers.append((rows.mean(1) * weight).sum(1))
    )
    backbone.language_model(
        inputs_embeds=left_padded([backbone.embed(prompt) for prompt in placed]),
        attention_mask=filled.long(),
        position_ids=positions(filled),
        use_cache=False,
        logits_to_keep=1,
        probes=(probe,),
    )
    return torch.stack(layers).mean(0)
