"""CLIP vision towers: from a CLIP folder, or from the tensors inside a LLaVA checkpoint.

The names of a tower's tensors have changed with transformers' versions. They are compared here by
what follows the outer modules, so that files and installed version may be of any age.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from medbench.errors import UserError
from medbench.model.geometry import Fit, Geometry
from medbench.model.llava_format import CLIP_MEAN, CLIP_STD, quiet, read_json
from medbench.model.using import using
from medbench.model.weights import listed, read_tensors, require, stored_shapes

# Outer modules by which a tower's tensors are named, here and there.
_OUTER = re.compile(r"^(?:model\.)?(?:vision_tower\.)*(?:vision_model\.)?")
# What a processor does with every image, unless it says no.
_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
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
    with using(directory), quiet():
        config = CLIPVisionConfig(**(data["vision_config"] if kind == "clip" else data))
        _skeleton(config)
        return config


def check_tower(
    directory: Path, found: Mapping[str, tuple[int, ...]], config: CLIPVisionConfig
) -> None:
    """Make sure that a tower stored in a checkpoint has the sizes of the one that is taken.

    Raises:
        UserError: they differ: the tower is another one than the model was trained with.
    """
    shapes = _plainly({name: shape for name, shape in found.items() if in_checkpoint(name)})
    expected = _expected(config)
    other = sorted(
        name for name in shapes.keys() & expected.keys() if shapes[name] != expected[name]
    )
    if other:
        raise UserError(
            f"{directory} was trained with another vision tower",
            f"{len(other)} tensors stored in it are of another shape: {listed(other)}.",
            "Leave out vision=, or give the folder of the tower that config.json names.",
        )


def load_tower(directory: Path, config: CLIPVisionConfig, dtype: torch.dtype) -> CLIPVisionModel:
    """Load the vision part of a CLIP folder, or of a LLaVA checkpoint that holds one.

    Raises:
        UserError: tensors are missing, left over, or of another shape.
    """
    names = {_plain(name): name for name in _skeleton(config).state_dict()}
    expected = _expected(config)

    def of_tower(name: str) -> bool:
        # Some files have no outer module to tell by.
        inside = in_checkpoint(name) or name.startswith("vision_model.")
        return inside or _plain(name) in expected

    shapes = {name: shape for name, shape in stored_shapes(directory).items() if of_tower(name)}
    require(directory, _plainly(shapes), expected)
    tensors = _plainly(read_tensors(directory, of_tower))
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
    mean, std = data.get("image_mean", CLIP_MEAN), data.get("image_std", CLIP_STD)
    stated = {
        "crop_size": _sides(data.get("crop_size", size)) == {size},
        "size": _sides(data.get("size", size)) == {size},
        "image_mean": _is_colour(mean),
        "image_std": _is_colour(std) and all(value > 0 for value in std),
        "resample": data.get("resample", 3) == 3,  # bicubic
        "rescale_factor": math.isclose(data.get("rescale_factor") or 1 / 255, 1 / 255),
        **{name: data.get(name, True) for name in _STEPS},
    }
    wrong = [name for name, fine in stated.items() if not fine]
    if wrong:
        raise UserError(
            f"{directory} scales images in a way medbench does not know",
            f"Its processor's {wrong[0]} is {data.get(wrong[0])}; the tower takes {size} pixels.",
            "Give the folder of the CLIP that the model was trained with: vision=DIR.",
        )
    return Geometry(size=size, patch=patch, fit=fit, mean=tuple(mean), std=tuple(std))


def _sides(stated: Any) -> set[Any]:
    """Return the lengths of sides that a processor states, as a number or by name."""
    if isinstance(stated, dict):
        return set(cast("dict[str, Any]", stated).values())
    return {stated} if isinstance(stated, int) else set()


def _is_colour(values: Any) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(cast("list[Any]", values)) == 3
        and all(isinstance(value, int | float) for value in cast("list[Any]", values))
    )


def _skeleton(config: CLIPVisionConfig) -> CLIPVisionModel:
    """Return a tower without weights, to ask for names and shapes."""
    with torch.device("meta"):
        return CLIPVisionModel(config)


def _expected(config: CLIPVisionConfig) -> dict[str, tuple[int, ...]]:
    own = _skeleton(config).state_dict()
    return {_plain(name): tuple(tensor.shape) for name, tensor in own.items()}


def _plainly(named: Mapping[str, Any]) -> dict[str, Any]:
    return {_plain(name): value for name, value in named.items()}


def _plain(name: str) -> str:
    return _OUTER.sub("", name)
