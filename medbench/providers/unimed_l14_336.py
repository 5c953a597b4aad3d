"""UniMed-CLIP L/14 as an expert."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medbench.expert.settings import ClipExpert, hub_file

if TYPE_CHECKING:
    from medbench.expert.tower import Tower


@dataclass(frozen=True)
class UnimedL14(ClipExpert):
    """UniMed-CLIP L/14's vision tower: ViT-L/14, 336 pixels, a grid of 24 x 24.

    Its weights are under CC BY-NC 4.0: for non-commercial use only. Patches are taken as the last
    block leaves them, before norm and projection. The paper's default; where the student's grid
    is 24 x 24 too, as in LLaVA-1.5, nothing is resampled.

    Args:
        weights: the checkpoint's file, or hf-hub:ORG/NAME once it is downloaded.
    """

    name = "unimed_l14_336"
    paper = "Khattak et al. 2024, UniMed-CLIP, arXiv:2412.10372; MedAlign's published notebooks"

    weights: str = "hf-hub:UzairK/unimed_clip_vit_l14_base_text_encoder"
    divide_by_max: bool = True

    def files(self) -> Iterator[Path]:
        """Yield the checkpoint."""
        yield hub_file(self.weights, self.name)

    def load(self, device: str) -> Tower:
        """Load the tower."""
        from medbench.expert.tower import load_checkpoint

        return load_checkpoint(hub_file(self.weights, self.name), "ViT-L-14-336-quickgelu", device)
