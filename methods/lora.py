"""LoRA fine-tuning of the language model, the papers' baseline."""

from dataclasses import dataclass

from medbench.method import Tuner


@dataclass(frozen=True)
class LoRA(Tuner):
    """LoRA on every linear layer of the language model; vision tower and projector stay frozen.

    Rank 64, alpha 16, dropout 0.05, AdamW at 2e-4 with a cosine schedule and an effective batch
    of 32. The loss is the mean over samples of the mean over their answer tokens, which is
    what the published runs compute at one sample per device. Alpha is from the published
    code; the paper does not say it.
    """

    name = "lora"
    paper = "Hu et al. 2021, arXiv:2106.09685; settings of A3Tune, Appendix C and Table 7"
    needs = ("training",)
