"""The map on visual tokens: what it changes and when, and what the losses see of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medbench.backbones.toy import Toy
from medbench.decoding.stack import RowStack
from medbench.method import Tuner
from medbench.model.llava import Backbone
from medbench.model.tiny import build_toy
from medbench.tuning.adapter import Adapter, attached
from medbench.tuning.batch import Example, TrainBatch, collate
from medbench.tuning.extensions import Extensions, part, together
from medbench.tuning.recompute import recomputing
from medbench.tuning.step import forward, losses
from medbench.tuning.visual_map import Residual, VisualMap

MakeTuner = Callable[..., Tuner]
MakeExample = Callable[[int], Example]


@pytest.fixture
def backbone() -> Backbone:
    """Four layers, so that there are some below and above the map."""
    return build_toy(Toy(layers=4), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def batch(backbone: Backbone, example: MakeExample) -> TrainBatch:
    return collate(backbone, [example(i) for i in range(4)])


def map_of(adapter: Adapter) -> VisualMap:
    found = part(adapter.extension, VisualMap)
    assert found is not None
    return found


def eager_states(adapter: Adapter, batch: TrainBatch) -> tuple[tuple[Tensor, ...], ...]:
    """Return what transformers itself calls hidden_states and attentions, eager, one pass."""
    model = adapter.model
    for state in adapter.backbone.row_states:
        state.begin(batch.masks)
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    filled = batch.masks.filled
    output = model(
        inputs_embeds=batch.embeddings,
        attention_mask=filled.long(),
        position_ids=(filled.long().cumsum(1) - 1).clamp(min=0),
        use_cache=False,
        output_hidden_states=True,
        output_attentions=True,
    )
    model.set_attn_implementation(before)
    return output.hidden_states, output.attentions


def test_the_residual_is_eps_times_x_w_transposed() -> None:
    residual = Residual(2, epsilon=0.5)
    with torch.no_grad():
        residual.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 3.0]]))
    assert residual(torch.tensor([[1.0, 10.0]])).tolist() == [[10.5, 15.0]]
    # R = [[1.5, 1], [0, 2.5]]; R^T R - 1 = [[1.25, 1.5], [1.5, 6.25]].
    wanted = (1.25**2 + 2 * 1.5**2 + 6.25**2) / 2
    assert float(residual.penalty().detach()) == pytest.approx(wanted)


def test_a_low_rank_residual_is_that_of_its_product() -> None:
    torch.manual_seed(0)
    low, full = Residual(5, rank=2), Residual(5)
    x = torch.randn(3, 5)
    assert not low(x).any() and float(low.penalty().detach()) == 0
    with torch.no_grad():
        low.weight.normal_()
        full.weight.copy_(low.matrix())
    torch.testing.assert_close(low(x), full(x))
    assert sum(one.nelement() for one in low.parameters()) == 20


def test_a_turn_has_no_penalty() -> None:
    residual = Residual(2)
    with torch.no_grad():  # I + W turns by a right angle
        residual.weight.copy_(torch.tensor([[-1.0, -1.0], [1.0, -1.0]]))
    assert float(residual.penalty().detach()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_it_changes_hidden_states_l_at_visual_positions_and_nothing_before(
    backbone: Backbone, make_tuner: MakeTuner, batch: TrainBatch, layer: int
) -> None:
    tuner = make_tuner("medalign", layer=layer, map_epsilon=0.7)
    with attached(backbone, tuner) as adapter, torch.no_grad():
        plain, _ = eager_states(adapter, batch)
        weight = map_of(adapter).maps[str(layer)].weight
        weight.normal_(generator=torch.Generator().manual_seed(1))
        steered, attentions = eager_states(adapter, batch)
        view, _ = forward(tuner, adapter, batch)
        states = map_of(adapter).states[layer]
    visual, text = batch.masks.visual, batch.masks.filled & ~batch.masks.visual
    for index in range(layer):
        assert torch.equal(steered[index], plain[index])
    wanted = plain[layer][visual] + 0.7 * plain[layer][visual] @ weight.T
    torch.testing.assert_close(steered[layer][visual], wanted, atol=1e-4, rtol=1e-4)
    assert torch.equal(steered[layer][text], plain[layer][text])
    # The last of transformers' states has been through the final norm.
    assert not torch.allclose(steered[-1][text], plain[-1][text], atol=1e-3)
    torch.testing.assert_close(states, steered[layer][visual].view(4, 16, -1), atol=1e-4, rtol=1e-4)
    # The probe reads the attention of the layer that these states go into.
    assert view.attention is not None and view.valid is not None
    assert view.attention.shape[1] == 1
    wanted_rows = tuner.queries(batch)
    assert wanted_rows is not None
    for row in range(4):
        found = attentions[layer][row][:, wanted_rows[row]][:, :, visual[row]]
        read = view.attention[row, 0][:, view.valid[row]]
        torch.testing.assert_close(read, found, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"visual_map": "low_rank"}, {"layer": "1/3"}])
def test_it_is_the_identity_to_begin_with(
    backbone: Backbone,
    make_tuner: MakeTuner,
    example: MakeExample,
    options: dict[str, Any],
) -> None:
    prompts = [example(i).prompt for i in range(3)]
    with torch.no_grad():
        plain = RowStack(backbone, prompts).logits
        with attached(backbone, make_tuner("medalign", **options)) as adapter:
            assert torch.equal(RowStack(adapter.backbone, prompts).logits, plain)


@pytest.mark.parametrize("name", ["similarity", "attention"])
@pytest.mark.parametrize("kind", ["dense", "low_rank"])
def test_both_losses_reach_the_map_and_the_layers_before_it_and_none_behind(
    backbone: Backbone,
    make_tuner: MakeTuner,
    batch: TrainBatch,
    shake: Callable[[Adapter], None],
    name: str,
    kind: str,
) -> None:
    tuner = make_tuner("medalign", layer=2, visual_map=kind)
    with attached(backbone, tuner) as adapter:
        shake(adapter)
        losses(tuner, adapter, batch)[name].sum().backward()
        reached = {
            weight: one.grad is not None and bool(one.grad.any())
            for weight, one in adapter.trainable().items()
        }
    assert all(reached[weight] for weight in reached if weight.startswith("extension."))
    lora = {weight.split(".layers.")[1]: hit for weight, hit in reached.items() if "lora" in weight}
    for weight, hit in lora.items():
        layer, _, module = weight.partition(".")
        attends = module.startswith(("self_attn.q_proj", "self_attn.k_proj"))
        here = int(layer) == 2 and name == "attention" and attends
        assert hit == (int(layer) < 2 or here), weight


def test_several_layers_have_a_map_each_and_the_losses_are_means(
    backbone: Backbone,
    make_tuner: MakeTuner,
    batch: TrainBatch,
    shake: Callable[[Adapter], None],
) -> None:
    both = make_tuner("medalign", layer="1/3")
    with attached(backbone, both) as adapter, torch.no_grad():
        shake(adapter)
        assert sorted(map_of(adapter).maps) == ["1", "3"]
        found = losses(both, adapter, batch)
        states = dict(map_of(adapter).states)
        single = []
        for layer in (1, 3):
            view, _ = forward(replace(both, layer=(layer,)), adapter, batch)
            map_of(adapter).states = {layer: states[layer]}
            single.append(both.auxiliary(view))
    for name in ("similarity", "attention"):
        mean = (single[0][name] + single[1][name]) / 2
        torch.testing.assert_close(found[name], mean)
        assert not torch.allclose(single[0][name], single[1][name], rtol=1e-3)


def test_a_batch_without_any_image_gives_the_map_a_gradient_of_zeros(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample
) -> None:
    blind = [replace(one, prompt=one.prompt.without_image()) for one in (example(0), example(2))]
    tuner = make_tuner("medalign", attention_weight=0)
    with attached(backbone, tuner) as adapter:
        parts = losses(tuner, adapter, collate(backbone, blind))
        assert parts["similarity"].tolist() == [0, 0]
        torch.stack([one.sum() for one in parts.values()]).sum().backward()
        for name, weight in adapter.trainable().items():
            assert weight.grad is not None, name
            assert bool(weight.grad.any()) is False or "extension" not in name


def test_a_sample_without_an_image_beside_others_costs_nothing(
    backbone: Backbone,
    make_tuner: MakeTuner,
    example: MakeExample,
    shake: Callable[[Adapter], None],
) -> None:
    mixed = [example(0), replace(example(2), prompt=example(2).prompt.without_image())]
    tuner = make_tuner("medalign", query_span="all_text")
    with attached(backbone, tuner) as adapter:
        shake(adapter)
        found = losses(tuner, adapter, collate(backbone, mixed))
        alone = losses(tuner, adapter, collate(backbone, [example(0)]))
        torch.stack([one.sum() for one in found.values()]).sum().backward()
        assert all(
            one.grad is None or one.grad.isfinite().all() for one in adapter.trainable().values()
        )
    for name in ("similarity", "attention"):
        assert found[name][1] == 0
        torch.testing.assert_close(found[name][:1], alone[name])


def test_weights_are_float32_on_a_bfloat16_backbone_and_so_are_the_losses(
    backbone: Backbone, make_tuner: MakeTuner, batch: TrainBatch
) -> None:
    backbone.language_model.to(torch.bfloat16)
    tuner = make_tuner("medalign")
    batch = replace(batch, embeddings=batch.embeddings.bfloat16())
    with attached(backbone, tuner) as adapter:
        assert {one.dtype for one in map_of(adapter).parameters()} == {torch.float32}
        found = losses(tuner, adapter, batch)
        assert map_of(adapter).states[2].dtype == torch.bfloat16
        assert {one.dtype for one in found.values()} == {torch.float32}
        torch.stack([one.sum() for one in found.values()]).sum().backward()
        weight = map_of(adapter).maps["2"].weight
        assert weight.grad is not None and weight.grad.any()


def test_decoding_with_the_map_is_that_of_whole_passes_without_a_cache(
    backbone: Backbone,
    make_tuner: MakeTuner,
    example: MakeExample,
    shake: Callable[[Adapter], None],
) -> None:
    """Every step is held against a pass over one unpadded sequence with a map by hand."""
    tuner = make_tuner("medalign", layer=2)
    prompts = [example(i).prompt for i in range(3)]
    with attached(backbone, tuner) as adapter, torch.no_grad():
        shake(adapter)
        weight = map_of(adapter).maps["2"].weight
        stack = RowStack(adapter.backbone, prompts)
        tokens = torch.arange(3) + 30
        seen = [stack.logits]
        for step in range(4):
            stack.append(tokens + step)
            seen.append(stack.logits)
        assert not map_of(adapter).states
        embed = adapter.model.get_input_embeddings()
        map_of(adapter).settle()
        for row, prompt in enumerate(prompts):
            visual = prompt.visual

            def by_hand(
                _: nn.Module, _inputs: Any, output: Tensor, visual: Tensor = visual
            ) -> Tensor:
                output = output.clone()
                place = visual.nonzero()[:, 0]
                output[0, place] += output[0, place] @ weight.T
                return output

            layer = adapter.model.get_base_model().model.layers[1]
            handle = layer.register_forward_hook(by_hand)
            for step in range(5):
                answer = embed(torch.tensor([30 + row + i for i in range(step)], dtype=torch.long))
                whole = torch.cat([backbone.embed(prompt), answer])[None]
                logits = adapter.model(inputs_embeds=whole, use_cache=False).logits[0, -1]
                torch.testing.assert_close(seen[step][row], logits, atol=3e-5, rtol=3e-5)
            handle.remove()


def test_a_pass_after_the_prompts_is_left_alone_however_long(
    backbone: Backbone,
    make_tuner: MakeTuner,
    example: MakeExample,
    shake: Callable[[Adapter], None],
) -> None:
    prompt = example(0).prompt
    with attached(backbone, make_tuner("medalign")) as adapter, torch.no_grad():
        shake(adapter)
        stack = RowStack(adapter.backbone, [prompt])
        calls: list[int] = []
        residual = map_of(adapter).maps["2"]
        residual.register_forward_hook(lambda *_: calls.append(1))
        stack.append(torch.full((1, len(prompt)), 30))
    assert not calls


def test_begin_must_come_before_the_first_pass(backbone: Backbone, make_tuner: MakeTuner) -> None:
    with attached(backbone, make_tuner("medalign")) as adapter, pytest.raises(RuntimeError):
        adapter.model(torch.ones(1, 4, dtype=torch.long))


def test_extensions_together_are_found_again_by_type() -> None:
    first, second = nn.Linear(1, 1), nn.Identity()
    both = together({"one": first, "none": None, "two": second})
    assert isinstance(both, Extensions)
    assert part(both, nn.Linear) is first and part(both, nn.Identity) is second
    assert part(both, nn.Conv2d) is None and part(None, nn.Linear) is None
    assert sorted(both.state_dict()) == ["one.bias", "one.weight"]
    assert together({"one": first, "two": None}) is first
    assert part(first, nn.Linear) is first
    assert together({"one": None}) is None


@pytest.mark.parametrize("name", ["medalign", "a3tune"])
def test_gradient_checkpointing_changes_no_gradient(
    backbone: Backbone,
    make_tuner: MakeTuner,
    example: MakeExample,
    shake: Callable[[Adapter], None],
    name: str,
) -> None:
    tuner = make_tuner(name, similarity_weight=0.5)
    batch = collate(backbone, [example(i) for i in range(3)])
    found: list[dict[str, Tensor]] = []
    with attached(backbone, tuner) as adapter:
        shake(adapter)
        adapter.train(True)
        for recompute in (nullcontext(), recomputing(adapter)):
            with recompute:
                parts = losses(tuner, adapter, batch)
                torch.stack([one.sum() for one in parts.values()]).sum().backward()
            trainable = adapter.trainable().items()
            found.append({k: v.grad.clone() for k, v in trainable if v.grad is not None})
            for _, weight in trainable:
                weight.grad = None
    assert found[0].keys() == found[1].keys()
    for weight, gradient in found[0].items():
        torch.testing.assert_close(found[1][weight], gradient, atol=1e-5, rtol=1e-4)
