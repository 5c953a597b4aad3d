"""Segments of an image by Segment Anything's automatic mask generator, filtered as published."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from medbench.errors import UserError
from medbench.extras import importing
from medbench.labels.settings import SAM_CONFIG, SAM_WEIGHTS, Segmentation

Masks = npt.NDArray[np.bool_]

# The width of the image encoder tells the official checkpoints apart.
_OFFICIAL = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}


def canvas(image: Image.Image, settings: Segmentation) -> npt.NDArray[np.uint8]:
    """Return the image as SAM and the visual prompts see it, uint8 [h, w, 3]."""
    if settings.fit == "squash":
        size = (settings.side, settings.side)
    else:
        scale = settings.side / max(image.size)
        width, height = (max(1, round(length * scale)) for length in image.size)
        size = (width, height)
    resized = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
    pixels = np.asarray(resized)
    return np.ascontiguousarray(pixels[..., ::-1] if settings.channel_order == "bgr" else pixels)


class Segmenter:
    """Cuts images into segments with a loaded SAM.

    Args:
        sam: as `load_sam` returns it.
        settings: of the generator and the filters.
    """

    def __init__(self, sam: nn.Module, settings: Segmentation) -> None:
        with importing("labels"):
            from segment_anything import SamAutomaticMaskGenerator  # pyright: ignore[reportMissingImports]

        self._settings = settings
        self._generator = SamAutomaticMaskGenerator(
            sam,
            points_per_side=settings.points_per_side,
            points_per_batch=settings.points_per_batch,
            pred_iou_thresh=settings.pred_iou_thresh,
            stability_score_thresh=settings.stability_score_thresh,
            box_nms_thresh=settings.box_nms_thresh,
            crop_n_layers=settings.crop_n_layers,
            crop_n_points_downscale_factor=settings.crop_n_points_downscale_factor,
            crop_nms_thresh=settings.crop_nms_thresh,
            min_mask_region_area=settings.min_mask_region_area,
        )

    def __call__(self, image: Image.Image) -> Masks:
        """Return an image's segments on its canvas, bool [S, h, w]; S may be 0."""
        pixels = canvas(image, self._settings)
        found = [entry["segmentation"] for entry in self._generator.generate(pixels)]
        return filtered(np.array(found, bool).reshape(-1, *pixels.shape[:2]), self._settings)


def filtered(masks: Masks, settings: Segmentation) -> Masks:
    """Return the masks [S, h, w] that are neither too large, too thin, nor cut by the edge."""
    kept = [mask for mask in masks if mask.any() and _is_wanted(mask, settings)]
    return np.array(kept, bool).reshape(-1, *masks.shape[1:])


def box(mask: Masks) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of a mask that is not empty, the ends exclusive."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _is_wanted(mask: Masks, settings: Segmentation) -> bool:
    left, top, right, bottom = box(mask)
    # SAM's boxes end at their last pixel, and the published limits are on those.
    width, height = right - left - 1, bottom - top - 1
    if mask.sum() >= settings.max_area or min(width, height) <= settings.min_side:
        return False
    if not settings.drop_border:
        return True
    # The published rule is uneven: pixel 0 on the one side, those past 253 of 255 on the other.
    last_row, last_column = mask.shape[0] - 1, mask.shape[1] - 1
    beyond = 255 * (right - 1) > 253 * last_column or 255 * (bottom - 1) > 253 * last_row
    return not (left == 0 or top == 0 or beyond)


def load_sam(path: Path, device: torch.device | str = "cpu") -> nn.Module:
    """Load a SAM from an official .pth file, or from a folder that describes a smaller one.

    Raises:
        UserError: the extra is not installed, or the file is no SAM, or tensors are missing.
    """
    with importing("labels"):
        from segment_anything import sam_model_registry  # pyright: ignore[reportMissingImports]

    try:
        if path.is_dir():
            sam, weights = _described(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
            width = weights["image_encoder.pos_embed"].shape[-1]
            sam = sam_model_registry[_OFFICIAL[width]]()
        sam.load_state_dict({name: one.float() for name, one in weights.items()})
    except UserError:
        raise
    except Exception as error:  # a broken file breaks in a dozen ways
        raise UserError(
            f"cannot load the SAM in {path}",
            f"{type(error).__name__}: {error}".splitlines()[0],
            "Give an official .pth file, or a folder with config.json and model.safetensors.",
        ) from error
    return sam.to(device).eval().requires_grad_(False)


def build_sam(config: dict[str, Any]) -> nn.Module:
    """Build an untrained SAM of the package's own classes from a description (config.json)."""
    with importing("labels"):
        from segment_anything.modeling import (  # pyright: ignore[reportMissingImports]
            ImageEncoderViT,
            MaskDecoder,
            PromptEncoder,
            Sam,
            TwoWayTransformer,
        )

    size, patch, width = config["image_size"], config["patch_size"], config["out_chans"]
    decoder = dict(config["decoder"])
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=size,
            patch_size=patch,
            out_chans=width,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            act_layer=nn.GELU,
            **config["encoder"],
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=width,
            image_embedding_size=(size // patch, size // patch),
            input_image_size=(size, size),
            mask_in_chans=config["mask_in_chans"],
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=width,
            transformer=TwoWayTransformer(
                depth=decoder.pop("transformer_depth"),
                embedding_dim=width,
                num_heads=decoder.pop("num_heads"),
                mlp_dim=decoder.pop("mlp_dim"),
            ),
            **decoder,
        ),
        pixel_mean=config["pixel_mean"],
        pixel_std=config["pixel_std"],
    )


def _described(folder: Path) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    from safetensors.torch import load_file

    config = json.loads((folder / SAM_CONFIG).read_text(encoding="utf-8"))
    return build_sam(config), load_file(folder / SAM_WEIGHTS)
