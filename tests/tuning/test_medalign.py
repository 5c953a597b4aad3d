"""MedAlign's options: spans, layers, targets, what each changes, and what the variant sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from medbench import plugins, spec
from medbench.backbone import Depth
from medbench.backbones.toy import Toy
from medbench.decoding.stack import RowStack
from medbench.errors import UserError
from medbench.method import Tuner
from medbench.methods.a3tune import A3Tune
from medbench.methods.medalign import MedAlign
from medbench.model.llava import Backbone
from medbench.model.rows import RowMasks
from medbench.model.tiny import build_toy
from medbench.needs import check_depth
from medbench.provider import ExpertView
from medbench.task import Sample
from medbench.tuning import teacher
from medbench.tuning.a3moe import A3MoE
from medbench.tuning.adapter import Adapter, attached
from medbench.tuning.batch import IGNORE, Example, TrainBatch, collate
from medbench.tuning.extensions import part
from medbench.tuning.step import forward, losses
from medbench.tuning.visual_map import VisualMap

MakeTuner = Callable[..., Tuner]
Shake = Callable[[Adapter], None]


def test_defaults_are_those_recommended() -> None:
    tuner = MedAlign()
    assert (tuner.rank, tuner.alpha, tuner.dropout) == (32, 16.0, 0.05)
    assert (tuner.learning_rate, tuner.warmup_ratio, tuner.batch_size) == (2e-4, 0.03, 32)
    assert (tuner.similarity_weight, tuner.attention_weight) == (1.0, 1e-3)
    assert (tuner.attn_norm, tuner.attn_reduction, tuner.query_span) == ("sum", "sum", "prompt")
    assert (tuner.visual_map, tuner.map_epsilon, tuner.orthogonal_penalty) == ("dense", 1.0, 0.0)
    assert tuner.expert == "unimed_l14_336"
    assert not tuner.mask_padding and not tuner.drop_wrapped_lora


def test_official_is_the_published_code() -> None:
    tuner = plugins.create("method", spec.parse("medalign[variant=official]"))[1]
    assert (tuner.similarity_weight, tuner.attention_weight) == (1.0, 0.03)
    assert (tuner.attn_norm, tuner.attn_reduction) == ("l2_legacy", "batchmean_legacy")
    assert (tuner.query_span, tuner.span_token) == ("prompt_legacy_colon", 28747)
    expert = plugins.create("provider", spec.parse(tuner.expert))[1]
    assert (expert.name, expert.geometry) == ("unimed_b16", "as_published")
    assert (expert.feature, expert.prenorm) == ("block_out", True)


@pytest.mark.parametrize(
    ("layer", "depth", "found"),
    [
        ((0,), 32, (20,)),
        ((0,), 28, (17,)),
        ((0,), 4, (2,)),
        ((0,), 2, (1,)),
        ((20, 16), 28, (16, 20)),
    ],
)
def test_the_layer_is_given_or_a_fraction_of_the_depth(
    layer: tuple[int, ...], depth: int, found: tuple[int, ...]
) -> None:
    assert MedAlign(layer=layer)._layers(depth) == found
    assert A3Tune(similarity_weight=1.0, similarity_layer=layer)._steered_layers(depth) == found


@pytest.mark.parametrize("layer", [-1, 4, 20])
def test_a_layer_that_is_not_there_is_a_users_error(layer: int) -> None:
    for tuner in (
        MedAlign(layer=(layer,)),
        A3Tune(similarity_weight=1.0, similarity_layer=(layer,)),
    ):
        with pytest.raises(UserError, match="cannot run on 4 decoder layers") as raised:
            check_depth(tuner, Depth(4, 2))
        assert raised.value.why == f"layer {layer} is not one of 1 to 3."
    check_depth(A3Tune(similarity_layer=(layer,)), Depth(4, 2))
    with pytest.raises(UserError):
        check_depth(MedAlign(), Depth(1, 2))


def test_a_run_names_its_expert_and_asks_for_it_only_where_a_loss_is_on() -> None:
    assert MedAlign().supervised() == ("expert",)
    assert MedAlign(similarity_weight=0).supervised() == ("expert",)
    assert MedAlign(similarity_weight=0, attention_weight=0).supervised() == ()
    assert A3Tune(align_weight=0.1).supervised() == ("labels",)
    assert A3Tune(align_weight=0.1, similarity_weight=1.0).supervised() == ("labels", "expert")
    assert A3Tune(align_weight=0, similarity_weight=1.0).supervised() == ("expert",)


COLON = 99


def row_of(kinds: str, *, width: int = 0) -> dict[str, Tensor]:
    """Return the masks and ids of a row: `.` padding, p prompt, v visual, q question, a answer.

    A capital letter is the same with a colon's id.
    """
    kinds = kinds.rjust(width, ".")
    low = kinds.lower()

    def mask(letters: str) -> Tensor:
        return torch.tensor([letter in letters for letter in low])

    ids = torch.tensor([COLON if one.isupper() else 7 for one in kinds])
    return {
        "filled": mask("pvqa"),
        "visual": mask("v"),
        "question": mask("q"),
        "prompt": mask("pvq"),
        "tokens": ids.masked_fill(mask(".v"), -1),
        "labels": ids.masked_fill(~mask("a"), IGNORE),
    }


def batch_of(*kinds: str) -> TrainBatch:
    rows = [row_of(one, width=max(map(len, kinds))) for one in kinds]
    whole = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    masks = RowMasks(*(whole[name] for name in ("filled", "visual", "question", "prompt")))
    return TrainBatch(kinds, torch.zeros(0), whole["labels"], whole["tokens"], masks, {})


SPANS = [
    # The prompt's text after the image, up to the token that makes the first of the answer.
    ("prompt", "..pPvvvqqqPaa", "......." + "####.."),
    ("prompt", "ppvvvqqPa:aaa".replace(":", "A"), ".....###....."),
    ("last_prompt_token", "..pPvvvqqqPaa", "..........#.."),
    ("response", "..pPvvvqqqPaa", "..........##."),
    ("all_text", "..pPvvvqqqPaa", ".......######"),
    # As published: up to the last colon of prompt and answer ...
    ("prompt_legacy_colon", "..pPvvvqqqPaa", ".......####.."),
    ("prompt_legacy_colon", "ppvvvqqPaAaaa", ".....#####..."),
    # ... and to the token before the last one where that is the last, or there is none.
    ("prompt_legacy_colon", "ppvvvqqPaaaA", ".....######."),
    ("prompt_legacy_colon", "ppvvvqqpaaaa", ".....######."),
    # With none behind the image there is nothing to read.
    ("prompt_legacy_colon", "pPvvvqqpaaaa", "............"),
]


@pytest.mark.parametrize(("span", "kinds", "read"), SPANS)
def test_query_span_names_the_rows_that_are_read(span: str, kinds: str, read: str) -> None:
    tuner = MedAlign(query_span=span, span_token=COLON)  # type: ignore[arg-type]
    found = tuner.queries(batch_of(kinds, "." * 3 + kinds))
    assert found is not None
    for row, padding in enumerate(("...", "...")):
        assert "".join(".#"[int(one)] for one in found[row]) == padding + read
    assert MedAlign(attention_weight=0).queries(batch_of(kinds)) is None


def test_collated_tokens_are_those_of_prompt_and_answer(backbone: Backbone, example: Any) -> None:
    examples = [example(i) for i in range(4)]
    batch = collate(backbone, examples)
    for row, one in enumerate(examples):
        whole = [*one.prompt.ids.masked_fill(one.prompt.visual, -1).tolist(), *one.answer]
        assert batch.tokens[row, -len(whole) :].tolist() == whole
        assert (batch.tokens[row, : -len(whole)] == -1).all()


def found_with(backbone: Backbone, tuner: Tuner, example: Any, shake: Shake) -> dict[str, Tensor]:
    with attached(backbone, tuner) as adapter, torch.no_grad():
        shake(adapter)
        return losses(tuner, adapter, collate(backbone, [example(i) for i in range(4)]))


BOTH = {"similarity", "attention"}
EVERY = {"language", *BOTH}
OPTIONS: list[tuple[dict[str, Any], set[str]]] = [
    ({"similarity_weight": 1.0}, {"similarity"}),
    ({"attention_weight": 1.0}, {"attention"}),
    ({"visual_map": "low_rank"}, EVERY),
    ({"visual_map": "none"}, EVERY),
    ({"map_epsilon": 0.5}, EVERY),
    ({"orthogonal_penalty": 0.1}, {"orthogonal"}),
    ({"query_span": "last_prompt_token"}, {"attention"}),
    ({"query_span": "response"}, {"attention"}),
    ({"query_span": "all_text"}, {"attention"}),
    ({"query_span": "prompt_legacy_colon"}, {"attention"}),
    ({"attn_norm": "l2_legacy"}, {"attention"}),
    ({"attn_norm": "softmax"}, {"attention"}),
    ({"attn_norm": "softmax", "attn_tau": 0.1}, {"attention"}),
    ({"attn_tau": 0.1}, set()),
    ({"attn_reduction": "batchmean_legacy"}, {"attention"}),
    ({"layer": 1}, set()),
    # Acts on the LoRA of what is answered with, which is what runs here.
    ({"drop_wrapped_lora": True}, EVERY),
]


@pytest.mark.parametrize(("option", "changed"), OPTIONS)
def test_every_option_changes_the_losses_it_speaks_of_and_no_other(
    backbone: Backbone,
    make_tuner: MakeTuner,
    example: Any,
    shake: Shake,
    option: dict[str, Any],
    changed: set[str],
) -> None:
    plain = found_with(backbone, make_tuner("medalign"), example, shake)
    found = found_with(backbone, make_tuner("medalign", **option), example, shake)
    assert plain.keys() == EVERY
    different = {
        name
        for name in found
        if name not in plain or not torch.allclose(found[name], plain[name], rtol=1e-6, atol=1e-7)
    }
    assert different == changed
    # Sample 1 has no targets.
    for name in BOTH:
        assert found[name][1] == 0
        assert (found[name][[0, 2, 3]] != 0).all()


def test_patches_of_padding_count_for_nothing_where_they_are_masked(
    backbone: Backbone, make_tuner: MakeTuner, example: Any, shake: Shake
) -> None:
    def masked(index: int, beyond: float) -> Example:
        one = example(2 * index)
        inside = (torch.arange(16) < 12 - index).float()[None]
        similarity = one.targets["similarity"] + beyond * (1 - inside[0])
        attention = one.targets["expert_attention"] + beyond * (1 - inside)
        others = {"similarity": similarity, "expert_attention": attention}
        return replace(one, targets=one.targets | others | {"inside": inside})

    tuner = make_tuner("medalign")
    with attached(backbone, tuner) as adapter, torch.no_grad():
        shake(adapter)
        plain = losses(tuner, adapter, collate(backbone, [example(0), example(2)]))
        found = losses(tuner, adapter, collate(backbone, [masked(0, 0.0), masked(1, 0.0)]))
        other = losses(tuner, adapter, collate(backbone, [masked(0, 3.0), masked(1, 3.0)]))
        alone = [losses(tuner, adapter, collate(backbone, [masked(i, 0.0)])) for i in range(2)]
    for name in BOTH:
        torch.testing.assert_close(found[name], other[name])
        torch.testing.assert_close(found[name], torch.cat([one[name] for one in alone]))
        assert not torch.allclose(found[name], plain[name], rtol=1e-3)


def test_the_losses_are_weighted_and_off_at_zero(
    backbone: Backbone, make_tuner: MakeTuner, example: Any, shake: Shake
) -> None:
    one = found_with(backbone, make_tuner("medalign"), example, shake)
    double = found_with(
        backbone, make_tuner("medalign", similarity_weight=1, attention_weight=0.6), example, shake
    )
    for name in BOTH:
        torch.testing.assert_close(double[name], 2 * one[name])
    off = make_tuner("medalign", similarity_weight=0, attention_weight=0)
    assert found_with(backbone, off, example, shake).keys() == {"language"}


def test_the_attention_losss_gradient_by_the_map_is_that_of_finite_differences(
    make_tuner: MakeTuner, example: Any, shake: Shake
) -> None:
    backbone = build_toy(Toy(layers=3), device=torch.device("cpu"), dtype=torch.float64)
    # A loss of probabilities that the softmax gives in float32: the step must not be too small.
    tuner = make_tuner("medalign", layer=2, attention_weight=1)
    batch = collate(backbone, [example(0), example(2)])
    with attached(backbone, tuner) as adapter:
        adapter.model.double()
        shake(adapter)
        steered = part(adapter.extension, VisualMap)
        assert steered is not None
        weight: Any = steered.maps["2"].weight
        losses(tuner, adapter, batch)["attention"].sum().backward()
        direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(5))
        wanted = float((weight.grad * direction).sum())
        ends = []
        with torch.no_grad():
            for sign in (1, -1):
                weight.add_(direction, alpha=sign * 1e-3)
                ends.append(float(losses(tuner, adapter, batch)["attention"].double().sum()))
                weight.add_(direction, alpha=-sign * 1e-3)
    assert abs(wanted) > 1e-3
    assert (ends[0] - ends[1]) / 2e-3 == pytest.approx(wanted, rel=2e-2)


def test_what_the_published_reload_loses_acts_in_training_and_not_in_answers(
    make_tuner: MakeTuner, example: Any, shake: Shake
) -> None:
    backbone = build_toy(Toy(layers=4), device=torch.device("cpu"), dtype=torch.float32)
    prompts = [example(i).prompt for i in range(2)]
    batch = collate(backbone, [example(0)])
    with torch.no_grad():
        with attached(backbone, make_tuner("medalign", layer=2)) as adapter:
            shake(adapter)
            adapter.train(True)
            trained = forward(make_tuner("medalign"), adapter, batch)[1]
            adapter.train(False)
            lost = [
                weight
                for name, weight in adapter.trainable().items()
                if ".layers.1." in name or ".layers.2.self_attn." in name
            ]
            # A and B of seven projections, and of four.
            assert len(lost) == 2 * (7 + 4)
            for weight in lost:
                weight.zero_()
            wanted = RowStack(adapter.backbone, prompts).logits
        with attached(backbone, make_tuner("medalign", layer=2, drop_wrapped_lora=True)) as adapter:
            shake(adapter)
            torch.testing.assert_close(RowStack(adapter.backbone, prompts).logits, wanted)
            adapter.train(True)
            assert torch.equal(forward(make_tuner("medalign"), adapter, batch)[1], trained)


def view_of(image: Image.Image, *, grid: tuple[int, int], seed: int = 0) -> ExpertView:
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(grid[0] * grid[1], 7)).astype(np.float32)
    attention = draw.uniform(size=len(features)).astype(np.float32)
    return ExpertView(grid, features @ features.T, attention, (image.height, image.width))


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (8, 8)])
def test_targets_are_the_experts_view_on_the_students_grid(
    backbone: Backbone, grid: tuple[int, int]
) -> None:
    image = Image.new("RGB", (20, 10))
    view = view_of(image, grid=grid)
    made: list[str] = []

    def views(sample: Sample) -> ExpertView:
        made.append(sample.id)
        return view

    padded = replace(backbone, geometry=replace(backbone.geometry, fit="pad"))
    tuner = MedAlign(mask_padding=True)
    found = tuner.targets(padded, {"expert": views})
    assert set(found) == {"similarity", "expert_attention", "inside"}
    samples = [Sample(f"s{i}", lambda: image, "?", "a", "open", "image") for i in range(2)]
    values = {name: target(samples[0]) for name, target in found.items()}
    # The features behind the view, resampled as images are.
    eigenvalues, vectors = np.linalg.eigh(view.gram.astype(np.float64))
    features = torch.from_numpy(vectors * np.sqrt(eigenvalues.clip(0))).T.reshape(1, -1, *grid)
    there = torch.nn.functional.interpolate(features, (4, 4), mode="bilinear")[0].flatten(1).T
    there = torch.nn.functional.normalize(there, dim=-1)
    torch.testing.assert_close(values["similarity"][0].double(), there @ there.T, atol=2e-5, rtol=0)
    attention = torch.from_numpy(view.attention).view(1, 1, *grid)
    wanted = torch.nn.functional.interpolate(attention, (4, 4), mode="bilinear").view(1, 16)
    torch.testing.assert_close(values["expert_attention"], wanted)
    # The image covers the middle half of the square's height.
    assert values["inside"].view(4, 4).tolist() == [[0] * 4, [1] * 4, [1] * 4, [0] * 4]
    # Another question about the same image computes nothing again.
    assert torch.equal(found["similarity"](samples[1]), values["similarity"])
    assert made == ["s0"] * 3


def test_only_the_targets_of_losses_that_are_on_are_made(backbone: Backbone) -> None:
    def targets_of(**options: Any) -> set[str]:
        given = {"expert": lambda sample: None}
        return set(MedAlign(**options).targets(backbone, given))

    assert targets_of() == {"similarity", "expert_attention"}
    assert targets_of(similarity_weight=0) == {"expert_attention"}
    assert targets_of(attention_weight=0) == {"similarity"}
    assert targets_of(similarity_weight=0, attention_weight=0) == set()
    combined = A3Tune(align_weight=0, similarity_weight=1.0)
    assert set(combined.targets(backbone, {"expert": lambda sample: None})) == {"similarity"}


def test_a_class_token_among_the_visual_tokens_is_compared_with_nothing(
    make_tuner: MakeTuner, shake: Shake, example: Any, backbone: Backbone
) -> None:
    full = replace(backbone, vision_select="full")
    one = example(0)
    pixels = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    one = replace(one, prompt=full.prompt("what is it?", full.encode(pixels)[0]))
    assert int(one.prompt.visual.sum()) == 17
    tuner = make_tuner("medalign", attention_weight=1, similarity_weight=1)
    with attached(full, tuner) as adapter, torch.no_grad():
        shake(adapter)
        view, _ = forward(tuner, adapter, collate(full, [one]))
        states = part(adapter.extension, VisualMap).states[1]  # type: ignore[union-attr]
        found = tuner.auxiliary(view)
        assert states.shape[1] == 17
        unit = torch.nn.functional.normalize(states[0, 1:], dim=-1)
        wanted = ((unit @ unit.T - one.targets["similarity"][0]) ** 2).mean()
        torch.testing.assert_close(found["similarity"][0], wanted)
        assert view.attention is not None
        p = view.attention[0, 0, :, :, 1:].mean((0, 1))
        p, t = p / p.sum(), one.targets["expert_attention"][0]
        t = t / t.sum()
        torch.testing.assert_close(found["attention"][0], (t * (t / p).log()).sum())


def test_a3tune_with_the_similarity_loss_is_both_at_once(
    backbone: Backbone, make_tuner: MakeTuner, example: Any, shake: Shake
) -> None:
    tuner = make_tuner("a3tune", similarity_weight=0.5, balance_weight=0.1)
    batch = collate(backbone, [example(i) for i in range(4)])
    with attached(backbone, tuner) as adapter:
        names = {name.split(".")[1] for name in adapter.trainable() if "extension" in name}
        assert names == {"a3moe", "visual_map"}
        assert part(adapter.extension, A3MoE) is not None
        shake(adapter)
        view, _ = forward(tuner, adapter, batch)
        found = tuner.auxiliary(view)
        assert found.keys() == {"alignment", "balance", "similarity"}
        torch.testing.assert_close(found["similarity"], 0.5 * teacher.similarity_loss(view))
        torch.stack([one.sum() for one in found.values()]).sum().backward()
        for name, weight in adapter.trainable().items():
            if "visual_map" in name:
                assert weight.grad is not None and weight.grad.any()


def test_the_alignment_loss_is_the_same_beside_an_untrained_map(
    backbone: Backbone, make_tuner: MakeTuner, example: Any
) -> None:
    def alignment(**options: Any) -> Tensor:
        tuner = make_tuner("a3tune", **options)
        with attached(backbone, tuner) as adapter, torch.no_grad():
            parts = losses(tuner, adapter, collate(backbone, [example(i) for i in range(3)]))
            return torch.stack([parts["language"], parts["alignment"]])

    assert torch.equal(alignment(similarity_weight=0.5), alignment())


def test_nothing_of_an_expert_is_needed_to_answer(
    backbone: Backbone, make_tuner: MakeTuner, example: Any, tmp_path: Path
) -> None:
    tuner = make_tuner("medalign", expert="open_clip[weights=nowhere]")
    with attached(backbone, tuner) as adapter:
        adapter.save(tmp_path)
    with attached(backbone, tuner, folder=tmp_path) as adapter, torch.no_grad():
        RowStack(adapter.backbone, [example(0).prompt])
