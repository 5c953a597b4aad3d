"""PAI: pay more attention to the image, and less to what the text alone suggests."""

from dataclasses import dataclass
from typing import Literal

from medbench.decoding.contrast import Contrast
from medbench.decoding.reading import Reading, VisualEdit


@dataclass(frozen=True)
class PAI(Contrast):
    """Pay attention to the image: amplify its attention scores, subtract what text alone says.

    In some layers the score e that the newest query gives an image token becomes e + alpha |e|.
    scores = gamma lc - (gamma - 1) lu, where lc(y) >= max lc + ln beta; lu is the log-probability
    without the image, unamplified.

    Args:
        gamma: weight of the image; 1 leaves out the second branch and the cut.
        alpha: how much to amplify.
        start_layer: first layer to amplify, from 0; the last one where there are not as many.
        end_layer: layer to stop before; none goes on to the last.
        pai_prefill: "apply" amplifies the first token's query too; the published code with gamma
            above 1 does not.
        uncond_prompt: what the second branch reads: the prompt without its image, or the bare
            question.
    """

    name = "pai"
    paper = "Liu et al. 2025, arXiv:2407.21771; layers 2-32, gamma 1.1, alpha 0.2: A3Tune, App. B"
    needs = ("image_span", "attention")
    published = {"select": "argmax"}
    variants = {
        "official": {},
        "a3tune": {"pai_prefill": "apply", "uncond_prompt": "question"},
    }
    deviates = "A3Tune's code skips the amplified prefill for the first sample of each process"
    rows_per_token = "2, with gamma=1 one"
    extra_memory = "keys and values of the text, padded to the main rows' length"

    gamma: float = 1.1
    alpha: float = 0.2
    start_layer: int = 2
    end_layer: int | None = None
    pai_prefill: Literal["skip", "apply"] = "skip"
    uncond_prompt: Literal["template", "question"] = "template"

    def __post_init__(self):
        super().__post_init__()
        end = self.start_layer + 1 if self.end_layer is None else self.end_layer
        if not 0 <= self.start_layer < end:
            raise ValueError("start_layer is 0 or more, and end_layer lies above it")

    def check(self, depth):
        """Make sure that the layers are there."""
        if (self.end_layer or 0) > depth.language:
            raise ValueError(f"end_layer is {self.end_layer}")

    def reading(self, depth):
        """Amplify the attention on the image; without a second branch always from the prompt on."""
        layers = range(min(self.start_layer, depth.language - 1), self.end_layer or depth.language)
        prompt = self.pai_prefill == "apply" or self.gamma == 1
        return Reading(edit=VisualEdit(layers, lambda e: e + self.alpha * e.abs(), prompt))

    def branches(self, prompts, context):
        """Add the negative prompts, unless they would not count."""
        return {} if self.gamma == 1 else super().branches(prompts, context)

    def negative_prompts(self, prompts, context):
        """Return the prompts without their images, or the questions alone."""
        if self.uncond_prompt == "template":
            return [prompt.without_image() for prompt in prompts]
        return [prompt.only_question(context.backbone.begin_token_id) for prompt in prompts]

    def contrasted(self, main, negative, step):
        """Move away from what the text alone says."""
        return self.gamma * main.log_softmax(-1) - (self.gamma - 1) * negative.log_softmax(-1)

    def combine(self, logits, step):
        """Contrast the two branches; a single one is taken as it is."""
        return logits["main"].log_softmax(-1) if self.gamma == 1 else super().combine(logits, step)
