"""The samples and the small model that methods are tried on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

import medbench
from medbench.decoding.answer import Answer
from medbench.method import Decoder
from medbench.model.llava import Backbone

TOKENS = 20
QUESTIONS = (
    "is it?",
    "what organ is shown in this image?",
    "a",
    "where is the lesion, left or right?",
    "no",
    "why",
    "does the picture contain liver?",
    "size?",
)
NAMES = tuple(f"sample {index}" for index in range(len(QUESTIONS)))
# Letters of the toy's vocabulary that end an answer, so that some are short and some are long.
_ENDS = (2, *range(20, 26))


def toy() -> Backbone:
    """Return the backbone `toy`, whose answers are of different lengths."""
    loaded = medbench.load_backbone("toy", device="cpu", dtype="float32")
    return replace(loaded, eos_token_ids=_ENDS)


def images() -> list[Image.Image]:
    """Return eight random images of different sizes, one a question."""
    draw = np.random.default_rng(0)
    sizes = [(20 + 3 * index, 40 - 2 * index, 3) for index in range(len(QUESTIONS))]
    return [Image.fromarray(draw.integers(0, 256, size, dtype=np.uint8)) for size in sizes]


def regions() -> list[np.ndarray | None]:
    """Return a region in some part of the image for most samples, none or an empty one for two."""
    found: list[np.ndarray | None] = []
    for index, image in enumerate(images()):
        region = np.zeros((image.height, image.width), dtype=bool)
        region[index : image.height // 2, image.width // 2 :] = index != 3
        found.append(None if index == 1 else region)
    return found


def answers(
    decoder: Decoder | str,
    backbone: Backbone,
    samples: Sequence[int] = range(4),
    *,
    batch_size: int = 4,
    with_regions: bool = True,
    max_new_tokens: int = TOKENS,
    **options: Any,
) -> dict[int, Answer]:
    """Return the answers of these samples, asked in this order."""
    pictures, masks = images(), regions()
    decoded = medbench.generate(
        backbone,
        method=decoder,
        images=[pictures[index] for index in samples],
        prompts=[QUESTIONS[index] for index in samples],
        rois=[masks[index] if with_regions else None for index in samples],
        ids=[NAMES[index] for index in samples],
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        **options,
    )
    return dict(zip(samples, decoded, strict=True))


def different(one: dict[int, Answer], other: dict[int, Answer]) -> list[str]:
    """Return the names of the samples whose tokens differ between two sets of answers."""
    return [NAMES[at] for at in one if at in other and one[at].token_ids != other[at].token_ids]
