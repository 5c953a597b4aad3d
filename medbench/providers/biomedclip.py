"""BiomedCLIP as an expert."""

from dataclasses import dataclass
from typing import Literal

from medbench.providers.open_clip import OpenClip


@dataclass(frozen=True)
class BiomedClip(OpenClip):
    """BiomedCLIP's vision tower: ViT-B/16 of timm, 224 pixels, a grid of 14 x 14.

    Its weights are under the MIT licence. The defaults are the published notebooks': patches
    projected to 512, and not brought to length 1 before they are resampled.

    Args:
        weights: its folder, or hf-hub:ORG/NAME once it is downloaded.
    """

    name = "biomedclip"
    paper = "Zhang et al. 2023, BiomedCLIP, arXiv:2303.00915; MedAlign's published notebooks"

    weights: str = "hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"
    feature: Literal["block_out", "post_ln", "projected"] = "projected"
    prenorm: bool = False
