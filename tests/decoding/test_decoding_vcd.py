import pytest
import torch

import medbench
from medbench.decoding.context import DecodeContext
from medbench.decoding.generate import create_decoder
from medbench.errors import UserError


def noised(pixels, ids, seed=0, spec="vcd"):
    context = DecodeContext(None, tuple(ids), seed=seed, pixel_values=pixels)
    return create_decoder(spec).noised(context)


@pytest.mark.parametrize(
    ("step", "kept", "added"), [(500, 0.863017, 0.505175), (999, 0.28504, 0.95851)]
)
def test_the_diffusion_has_the_published_constants(step, kept, added):
    """Half the difference of x and -x under one draw is the share kept; the noise is the rest."""
    image = torch.ones(1, 3, 200, 200)
    spec = f"vcd[noise_step={step}]"
    plus, minus = noised(image, "a", spec=spec), noised(-image, "a", spec=spec)
    share = (plus - minus) / 2
    assert torch.allclose(share, torch.full_like(share, kept), rtol=0, atol=2e-5)
    noise = (plus + minus) / 2
    assert noise.std().item() == pytest.approx(added, rel=0.01)
    assert noise.mean().item() == pytest.approx(0, abs=0.01)


def test_the_first_step_hardly_changes_the_image():
    image = torch.rand(1, 3, 16, 16)
    difference = noised(image, "a", spec="vcd[noise_step=0]") - image
    assert 0 < difference.abs().max() < 0.03


def test_noise_follows_the_seed_and_the_id_and_nothing_else():
    images = torch.zeros(3, 3, 16, 16)
    batch = noised(images, "abc")
    assert torch.equal(noised(images[:1], "b")[0], batch[1])
    assert torch.equal(noised(images, "cba")[2], batch[0])
    assert not torch.equal(batch[0], batch[1])
    assert not torch.equal(noised(images, "abc", seed=1)[0], batch[0])
    assert torch.equal(noised(images, "abc"), batch)


@pytest.mark.parametrize("method", ["vcd[alpha=0,beta=1e-30]", "vcd[alpha=0,beta=0]"])
def test_vcd_without_contrast_and_constraint_is_greedy(toy, images, questions, method):
    options = {
        "images": images,
        "prompts": questions,
        "max_new_tokens": 24,
        "record_scores": 24,
    }
    plain = medbench.generate(toy(), **options)
    reduced = medbench.generate(toy(), method=method, **options)
    for one, other in zip(plain, reduced, strict=True):
        assert one.token_ids == other.token_ids
        assert (one.scores - other.scores).abs().max() < 1e-4


def test_vcd_contrasted_with_its_own_image_is_greedy(toy, images, questions):
    """(1 + a) z - a z = z, whatever a: the argmax and the plausible scores stay."""
    pixels = toy().pixel_values(images)
    options = {"pixel_values": pixels, "prompts": questions, "max_new_tokens": 24}
    same = medbench.generate(
        toy(), method="vcd[alpha=3]", branch_tensors={"noised": pixels}, **options
    )
    plain = medbench.generate(toy(), **options)
    assert [a.token_ids for a in same] == [a.token_ids for a in plain]


def test_the_noised_image_moves_the_answers(toy, images, questions):
    options = {"images": images, "prompts": questions, "max_new_tokens": 24}
    plain = medbench.generate(toy(), **options)
    contrasted = medbench.generate(toy(), method="vcd", **options)
    other_seed = medbench.generate(toy(), method="vcd", seed=1, **options)
    assert [a.token_ids for a in contrasted] != [a.token_ids for a in plain]
    assert [a.token_ids for a in contrasted] != [a.token_ids for a in other_seed]


@pytest.mark.parametrize(
    "spec", ["vcd[noise_step=1000]", "vcd[noise_step=-1]", "vcd[beta=1.5]", "vcd[beta=-0.1]"]
)
def test_values_outside_the_schedule_or_the_constraint_are_refused(spec):
    with pytest.raises(UserError, match="vcd refuses these values"):
        create_decoder(spec)


def test_the_named_variants_are_the_published_code_and_scripts():
    paper, official = create_decoder("vcd"), create_decoder("vcd[variant=official]")
    assert (paper.alpha, paper.beta, paper.noise_step) == (1.0, 0.1, 500)
    assert official == paper
    assert create_decoder("vcd[variant=official-pope]").beta == 0.2
    clean = create_decoder("vcd[variant=a3tune]")
    assert (clean.negative, clean.top_k) == ("clean", 50)
    assert create_decoder("vcd[variant=a3tune10]").negative == "noised"
