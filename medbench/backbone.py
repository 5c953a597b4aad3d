"""Checkpoints: where a backbone's weights are, and how they become a loaded backbone.

The loaded thing is `medbench.model.llava.Backbone`; this base class stays free of torch so that
plans, keys and error messages need no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import torch

    from medbench.model.llava import Backbone


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
        offers: what methods may ask of it: "pixels", "image_span", "attention",
            "hidden_states", "class_attention" (of the vision tower's class token), "training";
        unkeyed: parameters that move no answer by themselves; `files()` are hashed instead.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
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
