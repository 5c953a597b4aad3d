"""Any transformers `LlavaForConditionalGeneration` directory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medbench.backbone import Depth, LargeCheckpoint
from medbench.errors import UserError
from medbench.hub import locate

if TYPE_CHECKING:
    import torch

    from medbench.model.llava import Backbone


@dataclass(frozen=True)
class LlavaHF(LargeCheckpoint):
    """A LLaVA checkpoint in transformers' own format (llava-hf and exports to it).

    Args:
        weights: folder or hub id, with config.json, *.safetensors and the tokenizer's files.
        prompt: the template, with <image> and {question} in it; "" takes the directory's
            `medbench.json`, or its chat template.
    """

    name = "llava_hf"
    paper = "LLaVA (arXiv:2304.08485), as converted for transformers"
    offers = (
        "pixels", "image_span", "attention", "hidden_states", "class_attention", "training",
    )  # fmt: skip

    weights: str = ""
    prompt: str = ""

    def files(self) -> Iterator[Path]:
        """Yield the directory's configs, tokenizer files and weights."""
        yield from checkpoint_files(self._directory())

    def depth(self) -> Depth | None:
        """Return the depth that config.json states; some leave the usual one unsaid."""
        return stated_depth(self._directory())

    def load(self, *, device: torch.device, dtype: torch.dtype) -> Backbone:
        """Load the directory; every tensor must be there and none may be left over."""
        from medbench.model.llava_format import load_llava

        directory = self._directory()
        tuple(checkpoint_files(directory))  # what is not there is said before anything is read
        return load_llava(
            directory,
            name=self.name,
            offers=self.offers,
            prompt=self.prompt,
            placement=self.placement(device, dtype),
        )

    def _directory(self) -> Path:
        if not self.weights:
            raise UserError(
                "llava_hf needs a directory with weights",
                "",
                '--backbone "llava-hf[weights=PATH]", or a hub id.',
            )
        return locate(self.weights, what=self.name)


def checkpoint_files(directory: Path) -> Iterator[Path]:
    """Yield the files of a transformers directory that can move an answer, sorted by name.

    Raises:
        UserError: the directory, its config or its weights are missing.
    """
    if not (directory / "config.json").is_file():
        raise UserError(
            f"no checkpoint in {directory}",
            "There is no config.json in it.",
            "Give the directory that holds config.json and *.safetensors.",
        )
    if not any(directory.glob("*.safetensors")):
        raise UserError(
            f"no weights in {directory}",
            "There is no *.safetensors file in it, and pickled weights are not read.",
            "Convert the checkpoint with save_pretrained(..., safe_serialization=True).",
        )
    suffixes = {".json", ".safetensors", ".jinja", ".model", ".txt"}
    yield from sorted(
        path for path in directory.iterdir() if path.is_file() and path.suffix in suffixes
    )


def stated_depth(directory: Path) -> Depth | None:
    """Return the depth that a transformers directory's config.json states, if it does.

    A file that cannot be read is said when it is loaded.
    """
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        language, vision = (
            int(config[part]["num_hidden_layers"]) for part in ("text_config", "vision_config")
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return Depth(language, vision)
