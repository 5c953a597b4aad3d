"""How well each segment fits a text, by a CLIP that sees the segment as a visual prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from medbench.clip import Clip
from medbench.labels.present import present
from medbench.labels.segment import Masks
from medbench.labels.settings import Ranking

Scores = npt.NDArray[np.float32]


def score_segments(
    clip: Clip, pixels: npt.NDArray[np.uint8], masks: Masks, texts: Sequence[str], how: Ranking
) -> Scores:
    """Return 100 x the cosine of every segment with every text, float32 [texts, S].

    Args:
        pixels: the canvas, uint8 [h, w, 3], in the channel order the segments were made in.
        masks: bool [S, h, w]; S may be 0.
    """
    if not len(masks):
        return np.zeros((len(texts), 0), np.float32)
    shown: list[Image.Image] = [
        present(pixels, mask, how=how.prompt, blur=how.blur, dim=how.dim) for mask in masks
    ]
    return (100 * clip.texts(texts) @ clip.images(shown).T).numpy()


def text_key(picture: str, text: str) -> str:
    """Return the key of a text's scores on a picture."""
    return f"{picture}-{hashlib.sha256(text.encode('utf-8')).hexdigest()}"


def best_first(scores: npt.NDArray[np.floating]) -> list[int]:
    """Return the order of segments by falling score; equal ones stay in SAM's order."""
    return np.argsort(-scores, kind="stable").tolist()
