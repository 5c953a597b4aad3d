"""CLIP models by open_clip, from a folder or from what the hub has left on this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from medbench.errors import UserError
from medbench.extras import importing
from medbench.hub import cached, is_hub_id

_HUB = "hf-hub:"
CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class Clip:
    """A loaded CLIP.

    Attributes:
        model: of open_clip, with `visual` and text towers.
        preprocess: from a PIL image to its pixels; tokenizer: from texts to ids.
    """

    model: Any
    preprocess: Any
    tokenizer: Any
    device: torch.device

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image], batch_size: int = 64) -> Tensor:
        """Return the embeddings of images, float32 [n, d] on the CPU, of length 1."""
        parts = [
            self.model.encode_image(
                torch.stack(
                    [self.preprocess(one) for one in images[start : start + batch_size]]
                ).to(self.device)
            )
            for start in range(0, len(images), batch_size)
        ]
        return _normalised(parts)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str], batch_size: int = 64) -> Tensor:
        """Return the embeddings of texts, float32 [n, d] on the CPU, of length 1."""
        parts = [
            self.model.encode_text(
                self.tokenizer(list(texts[start : start + batch_size])).to(self.device)
            )
            for start in range(0, len(texts), batch_size)
        ]
        return _normalised(parts)


def clip_folder(name: str) -> Path:
    """Return the folder of a CLIP: the one named, or the hub's download of `hf-hub:ORG/NAME`.

    Raises:
        UserError: there is no such folder; nothing is ever downloaded here.
    """
    if not name.startswith(_HUB):
        folder = Path(name.removeprefix("local-dir:")).expanduser()
        if not (folder / CONFIG).is_file():
            raise UserError(
                f"no CLIP in {folder}",
                f"There is no {CONFIG}.",
                "Give a folder as open_clip writes it, or hf-hub:ORG/NAME.",
            )
        return folder
    repository = name.removeprefix(_HUB)
    downloaded = cached(repository) if is_hub_id(repository) else None
    if downloaded is None:
        raise UserError(
            f"{repository} is not on this machine",
            "medbench downloads nothing by itself.",
            f"Fetch it once: hf download {repository}",
        )
    return downloaded


def clip_files(folder: Path) -> list[Path]:
    """Return the files that decide what a CLIP does: its description, weights and tokenizer."""
    weights = [folder / name for name in WEIGHTS if (folder / name).exists()]
    others = ("tokenizer.json", "vocab.txt", "config.json", "tokenizer_config.json")
    return [folder / CONFIG, *weights[:1], *(folder / n for n in others if (folder / n).exists())]


def load_clip(folder: Path, device: torch.device | str = "cpu") -> Clip:
    """Load a CLIP from a folder with open_clip_config.json, weights and tokenizer.

    Raises:
        UserError: the extra is not installed, or the folder cannot be read.
    """
    with importing("labels"):
        import open_clip  # pyright: ignore[reportMissingImports]

    name = f"local-dir:{folder}"
    try:
        model, preprocess = open_clip.create_model_from_pretrained(name, device=device)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # configurations of other years fail in a dozen ways
        raise UserError(
            f"cannot load the CLIP in {folder}",
            f"{type(error).__name__}: {error}".splitlines()[0],
            _advice(folder),
        ) from error
    model = model.eval().requires_grad_(False)
    return Clip(model, preprocess, tokenizer, torch.device(device))


def _advice(folder: Path) -> str:
    """Return what helps against the two things that go wrong with BiomedCLIP's folder."""
    try:
        text = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"Check {folder / CONFIG}."
    if "proj" in text or "pooler_type" in text:
        return f"Its {CONFIG} is of an older open_clip: rename proj and pooler_type to hf_..."
    if tower := text.get("hf_model_name"):
        return f"Its text tower is described by {tower}: hf download {tower} --include config.json"
    return f"Check {folder / CONFIG} and the weights beside it."


def _normalised(parts: Sequence[Tensor]) -> Tensor:
    return nn.functional.normalize(torch.cat(list(parts)).float(), dim=-1).cpu()
