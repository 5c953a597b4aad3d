"""ControlMLLM against plain autograd through eager attention: one sample, no padding, no cache."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import medbench
from medbench import UserError
from medbench.decoding.context import DecodeContext
from medbench.decoding.generate import create_decoder

STEPS = 26
SPECS = [
    "toy",
    "toy[seed=1,kv_heads=4]",
    "toy[seed=2,text=mistral,kv_heads=1]",
    "toy[seed=3,text=qwen2,layers=3]",
]
TO_THE_END = "controlmllm[early_stop_percent=none]"


def naive_energy(reference, ids, embeddings, inside, alpha=400.0):
    """Return the energy of the attention that the text behind the image pays to it."""
    places = [at for at, token in enumerate(ids) if token == reference.backbone.image_token_id]
    output = reference.language_model(
        inputs_embeds=reference.embed(ids, embeddings)[None],
        use_cache=False,
        output_attentions=True,
    )
    maps = torch.cat(output.attentions)[:, :, places[-1] + 1 :, places]
    relevance = maps.mean(dim=(0, 1, 2))
    return alpha * (1 - relevance[inside].sum() / relevance.sum()) ** 2


def naive_embeddings(
    reference,
    ids,
    image,
    inside,
    *,
    steps=5,
    rate=4.0,
    alpha=400.0,
    beta=0.5,
    accumulate=True,
    percent=25.0,
):
    """Return the image's embeddings [N, width] as learnt, and the energies on the way."""
    embeddings, energies = image, []
    latent = torch.zeros_like(image, requires_grad=True)
    average = latent  # not a copy: at first the average moves with the latent
    for _ in range(steps):
        current = beta * latent + (1 - beta) * average
        embeddings = (embeddings.detach() if accumulate else image) + current
        energy = naive_energy(reference, ids, embeddings, inside, alpha)
        energies.append(energy.item())
        change = abs(energies[-1] - energies[0]) / abs(energies[0])
        if percent is not None and len(energies) >= 2 and change > percent / 100:
            break
        (gradient,) = torch.autograd.grad(energy, latent)
        average = current.detach()
        latent = (latent - rate * gradient).detach().requires_grad_()
    current = beta * latent + (1 - beta) * average
    return ((embeddings if accumulate else image) + current).detach(), energies


def naive_answer(reference, ids, embeddings):
    """Return the likeliest tokens, one after the other."""
    tokens = []
    for _ in range(STEPS):
        best = reference.next(ids + tokens, embeddings).topk(2)
        assert best.values[0] - best.values[1] > 1e-3, "near ties would show nothing"
        tokens.append(int(best.indices[0]))
    return tokens


def box(image, top, bottom, left, right):
    """Return a region of an image, its sides given as shares of the image's."""
    region = np.zeros((image.height, image.width), bool)
    rows = slice(int(top * image.height), int(bottom * image.height))
    region[rows, int(left * image.width) : int(right * image.width)] = True
    return region


@pytest.fixture(scope="module")
def load(toy):
    """Return a loader of toys whose answers go on to the limit."""
    return lambda spec="toy": replace(toy(spec), eos_token_ids=())


@pytest.fixture(scope="module")
def rois(images):
    """Return regions of the first three images; the one in the middle has none."""
    return [box(images[0], 0.2, 0.8, 0.4, 0.8), None, box(images[2], 0.5, 1, 0, 0.5)]


@pytest.fixture(scope="module")
def learnt(images, questions):
    """Return a function that returns the embeddings learnt for each sample."""

    def learn(backbone, method, rois, batch_size):
        decoder = create_decoder(method)
        pixels = backbone.pixel_values(images[: len(rois)])
        found = []
        for start in range(0, len(rois), batch_size):
            part = slice(start, start + batch_size)
            context = DecodeContext(
                backbone, tuple("abcdefgh"[: len(rois)][part]), rois=tuple(rois[part])
            )
            features = [backbone.encode(one[None])[0] for one in pixels[part]]
            asked = questions[: len(rois)][part]
            prompts = [backbone.prompt(q, f) for q, f in zip(asked, features, strict=True)]
            found += [prompt.features for prompt in decoder.prepare(prompts, context)]
        return found

    return learn


@pytest.fixture(scope="module")
def answers(images, questions):
    """Return a function that returns each sample's tokens."""

    def decode(backbone, method, rois, batch_size=8):
        decoded = medbench.generate(
            backbone,
            method=method,
            images=images[: len(rois)],
            prompts=questions[: len(rois)],
            rois=None if method == "greedy" else rois,
            batch_size=batch_size,
            max_new_tokens=STEPS,
        )
        return [answer.token_ids for answer in decoded]

    return decode


@pytest.fixture(scope="module")
def naive(eager, images, questions):
    """Return a function that returns a sample's embeddings, energies, ids and start."""

    def run(backbone, index, roi, **options):
        reference = eager(backbone)
        pixels = backbone.pixel_values([images[index]])
        ids = backbone.prompt(questions[index], backbone.encode(pixels)[0]).ids.tolist()
        image = reference.features(pixels[0])
        if roi is None:
            return image, [], ids, image
        inside = torch.from_numpy(backbone.geometry.mask_to_grid(roi) > 0).flatten()
        assert 0 < int(inside.sum()) < len(inside)
        return *naive_embeddings(reference, ids, image, inside, **options), ids, image

    return run


@pytest.fixture(scope="module")
def checked(eager, naive, learnt, answers):
    """Return a function that checks embeddings and tokens; it returns energies and tokens.

    Every sample is decoded alone and in one ragged batch.
    """

    def check(backbone, method, rois, **options):
        runs = [learnt(backbone, method, rois, size) for size in (1, 3)]
        decoded = [answers(backbone, method, rois, size) for size in (1, 3)]
        found = []
        for index, roi in enumerate(rois):
            expected, energies, ids, image = naive(backbone, index, roi, **options)
            moved = float((expected - image).abs().max())
            assert (moved > 0.1) == (roi is not None)
            for embeddings in (one[index] for one in runs):
                assert not embeddings.requires_grad
                assert (embeddings - expected).abs().max() < 1e-4 * moved + 1e-6
            tokens = naive_answer(eager(backbone), ids, expected)
            for answer in decoded:
                assert answer[index] == tokens
            found.append((energies, tokens))
        return found

    return check


@pytest.mark.parametrize("spec", SPECS)
def test_embeddings_and_tokens_are_those_of_a_plain_loop(load, checked, answers, rois, spec):
    """Over all five steps; the sample without a region is decoded like greedy."""
    backbone = load(spec)
    found = checked(backbone, TO_THE_END, rois, percent=None)
    plain = answers(backbone, "greedy", rois)
    for index, (energies, tokens) in enumerate(found):
        assert len(energies) == (0 if rois[index] is None else 5)
        assert (tokens == plain[index]) == (rois[index] is None)
        assert len(tokens) == STEPS


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ("steps=1", {"steps": 1}),
        ("steps=2,early_stop_percent=none", {"steps": 2, "percent": None}),
        ("alpha=40,early_stop_percent=none", {"alpha": 40, "percent": None}),
        ("beta=0.2,early_stop_percent=none", {"beta": 0.2, "percent": None}),
        ("beta=1,early_stop_percent=none", {"beta": 1, "percent": None}),
        ("variant=official,early_stop_percent=none", {"rate": 1, "percent": None}),
        ("variant=official-rtc,early_stop_percent=none", {"rate": 1, "steps": 4, "percent": None}),
        (
            "cmllm_accumulate=false,early_stop_percent=none",
            {"accumulate": False, "percent": None},
        ),
    ],
)
def test_parameters_do_what_they_do_in_the_loop(load, learnt, naive, rois, parameters, options):
    backbone = load()
    embeddings = learnt(backbone, f"controlmllm[{parameters}]", rois, 3)
    for index in (0, 2):
        expected, energies, _, image = naive(backbone, index, rois[index], **options)
        assert len(energies) == options.get("steps", 5)
        moved = (expected - image).abs().max()
        assert (embeddings[index] - expected).abs().max() < 1e-4 * moved + 1e-6
        other = naive(backbone, index, rois[index], percent=None)[0]
        assert (other - expected).abs().max() > 0.01 * moved


@pytest.mark.parametrize(
    ("percent", "accumulate", "lengths", "last_stops"),
    [(18, True, [3, 4, 5], True), (28, True, [3, 5, 5], False), (15, False, [3, 5, 5], False)],
)
def test_one_sample_stops_early_while_its_neighbours_go_on(
    load, checked, images, percent, accumulate, lengths, last_stops
):
    backbone = load("toy[seed=1,kv_heads=4]")
    regions = [
        box(images[0], 0.2, 0.8, 0.4, 0.8),
        box(images[1], 0, 0.6, 0.5, 1),
        box(images[2], 0.5, 1, 0, 0.5),
    ]
    found = checked(
        backbone,
        f"controlmllm[learning_rate=0.02,early_stop_percent={percent},cmllm_accumulate={accumulate}]",
        regions,
        rate=0.02,
        percent=percent,
        accumulate=accumulate,
    )
    assert [len(energies) for energies, _ in found] == lengths
    changes = [
        100 * abs(energy - energies[0]) / energies[0]
        for energies, _ in found
        for energy in energies
    ]
    assert min(abs(change - percent) for change in changes) > 0.5, "no change is a close call"
    assert (changes[-1] > percent) == last_stops


def test_by_default_a_change_by_a_quarter_ends_the_steps(load, checked, rois):
    """What the last step added is then added once more."""
    for energies, _ in checked(load(), "controlmllm", rois):
        assert len(energies) in (0, 2)


def test_one_step_adds_nothing_itself_and_then_its_share_of_one_update(
    load, eager, learnt, images, questions, rois
):
    backbone = load()
    pixels = backbone.pixel_values(images[:1])
    ids = backbone.prompt(questions[0], backbone.encode(pixels)[0]).ids.tolist()
    inside = torch.from_numpy(backbone.geometry.mask_to_grid(rois[0]) > 0).flatten()
    image = eager(backbone).features(pixels[0]).requires_grad_()
    naive_energy(eager(backbone), ids, image, inside).backward(inputs=[image])
    (embeddings,) = learnt(backbone, "controlmllm[steps=1,beta=0.3,learning_rate=2]", rois[:1], 1)
    expected = -0.3 * 2 * image.grad
    assert expected.abs().max() > 1
    assert (embeddings - image.detach() - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("parameters", ["steps=0", "learning_rate=0", "alpha=0"])
def test_nothing_learnt_is_greedy(load, learnt, answers, rois, parameters):
    backbone = load()
    method = f"controlmllm[{parameters}]"
    for embeddings, start in zip(
        learnt(backbone, method, rois, 3), learnt(backbone, TO_THE_END, [None] * 3, 3), strict=True
    ):
        assert torch.equal(embeddings, start)
    greedy = answers(backbone, "greedy", rois)
    assert answers(backbone, method, rois) == greedy
    assert answers(backbone, TO_THE_END, rois) != greedy


def test_a_region_that_covers_no_patch_is_as_none(load, answers, learnt, images, rois):
    """Here it lies on the side of a wide image, which is cut off."""
    backbone = load()
    aside = np.zeros((images[0].height, images[0].width), bool)
    aside[:, :3] = True
    assert not backbone.geometry.mask_to_grid(aside).any()
    nowhere = [aside, rois[2], np.zeros((images[2].height, images[2].width), bool)]
    greedy = answers(backbone, "greedy", nowhere)
    for batch_size in (1, 3):
        tokens = answers(backbone, TO_THE_END, nowhere, batch_size)
        assert [mine == other for mine, other in zip(tokens, greedy, strict=True)] == [
            True,
            False,
            True,
        ]
    assert answers(backbone, TO_THE_END, [None] * 3) == greedy


def test_the_steps_draw_attention_to_the_region(load, naive, learnt, eager, rois):
    backbone = load("toy[seed=2,text=mistral,kv_heads=1]")
    method = "controlmllm[learning_rate=0.02,early_stop_percent=none]"
    embeddings = learnt(backbone, method, rois, 3)
    for index in (0, 2):
        inside = torch.from_numpy(backbone.geometry.mask_to_grid(rois[index]) > 0).flatten()
        _, energies, ids, image = naive(backbone, index, rois[index], rate=0.02, percent=None)
        after = float(naive_energy(eager(backbone), ids, embeddings[index], inside))
        assert after < energies[-1] < energies[0] / 2
        assert after < float(naive_energy(eager(backbone), ids, image, inside)) / 2


def test_another_region_gives_another_answer(load, answers, images, rois):
    backbone = load()
    moved = [box(images[0], 0, 0.5, 0.2, 0.5), None, rois[2]]
    before, after = (answers(backbone, TO_THE_END, one) for one in (rois, moved))
    assert before[0] != after[0]
    assert before[1:] == after[1:]


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("grad", [True, False])
def test_the_weights_are_left_as_they_were(load, answers, rois, trained, grad):
    """Also where some want gradients, and where the caller has turned gradients off."""
    backbone = load()
    model = copy.deepcopy(backbone.language_model)
    parameters = dict(model.named_parameters())
    for index, parameter in enumerate(parameters.values()):
        parameter.requires_grad_(trained and index % 2 == 0)
    before = {name: (one.clone(), one.requires_grad) for name, one in parameters.items()}
    with torch.set_grad_enabled(grad):
        tokens = answers(replace(backbone, language_model=model), TO_THE_END, rois)
        assert torch.is_grad_enabled() == grad
    assert tokens == answers(backbone, TO_THE_END, rois)
    for name, parameter in parameters.items():
        value, wanted = before[name]
        assert parameter.grad is None
        assert parameter.requires_grad == wanted
        assert torch.equal(parameter, value)
    for part in (backbone.vision_tower, backbone.projector):
        assert all(one.grad is None for one in part.parameters())


def test_without_regions_it_does_not_run(load, images, questions):
    inputs = {"images": images[:2], "prompts": questions[:2], "max_new_tokens": 2}
    with pytest.raises(UserError, match="controlmllm cannot run here") as refused:
        medbench.generate(load(), method="controlmllm", **inputs)
    assert refused.value.why.startswith("It needs roi;")
    assert medbench.generate(load(), method="controlmllm", rois=[None, None], **inputs)


def test_a_prompt_that_ends_with_its_image_does_not_depend_on_its_neighbour(toy, images):
    """Nobody looks at that image, and so there is nothing to learn."""
    backbone = toy()
    features = backbone.encode(backbone.pixel_values(images[:2]))
    last = backbone.prompt_from_ids([1, 30, 31] + [4] * 16, features[0])
    other = backbone.prompt_from_ids([1] + [4] * 16 + [40, 41], features[1])
    rois = tuple(
        np.arange(image.height)[:, None] >= np.full(image.width, 9) for image in images[:2]
    )
    context = DecodeContext(backbone, ("a", "b"), rois=rois)
    changed = create_decoder("controlmllm").prepare([last, other], context)
    assert torch.equal(changed[0].features, features[0])
    assert not torch.equal(changed[1].features, features[1])
