"""The small LLaVA that ships in the box, trained on drawn images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medbench.backbone import Checkpoint, Depth
from medbench.errors import UserError

if TYPE_CHECKING:
    import torch

    from medbench.model.llava import Backbone


@dataclass(frozen=True)
class Phantom(Checkpoint):
    """A real LLaVA of 1.6 million weights, trained on the phantom world; ships in the box.

    It exists so that every method runs on a laptop; it knows drawn images and some hundred words,
    and proves nothing about medicine.

    Args:
        weights: another directory that `python -m medbench.phantom.build` wrote; "" takes the
            shipped one.
    """

    name = "phantom"
    offers = (
        "pixels", "image_span", "attention", "hidden_states", "class_attention", "training",
    )  # fmt: skip

    weights: str = ""

    def files(self) -> Iterator[Path]:
        """Yield the directory's configs, tokenizer files and weights."""
        from medbench.backbones.llava_hf import checkpoint_files

        yield from (
            path for path in checkpoint_files(self._directory()) if path.name != "build.json"
        )

    def depth(self) -> Depth | None:
        """Return the depth that config.json states."""
        from medbench.backbones.llava_hf import stated_depth

        return stated_depth(self._directory())

    def load(self, *, device: torch.device, dtype: torch.dtype) -> Backbone:
        """Load the directory, an ordinary transformers LLaVA."""
        from medbench.model.llava_format import load_llava
        from medbench.model.placement import Placement

        return load_llava(
            self._directory(),
            name=self.name,
            offers=self.offers,
            prompt="",
            placement=Placement(device, dtype),
        )

    def _directory(self) -> Path:
        import medbench.phantom

        shipped = Path(medbench.phantom.__file__).with_name("weights")
        directory = Path(self.weights).expanduser() if self.weights else shipped
        if not directory.is_dir():
            raise UserError(
                f"no phantom weights in {directory}",
                "" if self.weights else "The installation is not complete.",
                "Build them: python -m medbench.phantom.build --out DIR",
            )
        return directory
