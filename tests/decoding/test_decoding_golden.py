import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import medbench

GOLDEN = Path(__file__).parents[1] / "golden" / "decoders"
CASES = json.loads((GOLDEN / "cases.json").read_text(encoding="utf-8"))["cases"]
EXPECTED = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))
METHODS = {"greedy": "greedy", "beam5": "beam", "vcd": "vcd"}


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
        max_new_tokens=24,
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


def test_vcd_bars_tokens_in_the_golden_scores(expected_scores):
    assert not expected_scores["vcd.case0.scores"].isfinite().all()


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
