"""PAI: pay more attention to the image, and less to what the text alone suggests."""

from dataclasses import dataclass
from typing import Literal

from medbench.decoding.context import DecodeContext
from medbench.decoding.plausibility import plausible
from medbench.decoding.reading import Reading, VisualEdit
from medbench.method import Decoder
from medbench.model.prompt import Prompt


@dataclass(frozen=True)
class PAI(Decoder):
    """Pay attention to the image: amplify its attention scores, subtract what text alone says.

    In the layers from `start_layer` on, the score e of each image token becomes e + alpha |e|
    for the query that makes the next token. scores = gamma lc - (gamma - 1) lu, where
    lc(y) >= max lc + ln beta; lu is what the model says without the image, unamplified.

    Args:
        gamma: weight of the image; 1 leaves out the second branch and the cut.
        alpha: how much to amplify.
        beta: plausibility cut on the main branch; 0 cuts nothing.
        start_layer: first layer to amplify, from 0; in models of no more layers than that the last.
        end_layer: layer to stop before; none goes on to the last.
        pai_prefill: whether the first token's scores are amplified too ("apply"). The published
            code with gamma above 1 does not ("skip").
        uncond_prompt: the second branch's prompt: the whole one without its image, or the bare
            question.
    """

    name = "pai"
    paper = "Liu et al. 2025, arXiv:2407.21771; layers 2-32, gamma 1.1, alpha 0.2 as in A3Tune, App. B"
    needs = ("image_span", "attention")
    variants = {
        "official": {},
        "a3tune": {"pai_prefill": "apply", "uncond_prompt": "question"},
    }
    deviates = (
        "A3Tune's code amplifies the first token of all samples but the first of a process; its "
        "bare question is that of the prompt's own tokens, without a literal <image>"
    )
    rows_per_token = "2 (1 with gamma=1)"
    extra_memory = "keys and values of the text, padded to the length of the main rows"

    gamma: float = 1.1
    alpha: float = 0.2
    beta: float = 0.1
    start_layer: int = 2
    end_layer: int | None = None
    pai_prefill: Literal["skip", "apply"] = "skip"
    uncond_prompt: Literal["template", "question"] = "template"

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise ValueError("beta lies in 0 to 1")
        if self.start_layer < 0:
            raise ValueError("start_layer is 0 or more")
        if self.end_layer is not None and self.end_layer <= self.start_layer:
            raise ValueError("end_layer lies above start_layer")

    def check(self, depth):
        """Make sure that the layers are there."""
        if self.end_layer is not None and self.end_layer > depth.language:
            raise ValueError(f"end_layer is {self.end_layer}")

    def reading(self, depth):
        """Amplify the scores of the image tokens."""
        first = min(self.start_layer, depth.language - 1)
        layers = range(first, self.end_layer or depth.language)
        # Without a second branch the published code amplifies the prompt's last query as well.
        prompt = self.pai_prefill == "apply" or self.gamma == 1
        return Reading(edit=VisualEdit(layers, self.amplified, prompt=prompt))

    def amplified(self, scores):
        """Return e + alpha |e|."""
        return scores + self.alpha * scores.abs()

    def branches(self, prompts: list[Prompt], context: DecodeContext) -> dict[str, list[Prompt]]:
        """Add the prompts without their images, or the questions alone."""
        if self.gamma == 1:
            return {}
        if self.uncond_prompt == "template":
            return {"text": [prompt.without_image() for prompt in prompts]}
        begin = context.backbone.tokenizer.bos_token_id
        return {"text": [prompt.only_question(begin) for prompt in prompts]}

    def combine(self, logits, step):
        """Weigh the two branches where the main one finds a token plausible."""
        conditioned = logits["main"].log_softmax(-1)
        if self.gamma == 1:
            return conditioned
        text = logits["text"].log_softmax(-1)
        scores = self.gamma * conditioned - (self.gamma - 1) * text
        return plausible(scores, conditioned, self.beta)
