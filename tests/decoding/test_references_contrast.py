"""M3ID, VCD's options and the plausibility cut, against loops over a model written out plainly."""

import copy
import math
from collections import defaultdict
from dataclasses import replace

import pytest
import torch

from medbench.decoding.generate import create_decoder

GROUPED = "toy[layers=2,heads=4,kv_heads=2,seed=3]"
SHARED = "toy[layers=2,heads=4,kv_heads=1,seed=2]"
SINGLE = "toy[layers=2,heads=4,kv_heads=4,seed=1]"
QWEN = "toy[layers=2,kv_heads=4,text=qwen2,seed=5]"
MISTRAL = "toy[layers=2,text=mistral,seed=4]"


def m3id(lamda=0.02, beta=0.1, gate=None):
    def reference(model, question, pixels, index):
        main, text = model.prompt(question, model.features(pixels)), model.prompt(question)

        def score(tokens):
            lc = model.next(main, tokens).log_softmax(-1)
            lu = model.next(text, tokens).log_softmax(-1)
            forgetting = math.exp(-lamda * (len(tokens) + 1))
            weight = (1 - forgetting) / forgetting
            if gate is not None and lc.max().exp() >= gate:
                weight = 0
            return model.cut(lc + weight * (lc - lu), lc, beta)

        return score

    return reference


def vcd(noised, alpha=1.0, beta=0.1):
    def reference(model, question, pixels, index):
        main = model.prompt(question, model.features(pixels))
        other = model.prompt(question, model.features(noised[index]))
        return model.contrast(main, other, alpha, beta)

    return reference


def noisy(pixels):
    return pixels + torch.randn(pixels.shape, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("spec", [GROUPED, SHARED, SINGLE, QWEN, MISTRAL])
def test_the_plain_model_has_the_logits_and_attention_of_transformers(
    toy, plain, eager, images, questions, spec
):
    backbone = toy(spec)
    model, reference = plain(backbone), eager(backbone)
    for question, pixels in zip(questions[:3], backbone.pixel_values(images[:3]), strict=True):
        features = reference.features(pixels)
        prompt = backbone.prompt(question, features)
        expected, attention = reference.run(prompt.ids.tolist(), features)
        logits, maps = model.run(model.prompt(question, model.features(pixels)))
        assert (logits - expected).abs().max() < 1e-4
        assert (maps - attention).abs().max() < 1e-5
        columns = list(range(len(prompt)))[model.columns(features)]
        assert prompt.visual.nonzero()[:, 0].tolist() == columns


@pytest.mark.parametrize(
    ("spec", "method", "reference"),
    [
        (GROUPED, "m3id", m3id()),
        (SHARED, "m3id", m3id()),
        (SINGLE, "m3id", m3id()),
        (QWEN, "m3id[lamda=0.05,beta=0.01]", m3id(lamda=0.05, beta=0.01)),
        (MISTRAL, "m3id[m3id_gate=0.6]", m3id(gate=0.6)),
        (GROUPED, "m3id[m3id_gate=0.4,beta=0,lamda=0.05]", m3id(0.05, 0, gate=0.4)),
    ],
)
def test_m3id_scores_are_those_of_a_loop_over_image_and_text(
    endless, agree, spec, method, reference
):
    agree(endless(spec), method, reference)


@pytest.mark.parametrize(
    ("spec", "alpha", "beta"),
    [(GROUPED, 1, 0.1), (SHARED, 1, 0.1), (SINGLE, 1, 0.1), (QWEN, 0.5, 0.2), (MISTRAL, 2.5, 0)],
)
def test_vcd_scores_are_those_of_a_loop_over_two_images(endless, agree, images, spec, alpha, beta):
    backbone = endless(spec)
    noised = noisy(backbone.pixel_values(images[:3]))
    method = f"vcd[alpha={alpha},beta={beta}]"
    agree(
        backbone,
        method,
        vcd(noised, alpha, beta),
        tolerance=5e-5 * (1 + 2 * alpha),  # the contrast multiplies what the branches round
        branch_tensors={"noised": noised},
    )


@pytest.mark.parametrize("method", ["m3id", "vcd"])
def test_scores_stay_those_of_the_loop_when_other_rows_have_left(toy, agree, images, method):
    backbone = toy(GROUPED, ends=6)
    noised = noisy(backbone.pixel_values(images[:3]))
    reference = m3id() if method == "m3id" else vcd(noised)
    answers = agree(backbone, method, reference, branch_tensors={"noised": noised})
    assert len({len(tokens) for tokens in answers}) > 1


def test_m3id_contrast_grows_from_the_first_token_on(endless, decode, plain, images, questions):
    """The weight read off the scores is exp(lamda t) - 1, and t is 1 at once."""
    backbone = endless(GROUPED)
    model, pixels = plain(backbone), backbone.pixel_values(images[:3])
    for index, answer in enumerate(decode(backbone, "m3id[lamda=0.2,beta=0]")):
        main = model.prompt(questions[index], model.features(pixels[index]))
        text = model.prompt(questions[index])
        for step, scores in enumerate(answer.scores):
            before = answer.token_ids[:step]
            lc = model.next(main, before).log_softmax(-1)
            difference = lc - model.next(text, before).log_softmax(-1)
            clearest = difference.abs().argmax()
            weight = ((scores - lc) / difference)[clearest].item()
            assert weight == pytest.approx(math.expm1(0.2 * (step + 1)), rel=1e-3)


def test_m3id_gate_contrasts_only_while_the_model_hesitates(endless, decode, greedy_under_cut):
    backbone = endless(GROUPED)
    greedy_under_cut(backbone, "m3id[m3id_gate=1e-6,beta=0]", 0, logs=True)
    ungated, always, sometimes = (
        decode(backbone, method) for method in ("m3id", "m3id[m3id_gate=1]", "m3id[m3id_gate=0.5]")
    )
    assert all(torch.equal(a.scores, b.scores) for a, b in zip(ungated, always, strict=True))
    assert any(a.scores.ne(b.scores).any() for a, b in zip(ungated, sometimes, strict=True))


def test_m3id_against_its_own_image_is_greedy_under_the_cut(endless, greedy_under_cut):
    greedy_under_cut(endless(GROUPED), "m3id[negative=image,lamda=0.3]", 0.1, logs=True)


@pytest.fixture
def tower_sees(decode, images):
    """Return a run that gives what the tower sees beside the samples' own images, and answers."""

    def run(backbone, method, **options):
        seen = []
        hook = backbone.vision_tower.register_forward_pre_hook(
            lambda module, args: seen.append(args[0])
        )
        try:
            decoded = decode(backbone, method, **options)
        finally:
            hook.remove()
        own = backbone.pixel_values(images[:3])
        other = [one for one in torch.cat(seen) if not (one == own).flatten(1).all(1).any()]
        return torch.stack(other) if other else None, decoded

    return run


def kept_share(step):
    """Return how much of the image's variance is left after a diffusion step."""
    ramp = torch.linspace(-6, 6, 1000, dtype=torch.float64).sigmoid()
    return (1 - (ramp * (0.005 - 1e-5) + 1e-5)).cumprod(0)[step].item()


def test_vcd_contrasts_with_the_image_after_the_diffusion_step(endless, agree, tower_sees, images):
    """One draw of noise, read off the last step, explains what the tower sees at every step."""
    backbone = endless(GROUPED)
    pixels = backbone.pixel_values(images[:3])
    last, _ = tower_sees(backbone, "vcd[noise_step=999]")
    noise = (last - math.sqrt(kept_share(999)) * pixels) / math.sqrt(1 - kept_share(999))
    assert abs(noise.mean()) < 0.1
    assert abs(noise.std() - 1) < 0.05
    for step in (0, 250, 500):
        seen, _ = tower_sees(backbone, f"vcd[noise_step={step}]")
        kept = kept_share(step)
        expected = math.sqrt(kept) * pixels + math.sqrt(1 - kept) * noise
        assert (seen - expected).abs().max() < 2e-5
    agree(backbone, "vcd[noise_step=500]", vcd(expected))


def test_vcd_noise_seed_decides_the_noise_and_nothing_else(endless, tower_sees):
    backbone = endless(GROUPED)
    fixed, _ = tower_sees(backbone, "vcd[vcd_noise_seed=5]", seed=0)
    assert len(fixed.flatten(1).unique(dim=0)) == 3
    assert torch.equal(tower_sees(backbone, "vcd[vcd_noise_seed=5]", seed=1)[0], fixed)
    assert torch.equal(tower_sees(backbone, "vcd", seed=5)[0], fixed)
    assert not torch.equal(tower_sees(backbone, "vcd[vcd_noise_seed=6]", seed=0)[0], fixed)
    assert not torch.equal(tower_sees(backbone, "vcd", seed=0)[0], fixed)

    drawn, again, moved = (
        tower_sees(backbone, "vcd[vcd_noise_seed=5,select=sample]", seed=seed)[1]
        for seed in (0, 0, 1)
    )
    for one, same, other in zip(drawn, again, moved, strict=True):
        assert one.token_ids == same.token_ids != other.token_ids
        assert torch.equal(one.scores[0], other.scores[0])


def test_vcd_with_a_clean_negative_is_greedy_under_the_cut(endless, greedy_under_cut, tower_sees):
    backbone = endless(GROUPED)
    greedy_under_cut(backbone, "vcd[negative=clean,alpha=2]", 0.1)
    assert tower_sees(backbone, "vcd[negative=clean]")[0] is None


@pytest.mark.parametrize("beta", [0, 0.1])
@pytest.mark.parametrize("method", ["vcd", "avisc", "damro"])
def test_without_contrast_the_plausible_scores_are_those_of_greedy(
    endless, greedy_under_cut, method, beta
):
    greedy_under_cut(endless(GROUPED), f"{method}[alpha=0,beta={beta}]", beta)


@pytest.mark.parametrize(
    "method",
    ["vcd[alpha=3", "avisc[alpha=3", "damro[alpha=3", "m3id[lamda=1", "pai[alpha=0,gamma=3"],
)
def test_a_cut_at_the_best_token_leaves_only_that_one(endless, decode, method):
    """However strong the contrast; with a loose cut the same contrast moves the answers."""
    backbone = endless(GROUPED)
    plain_answers = decode(backbone, "greedy")
    for one, greedy in zip(decode(backbone, f"{method},beta=1]"), plain_answers, strict=True):
        assert one.token_ids == greedy.token_ids
        assert one.scores.isfinite().sum(-1).tolist() == [1] * len(one.token_ids)
    loose = decode(backbone, f"{method},beta=0.01]")
    assert [a.token_ids for a in loose] != [a.token_ids for a in plain_answers]


@pytest.mark.parametrize("method", ["vcd", "avisc", "damro", "m3id", "pai"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_tokens_as_good_as_the_best_one_are_plausible(endless, decode, method, batch_size):
    """Each logit is one number of the hidden state, the same for every 32nd token."""
    backbone = endless(GROUPED)
    model = copy.deepcopy(backbone.language_model)
    weight = model.lm_head.weight
    with torch.no_grad():
        weight.copy_(torch.eye(32).repeat(4, 1)[: len(weight)])
    tied = replace(backbone, language_model=model)
    for answer in decode(tied, f"{method}[beta=1]", batch_size=batch_size):
        for token, scores in zip(answer.token_ids, answer.scores, strict=True):
            assert token < 32
            kept = scores.isfinite().nonzero()[:, 0].tolist()
            assert kept == list(range(token, len(weight), 32))


@pytest.mark.parametrize("method", ["vcd", "avisc", "damro", "m3id", "pai"])
def test_the_cut_keeps_its_exact_edge_and_bars_the_next_number_below(method):
    """In the main branch's own logits: what a negative branch says of a token never saves it."""
    edge = torch.tensor(math.log(0.5))
    below = torch.nextafter(edge, torch.tensor(-1.0))
    main = torch.stack([torch.tensor(0.0), edge, below, torch.tensor(-9.0)])[None]
    other = torch.tensor([[3.0, 2.0, -50.0, -50.0]])
    logits = defaultdict(lambda: other, main=main)
    scores = create_decoder(f"{method}[beta=0.5]").combine(logits, 0)
    assert scores.isfinite().tolist() == [[True, True, False, False]]
