import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import medbench
from medbench.decoding.generate import create_decoder
from medbench.decoding.reading import Reading
from medbench.decoding.stack import RowStack

GOLDEN = Path(__file__).parents[1] / "golden" / "decoders"
CASES = json.loads((GOLDEN / "cases.json").read_text(encoding="utf-8"))["cases"]
EXPECTED = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))
METHODS = {
    "greedy": "greedy",
    "beam5": "beam",
    "vcd": "vcd",
    "avisc": "avisc[variant=official]",
    "m3id": "m3id",
    "damro": "damro",
    "pai_g11_a02_skip": "pai",
    "pai_g11_a02_apply": "pai[pai_prefill=apply]",
    "dola": "dola",
    "opera": "opera[variant=official]",
    "opera_s300_t1_48": "opera[variant=official,scale_factor=300,threshold=1]",
}


@pytest.fixture(scope="module")
def backbone():
    spec = f"llava_hf[weights={GOLDEN / 'tiny-llava-hf'}]"
    return medbench.load_backbone(spec, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def tensors():
    return load_file(GOLDEN / "cases.safetensors")


@pytest.fixture(scope="module")
def expected_scores():
    return load_file(GOLDEN / "expected.safetensors")


def decoded(backbone, tensors, name, cases, batch_size):
    pixels, noised = (
        torch.cat([tensors[f"{case['name']}.{kind}"] for case in cases])
        for kind in ("pixel_values", "pixel_values_noised")
    )
    return medbench.generate(
        backbone,
        method=METHODS[name],
        input_ids=[case["input_ids"] for case in cases],
        pixel_values=pixels,
        branch_tensors={"noised": noised} if name == "vcd" else None,
        max_new_tokens=48 if name.endswith("_48") else 24,
        record_scores=3,
        batch_size=batch_size,
    )


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("name", METHODS)
def test_tokens_and_scores_are_those_of_the_original_implementation(
    backbone, tensors, expected_scores, name, batch_size
):
    for case, answer in zip(
        CASES, decoded(backbone, tensors, name, CASES, batch_size), strict=True
    ):
        assert answer.token_ids == EXPECTED[name]["cases"][case["name"]]["tokens"]
        scores = expected_scores[f"{name}.{case['name']}.scores"]
        assert answer.scores.shape == scores.shape
        kept = scores.isfinite()
        # Two infinities are as far apart as nothing; everything else may differ in digits only.
        assert torch.equal(answer.scores.isfinite(), kept)
        assert torch.allclose(answer.scores[kept], scores[kept], rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", ["vcd", "avisc", "m3id", "damro", "dola", "pai_g11_a02_skip"])
def test_the_golden_scores_bar_tokens(expected_scores, name):
    assert not expected_scores[f"{name}.case0.scores"].isfinite().all()


def test_a_golden_opera_run_goes_back():
    cases = EXPECTED["opera_s300_t1_48"]["cases"].values()
    assert sum(len(case["rollback_kept_tokens"]) for case in cases) >= 1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_damro_takes_the_published_patches(backbone, tensors, case):
    states = backbone.vision_states(tensors[f"{case['name']}.pixel_values"])
    patches = create_decoder("damro").look(backbone, states)
    assert patches.tolist() == [EXPECTED["damro"]["cases"][case["name"]]["top_patches"]]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
@torch.no_grad()
def test_avisc_keeps_the_published_tokens(backbone, tensors, case):
    features = backbone.encode(tensors[f"{case['name']}.pixel_values"])[0]
    prompt = backbone.prompt_from_ids(case["input_ids"], features)
    stack = RowStack(backbone, [prompt], Reading(prompt_attention=True))
    blind = create_decoder("avisc[variant=official]").blind(stack.prompt_attention[0])
    expected = EXPECTED["avisc"]["cases"][case["name"]]
    assert (~blind).nonzero()[:, 0].tolist() == expected["non_blind_tokens"]


def test_dola_chooses_the_published_layers(backbone, tensors, monkeypatch):
    """Both cases in one batch, where each has its own layer."""
    decoder = create_decoder("dola")
    layers = decoder.reading(backbone.depth).readout.layers
    seen = []
    plain = type(decoder).combine

    def combine(self, logits, step):
        mature, early = logits["main"].log_softmax(-1), logits["early"].log_softmax(-1)
        mixture = (mature.exp()[:, None] + early.exp()) / 2
        terms = [mixture * (mixture.log() - one) for one in (mature[:, None], early)]
        seen.append((terms[0] + terms[1]).mean(-1).argmax(-1).tolist())
        return plain(self, logits, step)

    monkeypatch.setattr(type(decoder), "combine", combine)
    decoded(backbone, tensors, "dola", CASES, 2)
    for row, case in enumerate(CASES):
        chosen = [layers[step[row]] for step in seen[:24]]
        assert chosen == EXPECTED["dola"]["cases"][case["name"]]["selected_layers"]
    assert any(step[0] != step[1] for step in seen)


def test_pixels_of_the_golden_images_are_those_of_the_original_processor(backbone, tensors):
    from PIL import Image

    for case in CASES:
        image = Image.fromarray(tensors[f"{case['name']}.image"].numpy())
        pixels = backbone.pixel_values([image])
        assert torch.allclose(pixels, tensors[f"{case['name']}.pixel_values"], rtol=0, atol=1e-4)


def test_prompts_of_the_golden_cases_have_the_original_ids(backbone, tensors):
    for case in CASES:
        features = backbone.encode(tensors[f"{case['name']}.pixel_values"])[0]
        prompt = backbone.prompt_from_ids(case["input_ids"], features)
        embedded = tensors[f"{case['name']}.inputs_embeds"][0]
        assert torch.allclose(backbone.embed(prompt), embedded, rtol=1e-5, atol=1e-4)
        assert prompt.visual.nonzero()[0].item() == case["image_start"]
        assert prompt.visual.sum().item() == case["image_len"]
        assert prompt.without_image().ids.tolist() == case["input_ids_without_image"]
        before, _, after = case["prompt_text"].partition("<image>")
        question = after.removesuffix("assistant :").strip()
        templated = backbone.prompt(question, features)
        assert before == "user : "
        assert templated.ids.tolist() == case["input_ids"]
