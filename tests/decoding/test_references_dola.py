"""DoLa against a loop written here: no cache, no batch, no padding, one sample at a time."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

import medbench
from medbench import UserError

STEPS = 26
# Weights of this spread keep the scores small enough for float32 to be exact to 1e-5 or so.
LLAMA = "toy[layers=6,spread=0.2]"
SPECS = [
    LLAMA,
    "toy[layers=6,seed=5,kv_heads=4,spread=0.2]",
    "toy[layers=6,seed=2,text=mistral,kv_heads=1,spread=0.2]",
    "toy[layers=6,seed=4,text=qwen2,spread=0.2]",
]

TASK = '''"""A question."""

from PIL import Image

from medbench.task import Sample, Task


def image():
    return Image.new("RGB", (16, 16))


class One(Task):
    """A question."""

    name = "one"
    metrics = ("closed/strict",)

    def samples(self, split):
        yield Sample("0", image, "is it?", "yes", "closed", "0", stamp="0")
'''


@dataclass
class Naive:
    """What the loop found: by step the token, the scores, each layer's distance, the layer.

    `allowed` are the scores behind the repetition penalty.
    """

    tokens: list
    scores: torch.Tensor
    allowed: torch.Tensor
    distances: torch.Tensor
    layers: list


def exits(reference, ids, features, layers, early_norm):
    """Return what the model would say after each layer, log-probabilities in float64."""
    model = reference.language_model
    with torch.no_grad():
        output = model(
            inputs_embeds=reference.embed(ids, features)[None],
            use_cache=False,
            output_hidden_states=True,
        )
        states = [state[0, -1] for state in output.hidden_states]
        # The last state alone has been through the final norm.
        deepest = len(states) - 1
        assert (model.lm_head(states[deepest]) - output.logits[0, -1]).abs().max() < 1e-4
        if early_norm:
            states[:deepest] = [model.model.norm(state) for state in states[:deepest]]
        return [model.lm_head(states[layer]).double().log_softmax(-1) for layer in layers]


def distance(mature, early):
    """Return how far two distributions are apart, by the mixture's own logarithm."""
    p, q = mature.exp(), early.exp()
    mixture = (p + q) / 2
    from_mature = (mixture * (mixture.log() - mature)).mean()
    from_early = (mixture * (mixture.log() - early)).mean()
    return float(from_mature + from_early) / 2


def naive_dola(
    reference,
    ids,
    features,
    steps,
    *,
    mature=6,
    candidates=(0, 2, 4),
    relative_top=0.1,
    early_norm=False,
    penalty=1.0,
    seen_before=(),
):
    """Return what DoLa does over so many steps; `seen_before` are the prompt's own tokens."""
    tokens, scores, penalised, distances, layers = [], [], [], [], []
    for _ in range(steps):
        z, *early = exits(
            reference, ids + tokens, features, [mature, *candidates], early_norm=early_norm
        )
        far = [distance(z, one) for one in early]
        chosen = far.index(max(far))
        row = z - early[chosen]
        if relative_top:
            row[z < z.max() + math.log(relative_top)] = -math.inf
        allowed = row.clone()
        for token in {*seen_before, *tokens} if penalty != 1 else ():
            allowed[token] *= 1 / penalty if row[token] > 0 else penalty
        scores.append(row)
        penalised.append(allowed)
        distances.append(far)
        layers.append(candidates[chosen])
        tokens.append(int(allowed.argmax()))
    scores, penalised = torch.stack(scores), torch.stack(penalised)
    return Naive(tokens, scores, penalised, torch.tensor(distances), layers)


def text_of(backbone, question):
    """Return the ids of the prompt's text."""
    ids = backbone.prompt(question, torch.zeros(backbone.image_tokens, 32)).ids.tolist()
    return [token for token in ids if token != backbone.image_token_id]


@pytest.fixture(scope="module")
def endless(toy):
    """Return a loader of toys whose answers go on to the limit."""
    return lambda spec: replace(toy(spec), eos_token_ids=())


@pytest.fixture(scope="module")
def naive(eager, images, questions):
    """Return the loop, by backbone and sample; `after` are tokens behind the prompt."""

    def run(backbone, index, steps=STEPS, after=(), **options):
        reference = eager(backbone)
        pixels = backbone.pixel_values([images[index]])
        ids = backbone.prompt(questions[index], backbone.encode(pixels)[0]).ids.tolist()
        seen = {"seen_before": text_of(backbone, questions[index])}
        features = reference.features(pixels[0])
        return naive_dola(reference, [*ids, *after], features, steps, **seen | options)

    return run


@pytest.fixture(scope="module")
def checked(naive, images, questions):
    """Return a function that checks decoded answers against the loop, and returns the loop's."""

    def check(backbone, method="dola", samples=3, batch_sizes=(8,), steps=STEPS, **options):
        decoded = [
            medbench.generate(
                backbone,
                method=method,
                images=images[:samples],
                prompts=questions[:samples],
                batch_size=batch_size,
                max_new_tokens=steps,
                record_scores=steps,
            )
            for batch_size in batch_sizes
        ]
        found = []
        for index in range(samples):
            expected = naive(backbone, index, len(decoded[0][index].token_ids), **options)
            near = "near ties would show nothing"
            best, next_best = expected.allowed.topk(2).values.unbind(-1)
            assert (best - next_best).min() > 1e-3, near
            if expected.distances.shape[1] > 1:
                best, next_best = expected.distances.topk(2).values.unbind(-1)
                assert (best / next_best).min() > 1 + 1e-3, near
            barred = ~expected.scores.isfinite()
            for answers in decoded:
                assert answers[index].token_ids == expected.tokens
                assert torch.equal(~answers[index].scores.isfinite(), barred)
                assert (answers[index].scores - expected.scores)[~barred].abs().max() < 1e-4
            found.append(expected)
        return found

    return check


@pytest.fixture(scope="module")
def plain(endless, checked):
    """Return the loop's findings with every parameter at its default."""
    return checked(endless(LLAMA))


@pytest.mark.parametrize("spec", SPECS)
def test_tokens_and_scores_are_those_of_a_cache_free_loop(endless, checked, spec):
    found = checked(endless(spec), batch_sizes=(1, 3))
    assert all(len(one.tokens) == STEPS for one in found)
    assert all(not one.scores.isfinite().all(-1).any() for one in found), "each step bars some"
    assert all(len(set(one.layers)) > 1 for one in found), "the layer changes from step to step"
    assert len({tuple(one.tokens) for one in found}) == 3


def test_a_batch_whose_samples_end_at_different_steps_keeps_its_layers_apart(toy, checked):
    found = checked(toy(LLAMA, ends=4), samples=5, batch_sizes=(1, 5))
    lengths = {len(one.tokens) for one in found}
    assert len(lengths) >= 3
    assert max(lengths) >= 24


def test_each_sample_of_a_batch_has_its_own_layer(plain):
    """One layer for the whole batch, by the mean of the distances, would be another one."""
    assert sum(len(set(layers)) > 1 for layers in zip(*(f.layers for f in plain), strict=True)) > 5
    common = torch.stack([one.distances for one in plain]).mean(0).argmax(-1)
    for one in plain:
        assert one.layers != [(0, 2, 4)[index] for index in common.tolist()]


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ("candidate_premature_layers=1/3/5", {"candidates": (1, 3, 5)}),
        ("candidate_premature_layers=5/0/1", {"candidates": (5, 0, 1)}),
        ("mature_layer=5,candidate_premature_layers=1/3", {"mature": 5, "candidates": (1, 3)}),
        ("mature_layer=4", {"mature": 4, "candidates": (0, 2)}),
        ("mature_layer=6", {}),
        ("early_norm=true", {"early_norm": True}),
        ("early_norm=true,mature_layer=6", {"early_norm": True}),
        ("relative_top=0", {"relative_top": 0}),
        ("relative_top=0.5", {"relative_top": 0.5}),
    ],
)
def test_parameters_do_what_they_do_in_the_loop(endless, checked, plain, parameters, options):
    backbone = endless(LLAMA)
    found = checked(backbone, f"dola[{parameters}]", samples=2, steps=18, **options)
    assert any(len(set(one.layers)) > 1 for one in found)
    if "relative_top" in options:
        shares = torch.stack([one.scores.isfinite().double().mean() for one in found])
        assert (shares == 1).all() if options["relative_top"] == 0 else (shares < 0.25).all()
    if options:
        assert [one.tokens[:18] for one in plain[:2]] != [one.tokens for one in found]


@pytest.mark.parametrize("layer", [0, 2, 5])
def test_a_single_early_layer_is_subtracted_whatever_its_distance(endless, checked, layer):
    backbone = endless(LLAMA)
    method = f"dola[candidate_premature_layers={layer}]"
    for one in checked(backbone, method, samples=2, steps=12, candidates=(layer,)):
        assert set(one.layers) == {layer}


@pytest.mark.parametrize(
    ("spec", "mature", "candidates"),
    [
        ("toy[seed=2,spread=0.2]", 2, (0,)),
        ("toy[layers=3,spread=0.2]", 3, (0, 2)),
        ("toy[layers=18,seed=4,spread=0.2]", 18, (0, 2, 4, 6, 8, 10, 12, 14)),
    ],
)
def test_the_layers_are_every_other_one_up_to_fourteen_below_the_mature_one(
    endless, naive, checked, spec, mature, candidates
):
    backbone = endless(spec)
    found = checked(backbone, samples=2, steps=16, mature=mature, candidates=candidates)
    assert max(layer for one in found for layer in one.layers) == candidates[-1]
    if mature > 16:
        wider = naive(backbone, 0, 16, mature=mature, candidates=(*candidates, 16))
        assert 16 in wider.layers, "layer 16 would be taken, were it among them"


def test_a_repetition_penalty_acts_on_the_differences(endless, naive, checked):
    """It reaches the text of the prompt and of the answer, and not the image's places."""
    backbone = endless("toy[layers=6,seed=6,spread=0.2]")
    found = checked(backbone, "dola[repetition_penalty=1.2]", batch_sizes=(1, 3), penalty=1.2)
    with_image = [*text_of(backbone, "is it?"), backbone.image_token_id]
    for other in (
        naive(backbone, 0, 12),
        naive(backbone, 0, 12, penalty=1.2, seen_before=()),
        naive(backbone, 0, penalty=1.2, seen_before=with_image),
    ):
        assert other.tokens != found[0].tokens[: len(other.tokens)], (
            "each part of the rule shows in the answer"
        )


def test_the_published_variant_has_the_penalty(endless, checked):
    checked(endless(LLAMA), "dola[variant=official]", samples=2, steps=12, penalty=1.2)


def test_a_repetition_penalty_takes_negative_differences_further_down(endless, checked):
    """Where it would draw them to zero, as it does positive ones, another token would win."""
    backbone = endless(LLAMA)
    found = checked(
        backbone,
        samples=2,
        method="dola[candidate_premature_layers=5,relative_top=0.4,repetition_penalty=1.2]",
        candidates=(5,),
        relative_top=0.4,
        penalty=1.2,
        steps=12,
    )
    other, barred = 0, 0
    for step, row in enumerate(found[0].scores):
        seen = list({*text_of(backbone, "is it?"), *found[0].tokens[:step]})
        divided = row.clone()
        divided[seen] /= 1.2
        other += int(divided.argmax()) != found[0].tokens[step]
        barred += int(row[seen].isinf().sum())
    assert other >= 1
    assert barred >= 1, "a barred token is repeated, and stays barred"


def test_beams_search_over_the_differences(endless, naive, images, questions, plain):
    """Five steps of two beams, by enumeration of every continuation."""
    backbone = endless(LLAMA)
    decoded = medbench.generate(
        backbone,
        method="dola[beams=2]",
        images=images[:3],
        prompts=questions[:3],
        max_new_tokens=5,
    )
    for index, answer in enumerate(decoded):
        running = [([], 0.0)]
        for _ in range(5):
            extended = [
                ([*tokens, token], score + log)
                for tokens, score in running
                for token, log in enumerate(
                    naive(backbone, index, 1, tokens).scores[0].log_softmax(-1).tolist()
                )
            ]
            running = sorted(extended, key=lambda one: -one[1])[:2]
        assert answer.token_ids == running[0][0]
    assert any(a.token_ids != one.tokens[:5] for a, one in zip(decoded, plain, strict=True))


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ("mature_layer=7", "mature_layer is 7."),
        ("mature_layer=0", "mature_layer is 0."),
        ("candidate_premature_layers=2/6", "premature layer 6 does not lie below layer 6."),
        (
            "mature_layer=4,candidate_premature_layers=2/4",
            "premature layer 4 does not lie below layer 4.",
        ),
        (
            "mature_layer=4,candidate_premature_layers=5/2",
            "premature layer 5 does not lie below layer 4.",
        ),
        ("candidate_premature_layers=-1/2", "premature layer -1 does not lie below layer 6."),
    ],
)
def test_layers_that_are_not_there_or_not_below_are_refused(
    toy, images, questions, monkeypatch, tmp_path, parameters, why
):
    from medbench.backbones.toy import Toy
    from medbench.cell import Request, plan

    with pytest.raises(UserError, match="dola cannot run on 6 decoder layers") as refused:
        medbench.generate(
            toy(LLAMA),
            method=f"dola[{parameters}]",
            images=images[:1],
            prompts=questions[:1],
            max_new_tokens=1,
        )
    assert refused.value.why == why
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "one.py").write_text(TASK, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDBENCH_PLUGINS", raising=False)

    def load(*_, **__):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(Toy, "load", load)
    with pytest.raises(UserError, match="dola cannot run on 6 decoder layers") as refused:
        plan(Request(f"dola[{parameters}]", "one", LLAMA))
    assert refused.value.why == why
    assert plan(Request("dola[mature_layer=6]", "one", LLAMA)).key
