"""Training samples for tuners, with regions and views that need no provider's files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from medbench.cell import Cell
from medbench.contract import toys
from medbench.contract.breach import breach
from medbench.method import Target, Tuner
from medbench.model.llava import Backbone
from medbench.provider import Expert, ExpertView, Provider, Region, Regions, Surroundings
from medbench.providers.roi import region
from medbench.task import Sample
from medbench.tuning.batch import Example

# What a spec names for a role: providers that are there without any weights. Their places are
# taken by those below before anything is computed.
STAND_INS = {"regions": "roi", "expert": "open_clip[weights=phantom]"}
_ANSWERS = ("a liver", "no", "it was not said", "in the left lobe")


@dataclass(frozen=True)
class _Drawn(Regions):
    """The samples' own regions."""

    name = "drawn"

    def open(
        self, samples: Sequence[Sample], around: Surroundings
    ) -> Callable[[Sample], Sequence[Region]]:
        """Return what gives a sample's region, or nothing where it has none."""
        return region


@dataclass(frozen=True)
class _Imagined(Expert):
    """A view that follows from a sample's image alone, and is of no use."""

    name = "imagined"

    def open(
        self, samples: Sequence[Sample], around: Surroundings
    ) -> Callable[[Sample], ExpertView]:
        """Return what gives a sample's view."""
        return _view


def stand_in(role: str) -> Provider:
    """Return a provider of "regions" or of an "expert" that needs no files."""
    return _Drawn() if role == "regions" else _Imagined()


def on_few(cell: Cell, tuner: Tuner) -> Cell:
    """Let a cell train on eight samples, with made-up regions and views."""
    assert cell.adapter is not None
    return replace(
        cell,
        adapter=replace(cell.adapter, train=cell.adapter.train[: len(toys.QUESTIONS)]),
        providers={name: stand_in(tuner.supervision[name]) for name in cell.providers},
    )


def examples(tuner: Tuner, backbone: Backbone) -> list[Example]:
    """Return eight encoded samples with the targets of a tuner.

    Two of them have no region or an empty one.
    """
    samples = _samples()
    around: Any = None  # neither stand-in looks at it
    given = {
        name: stand_in(tuner.supervision[name]).open(samples, around) for name in tuner.supervised()
    }
    targets = tuner.targets(backbone, given)
    pixels = backbone.pixel_values(toys.images())
    return [
        Example(
            sample.id,
            backbone.prompt(sample.question, backbone.encode(one[None])[0], training=True),
            backbone.template.encode_answer(backbone.tokenizer, sample.answer),
            _targets(targets, sample),
        )
        for sample, one in zip(samples, pixels, strict=True)
    ]


def _targets(targets: Mapping[str, Target], sample: Sample) -> dict[str, torch.Tensor]:
    found: dict[str, Any] = {name: target(sample) for name, target in targets.items()}
    for name, values in found.items():
        if not isinstance(values, torch.Tensor) or not values.dim():
            breach(
                f"the target '{name}' of {sample.id} is no tensor [k, ...]",
                f"It is {type(values).__name__}.",
                "Return a tensor whose first dimension counts targets; 0 of them for none.",
            )
    return found


def _samples() -> list[Sample]:
    return [
        Sample(
            id=toys.NAMES[index],
            image=partial(_nth, index),
            question=toys.QUESTIONS[index],
            answer=_ANSWERS[index % len(_ANSWERS)],
            kind="open",
            group=toys.NAMES[index],
            stamp=toys.NAMES[index],
            roi=None if mask is None else partial(_same, mask),
        )
        for index, mask in enumerate(toys.regions())
    ]


def _nth(index: int) -> Any:
    return toys.images()[index]


def _same(mask: np.ndarray) -> np.ndarray:
    return mask


def _view(sample: Sample) -> ExpertView:
    image = sample.image() if callable(sample.image) else None
    assert image is not None  # of drawn samples
    pixels = np.asarray(image.convert("L").resize((4, 4)), np.float32).reshape(16, 1) / 255
    features = np.concatenate([pixels, 1 - pixels, pixels**2], 1)
    size = (image.height, image.width)
    return ExpertView((4, 4), features @ features.T, pixels.ravel(), size)
