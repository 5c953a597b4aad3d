"""`span=fixed`: the image looked for where it stands in training prompts."""

from __future__ import annotations

import pytest
import torch

import medbench
from medbench import plugins
from medbench import spec as specs
from medbench.model.rows import RowMasks
from medbench.model.tiny_original import TOWERS, write_tiny

SETTING = "align_weight=0.1,q_experts=2,k_experts=2,k_top=1,expert_rank=2"


@pytest.fixture(params=["llava", "llava_mistral", "llava_qwen2"])
def backbone(request, tmp_path):
    directory = write_tiny(request.param, tmp_path)
    inside = request.param == "llava_qwen2"
    tower = (directory if inside else tmp_path) / TOWERS[request.param]
    names = {
        "llava": "llava-med",
        "llava_mistral": "llava-med-1.5",
        "llava_qwen2": "huatuogpt-vision-7b",
    }
    return medbench.load_backbone(f"{names[request.param]}[weights={directory},vision={tower}]")


def mixtures(backbone, **options: str):
    written = "".join(f",{name}={value}" for name, value in options.items())
    _, tuner = plugins.create("method", specs.parse(f"a3tune[{SETTING}{written}]"))
    return tuner.extend(backbone).train(False)


def masks(backbone) -> RowMasks:
    """Of one test prompt, and three columns of padding in front."""
    prompt = backbone.prompt("Is it?", torch.zeros(backbone.image_tokens, 0))
    filled = torch.tensor([[False] * 3 + [True] * len(prompt)])
    padding = torch.zeros(1, 3, dtype=torch.bool)
    visual = torch.cat([padding, prompt.visual[None]], 1)
    question = torch.cat([padding, prompt.question[None]], 1)
    return RowMasks(filled, visual, question, filled)


def first(backbone, *, training: bool) -> int:
    prompt = backbone.prompt("Is it?", torch.zeros(backbone.image_tokens, 0), training=training)
    return int(prompt.visual.nonzero()[0])


def test_it_is_as_late_as_training_prompts_are_longer(backbone):
    late = first(backbone, training=True) - first(backbone, training=False)
    assert mixtures(backbone, span="fixed").config.late == late
    assert mixtures(backbone).config.late == 0
    # Only LLaVA-Med 1.0 trains on other prompts than it is tested on.
    assert (late != 0) == (backbone.name == "llava_med")


@pytest.mark.parametrize("late", [1, 2, -1])
def test_keys_are_mixed_and_prompts_pooled_from_there(backbone, late):
    from dataclasses import replace

    exact = mixtures(backbone, qmoe_pool="official_span")
    moved = mixtures(backbone, qmoe_pool="official_span")
    moved.config = replace(moved.config, late=late)
    given = masks(backbone)
    exact.begin(given)
    moved.begin(given)
    place = given.visual[0].nonzero()[:, 0]
    assert moved._masks.visual[0].nonzero()[:, 0].tolist() == (place + late).tolist()
    assert exact._masks is given
    # The published pool begins one token behind the image it takes for granted.
    pools = [one._pool(one._masks)[0].nonzero()[0] for one in (exact, moved)]
    assert int(pools[1] - pools[0]) == late


def test_training_looks_where_the_image_is(backbone):
    moved = mixtures(backbone, span="fixed").train(True)
    given = masks(backbone)
    moved.begin(given)
    assert moved._masks is given
