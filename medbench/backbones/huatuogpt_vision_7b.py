"""HuatuoGPT-Vision-7B in its original format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from medbench.original_checkpoint import OriginalCheckpoint

if TYPE_CHECKING:
    import torch

    from medbench.model.llava import Backbone


@dataclass(frozen=True)
class HuatuoGPTVision7B(OriginalCheckpoint):
    """HuatuoGPT-Vision-7B: Qwen2 7B with CLIP L/14 at 336 pixels, from its original files.

    Args:
        weights: folder or hub id of the checkpoint.
        vision: folder or hub id of the vision tower; "" takes what config.json names, a folder
            within the checkpoint.
        vision_weights: `checkpoint` takes the tower weights stored with the model, as the authors'
            loader does; `openai` those of the tower's own folder.

    The authors decode by sampling: temperature 0.2, repetition penalty 1.2. These are parameters of
    the decoders here: `--method "nucleus[temperature=0.2,top_p=1,repetition_penalty=1.2]"`.
    """

    name = "huatuogpt_vision_7b"
    paper = "HuatuoGPT-Vision (arXiv:2406.19280)"
    licence = "Apache-2.0 as its hub card says"
    source = "https://huggingface.co/FreedomIntelligence/HuatuoGPT-Vision-7B"

    weights: str = "FreedomIntelligence/HuatuoGPT-Vision-7B"
    vision_weights: Literal["openai", "checkpoint"] = "checkpoint"

    @property
    def stored_tower(self) -> bool:
        """Whether the vision tower's weights are those stored with the model."""
        return self.vision_weights == "checkpoint"

    def load(self, *, device: torch.device, dtype: torch.dtype) -> Backbone:
        """Load the checkpoint; every tensor must be there and none may be left over."""
        from medbench.model.original import Original, load_original
        from medbench.model.original_config import read_original_config
        from medbench.model.template import Template
        from medbench.model.tokenizer import load_qwen_tokenizer

        directory = self.directory()
        read_original_config(directory, "llava_qwen2")  # another kind of checkpoint is said first
        tokenizer = load_qwen_tokenizer(directory)
        kind = Original(
            name=self.name,
            offers=self.offers,
            model_type="llava_qwen2",
            fit="pad",
            template=Template(
                "<|user|>\n<image>\n{question}\n<|assistant|>\n",
                before_answer="",
                # The end token is ours: the authors' training is not published, and a model must
                # learn where to stop.
                after_answer=f" \n{tokenizer.eos_token}",
                special_tokens=False,
                image="",
            ),
        )
        return load_original(
            kind,
            directory,
            tower=self.tower(required=True),
            vision_weights=self.vision_weights,
            tokenizer=tokenizer,
            placement=self.placement(device, dtype),
        )
