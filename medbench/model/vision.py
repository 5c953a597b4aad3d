"""CLIP vision towers: from a CLIP folder, or from the tensors inside a LLaVA checkpoint.

The names of a tower's tensors have changed with transformers' versions. They are compared here by
what follows the outer modules, so that files and installed version may be of any age.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from medbench.errors import UserError
from medbench.model.geometry import Fit, Geometry
from medbench.model.llava_format import CLIP_MEAN, CLIP_STD, quiet, read_json
from medbench.model.weights import read_tensors, require, stored_shapes

# Outer modules by which a tower's tensors are named, here and there.
_OUTER = re.compile(r"^(?:model\.)?(?:vision_tower\.)*(?:vision_model\.)?")
# OpenAI's large towers, for checkpoints that hold the weights but not the tower's config.
_KNOWN = {"openai/clip-vit-large-patch14": 224, "openai/clip-vit-large-patch14-336": 336}


def in_checkpoint(name: str) -> bool:
    """Say whether a tensor of a LLaVA checkpoint belongs to its vision tower."""
    return ".vision_tower." in f".{name}"


def tower_config(directory: Path | None, name: str) -> CLIPVisionConfig:
    """Return the config of a tower's folder, or that of a known tower without one.

    Raises:
        UserError: the folder's config cannot be read, or the tower is not known.
    """
    if directory is None:
        if name not in _KNOWN:
            raise UserError(
                f"the vision tower {name} is not known",
                "Its config.json is not at hand either.",
                "Give its folder: vision=DIR.",
            )
        return CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=_KNOWN[name],
            patch_size=14,
            projection_dim=768,
        )
    data = read_json(directory / "config.json")
    kind = data.get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise UserError(
            f"{directory} is no CLIP",
            f"The model_type in its config.json is '{kind}'.",
            "Give the folder of the CLIP that the model was trained with: vision=DIR.",
        )
    return CLIPVisionConfig(**(data["vision_config"] if kind == "clip" else data))


def load_tower(directory: Path, config: CLIPVisionConfig, dtype: torch.dtype) -> CLIPVisionModel:
    """Load the vision part of a CLIP folder, or of a LLaVA checkpoint that holds one.

    Raises:
        UserError: tensors are missing, left over, or of another shape.
    """
    with torch.device("meta"):
        skeleton = CLIPVisionModel(config)
    names = {_plain(name): name for name in skeleton.state_dict()}
    expected = {name: tuple(skeleton.state_dict()[full].shape) for name, full in names.items()}
    shapes = {name: shape for name, shape in stored_shapes(directory).items() if _of_tower(name)}
    require(directory, _plainly(shapes), expected)
    tensors = _plainly(read_tensors(directory, _of_tower))
    with quiet():
        model = CLIPVisionModel.from_pretrained(
            None,
            config=config,
            state_dict={names[name]: tensor for name, tensor in tensors.items()},
            dtype=dtype,
            attn_implementation="sdpa",
        )
    return model.eval()


def tower_geometry(directory: Path | None, config: CLIPVisionConfig, fit: Fit) -> Geometry:
    """Return how images reach a tower: its folder's processor, placed as the model wants.

    Raises:
        UserError: the processor cuts another size than the tower takes.
    """
    data: dict[str, Any] = {}
    if directory is not None and (directory / "preprocessor_config.json").is_file():
        data = read_json(directory / "preprocessor_config.json")
    size, patch = cast("tuple[int, int]", (config.image_size, config.patch_size))
    for name in ("crop_size", "size"):
        stated = data.get(name, size)
        sides: set[int] = set(stated.values()) if isinstance(stated, dict) else {stated}
        if sides != {size}:
            raise UserError(
                f"{directory} scales images in a way medbench does not know",
                f"Its processor's {name} is {stated}; the tower takes {size} pixels.",
                "Give the folder of the CLIP that the model was trained with: vision=DIR.",
            )
    return Geometry(
        size=size,
        patch=patch,
        fit=fit,
        mean=tuple(data.get("image_mean", CLIP_MEAN)),
        std=tuple(data.get("image_std", CLIP_STD)),
    )


def _of_tower(name: str) -> bool:
    return in_checkpoint(name) or name.startswith("vision_model.")


def _plainly(named: Mapping[str, Any]) -> dict[str, Any]:
    return {_plain(name): value for name, value in named.items()}


def _plain(name: str) -> str:
    return _OUTER.sub("", name)
