"""Checkpoints: where a backbone's weights are, and how they become a loaded backbone.

The loaded thing is `medbench.model.llava.Backbone`; this base class stays free of torch so that
plans, keys and error messages need no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    import torch

    from medbench.model.llava import Backbone
    from medbench.model.placement import Placement


@dataclass(frozen=True)
class Depth:
    """How many layers a backbone has.

    Attributes:
        language: decoder layers of the language model; vision: blocks of the vision tower.
    """

    language: int
    vision: int


@dataclass(frozen=True)
class Checkpoint:
    """A kind of vision-language checkpoint that medbench can load.

    Class attributes:
        name: what users type; `paper`: where it comes from;
        licence, source: under what terms the weights can be had, and where;
        offers: what methods may ask of it: "pixels", "image_span", "attention",
            "hidden_states", "class_attention" (of the vision tower's class token), "training";
        unkeyed: parameters that move no answer by themselves; `files()` are hashed instead.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    source: ClassVar[str] = ""
    offers: ClassVar[tuple[str, ...]] = ()
    unkeyed: ClassVar[tuple[str, ...]] = ("weights",)

    def files(self) -> Iterator[Path]:
        """Yield every file whose content can move an answer (weights, configs, tokenizer).

        Raises:
            UserError: the weights are not there.
        """
        yield from ()

    def depth(self) -> Depth | None:
        """Return how many layers there are, read without loading anything; None if unknown.

        Raises:
            UserError: the files that say so are not there.
        """
        return None

    def load(self, *, device: torch.device, dtype: torch.dtype) -> Backbone:
        """Load the weights.

        Raises:
            UserError: files are missing, or tensors are missing or left over.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class LargeCheckpoint(Checkpoint):
    """A checkpoint that may be larger than a card.

    Args:
        weights: where they are.
        device_map: `auto`, `balanced` or `sequential` spread the language model over all cards,
            and over main memory and disk where these are not enough; `none` keeps it on one device.
        quantize: `4bit` loads the language model's matrices as 4-bit NormalFloat, which takes
            `medbench[4bit]`; other answers than the paper's are to be expected.
    """

    unkeyed: ClassVar[tuple[str, ...]] = ("weights", "device_map")

    weights: str = ""
    device_map: Literal["none", "auto", "balanced", "sequential"] = "none"
    quantize: Literal["none", "4bit"] = "none"

    def placement(self, device: torch.device, dtype: torch.dtype) -> Placement:
        """Return where the weights go, and as what."""
        from medbench.model.placement import Placement

        return Placement(device, dtype, self.device_map, self.quantize)
