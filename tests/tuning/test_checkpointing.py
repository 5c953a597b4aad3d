"""Gradient checkpointing: less is kept, the result is the same, and nothing is left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from medbench.model.llava import Backbone
from medbench.tuning import loop
from medbench.tuning.a3moe import A3MoE
from medbench.tuning.adapter import Adapter, attached
from medbench.tuning.batch import collate
from medbench.tuning.extensions import part
from medbench.tuning.loop import LOG
from medbench.tuning.recompute import recomputing
from medbench.tuning.step import forward, seen_losses

MakeTuner = Callable[..., Any]
MakeExample = Callable[[int], Any]

SETTINGS = {
    "lora": ("lora", {"dropout": 0.3}),
    "a3tune": ("a3tune", {"dropout": 0.3, "balance_weight": 0.1}),
    "published": ("a3tune", {"dropout": 0.3, "variant": "official", "kmoe_text_lora": "shared"}),
    "medalign": ("medalign", {"dropout": 0.3}),
    "chosen heads": ("a3tune", {"dropout": 0.3, "head_selection": "fixed", "R": 5}),
}


@pytest.mark.parametrize("which", SETTINGS)
def test_losses_gradients_and_draws_are_those_without(
    backbone: Backbone,
    make_tuner: MakeTuner,
    example: MakeExample,
    shake: Callable[[Adapter], None],
    which: str,
) -> None:
    name, options = SETTINGS[which]
    tuner = make_tuner(name, **options)
    found: list[tuple[dict[str, Tensor], dict[str, Tensor], Tensor]] = []
    with attached(backbone, tuner) as adapter:
        shake(adapter)
        if options.get("head_selection"):
            moe = part(adapter.extension, A3MoE)
            assert moe is not None and moe.heads is not None
            moe.heads[0, 1:] = True
        weights = adapter.trainable()
        for recomputed in (False, True):
            adapter.train(True)
            torch.manual_seed(5)
            batch = collate(adapter.backbone, [example(i) for i in range(4)])

            def both(batch: Any = batch) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
                _, parts = seen_losses(tuner, adapter, batch)
                torch.stack([part.sum() for part in parts.values()]).sum().backward()
                gradients = {k: v.grad for k, v in weights.items() if v.grad is not None}
                return parts, gradients, torch.rand(1)

            if recomputed:
                with recomputing(adapter):
                    found.append(both())
            else:
                found.append(both())
            for weight in weights.values():
                weight.grad = None
    (parts, gradients, draw), (parts2, gradients2, draw2) = found
    assert parts.keys() == parts2.keys() and gradients.keys() == gradients2.keys()
    assert torch.equal(draw, draw2)
    for key, loss in parts.items():
        torch.testing.assert_close(parts2[key], loss, rtol=1e-6, atol=1e-6)
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradients2[key], gradient, rtol=1e-5, atol=1e-6)


def test_the_alignment_loss_alone_keeps_its_gradient(
    backbone: Backbone,
    make_tuner: MakeTuner,
    example: MakeExample,
    shake: Callable[[Adapter], None],
) -> None:
    tuner = make_tuner("a3tune")
    found: list[dict[str, Tensor]] = []
    with attached(backbone, tuner) as adapter:
        shake(adapter)
        weights = adapter.trainable()
        for block in (torch.enable_grad(), recomputing(adapter)):
            adapter.train(True)
            with block:
                batch = collate(adapter.backbone, [example(i) for i in range(4)])
                seen_losses(tuner, adapter, batch)[1]["alignment"].sum().backward()
            found.append({k: v.grad.clone() for k, v in weights.items() if v.grad is not None})
            for weight in weights.values():
                weight.grad = None
    plain, recomputed = found
    assert any(".key." in name and bool(one.any()) for name, one in plain.items())
    assert plain.keys() == recomputed.keys()
    for name, one in plain.items():
        torch.testing.assert_close(recomputed[name], one, rtol=1e-5, atol=1e-7)


def test_layers_run_again_and_the_maps_are_those_of_the_first_run(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample
) -> None:
    tuner = make_tuner("a3tune")
    runs: list[int] = []
    with attached(backbone, tuner) as adapter, recomputing(adapter):
        adapter.train(True)
        for index, layer in enumerate(adapter.model.get_base_model().model.layers):  # type: ignore[union-attr, arg-type]
            layer.self_attn.q_proj.register_forward_hook(lambda *_, index=index: runs.append(index))
        view, logits = forward(tuner, adapter, collate(adapter.backbone, [example(1)]))
        assert runs == list(range(backbone.layers))
        assert view.maps is not None
        before = view.attention
        (logits.sum() + before.sum()).backward()  # type: ignore[union-attr]
        assert sorted(runs) == sorted(2 * list(range(backbone.layers)))
        assert view.attention is before and before is not None and before.requires_grad
    # The hooks above are the only thing left, and they are this test's own.


def test_it_changes_no_number_of_a_training_run_and_leaves_nothing_behind(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample, tmp_path: Path
) -> None:
    language = backbone.language_model
    before = [
        (module, vars(module).copy(), dict(module._forward_hooks)) for module in language.modules()
    ]
    logs, states = [], []
    for recomputed in ("false", "true"):
        tuner = make_tuner("a3tune", dropout=0.3, gradient_checkpointing=recomputed)
        folder = tmp_path / recomputed
        folder.mkdir()
        with attached(backbone, tuner) as adapter:
            loop.train(tuner, adapter, 8, example, folder, seed=0, epochs=3)
            states.append({k: v.clone() for k, v in adapter.state().items()})
        logs.append([json.loads(line) for line in (folder / LOG).read_text().splitlines()])
    for left, right in zip(*logs, strict=True):
        assert left["loss"] == pytest.approx(right["loss"], rel=1e-5)
        assert left["gradient_norm"] == pytest.approx(right["gradient_norm"], rel=1e-4)
    for name, weight in states[0].items():
        torch.testing.assert_close(states[1][name], weight, rtol=0, atol=1e-3)
    for module, attributes, hooks in before:
        assert vars(module).keys() == attributes.keys()
        assert dict(module._forward_hooks) == hooks


def test_an_adapter_trained_with_it_is_the_one_trained_without(make_tuner: MakeTuner) -> None:
    from medbench import keys

    plain = keys.keyed(make_tuner("a3tune"))
    other = make_tuner("a3tune", gradient_checkpointing="true", log_terms_every=3)
    assert keys.keyed(other) == plain
