"""ControlMLLM: before answering, learn a change of the image's embeddings that draws attention."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from medbench.decoding.context import DecodeContext
from medbench.decoding.latent import energy_gradient
from medbench.method import Decoder
from medbench.model.prompt import Prompt


@dataclass(frozen=True)
class ControlMLLM(Decoder):
    """Learn, for each question, a change of the image's embeddings that draws attention to the RoI.

    With r the attention that the text behind the image pays to it, the energy
    alpha (1 - sum_RoI r / sum r)^2 falls by gradient steps on a latent that is added to the
    embeddings; its moving average is what is added. Then the answer is decoded as usual. The region
    is the task's own, which no other method is shown. A sample without one, or whose region covers
    no patch, is decoded as it is.

    Args:
        steps: gradient steps.
        learning_rate: of a step; App. B has 4, and 1 for LLaVA-Med-1.5.
        alpha: scale of the energy.
        beta: share of the new latent in the moving average.
        cmllm_accumulate: whether each step adds its average to what the step before made of the
            embeddings, as published, or to the embeddings of the image.
        early_stop_percent: change of the energy, against its first value, that ends the steps; none
            goes to the end.
    """

    name = "controlmllm"
    paper = "Wu et al. 2024, arXiv:2407.21534; beta 0.5, alpha 400, rate 4 as in A3Tune, App. B"
    needs = ("image_span", "attention", "training", "roi")
    variants = {
        "official": {"learning_rate": 1.0},
        "official-rtc": {"learning_rate": 1.0, "steps": 4},
        "llava-med-1.5": {"learning_rate": 1.0},
    }
    deviates = (
        "regions are masks, in the backbone's own image geometry; the scripts' boxes, points and "
        "scribbles and the demo's other stopping rule are not there; App. B gives no number of "
        "steps, 5 is the published one; A3Tune published no code that runs it"
    )
    rows_per_token = "1, after one pass forward and back per step over the prompt"
    extra_memory = "activations of the prompt, and the attention of its text on all layers"

    steps: int = 5
    learning_rate: float = 4.0
    alpha: float = 400.0
    beta: float = 0.5
    cmllm_accumulate: bool = True
    early_stop_percent: float | None = 25.0

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError("steps is 0 or more")
        if not 0 <= self.beta <= 1:
            raise ValueError("beta lies in 0 to 1")
        if min(self.learning_rate, self.alpha, self.early_stop_percent or 0) < 0:
            raise ValueError("learning_rate, alpha and early_stop_percent are 0 or more")

    def prepare(self, prompts: list[Prompt], context: DecodeContext) -> list[Prompt]:
        """Give the prompts that have a region the embeddings learnt for it."""
        found = {
            index: region
            for index, (prompt, roi) in enumerate(zip(prompts, context.rois, strict=True))
            if roi is not None and (region := self.region(context, prompt, roi)).any()
        }
        if not found or not self.steps:
            return prompts
        chosen = [prompts[index] for index in found]
        learnt, passes = self.learn(context, chosen, torch.stack(list(found.values())))
        changed = {
            index: replace(prompts[index], features=features, passes=count)
            for index, features, count in zip(found, learnt, passes, strict=True)
        }
        return [changed.get(index, prompt) for index, prompt in enumerate(prompts)]

    def region(self, context: DecodeContext, prompt: Prompt, roi) -> Tensor:
        """Return which image tokens lie in the region, bool [N]."""
        backbone = context.backbone
        patches = torch.from_numpy(backbone.geometry.mask_to_grid(roi) > 0).flatten()
        inside = torch.zeros(int(prompt.visual.sum()), dtype=torch.bool)
        # A class token among the features comes first, and lies nowhere.
        inside[-len(patches) :] = patches
        return inside.to(backbone.device)

    def learn(
        self, context: DecodeContext, prompts: list[Prompt], regions: Tensor
    ) -> tuple[Tensor, list[int]]:
        """Return the changed embeddings, float32 [samples, N, width], and the passes it took.

        Args:
            regions: bool [samples, N].
        """

        def energy(relevance: Tensor) -> Tensor:
            inside = (relevance * regions).sum(1) / relevance.sum(1).clamp(min=1e-12)
            return self.alpha * (1 - inside) ** 2

        image = torch.stack([p.features for p in prompts if p.features is not None]).float()
        embeddings, latent, average = image, torch.zeros_like(image), torch.zeros_like(image)
        going = torch.ones(len(prompts), 1, 1, dtype=torch.bool, device=image.device)
        passes, first = torch.zeros_like(going, dtype=torch.long), None
        for step in range(self.steps):
            current = self.beta * latent + (1 - self.beta) * average
            start = embeddings if self.cmllm_accumulate else image
            embeddings = torch.where(going, start + current, embeddings)
            passes += going
            value, gradient = energy_gradient(context.backbone, prompts, embeddings, energy)
            first = value if first is None else first
            if step and self.early_stop_percent is not None:
                changed = (value - first).abs() > self.early_stop_percent / 100 * first.abs()
                going = going & ~changed[:, None, None]
            if not going.any():
                break
            # The first average is the latent itself, so that the first gradient counts in full.
            gradient = gradient * (self.beta if step else 1.0)
            average = torch.where(going, current, average)
            latent = torch.where(going, latent - self.learning_rate * gradient, latent)
        current = self.beta * latent + (1 - self.beta) * average
        learnt = (embeddings if self.cmllm_accumulate else image) + current
        return learnt, passes.flatten().tolist()
