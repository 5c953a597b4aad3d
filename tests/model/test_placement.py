"""Types of weights, models spread over devices, and four bits: the same answers, or near them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import medbench
from medbench.errors import UserError
from medbench.model.load import create_checkpoint
from medbench.model.placement import Placement
from medbench.model.tiny_original import TOWERS, write_tiny

NAMES = {
    "llava": "llava-med",
    "llava_mistral": "llava-med-1.5",
    "llava_qwen2": "huatuogpt-vision-7b",
}
QUESTIONS = ["Is the lung normal?", "What is this", "Is it a?"]
# One layer here, one waiting on disk: accelerate's hooks move what a layer needs.
SPREAD = {
    "model.embed_tokens": "cpu",
    "model.rotary_emb": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.norm": "disk",
    "lm_head": "disk",
}


def images() -> list[Image.Image]:
    drawn = np.random.default_rng(0).integers(0, 255, (3, 40, 50, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in drawn]


def written(kind: str, root: Path, **options: int) -> str:
    directory = write_tiny(kind, root, **options)
    tower = (directory if kind == "llava_qwen2" else root) / TOWERS[kind]
    return f"{NAMES[kind]}[weights={directory},vision={tower}]"


@pytest.fixture(scope="module", params=list(NAMES))
def spec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module", params=list(NAMES))
def wide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    # As in every real model, rows are whole blocks of 64 weights. On a CPU with AVX512,
    # bitsandbytes 0.50 restores rows of 32 or 48 weights wrong.
    return written(request.param, tmp_path_factory.mktemp(request.param), width=64)


def answers(backbone, method: str) -> list[list[int]]:
    rois = None
    if method == "controlmllm":
        region = np.zeros((40, 50), bool)
        region[5:20, 5:20] = True
        rois = [region] * 3
    made = medbench.generate(
        backbone, method=method, images=images(), prompts=QUESTIONS, max_new_tokens=6, rois=rois
    )
    return [one.token_ids for one in made]


def load(spec: str, monkeypatch: pytest.MonkeyPatch, **placed: object):
    checkpoint = create_checkpoint(spec)
    plain = type(checkpoint).placement

    def placement(self, device, dtype) -> Placement:
        return replace(plain(self, device, dtype), **placed)

    monkeypatch.setattr(type(checkpoint), "placement", placement)
    return checkpoint.load(device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize(
    "method", ["greedy", "beam", "vcd", "pai", "dola", "opera", "avisc", "controlmllm"]
)
def test_a_spread_model_answers_as_one_in_a_place(spec, method, monkeypatch):
    whole = medbench.load_backbone(spec, dtype="float32")
    spread = load(spec, monkeypatch, device_map=SPREAD)
    layers = spread.language_model.model.layers
    assert layers[1].mlp.up_proj.weight.device.type == "meta"
    assert layers[0].mlp.up_proj.weight.device.type == "cpu"
    assert spread.device.type == "cpu"
    assert answers(spread, method) == answers(whole, method)


def test_what_a_tuner_adds_cannot_be_spread(spec, monkeypatch):
    from medbench import plugins
    from medbench import spec as specs
    from medbench.tuning.adapter import attached

    spread = load(spec, monkeypatch, device_map=SPREAD)
    _, tuner = plugins.create(
        "method", specs.parse("a3tune[align_weight=0.1,q_experts=2,k_experts=2,k_top=1]")
    )
    with pytest.raises(UserError) as raised, attached(spread, tuner):
        pass
    assert "spread over several devices" in raised.value.what
    assert "device_map=none" in raised.value.do


def test_auto_takes_what_there_is(spec):
    backbone = medbench.load_backbone(spec.replace("]", ",device_map=auto]"), dtype="float32")
    whole = medbench.load_backbone(spec, dtype="float32")
    assert answers(backbone, "greedy") == answers(whole, "greedy")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_reaches_every_part(spec, dtype):
    backbone = medbench.load_backbone(spec, dtype=dtype)
    wanted = getattr(torch, dtype)
    for part in (backbone.language_model, backbone.projector, backbone.vision_tower):
        assert {weight.dtype for weight in part.parameters()} == {wanted}
    assert all(len(one) == 6 for one in answers(backbone, "pai"))


class TestFourBits:
    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        pytest.importorskip("bitsandbytes", reason="medbench[4bit] is not installed")

    def load(self, spec: str, dtype: str = "float32"):
        return medbench.load_backbone(spec.replace("]", ",quantize=4bit]"), dtype=dtype)

    def test_the_matrices_take_an_eighth_and_the_rest_stays(self, wide):
        from bitsandbytes.nn import Linear4bit

        backbone = self.load(wide)
        layer = backbone.language_model.model.layers[0]
        assert isinstance(layer.self_attn.q_proj, Linear4bit)
        weight = layer.self_attn.q_proj.weight
        assert weight.nbytes * 8 == layer.self_attn.q_proj.in_features**2 * 4
        assert backbone.dtype == torch.float32
        assert backbone.language_model.lm_head.weight.dtype == torch.float32

    @pytest.mark.parametrize("method", ["greedy", "pai", "avisc"])
    def test_answers_and_attention_come_as_ever(self, wide, method):
        backbone = self.load(wide)
        single = [
            medbench.generate(
                backbone, method=method, images=[image], prompts=[question], max_new_tokens=6
            )[0].token_ids
            for image, question in zip(images(), QUESTIONS, strict=True)
        ]
        assert answers(backbone, method) == single

    def test_a_matrix_computes_in_the_type_asked_for(self, wide):
        from bitsandbytes.functional import dequantize_4bit

        backbone = self.load(wide)
        answers(backbone, "greedy")  # bitsandbytes may pack a matrix anew at its first use
        layer = backbone.language_model.model.layers[0].mlp.up_proj
        rows = torch.randn(5, layer.in_features, generator=torch.Generator().manual_seed(0))
        whole = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        with torch.no_grad():
            torch.testing.assert_close(layer(rows), rows @ whole.T)

    def test_logits_are_near_and_not_the_same(self, wide):
        whole, small = medbench.load_backbone(wide, dtype="float32"), self.load(wide)
        logits = []
        for backbone in (whole, small):
            features = backbone.encode(backbone.pixel_values(images()[:1]))[0]
            prompt = backbone.prompt(QUESTIONS[0], features)
            with torch.no_grad():
                logits.append(
                    backbone.language_model(inputs_embeds=backbone.embed(prompt)[None]).logits[0]
                )
        together = torch.stack([one.flatten() for one in logits])
        assert 0.8 < float(torch.corrcoef(together)[0, 1]) < 0.99999


def test_four_bits_without_the_package_name_the_extra(spec, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(UserError) as raised:
        medbench.load_backbone(spec.replace("]", ",quantize=4bit]"))
    assert 'pip install "medbench[4bit]"' in raised.value.do


def test_four_bits_are_another_run_and_a_device_map_is_not(spec, tmp_path: Path):
    def key(backbone: str) -> str:
        from medbench.cell import Request, plan

        return plan(Request("greedy", "phantom", backbone, limit=2, dtype="float32")).key

    assert key(spec) == key(spec.replace("]", ",device_map=auto]"))
    assert key(spec) != key(spec.replace("]", ",quantize=4bit]"))
