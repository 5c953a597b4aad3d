"""LLaVA-Med 1.0 in its original format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medbench.errors import UserError
from medbench.hub import locate
from medbench.original_checkpoint import OriginalCheckpoint

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from medbench.model.llava import Backbone

_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
_BLOCK = "<im_start><image><im_end>"
_TEMPLATES = {
    "image_first": f"{_SYSTEM}###Human: {_BLOCK}\n{{question}}###",
    "question_first": f"{_SYSTEM}###Human: {{question}}\n{_BLOCK}###",
}
_TRAINING = f"{_SYSTEM}\n\n### Human: {_BLOCK}\n{{question}}\n"


@dataclass(frozen=True)
class LlavaMed(OriginalCheckpoint):
    """LLaVA-Med 1.0: LLaMA 7B with CLIP L/14 at 224 pixels, from its original files.

    Args:
        weights: folder or hub id of the checkpoint, or of the published delta if `base` is given.
        base: folder or hub id of LLaMA 7B, to which the delta in `weights` is added while loading;
            `medbench backbone convert` adds them once and for all.
        vision: folder or hub id of the vision tower; "" takes what config.json names. The
            checkpoint itself holds no tower.
        template: `image_first` is what A3Tune trains and tests with, `question_first` the order of
            LLaVA-Med's own evaluation. The model writes "Assistant:" itself.
    """

    name = "llava_med"
    paper = "LLaVA-Med (arXiv:2306.00890)"
    licence = "Microsoft Research License and the LLaMA licence of its base; for research only"
    source = "https://github.com/microsoft/LLaVA-Med (delta of version 1.0) and LLaMA 7B from Meta"

    weights: str = ""
    base: str = ""
    template: Literal["image_first", "question_first"] = "image_first"

    def files(self) -> Iterator[Path]:
        """Yield the configs, tokenizer files and weights that are read, of the base as well."""
        from medbench.model.weights import weight_files

        yield from super().files()
        if self.base:
            yield from weight_files(self.base_directory())

    def load(self, *, device: torch.device, dtype: torch.dtype) -> Backbone:
        """Load the checkpoint; every tensor must be there and none may be left over."""
        from medbench.model.delta import merged, refuse_a_bare_delta
        from medbench.model.original import Original, load_original
        from medbench.model.original_config import read_original_config
        from medbench.model.template import Template
        from medbench.model.tokenizer import load_llama_tokenizer

        directory = self.directory()
        read_original_config(directory, "llava")  # another kind of checkpoint is said first
        tokenizer = load_llama_tokenizer(directory, slow=True)
        kind = Original(
            name=self.name,
            offers=self.offers,
            model_type="llava",
            fit="crop",
            template=Template(
                _TEMPLATES[self.template],
                training=_TRAINING,
                before_answer="### Assistant: ",
                after_answer="\n### ",
                image="<im_patch>",
            ),
            image_token_id=self._image_token(directory, tokenizer),
            stop_strings=("###",),
            penalises_prompt=True,  # the original generates from ids
        )
        if not self.base:
            refuse_a_bare_delta(directory)
        return load_original(
            kind,
            directory,
            tower=self.tower(required=True),
            vision_weights="openai",
            tokenizer=tokenizer,
            placement=self.placement(device, dtype),
            tensors=dict(merged(self.base_directory(), directory)) if self.base else None,
        )

    def base_directory(self) -> Path:
        """Return the folder of LLaMA 7B.

        Raises:
            UserError: there is none.
        """
        return locate(self.base, what=f"{self.name}'s base")

    def _image_token(self, directory: Path, tokenizer: PreTrainedTokenizerBase) -> int:
        known = tokenizer.get_vocab()
        if any(word not in known for word in ("<im_patch>", "<im_start>", "<im_end>")):
            raise UserError(
                f"the tokenizer in {directory} does not know the image's tokens",
                "It lacks <im_patch>, <im_start> or <im_end>: LLaMA's own, or another model's.",
                "Take the tokenizer files of the LLaVA-Med checkpoint (added_tokens.json too).",
            )
        return known["<im_patch>"]
