"""What decides weak labels: parameters of the steps, each a part of the provider's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Fit = Literal["keep", "squash"]
Order = Literal["rgb", "bgr"]
How = Literal["crop", "blur", "box"]
Text = Literal["task", "published", "question"]

# A SAM that is no official checkpoint is a folder with these.
SAM_CONFIG, SAM_WEIGHTS = "config.json", "model.safetensors"
BIOMEDCLIP = "hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"


@dataclass(frozen=True)
class Segmentation:
    """How an image is cut into segments.

    Args:
        sam: a SAM checkpoint: an official .pth file, or a folder with config.json and
            model.safetensors; "phantom" is the one in the box.
        side: longest side in pixels of the image that SAM sees, and the unit of all sizes here.
        fit: "keep" keeps the aspect; "squash" makes a square of any image, as published.
        channel_order: "bgr" swaps red and blue, as published.
        points_per_side, points_per_batch: the grid of prompts, and how many go together.
        pred_iou_thresh, stability_score_thresh: drop masks that SAM itself thinks poor.
        box_nms_thresh: drop one of two masks whose boxes overlap more.
        crop_n_layers, crop_n_points_downscale_factor, crop_nms_thresh: look again at 4, 16, ...
            parts of the image, with so many times fewer points a side, and drop doubles.
        min_mask_region_area: fill holes and drop islands below so many pixels.
        max_area: drop masks of so many pixels or more.
        min_side: drop masks whose box is not wider or not higher than that.
        drop_border: drop masks that touch the image's edge.
    """

    sam: str = ""
    side: int = 256
    fit: Fit = "keep"
    channel_order: Order = "rgb"
    points_per_side: int = 8
    points_per_batch: int = 128
    pred_iou_thresh: float = 0.5
    stability_score_thresh: float = 0.5
    box_nms_thresh: float = 0.8
    crop_n_layers: int = 1
    crop_n_points_downscale_factor: int = 2
    crop_nms_thresh: float = 0.8
    min_mask_region_area: int = 200
    max_area: int = 40000
    min_side: int = 12
    drop_border: bool = True


@dataclass(frozen=True)
class Ranking:
    """How segments are compared with what is asked.

    Args:
        clip: a CLIP for open_clip: a folder, or hf-hub:ORG/NAME once it is downloaded; "phantom"
            is the one in the box.
        prompt: how a segment is shown: "crop" cuts its box out and blackens the rest, as
            published; "blur" keeps the frame and blurs the rest; "box" cuts the box out whole.
        blur, dim: of "blur": standard deviation in pixels, and the factor on what is outside.
        text: what a segment is compared with: the task's text for the question, the same as
            published, misprints included, or the bare question.
    """

    clip: str = BIOMEDCLIP
    prompt: How = "crop"
    blur: float = 100.0
    dim: float = 1.0
    text: Text = "task"
