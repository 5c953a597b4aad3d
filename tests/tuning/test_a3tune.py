"""A3Tune's options: what each one changes, what the variants set, and the fixed heads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from medbench import generate, plugins, spec
from medbench.decoding.stack import RowStack
from medbench.method import Tuner
from medbench.methods.a3tune import A3Tune
from medbench.methods.lora import LoRA
from medbench.model.llava import Backbone
from medbench.model.rows import RowMasks
from medbench.tuning import loop
from medbench.tuning.a3moe import A3MoE
from medbench.tuning.adapter import Adapter, attached
from medbench.tuning.alignment import top_heads, visual_ratio
from medbench.tuning.batch import Example, collate
from medbench.tuning.loop import LOG
from medbench.tuning.step import forward, losses

MakeTuner = Callable[..., Tuner]
MakeExample = Callable[[int], Example]


def moe_of(adapter: Adapter) -> A3MoE:
    assert isinstance(adapter.extension, A3MoE)
    return adapter.extension


def test_defaults_are_the_papers() -> None:
    lora, a3tune = LoRA(), A3Tune()
    for tuner in (lora, a3tune):
        assert (tuner.rank, tuner.alpha, tuner.dropout) == (64, 16.0, 0.05)
        assert (tuner.learning_rate, tuner.warmup_ratio, tuner.batch_size) == (2e-4, 0.03, 32)
        assert (tuner.weight_decay, tuner.max_grad_norm) == (0.0, 1.0)
    assert (a3tune.q_experts, a3tune.k_experts, a3tune.k_top, a3tune.R) == (4, 8, 2, 128)
    assert (a3tune.expert_rank, a3tune.expert_alpha) == (16, 8.0)
    assert (a3tune.kmoe_combine, a3tune.align_reduce) == ("weighted", "pool_then_square")
    assert (a3tune.balance_weight, a3tune.qmoe_pool, a3tune.align_loss) == (0, "question", "energy")


TABLE_7 = {"slake": (6, 0.1, 8, 16, 3), "vqa_rad": (9, 0.06, 4, 8, 2)}


@pytest.mark.parametrize("task", TABLE_7)
def test_the_tasks_set_the_papers_epochs_lambda_and_experts(task: str) -> None:
    tuning = plugins.get("task", task).attributes["tuning"]
    tuner = plugins.create("method", spec.parse("a3tune"), tuning)[1]
    found = (tuner.epochs, tuner.align_weight, tuner.q_experts, tuner.k_experts, tuner.k_top)
    assert found == TABLE_7[task]
    assert plugins.create("method", spec.parse("lora"), tuning)[1].epochs == TABLE_7[task][0]


def variant(name: str) -> A3Tune:
    return plugins.create("method", spec.parse(f"a3tune[variant={name}]"))[1]


def test_official_is_the_10_code_and_official15_honours_r_and_has_no_balance() -> None:
    official, official15 = variant("official"), variant("official15")
    assert (official.R, official.balance_weight) == (32, 0.01)
    assert official.balance_grouping == "official_mod4"
    assert (official15.R, official15.balance_weight) == (128, 0.0)
    for one in (official, official15):
        assert one.kmoe_combine == "last_write"
        assert one.qmoe_pool == "official_span"
        assert one.align_reduce == "mean_of_squares"
        assert one.mask_geometry == "squash"
        assert one.drop_empty is False
        assert one.moe_test_dropout is True
        assert one.head_selection == "per_sample"
        assert one.align_queries == "all_after_image"


@pytest.mark.parametrize(
    ("written", "mixtures", "targets"),
    [
        ({}, {"query", "key"}, set()),
        ({"qmoe": "off"}, {"key"}, {"q_proj"}),
        ({"kmoe": "off"}, {"query"}, {"k_proj"}),
        ({"q_experts": 0}, {"key"}, {"q_proj"}),
        ({"moe": "off"}, set(), {"q_proj", "k_proj"}),
    ],
)
def test_lora_is_on_every_linear_layer_that_has_no_experts(
    backbone: Backbone,
    make_tuner: MakeTuner,
    written: dict[str, Any],
    mixtures: set[str],
    targets: set[str],
) -> None:
    with attached(backbone, make_tuner("a3tune", **written)) as adapter:
        on = {name.split(".")[-4] for name in adapter.trainable() if "lora_A.default" in name}
        assert on == targets | {"v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
        assert {n.split(".")[1] for n in adapter.trainable() if "extension" in n} == mixtures


def test_a3tune_without_its_parts_is_lora_to_the_bit(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample
) -> None:
    found = []
    for tuner in (make_tuner("lora"), make_tuner("a3tune", moe="off", align_weight=0)):
        with attached(backbone, tuner, seed=3) as adapter:
            batch = collate(adapter.backbone, [example(i) for i in range(3)])
            parts = losses(tuner, adapter, batch)
            torch.stack([one.sum() for one in parts.values()]).sum().backward()
            found.append({name: weight.grad for name, weight in adapter.trainable().items()})
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])  # type: ignore[arg-type]


def test_lora_is_on_every_linear_layer_of_the_language_model_but_the_head(
    backbone: Backbone, make_tuner: MakeTuner
) -> None:
    linear = {
        name
        for name, module in backbone.language_model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    with attached(backbone, make_tuner("lora")) as adapter:
        wrapped = {
            name.removeprefix("lora.base_model.model.").removesuffix(".lora_A.default.weight")
            for name in adapter.trainable()
            if "lora_A" in name
        }
    assert wrapped == linear - {"lm_head"}


def masks_of(visual: str, question: str, prompt: str) -> RowMasks:
    def mask(text: str) -> Tensor:
        return torch.tensor([[letter == "#" for letter in text]])

    return RowMasks(mask("." + "#" * (len(visual) - 1)), mask(visual), mask(question), mask(prompt))


@pytest.mark.parametrize(
    ("pool", "training", "pooled"),
    [
        ("question", True, "......##...."),
        ("question", False, "......##...."),
        ("official_span", True, ".....#####.."),
        ("official_span", False, "......###..."),
    ],
)
def test_the_query_router_pools_the_question_or_the_released_span(
    backbone: Backbone, make_tuner: MakeTuner, pool: str, training: bool, pooled: str
) -> None:
    #        padding, 2 text, 2 visual, 5 prompt (the question in it), 2 answer
    masks = masks_of("...##.......", "......##....", ".#########..")
    with attached(backbone, make_tuner("a3tune", qmoe_pool=pool)) as adapter:
        adapter.train(training)
        found = moe_of(adapter)._pool(masks)
    assert "".join(".#"[bool(one)] for one in found[0]) == pooled


def test_without_an_image_the_released_span_is_the_whole_prompt(
    backbone: Backbone, make_tuner: MakeTuner
) -> None:
    masks = masks_of("......", "...#..", ".#####")
    with attached(backbone, make_tuner("a3tune", qmoe_pool="official_span")) as adapter:
        assert moe_of(adapter)._pool(masks)[0].tolist() == [False, False, True, True, True, False]


QUERIES = {
    "all_after_image": "after_image",
    "answer": "generating",
    "last": "last_prompt",
}


@pytest.mark.parametrize("queries", [*QUERIES, "question"])
def test_align_queries_names_the_rows_that_are_read(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample, queries: str
) -> None:
    batch = collate(backbone, [example(i) for i in range(3)])
    found = make_tuner("a3tune", align_queries=queries).queries(batch)
    wanted = batch.masks.question if queries == "question" else getattr(batch, QUERIES[queries])
    assert found is not None
    assert torch.equal(found, wanted)
    assert found.any(1).all()
    assert make_tuner("a3tune", align_weight=0).queries(batch) is None
    assert make_tuner("lora").queries(batch) is None


def parts_with(
    backbone: Backbone,
    tuner: Tuner,
    example: MakeExample,
    shake: Callable[[Adapter], None],
) -> dict[str, Tensor]:
    with attached(backbone, tuner) as adapter, torch.no_grad():
        shake(adapter)
        return losses(tuner, adapter, collate(backbone, [example(i) for i in range(4)]))


OPTIONS = [
    ({"align_weight": 1.0}, {"alignment"}),
    ({"R": 8}, {"alignment"}),
    ({"q_experts": 4}, {"language", "alignment"}),
    ({"k_top": 1}, {"language", "alignment"}),
    ({"expert_alpha": 2}, {"language", "alignment"}),
    ({"moe_router": "mlp"}, {"language", "alignment"}),
    ({"qmoe_pool": "official_span"}, {"language", "alignment"}),
    ({"qmoe_apply": "text"}, {"language", "alignment"}),
    ({"kmoe_combine": "weighted_renorm"}, {"language", "alignment"}),
    ({"kmoe_combine": "last_write"}, {"language", "alignment"}),
    ({"kmoe_text_lora": "shared"}, {"language", "alignment"}),
    ({"balance_weight": 0.1}, {"balance"}),
    ({"align_queries": "answer"}, {"alignment"}),
    ({"align_queries": "question"}, {"alignment"}),
    ({"align_queries": "last"}, {"alignment"}),
    ({"align_reduce": "mean_of_squares"}, {"alignment"}),
    ({"align_loss": "kl"}, {"alignment"}),
    ({"segment_reduce": "mean"}, {"alignment"}),
    # Nothing changes while dropout is 0, which is how these adapters are made.
    ({"moe_test_dropout": "true"}, set()),
]


@pytest.mark.parametrize(("option", "changed"), OPTIONS)
def test_every_option_changes_the_losses_it_speaks_of_and_no_other(
    backbone: Backbone,
    make_tuner: MakeTuner,
    example: MakeExample,
    shake: Callable[[Adapter], None],
    option: dict[str, Any],
    changed: set[str],
) -> None:
    plain = parts_with(backbone, make_tuner("a3tune"), example, shake)
    found = parts_with(backbone, make_tuner("a3tune", **option), example, shake)
    assert plain.keys() == {"language", "alignment"}
    different = {
        name
        for name in found
        if name not in plain or not torch.allclose(found[name], plain[name], rtol=1e-6, atol=1e-7)
    }
    assert different == changed
    # Samples 0 and 3 have no segments, so there is nothing to align them with.
    assert found["alignment"][[0, 3]].tolist() == [0, 0]
    assert (found["alignment"][[1, 2]] > 0).all()


@pytest.mark.parametrize("grouping", ["experts", "official_mod4"])
def test_the_balance_loss_reads_the_visual_tokens_of_every_layer(
    backbone: Backbone,
    make_tuner: MakeTuner,
    example: MakeExample,
    shake: Callable[[Adapter], None],
    grouping: str,
) -> None:
    tuner = make_tuner(
        "a3tune", k_experts=8, balance_weight=0.01, balance_grouping=grouping, align_weight=0
    )
    batch = collate(backbone, [example(i) for i in range(3)])
    with attached(backbone, tuner) as adapter, torch.no_grad():
        shake(adapter)
        found = losses(tuner, adapter, batch)["balance"]
        routing = moe_of(adapter).routing
        columns = 4 if grouping == "official_mod4" else 8
        for row in range(3):
            seen = batch.masks.visual[row]
            gates = torch.cat([routing[layer].gates[row][seen] for layer in (0, 1)])
            chosen = torch.cat([routing[layer].chosen[row][seen] for layer in (0, 1)])
            wanted = sum(
                gates[:, c::columns].mean() * chosen[:, c::columns].mean() for c in range(columns)
            )
            assert float(found[row]) == pytest.approx(0.01 * float(wanted), rel=1e-5)


def mean_ratio(backbone: Backbone, tuner: Tuner, examples: list[Example]) -> Tensor:
    """Return each head's ratio on the untuned model, averaged over single samples."""
    with attached(backbone, tuner) as adapter, torch.no_grad():
        views = [forward(tuner, adapter, collate(backbone, [one]))[0] for one in examples]
        return torch.cat([visual_ratio(v.attention, v.valid) for v in views]).mean(0)  # type: ignore[arg-type]


def test_fixed_heads_are_those_of_the_untuned_model_on_the_first_batch(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample, tmp_path: Path
) -> None:
    tuner = make_tuner("a3tune", head_selection="fixed", R=3, learning_rate=0.05)
    first = next(loop._order(8, 4, 3, 0))
    wanted = top_heads(mean_ratio(backbone, tuner, [example(i) for i in first])[None], 3)[0]
    assert int(wanted.sum()) == 3
    with attached(backbone, tuner) as adapter:
        heads = moe_of(adapter).heads
        assert heads is not None and not heads.any()
        loop.train(tuner, adapter, 8, example, tmp_path, seed=0, epochs=3)
        assert torch.equal(heads, wanted)
        adapter.save(tmp_path)
        # The tuned model's own choice has moved on; the loss keeps to the fixed one.
        batch = collate(backbone, [example(i) for i in (1, 2)])
        with torch.no_grad():
            view, _ = forward(tuner, adapter, batch)
            now = top_heads(visual_ratio(view.attention, view.valid), 3)  # type: ignore[arg-type]
            assert (now != wanted).any()
            fixed = tuner.auxiliary(view)["alignment"]
            heads.copy_(now[0])
            assert not torch.allclose(tuner.auxiliary(view)["alignment"], fixed)
    assert torch.equal(load_file(tmp_path / "extension.safetensors")["heads"], wanted)
    log = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert log[0]["heads"] == wanted.nonzero().tolist()
    assert not any("heads" in entry for entry in log[1:])
    with attached(backbone, tuner, folder=tmp_path) as adapter:
        assert torch.equal(moe_of(adapter).heads, wanted)  # type: ignore[arg-type]


def test_fixed_heads_do_not_depend_on_the_micro_batch(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample, tmp_path: Path
) -> None:
    found = []
    for micro_batch in (1, 3, 4):
        tuner = make_tuner("a3tune", head_selection="fixed", R=4, micro_batch=micro_batch)
        folder = tmp_path / str(micro_batch)
        folder.mkdir()
        with attached(backbone, tuner) as adapter:
            loop.train(tuner, adapter, 4, example, folder, seed=0, epochs=1)
            found.append(moe_of(adapter).heads.tolist())  # type: ignore[union-attr]
    assert found[0] == found[1] == found[2]


def test_heads_chosen_per_sample_are_not_kept(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample, tmp_path: Path
) -> None:
    for options in ({}, {"head_selection": "fixed", "align_weight": 0}):
        tuner = make_tuner("a3tune", **options)
        with attached(backbone, tuner) as adapter:
            assert moe_of(adapter).heads is None
            assert "heads" not in moe_of(adapter).state_dict()
            loop.train(tuner, adapter, 4, example, tmp_path, seed=0, epochs=1)
        log = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
        assert not any("heads" in entry for entry in log)


def test_an_untrained_adapter_changes_nothing_whatever_its_options(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample
) -> None:
    prompts = [example(i).prompt for i in range(3)]
    with torch.no_grad():
        plain = RowStack(backbone, prompts).logits
        for options in ({}, {"variant": "official", "dropout": 0.5}, {"kmoe_text_lora": "shared"}):
            with attached(backbone, make_tuner("a3tune", **options)) as adapter:
                assert torch.equal(RowStack(adapter.backbone, prompts).logits, plain)


def scores(adapter: Adapter) -> Tensor:
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    answers = generate(
        adapter.backbone,
        prompts=["what is it?", "how?"],
        pixel_values=pixels,
        max_new_tokens=1,
        record_scores=1,
    )
    return torch.cat([answer.scores for answer in answers])  # type: ignore[misc]


def test_test_dropout_is_active_while_answering_and_can_be_repeated(
    backbone: Backbone, make_tuner: MakeTuner, shake: Callable[[Adapter], None]
) -> None:
    found, first_gates = [], []
    for test_dropout in ("false", "true"):
        tuner = make_tuner("a3tune", dropout=0.4, moe_test_dropout=test_dropout)
        with attached(backbone, tuner) as adapter:
            shake(adapter)
            torch.manual_seed(1)
            found.append(scores(adapter))
            torch.manual_seed(2)
            assert torch.equal(scores(adapter), found[-1])
            moe = moe_of(adapter)
            first_gates.append((moe._gates[0], moe.routing[0].gates))
    assert not torch.allclose(found[0], found[1], atol=1e-3)
    # The routers of the first layer see the same input, and see it whole.
    assert torch.equal(first_gates[0][0], first_gates[1][0])
    assert torch.equal(first_gates[0][1], first_gates[1][1])


def test_dropout_keeps_the_mean_of_what_the_experts_see(
    backbone: Backbone, make_tuner: MakeTuner
) -> None:
    tuner = make_tuner("a3tune", dropout=0.25, moe_test_dropout="true")
    x = torch.ones(20, 1000)
    with attached(backbone, tuner) as adapter:
        moe = moe_of(adapter)
        moe.begin(masks_of("..##..", "....#.", ".#####"))
        for training in (True, False):
            moe.train(training)
            dropped = moe._dropped(x)
            assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
            assert float(dropped.mean()) == pytest.approx(1, abs=0.03)


def test_begin_must_come_before_the_first_pass(backbone: Backbone, make_tuner: MakeTuner) -> None:
    with attached(backbone, make_tuner("a3tune")) as adapter, pytest.raises(RuntimeError):
        adapter.model(torch.ones(1, 4, dtype=torch.long))
