"""AVISC, DAMRO and PAI against loops over a model written out plainly, attention and all."""

import math
from collections import defaultdict
from dataclasses import replace

import pytest
import torch

from medbench import UserError
from medbench.decoding.generate import create_decoder

GROUPED = "toy[layers=4,heads=4,kv_heads=2,seed=3]"
SHARED = "toy[layers=4,heads=4,kv_heads=1,seed=2]"
SINGLE = "toy[layers=4,heads=4,kv_heads=4,seed=1]"
QWEN = "toy[layers=3,kv_heads=4,text=qwen2,seed=5]"
MISTRAL = "toy[layers=3,text=mistral,seed=4]"
PATCHES = 16


def attention_on_image(model, question, features, gamma):
    """Return the last prompt row's attention on each image token, in the layers that look most."""
    rows = model.prompt(question, features)
    maps = model.run(rows)[1].mean(1)[:, -1, model.columns(features)]
    shares = maps.sum(-1) / maps.sum()
    order = sorted(range(len(shares)), key=lambda layer: -shares[layer])
    taken, sum_so_far = [order[0]], shares[order[0]]
    for layer in order[1:]:
        if sum_so_far >= gamma:
            break
        taken.append(layer)
        sum_so_far = sum_so_far + shares[layer]
    return maps[taken].mean(0), taken


def deviation(values):
    centred = values - values.mean()
    return math.sqrt(float((centred * centred).sum()) / (len(values) - 1))


def avisc(alpha=1.0, beta=0.1, gamma=0.5, topk=10, lamb=None, fill=0.0):
    """The `topk` most attended tokens stay; or, with `lamb`, those that stand out by as much."""

    def reference(model, question, pixels, index):
        features = model.features(pixels)
        attention, _ = attention_on_image(model, question, features, gamma)
        if lamb is None:
            threshold = attention.sort(descending=True).values[min(topk, len(attention)) - 1]
        else:
            threshold = attention.mean() + lamb * deviation(attention)
        kept = torch.stack(
            [
                token if seen >= threshold else torch.full_like(token, fill)
                for token, seen in zip(features, attention, strict=True)
            ]
        )
        main, other = model.prompt(question, features), model.prompt(question, kept)
        return model.contrast(main, other, alpha, beta)

    return reference


def class_attention(model, pixels, block, heads):
    """Return what one block's class token gives each patch, by that many heads."""
    layer = model.tower.encoder.layers[block]
    with torch.no_grad():
        # The states begin with the embeddings, so that a block reads the one before its own.
        x = layer.layer_norm1(model.states(pixels)[block - 1])
        query = layer.self_attn.q_proj(x)[0].view(heads, -1)
        keys = layer.self_attn.k_proj(x).view(len(x), heads, -1)
        scores = torch.einsum("hd,thd->ht", query, keys) / math.sqrt(query.shape[-1])
    return scores.softmax(-1).mean(0)[1:]


def damro(alpha=0.5, beta=0.1, topk=10, block=-2, heads=1, drop=True):
    def reference(model, question, pixels, index):
        features = model.features(pixels)
        attention = class_attention(model, pixels, block, heads)
        class_tokens = len(features) - len(attention)
        best = attention.argsort(descending=True)[:topk] + class_tokens
        kept = torch.zeros_like(features).index_copy(0, best, features[best])
        main = model.prompt(question, features)
        other = model.prompt(question, features[best] if drop else kept)
        return model.contrast(main, other, alpha, beta)

    return reference


def pai(gamma=1.1, alpha=0.2, beta=0.1, start=2, end=None, prefill=False, bare=False, branch=True):
    """With every query that gave a token amplified, as it was when it was the newest one."""

    def reference(model, question, pixels, index):
        features = model.features(pixels)
        main, text = model.prompt(question, features), model.prompt(question)
        if bare:
            text = model.text(question, begin=True)
        columns, first = model.columns(features), len(main) - (1 if prefill else 0)

        def amplified(layer, scores):
            if layer < start or (end is not None and layer >= end):
                return scores
            scores = scores.clone()
            part = scores[:, first:, columns]
            scores[:, first:, columns] = part + alpha * part.abs()
            return scores

        def score(tokens):
            lc = model.next(main, tokens, amplified).log_softmax(-1)
            if not branch:
                return lc
            lu = model.next(text, tokens).log_softmax(-1)
            return model.cut(gamma * lc - (gamma - 1) * lu, lc, beta)

        return score

    return reference


@pytest.mark.parametrize(
    ("spec", "method", "reference"),
    [
        (GROUPED, "avisc", avisc()),
        (SHARED, "avisc", avisc()),
        (SINGLE, "avisc", avisc()),
        (QWEN, "avisc[blind_selector=threshold,lamb=0.5,alpha=2]", avisc(alpha=2, lamb=0.5)),
        (MISTRAL, "avisc[masking_scheme=ones,blind_topk=4]", avisc(fill=1.0, topk=4)),
        (GROUPED, "avisc[blind_selector=threshold,beta=0]", avisc(lamb=1, beta=0)),
        (SINGLE, "avisc[masking_scheme=ones,layer_gamma=0.9]", avisc(fill=1.0, gamma=0.9)),
    ],
)
def test_avisc_scores_are_those_of_a_loop_over_image_and_blind_tokens(
    endless, agree, spec, method, reference
):
    agree(endless(spec), method, reference)


@pytest.mark.parametrize(("gamma", "layers"), [(0, 1), (1, 4)])
def test_avisc_looks_at_one_layer_or_at_all(
    endless, agree, plain, images, questions, gamma, layers
):
    """And so at other image tokens than with half of the attention."""
    backbone, topk = endless(SINGLE), 5
    model, moved = plain(backbone), []
    for question, pixels in zip(questions[:3], backbone.pixel_values(images[:3]), strict=True):
        features = model.features(pixels)
        ends, taken = attention_on_image(model, question, features, gamma)
        half, _ = attention_on_image(model, question, features, 0.5)
        assert len(taken) == layers
        most = [set(seen.topk(topk).indices.tolist()) for seen in (ends, half)]
        moved.append(most[0] != most[1])
    assert any(moved)
    method = f"avisc[layer_gamma={gamma},blind_topk={topk}]"
    agree(backbone, method, avisc(gamma=gamma, topk=topk))


def test_avisc_threshold_takes_the_unbiased_deviation(endless, agree, plain, images, questions):
    """One token lies below it, and above what the biased deviation would make of it."""
    backbone = endless(GROUPED)
    model = plain(backbone)
    features = model.features(backbone.pixel_values(images[:1])[0])
    attention, _ = attention_on_image(model, questions[0], features, 0.5)
    unbiased, biased = deviation(attention), attention.std(correction=0).item()
    second = (attention.sort(descending=True).values[1] - attention.mean()).item()
    lamb = second / ((unbiased + biased) / 2)
    assert lamb * biased < second < lamb * unbiased
    agree(backbone, f"avisc[blind_selector=threshold,lamb={lamb}]", avisc(lamb=lamb))


@pytest.mark.parametrize(
    "method",
    [
        "avisc[blind_topk=16,alpha=3]",
        "avisc[blind_topk=99,alpha=3]",
        "damro[topk=16,neg_mode=zero,alpha=3]",
    ],
)
def test_a_negative_image_with_nothing_left_out_is_no_contrast(endless, greedy_under_cut, method):
    greedy_under_cut(endless(GROUPED), method, 0.1)


def test_avisc_noise_follows_the_seed_and_not_the_batch(endless, decode):
    backbone, method = endless(GROUPED), "avisc[masking_scheme=noise]"
    alone, batched = (decode(backbone, method, batch_size=size) for size in (1, 3))
    moved, zeros = decode(backbone, method, seed=1), decode(backbone, "avisc")
    for one, same, *others in zip(alone, batched, moved, zeros, strict=True):
        kept = one.scores.isfinite()
        assert torch.equal(same.scores.isfinite(), kept)
        assert (one.scores - same.scores)[kept].abs().max() < 1e-4
        for other in others:
            apart = (one.scores[0] - other.scores[0])[kept[0]]
            assert apart.abs().max() > 1e-2


def test_avisc_goes_without_a_branch_that_breaks_down_row_by_row():
    main, other = torch.tensor([[2.0, 1.0, 0.5], [0.5, 1.0, 2.0]]), torch.zeros(2, 3)
    other[1, 0] = math.nan
    logits = defaultdict(lambda: other, main=main)
    scores = create_decoder("avisc[beta=0]").combine(logits, 0)
    assert scores.tolist() == [[4.0, 2.0, 1.0], [0.5, 1.0, 2.0]]


@pytest.mark.parametrize(
    ("spec", "method", "reference"),
    [
        (GROUPED, "damro", damro()),
        (SHARED, "damro", damro()),
        (SINGLE, "damro", damro()),
        (QWEN, "damro[topk=3,alpha=2]", damro(topk=3, alpha=2)),
        (MISTRAL, "damro[neg_mode=zero,topk=5]", damro(drop=False, topk=5)),
        (
            GROUPED,
            "damro[cls_attention=head_mean,cls_layer=-1,topk=4,beta=0]",
            damro(heads=2, block=-1, topk=4, beta=0),
        ),
        (
            SINGLE,
            "damro[variant=medheval,topk=6]",
            damro(heads=2, block=-1, drop=False, topk=6),
        ),
    ],
)
def test_damro_scores_are_those_of_a_loop_over_image_and_outliers(
    endless, agree, spec, method, reference
):
    agree(endless(spec), method, reference)


def test_damro_with_all_patches_contrasts_with_the_image_reordered(endless, agree, decode):
    """The same patches at other positions say other things."""
    backbone = endless(GROUPED)
    method = f"damro[topk={PATCHES},alpha=2]"
    answers = agree(backbone, method, damro(topk=PATCHES, alpha=2))
    assert answers != [greedy.token_ids for greedy in decode(backbone, "greedy")]


def test_damro_counts_patches_behind_a_class_token_among_the_features(endless, agree):
    """The class token is no patch, and so never one of the outliers."""
    backbone = replace(endless(GROUPED), vision_select="full")
    assert backbone.image_tokens == PATCHES + 1
    agree(backbone, "damro[topk=5]", damro(topk=5))


def test_damro_attention_by_head_and_by_layer_choose_other_patches(endless, plain, images):
    """Otherwise the references above could not tell the four readings apart."""
    backbone = endless(GROUPED)
    model = plain(backbone)
    chosen = {
        (heads, block): [
            class_attention(model, one, block, heads).argsort(descending=True)[:4].tolist()
            for one in backbone.pixel_values(images[:3])
        ]
        for heads in (1, 2)
        for block in (-2, -1)
    }
    assert len({str(value) for value in chosen.values()}) == 4


@pytest.mark.parametrize(
    ("spec", "method", "reference"),
    [
        (GROUPED, "pai", pai()),
        (SHARED, "pai", pai()),
        (SINGLE, "pai", pai()),
        (QWEN, "pai[gamma=1.5,alpha=0.5]", pai(gamma=1.5, alpha=0.5)),
        (
            MISTRAL,
            "pai[variant=a3tune,start_layer=0]",
            pai(start=0, prefill=True, bare=True),
        ),
        (
            GROUPED,
            "pai[start_layer=1,end_layer=3,alpha=0.6,pai_prefill=apply]",
            pai(start=1, end=3, alpha=0.6, prefill=True),
        ),
        (SHARED, "pai[start_layer=0,end_layer=1,beta=0]", pai(start=0, end=1, beta=0)),
        (SINGLE, "pai[uncond_prompt=question,gamma=2]", pai(bare=True, gamma=2)),
        (
            SINGLE,
            "pai[gamma=1,start_layer=0,alpha=0.5]",
            pai(branch=False, prefill=True, start=0, alpha=0.5),
        ),
    ],
)
def test_pai_scores_are_those_of_a_loop_with_the_newest_queries_amplified(
    endless, agree, spec, method, reference
):
    agree(endless(spec), method, reference)


def test_pai_with_gamma_1_runs_one_branch_and_bars_nothing(endless, decode):
    for gamma, rows in ((1, 1), (1.1, 2)):
        for answer in decode(endless(GROUPED), f"pai[gamma={gamma}]"):
            assert answer.forwards == rows * len(answer.token_ids)
            assert answer.scores.isfinite().all() == (gamma == 1)


def test_pai_with_gamma_1_amplifies_the_prompt_whatever_the_option_says(endless, decode):
    backbone = endless(GROUPED)
    skip, apply, greedy = (
        decode(backbone, method)
        for method in ("pai[gamma=1,pai_prefill=skip]", "pai[gamma=1,pai_prefill=apply]", "greedy")
    )
    for one, other, unamplified in zip(skip, apply, greedy, strict=True):
        assert torch.equal(one.scores, other.scores)
        apart = one.scores[0] - unamplified.scores[0].log_softmax(-1)
        assert apart.abs().max() > 1e-2


def test_pai_without_amplification_and_branch_is_greedy(endless, greedy_under_cut):
    greedy_under_cut(endless(GROUPED), "pai[alpha=0,gamma=1]", 0, logs=True)


@pytest.mark.parametrize(("start", "forgotten"), [(3, True), (0, False)])
def test_pai_prefill_moves_the_first_token_and_what_layers_above_keep_of_it(
    endless, decode, start, forgotten
):
    """Amplified in the last layer only, the prompt leaves the same keys and values behind."""
    backbone, method = endless(GROUPED), f"pai[start_layer={start},alpha=0.1,beta=0"
    skipped, applied = (
        decode(backbone, f"{method},pai_prefill={prefill}]") for prefill in ("skip", "apply")
    )
    compared = 0
    for one, other in zip(skipped, applied, strict=True):
        apart = (one.scores - other.scores).abs().amax(-1)
        assert apart[0] > 1e-3
        for step in range(1, len(apart)):
            if one.token_ids[:step] == other.token_ids[:step]:
                assert (apart[step] < 1e-4) == forgotten
                compared += 1
    assert compared >= 20


def test_pai_first_layer_beyond_the_depth_is_the_last_one(endless, decode):
    backbone = endless("toy[layers=2,seed=6]")
    default, last, both = (
        decode(backbone, method) for method in ("pai", "pai[start_layer=1]", "pai[start_layer=0]")
    )
    for one, same, other in zip(default, last, both, strict=True):
        assert torch.equal(one.scores, same.scores)
        assert not torch.equal(one.scores, other.scores)


@pytest.mark.parametrize(
    "method",
    [
        "pai[end_layer=5]",
        "pai[end_layer=0]",
        "pai[start_layer=2,end_layer=2]",
        "pai[start_layer=-1]",
    ],
)
def test_pai_layers_that_are_not_there_are_refused(endless, decode, method):
    with pytest.raises(UserError, match="pai (refuses|cannot run)"):
        decode(endless(GROUPED), method)


@pytest.mark.parametrize(
    ("method", "reference"), [("avisc", avisc()), ("damro", damro()), ("pai", pai())]
)
def test_scores_stay_those_of_the_loop_when_other_rows_have_left(toy, agree, method, reference):
    answers = agree(toy(GROUPED, ends=12), method, reference)
    assert len({len(tokens) for tokens in answers}) > 1
