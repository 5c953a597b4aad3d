"""UniMed-CLIP B/16 as an expert."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medbench.expert.settings import ClipExpert, hub_file

if TYPE_CHECKING:
    from medbench.expert.tower import Tower


@dataclass(frozen=True)
class UnimedB16(ClipExpert):
    """UniMed-CLIP B/16's vision tower: ViT-B/16, 224 pixels, a grid of 14 x 14.

    Its weights are under CC BY-NC 4.0: for non-commercial use only. Patches are taken as the last
    block leaves them, before norm and projection. The released scripts point to this size.

    Args:
        weights: the checkpoint's file, or hf-hub:ORG/NAME once it is downloaded.
    """

    name = "unimed_b16"
    paper = "Khattak et al. 2024, UniMed-CLIP, arXiv:2412.10372; MedAlign's published notebooks"

    weights: str = "hf-hub:UzairK/unimed-clip-vit-b16"
    divide_by_max: bool = True

    def files(self) -> Iterator[Path]:
        """Yield the checkpoint."""
        yield hub_file(self.weights, self.name)

    def load(self, device: str) -> Tower:
        """Load the tower."""
        from medbench.expert.tower import load_checkpoint

        return load_checkpoint(hub_file(self.weights, self.name), "ViT-B-16-quickgelu", device)
