"""Tiny CLIPs as open_clip writes them: one with its own vision tower, one with timm's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from medbench.provider import Surroundings
from medbench.task import Sample, Task

TEXT: dict[str, Any] = {
    "context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1,
}  # fmt: skip
STOCK: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 12,
        "vision_cfg": {
            "image_size": 32, "patch_size": 8, "width": 24, "layers": 3, "head_width": 8,
        },
        "text_cfg": TEXT,
        "quick_gelu": True,
    },
    "preprocess_cfg": {"mean": [0.3, 0.4, 0.5], "std": [0.2, 0.3, 0.4]},
}  # fmt: skip
# As BiomedCLIP's: no pooling of open_clip's own, and a linear projection.
TIMM: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 12,
        "custom_text": True,
        "vision_cfg": {
            "timm_model_name": "test_vit", "timm_model_pretrained": False, "timm_pool": "",
            "timm_proj": "linear", "image_size": 160,
        },
        "text_cfg": TEXT,
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}  # fmt: skip

MakeFolder = Callable[[dict[str, Any]], Path]


@pytest.fixture(scope="session")
def extra() -> None:
    """Skip what needs medbench[labels] where it is not installed, or does not fit torch."""
    try:
        import open_clip  # noqa: F401
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"medbench[labels] cannot be imported: {error}")


@pytest.fixture(scope="session")
def model_of(extra: None) -> Callable[[dict[str, Any]], Any]:
    """Return what builds the whole random CLIP of a description."""
    import open_clip

    def built(described: dict[str, Any]) -> Any:
        config = dict(described["model_cfg"])
        kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return kind(**config).eval()

    return built


@pytest.fixture(scope="session")
def folder_of(
    model_of: Callable[[dict[str, Any]], Any], tmp_path_factory: pytest.TempPathFactory
) -> MakeFolder:
    """Return what writes the folder of a description, with random weights."""
    made: dict[str, Path] = {}

    def written(described: dict[str, Any]) -> Path:
        text = json.dumps(described)
        if text not in made:
            folder = made[text] = tmp_path_factory.mktemp("clip")
            (folder / "open_clip_config.json").write_text(text)
            state = model_of(described).state_dict()
            save_file(
                {name: one.contiguous() for name, one in state.items()},
                folder / "open_clip_model.safetensors",
            )
        return made[text]

    return written


@pytest.fixture
def pictures() -> list[Image.Image]:
    """Return random images, none of them square."""
    draw = np.random.default_rng(0)
    sizes = [(20 + 3 * index, 47 - 2 * index, 3) for index in range(5)]
    return [Image.fromarray(draw.integers(0, 256, size, dtype=np.uint8)) for size in sizes]


@pytest.fixture
def samples(pictures: list[Image.Image]) -> list[Sample]:
    """Return two questions about each picture; the last one is a copy of the first."""
    return [
        Sample(f"{i}-{q}", (lambda one=one: one), "?", "a", "open", f"image {i}", f"drawn {i}")
        for i, one in enumerate([*pictures, pictures[0].copy()])
        for q in range(2)
    ]


@pytest.fixture
def around() -> Surroundings:
    """Return a student that pads, and nobody who listens."""
    return Surroundings(Task(), fit="pad")
