"""Adapters: saved, loaded, taken off, and what is said when they are broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medbench.decoding.stack import RowStack
from medbench.errors import UserError
from medbench.method import Tuner
from medbench.model.llava import Backbone
from medbench.tuning import loop
from medbench.tuning.adapter import attached
from medbench.tuning.batch import Example
from medbench.tuning.lora import CONFIG, WEIGHTS

MakeTuner = Callable[..., Tuner]
MakeExample = Callable[[int], Example]
TUNERS = [
    ("lora", {}),
    ("a3tune", {}),
    ("a3tune", {"kmoe_text_lora": "shared"}),
    ("a3tune", {"moe_router": "mlp"}),
    ("a3tune", {"qmoe": "off"}),
    ("a3tune", {"kmoe": "off"}),
    ("a3tune", {"moe": "off"}),
    ("a3tune", {"moe": "off", "head_selection": "fixed"}),
    ("a3tune", {"head_selection": "fixed"}),
    ("a3tune", {"variant": "official"}),
    ("a3tune", {"similarity_weight": 0.5}),
    ("a3tune", {"similarity_weight": 0.5, "moe": "off"}),
    ("medalign", {}),
    ("medalign", {"visual_map": "low_rank"}),
    ("medalign", {"visual_map": "none"}),
    ("medalign", {"variant": "official"}),
    ("medalign", {"drop_wrapped_lora": True}),
]
VARIED = pytest.mark.parametrize(("name", "options"), TUNERS)


@torch.no_grad()
def logits(backbone: Backbone, example: MakeExample) -> Tensor:
    """Return the logits of a ragged batch's prompts and of two steps after them."""
    stack = RowStack(backbone, [example(i).prompt for i in range(4)])
    seen = [stack.logits]
    for step in range(2):
        stack.append(torch.arange(4) + 20 + step)
        seen.append(stack.logits)
    return torch.stack(seen)


@VARIED
def test_a_saved_adapter_gives_the_same_logits_to_the_last_bit(
    backbone: Backbone,
    make_tuner: MakeTuner,
    example: MakeExample,
    tmp_path: Path,
    name: str,
    options: dict[str, Any],
) -> None:
    tuner = make_tuner(name, **options)
    plain = logits(backbone, example)
    with attached(backbone, tuner, seed=3) as adapter:
        assert torch.equal(logits(adapter.backbone, example), plain)
        loop.train(tuner, adapter, 4, example, tmp_path, seed=0, epochs=3)
        adapter.save(tmp_path)
        trained = logits(adapter.backbone, example)
        state = {k: v.clone() for k, v in adapter.state().items()}
    assert (trained - plain).abs().max() > 0.01
    assert torch.equal(logits(backbone, example), plain)
    with attached(backbone, tuner, folder=tmp_path) as adapter:
        assert torch.equal(logits(adapter.backbone, example), trained)
        if adapter.extension is not None:
            for key, value in adapter.extension.state_dict().items():
                assert torch.equal(value, state[f"extension.{key}"])


def test_only_peft_files_and_the_experts_are_written(
    backbone: Backbone, make_tuner: MakeTuner, tmp_path: Path
) -> None:
    with attached(backbone, make_tuner("a3tune")) as adapter:
        adapter.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "extension.safetensors",
    }
    config = json.loads((tmp_path / CONFIG).read_text())
    assert set(config["target_modules"]) == {
        "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0)


def surroundings(model: nn.Module) -> dict[str, Any]:
    """Return what is on every module: identity, attributes, hooks and switches."""
    seen: dict[str, Any] = {}
    for name, module in model.named_modules():
        seen[name] = (
            id(module),
            type(module),
            module.training,
            sorted(vars(module)),
            len(module._forward_hooks) + len(module._forward_pre_hooks),
            len(module._backward_hooks) + len(module._backward_pre_hooks),
        )
    for name, weight in model.named_parameters():
        seen[f"{name} weight"] = (id(weight), weight.requires_grad, weight.grad is None)
    return seen


@VARIED
def test_the_backbone_is_afterwards_as_it_was(
    backbone: Backbone,
    make_tuner: MakeTuner,
    example: MakeExample,
    tmp_path: Path,
    name: str,
    options: dict[str, Any],
) -> None:
    plain = backbone.language_model
    plain.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    before, text = surroundings(plain), repr(plain)
    weights = {k: v.clone() for k, v in plain.state_dict().items()}
    first = logits(backbone, example)
    tuner = make_tuner(name, **options)
    with attached(backbone, tuner) as adapter:
        loop.train(tuner, adapter, 4, example, tmp_path, seed=0, epochs=1)
        adapter.save(tmp_path)
    with attached(backbone, tuner, folder=tmp_path) as adapter:
        logits(adapter.backbone, example)
    assert surroundings(plain) == before
    assert repr(plain) == text
    assert not [key for key in vars(plain) if "peft" in key and key not in before[""][3]]
    assert not hasattr(plain, "peft_config")
    assert torch.equal(logits(backbone, example), first)
    for key, value in plain.state_dict().items():
        assert torch.equal(value, weights[key])
    assert backbone.row_states == ()


def test_the_backbone_is_as_it_was_after_an_error_in_the_middle_of_a_step(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample
) -> None:
    before, first = surroundings(backbone.language_model), logits(backbone, example)
    with (
        pytest.raises(ZeroDivisionError),
        attached(backbone, make_tuner("a3tune", dropout=0.5)) as adapter,
    ):
        adapter.train(True)
        raise ZeroDivisionError
    assert surroundings(backbone.language_model) == before
    assert torch.equal(logits(backbone, example), first)


def _truncate(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])


def _drop_one(folder: Path, name: str) -> None:
    tensors = load_file(folder / name)
    del tensors[sorted(tensors)[0]]
    save_file(tensors, folder / name)


def _shrink_one(folder: Path, name: str) -> None:
    tensors = load_file(folder / name)
    first = sorted(tensors)[0]
    tensors[first] = tensors[first][..., :1].contiguous()
    save_file(tensors, folder / name)


def _remove(folder: Path, name: str) -> None:
    (folder / name).unlink()


@pytest.mark.parametrize("damage", [_truncate, _drop_one, _shrink_one, _remove])
@pytest.mark.parametrize("name", [WEIGHTS, "extension.safetensors"])
def test_a_broken_adapter_is_a_users_error_and_leaves_the_backbone_alone(
    backbone: Backbone,
    make_tuner: MakeTuner,
    tmp_path: Path,
    name: str,
    damage: Callable[[Path, str], None],
) -> None:
    tuner = make_tuner("a3tune")
    with attached(backbone, tuner) as adapter:
        adapter.save(tmp_path)
    damage(tmp_path, name)
    before = surroundings(backbone.language_model)
    with (
        pytest.raises(UserError, match="cannot load the adapter in") as raised,
        attached(backbone, tuner, folder=tmp_path),
    ):
        pass
    assert str(tmp_path) in str(raised.value)
    assert surroundings(backbone.language_model) == before


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_broken_configuration_is_a_users_error(
    backbone: Backbone, make_tuner: MakeTuner, tmp_path: Path, content: str
) -> None:
    with attached(backbone, make_tuner("lora")) as adapter:
        adapter.save(tmp_path)
    (tmp_path / CONFIG).write_text(content)
    with (
        pytest.raises(UserError, match="cannot load the adapter in"),
        attached(backbone, make_tuner("lora"), folder=tmp_path),
    ):
        pass


def test_fresh_adapters_depend_on_the_seed_alone_and_leave_randomness_alone(
    backbone: Backbone, make_tuner: MakeTuner
) -> None:
    states = []
    for seed, elsewhere in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(elsewhere)
        before = torch.get_rng_state()
        with attached(backbone, make_tuner("a3tune"), seed=seed) as adapter:
            states.append({k: v.clone() for k, v in adapter.state().items()})
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    different = [k for k in states[0] if not torch.equal(states[0][k], states[2][k])]
    assert different == [k for k in states[0] if "lora_B" not in k]


def test_experts_and_routers_stay_float32_on_a_bfloat16_backbone(
    backbone: Backbone, make_tuner: MakeTuner
) -> None:
    backbone.language_model.to(torch.bfloat16)
    with attached(backbone, make_tuner("a3tune")) as adapter:
        assert {weight.dtype for weight in adapter.trainable().values()} == {torch.float32}
