"""LLaVA-Med 1.5 in its original format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from medbench.original_checkpoint import OriginalCheckpoint

if TYPE_CHECKING:
    import torch

    from medbench.model.llava import Backbone

_TEMPLATES = {
    "vicuna_v1": (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions. "
        "USER: <image>\n{question} ASSISTANT:"
    ),
    "mistral_instruct": "[INST] <image>\n{question} [/INST]",
}


@dataclass(frozen=True)
class LlavaMed15(OriginalCheckpoint):
    """LLaVA-Med 1.5: Mistral 7B with CLIP L/14 at 336 pixels, from its original files.

    Args:
        weights: folder or hub id of the checkpoint.
        vision: folder or hub id of the vision tower; "" takes what config.json names.
        vision_weights: the checkpoint holds tower weights which its authors' loader drops; it
            takes those of OpenAI's CLIP instead, and so did all published results. `checkpoint`
            takes what is stored.
        template: `vicuna_v1` is what A3Tune trains and tests with, and the default of the authors'
            evaluation script; `mistral_instruct` is the conversation of the authors' demo.

    The published evaluation shifts the padded image by a pixel at random; here it is never shifted.
    """

    name = "llava_med_1.5"
    paper = "LLaVA-Med (arXiv:2306.00890), version 1.5"
    licence = "Apache-2.0 as its hub card says; for research, not for clinical use"
    source = "https://huggingface.co/microsoft/llava-med-v1.5-mistral-7b"

    weights: str = "microsoft/llava-med-v1.5-mistral-7b"
    vision_weights: Literal["openai", "checkpoint"] = "openai"
    template: Literal["vicuna_v1", "mistral_instruct"] = "vicuna_v1"

    @property
    def stored_tower(self) -> bool:
        """Whether the vision tower's weights are those stored with the model."""
        return self.vision_weights == "checkpoint"

    def load(self, *, device: torch.device, dtype: torch.dtype) -> Backbone:
        """Load the checkpoint; every tensor must be there and none may be left over."""
        from medbench.model.original import Original, load_original
        from medbench.model.original_config import read_original_config
        from medbench.model.template import Template
        from medbench.model.tokenizer import load_llama_tokenizer

        directory = self.directory()
        read_original_config(directory, "llava_mistral")  # another kind of checkpoint is said first
        tokenizer = load_llama_tokenizer(directory, slow=False)
        kind = Original(
            name=self.name,
            offers=self.offers,
            model_type="llava_mistral",
            fit="pad",
            template=Template(_TEMPLATES[self.template], after_answer="</s>", image=""),
        )
        return load_original(
            kind,
            directory,
            tower=self.tower(required=not self.stored_tower),
            vision_weights=self.vision_weights,
            tokenizer=tokenizer,
            placement=self.placement(device, dtype),
        )
