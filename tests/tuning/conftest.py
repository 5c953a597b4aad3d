"""A toy backbone, samples of different lengths, and adapters that do something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from medbench import plugins, spec
from medbench.backbones.toy import Toy
from medbench.method import Tuner
from medbench.model.llava import Backbone
from medbench.model.tiny import build_toy
from medbench.tuning.adapter import Adapter
from medbench.tuning.batch import Example

SMALL = (
    "rank=4,alpha=8,dropout=0,batch_size=4,micro_batch=2,learning_rate=0.01,warmup_ratio=0,epochs=1"
)
SMALL_A3TUNE = f"{SMALL},align_weight=0.5,labels=roi,R=3,expert_rank=2,q_experts=3,k_experts=4"
SMALL_MEDALIGN = f"{SMALL},similarity_weight=0.5,attention_weight=0.3,map_rank=3"
SETTINGS = {"lora": SMALL, "a3tune": SMALL_A3TUNE, "medalign": SMALL_MEDALIGN}

MakeTuner = Callable[..., Tuner]
MakeExample = Callable[[int], Example]


@pytest.fixture
def backbone() -> Backbone:
    return build_toy(Toy(), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def make_tuner() -> MakeTuner:
    """Return what makes a small tuner: make_tuner("a3tune", k_top=1)."""

    def make(name: str, **options: Any) -> Tuner:
        written = spec.parse(f"{name}[{SETTINGS[name]}]")
        extra = ",".join(f"{key}={value}" for key, value in options.items())
        chosen = dict(written.values) | dict(spec.parse(f"{name}[{extra}]").values)
        return plugins.create("method", spec.Spec(name, tuple(chosen.items())))[1]

    return make


QUESTIONS = ("what is it?", "is this a lung?", "how?", "where is the lesion in this image?")
ANSWERS = ("a liver", "no", "it was not said", "in the left lobe")


@pytest.fixture
def example(backbone: Backbone) -> MakeExample:
    """Return what makes the i-th sample; images, questions, answers and targets all differ.

    Samples 0, 3, ... have no segments, and samples 1, 5, ... nothing of an expert.
    """

    def make(index: int) -> Example:
        generator = torch.Generator().manual_seed(index)
        pixels = torch.randn(1, 3, 16, 16, generator=generator)
        segments = torch.zeros(index % 3, 16)
        for number, segment in enumerate(segments):
            segment[4 * number + index % 4 : 4 * number + index % 4 + 3] = 1
        return Example(
            f"sample-{index}",
            backbone.prompt(QUESTIONS[index % 4], backbone.encode(pixels)[0]),
            backbone.template.encode_answer(backbone.tokenizer, ANSWERS[index % 4]),
            {"segments": segments, **expert_targets(index)},
        )

    return make


def expert_targets(index: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(100 + index)
    patches = torch.nn.functional.normalize(torch.randn(16, 5, generator=generator), dim=-1)
    there = int(index % 4 != 1)
    return {
        "similarity": (patches @ patches.T).expand(there, 16, 16),
        "expert_attention": torch.rand(there, 16, generator=generator),
    }


@pytest.fixture
def shake() -> Callable[[Adapter], None]:
    """Return what gives an adapter's weights random values, so that it changes every logit."""

    def shaken(adapter: Adapter, size: float = 0.3) -> None:
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for weight in adapter.trainable().values():
                weight.add_(torch.randn(weight.shape, generator=generator) * size)

    return shaken
