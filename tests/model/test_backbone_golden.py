"""Backbones in their authors' formats against numbers from the authors' own classes."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import medbench
from medbench.decoding.select import penalised
from medbench.model.delta import merged
from medbench.model.tokenizer import load_llama_tokenizer, load_qwen_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden/backbones"
CHECKPOINTS = GOLDEN / "checkpoints"
CLIP_224 = GOLDEN / "openai/clip-vit-large-patch14"
CLIP_336 = GOLDEN / "openai/clip-vit-large-patch14-336"
CLIP_HUATUO = CHECKPOINTS / "HuatuoGPT-Vision-7B/vit/clip_vit_large_patch14_336"

# 1.1e-5 was measured with SDPA; a fault must move logits by far more to be one.
TOLERANCE, VISIBLE = 5e-5, 3e-4


@dataclass(frozen=True)
class Case:
    """A checkpoint, how it is loaded, and where its expected numbers are."""

    backbone: str
    checkpoint: str
    tower: Path
    options: str = ""
    expected: str = ""
    vision: str = ""

    def spec(self, checkpoint=None, tower=None):
        weights = checkpoint or CHECKPOINTS / self.checkpoint
        return f"{self.backbone}[weights={weights},vision={tower or self.tower}{self.options}]"

    @property
    def about(self):
        return json.loads(Path(f"{self._stem}.json").read_text("utf-8"))

    @property
    def tensors(self):
        return load_file(f"{self._stem}.safetensors")

    @property
    def logits(self):
        return self.tensors[f"s0.logits.{self.vision}" if self.vision else "s0.logits"]

    @property
    def greedy(self):
        greedy = self.about["samples"]["s0"]["greedy"]
        return greedy[self.vision] if self.vision else greedy

    @property
    def _stem(self):
        return GOLDEN / "expected" / (self.expected or self.checkpoint)


MISTRAL, HUATUO = "llava-med-v1.5-mistral-7b", "HuatuoGPT-Vision-7B"
BASE = f",base={CHECKPOINTS / 'llama-7b-base'}"
CASES = {
    "1.0": Case("llava-med", "llava-med-1.0-target", CLIP_224, "", "llava-med-1.0"),
    "1.0 delta": Case("llava-med", "llava-med-1.0-delta", CLIP_224, BASE, "llava-med-1.0"),
    "1.5": Case("llava-med-1.5", MISTRAL, CLIP_336, "", "", "openai"),
    "1.5 stored tower": Case(
        "llava-med-1.5", MISTRAL, CLIP_336, ",vision_weights=checkpoint", "", "checkpoint"
    ),
    "huatuo": Case("huatuogpt-vision-7b", HUATUO, CLIP_HUATUO, "", "", "checkpoint"),
    "huatuo folder's tower": Case(
        "huatuogpt-vision-7b", HUATUO, CLIP_HUATUO, ",vision_weights=openai", "", "directory"
    ),
}
DEFAULTS = ["1.0", "1.5", "huatuo"]


def load(spec, dtype="float32"):
    return medbench.load_backbone(spec, device="cpu", dtype=dtype)


@pytest.fixture(scope="module")
def loaded():
    made = {}

    def backbone(name):
        if name not in made:
            made[name] = load(CASES[name].spec())
        return made[name]

    return backbone


def image(case):
    return Image.fromarray(case.tensors["s0.image_uint8_hwc"].numpy())


def question(case):
    """Return the words of the prompt that stand between the image and the template's end."""
    text = case.about["samples"]["s0"]["prompt"]
    asked = "Is there an effusion in the left lung?"
    assert text.count(asked) == 1
    return asked


def expanded(case, count):
    """Return the expected ids with as many places for the image as it has tokens."""
    ids = case.tensors["s0.input_ids"].tolist()
    if -200 not in ids:
        return ids
    at = ids.index(-200)
    return ids[:at] + [-200] * count + ids[at + 1 :]


@torch.no_grad()
def logits(backbone, case, pixels="s0.pixel_values"):
    features = backbone.encode(case.tensors[pixels])[0]
    prompt = backbone.prompt_from_ids(expanded(case, len(features)), features)
    return backbone.language_model(inputs_embeds=backbone.embed(prompt)[None]).logits[0]


def moved(backbone, case, **options):
    return float((logits(backbone, case, **options) - case.logits).abs().max())


def generated(backbone, case, method="greedy", **options):
    return medbench.generate(
        backbone,
        method=method,
        images=[image(case)],
        prompts=[question(case)],
        max_new_tokens=12,
        **options,
    )[0]


def endless(backbone):
    return replace(backbone, eos_token_ids=(), stop_strings=())


def test_every_tower_that_has_expected_logits_is_tried():
    for expected in {case.expected or case.checkpoint for case in CASES.values()}:
        stored = load_file(GOLDEN / f"expected/{expected}.safetensors")
        named = {
            name.removeprefix("s0.logits").strip(".") for name in stored if "s0.logits" in name
        }
        tried = [case for case in CASES.values() if (case.expected or case.checkpoint) == expected]
        assert {case.vision for case in tried} == named


@pytest.mark.parametrize("name", CASES)
def test_pixels_are_the_authors(loaded, name):
    case = CASES[name]
    pixels, expected = loaded(name).pixel_values([image(case)]), case.tensors["s0.pixel_values"]
    assert pixels.dtype == torch.float32
    assert (pixels - expected).abs().max() < 1e-6
    assert expected.std() > 0.1


def test_padding_is_the_authors_rounded_down(loaded):
    case = CASES["1.5"]
    other = case.tensors["s0.pixel_values_offset1"]
    assert (loaded("1.5").pixel_values([image(case)]) - other).abs().max() > 1
    assert moved(loaded("1.5"), case, pixels="s0.pixel_values_offset1") > 1


@pytest.mark.parametrize("name", CASES)
def test_prompts_are_the_authors_ids_with_the_image_in_its_place(loaded, name):
    case, backbone = CASES[name], loaded(name)
    features = backbone.encode(backbone.pixel_values([image(case)]))[0]
    prompt = backbone.prompt(question(case), features)
    assert prompt.ids.tolist() == expanded(case, len(features))
    places = prompt.visual.nonzero().flatten().tolist()
    assert places == list(range(*case.about["samples"]["s0"]["visual_span"]))
    # A token may hold the question's last letter and the template's first.
    assert backbone.text(prompt.ids[prompt.question]).strip() == question(case)


@pytest.mark.parametrize("name", CASES)
def test_logits_are_the_authors(loaded, name):
    case = CASES[name]
    found = logits(loaded(name), case)
    assert found.shape == case.logits.shape
    assert (found - case.logits).abs().max() < TOLERANCE
    assert case.logits.abs().max() > 5


@pytest.mark.parametrize("name", ["1.0", "1.0 delta", "1.5"])
@torch.no_grad()
def test_logits_of_a_prompt_without_image_are_the_authors(loaded, name):
    backbone, tensors = loaded(name), CASES[name].tensors
    prompt = backbone.prompt_from_ids(tensors["t0.input_ids"].tolist(), None)
    found = backbone.language_model(inputs_embeds=backbone.embed(prompt)[None]).logits[0]
    assert (found - tensors["t0.logits"]).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_greedy_answers_are_the_authors(loaded, name):
    case, backbone = CASES[name], loaded(name)
    answer = generated(endless(backbone), case)
    assert answer.token_ids == case.greedy["tokens"]
    assert answer.stop == "length"
    ready = medbench.generate(
        endless(backbone),
        input_ids=[expanded(case, backbone.image_tokens)],
        pixel_values=case.tensors["s0.pixel_values"],
        max_new_tokens=12,
    )
    assert ready[0].token_ids == case.greedy["tokens"]


@pytest.mark.parametrize("name", ["1.0", "1.0 delta", "1.5", "1.5 stored tower"])
def test_answers_end_where_the_authors_do(loaded, name):
    case, backbone = CASES[name], loaded(name)
    assert backbone.eos_token_ids == (2,)
    whole = case.greedy["tokens_stop_at_eos2"]
    answer = generated(replace(backbone, stop_strings=()), case)
    assert answer.token_ids == whole
    # Their answers hold no end token, so that another one must show that it ends them.
    ended = generated(replace(backbone, eos_token_ids=(whole[4],), stop_strings=()), case)
    assert ended.token_ids == whole[:5]
    assert ended.stop == "eos"


def test_a_stop_string_ends_an_answer_of_1_0_and_is_cut_off(loaded):
    case, backbone = CASES["1.0"], loaded("1.0")
    assert backbone.stop_strings == ("###",)
    answer = generated(replace(backbone, stop_strings=("$",)), case)
    assert answer.token_ids == case.greedy["tokens"][:3]
    assert (answer.text, answer.stop) == ("lity is", "stop")


@pytest.mark.parametrize("name", ["huatuo", "huatuo folder's tower"])
def test_a_repetition_penalty_is_the_authors(loaded, name):
    case = CASES[name]
    answer = generated(endless(loaded(name)), case, "greedy[repetition_penalty=1.2]")
    assert answer.token_ids == case.greedy["tokens_repetition_penalty_1_2"]


@pytest.mark.parametrize("name", ["huatuo", "huatuo folder's tower"])
@torch.no_grad()
def test_the_authors_repetition_penalty_sees_new_tokens_only(loaded, name):
    case, backbone = CASES[name], loaded(name)
    features = backbone.encode(case.tensors["s0.pixel_values"])[0]
    ids, tokens = expanded(case, len(features)), []
    for _ in range(12):
        embedded = backbone.embed(backbone.prompt_from_ids(ids, features))
        answered = backbone.language_model.get_input_embeddings()(torch.tensor(tokens).long())
        whole = torch.cat([embedded, answered])[None]
        last = backbone.language_model(inputs_embeds=whole).logits[:, -1]
        tokens.append(int(penalised(last, 1.2, [tokens]).argmax()))
    assert tokens == case.greedy["tokens_repetition_penalty_1_2"]


def tokenizer_of(name):
    directory = CHECKPOINTS / CASES[name].checkpoint
    if name == "huatuo":
        return load_qwen_tokenizer(directory)
    return load_llama_tokenizer(directory, slow=name == "1.0")


@pytest.mark.parametrize("name", DEFAULTS)
def test_texts_are_split_as_the_authors_tokenizers_do(name):
    tokenizer = tokenizer_of(name)
    for entry in CASES[name].about["tokenizer"]:
        if name == "1.0":
            texts, expected = [entry["text"]], [entry["ids"]]
        else:
            texts = entry["text"].split("<image>")
            expected = entry["chunks" if name == "huatuo" else "plain_chunks"]
        special = name != "huatuo"
        found = [tokenizer(text, add_special_tokens=special)["input_ids"] for text in texts]
        assert found == expected, entry["text"]


def test_texts_of_1_0_are_split_as_transformers_4_36_does_fast_and_slow():
    tokenizer = tokenizer_of("1.0")
    about = json.loads((GOLDEN / "expected/llava-med-1.0.tokenizer.json").read_text("utf-8"))
    found = [tokenizer(text)["input_ids"] for text in about["texts"]]
    for version in ("4.36.2-slow", "4.36.2-fast", "4.40.2-slow", "4.40.2-fast"):
        assert found == about["ids"][version]
    assert found != about["ids"]["4.28.1-slow"] != about["ids"]["4.28.1-fast"]


@pytest.mark.parametrize("name", DEFAULTS)
def test_ids_are_joined_as_the_authors_tokenizers_do(loaded, name):
    for entry in CASES[name].about["decode"]:
        assert loaded(name).text(entry["ids"]) == entry["text"]


def test_both_templates_of_1_0_are_split_as_the_authors_texts():
    about = json.loads((GOLDEN / "expected/llava-med-1.0.tokenizer.json").read_text("utf-8"))
    places = {
        "image_first": (0, "Is there an effusion in the left lung?"),
        "question_first": (2, "Which organ: liver or kidney?"),
    }
    for template, (number, asked) in places.items():
        case = replace(CASES["1.0"], options=f",template={template}")
        backbone = load(case.spec())
        prompt = backbone.prompt(asked, torch.zeros(backbone.image_tokens, 1))
        assert prompt.ids.tolist() == about["ids"]["4.36.2-slow"][number]


def test_the_other_templates_are_split_as_the_authors_texts(loaded):
    stated = {entry["text"]: entry["ids"] for entry in CASES["1.5"].about["tokenizer"]}
    case = replace(CASES["1.5"], options=",template=mistral_instruct")
    backbone = load(case.spec())
    asked = "Is there a tumor in the left lung?"
    prompt = backbone.prompt(asked, torch.zeros(1, 1))
    assert prompt.ids.tolist() == stated[f"[INST] <image>\n{asked} [/INST]"]
    chunks = {entry["text"]: entry["chunks"] for entry in CASES["huatuo"].about["tokenizer"]}
    prompt = loaded("huatuo").prompt("Is it normal?", torch.zeros(1, 1))
    before, after = chunks["<|user|>\n<image>\nIs it normal?\n<|assistant|>\n"]
    assert prompt.ids.tolist() == [*before, -200, *after]


def test_base_and_delta_are_the_authors_sum_bit_for_bit():
    target = torch.load(CHECKPOINTS / "llava-med-1.0-target/pytorch_model.bin", weights_only=True)
    kept = {name: tensor for name, tensor in target.items() if "rotary_emb" not in name}
    found = dict(merged(CHECKPOINTS / "llama-7b-base", CHECKPOINTS / "llava-med-1.0-delta"))
    assert found.keys() == kept.keys()
    for name, tensor in found.items():
        assert tensor.dtype == torch.float16
        assert torch.equal(tensor, kept[name]), name


def test_a_loaded_sum_is_the_loaded_target_bit_for_bit():
    for dtype in ("float32", "float16", "bfloat16"):
        one, other = (load(CASES[name].spec(), dtype) for name in ("1.0", "1.0 delta"))
        for part in ("language_model", "projector", "vision_tower"):
            theirs = getattr(other, part).state_dict()
            for name, tensor in getattr(one, part).state_dict().items():
                assert torch.equal(tensor, theirs[name]), (dtype, name)


def copied(directory, target, **changes):
    """Copy a folder with other values in its config.json; `vision` changes its vision_config."""
    copy = shutil.copytree(directory, target)
    config = json.loads((copy / "config.json").read_text("utf-8"))
    config.get("vision_config", {}).update(changes.pop("vision", {}))
    (copy / "config.json").write_text(json.dumps(config | changes), "utf-8")
    return copy


FAULTS = {
    "rope theta": {"rope_theta": 5000.0},
    "the tower's last layer": {"mm_vision_select_layer": -1},
    "the norm's epsilon": {"rms_norm_eps": 3e-5},
}


@pytest.mark.parametrize("name", DEFAULTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_config_is_seen(tmp_path, name, fault):
    case = CASES[name]
    directory = copied(CHECKPOINTS / case.checkpoint, tmp_path / "copy", **FAULTS[fault])
    assert moved(load(case.spec(directory)), case) > VISIBLE


@pytest.mark.parametrize("name", DEFAULTS)
def test_another_activation_in_the_tower_is_seen(tmp_path, name):
    case = CASES[name]
    tower = copied(case.tower, tmp_path / "copy", vision={"hidden_act": "gelu"})
    assert moved(load(case.spec(tower=tower)), case) > VISIBLE


@pytest.mark.parametrize("name", ["1.5", "huatuo"])
def test_the_tower_of_the_other_source_is_seen(loaded, name):
    others = {"1.5": "1.5 stored tower", "huatuo": "huatuo folder's tower"}
    assert moved(loaded(others[name]), CASES[name]) > 1


@pytest.mark.parametrize("name", ["1.5", "huatuo"])
def test_another_gelu_in_the_projector_is_seen(loaded, name):
    backbone = loaded(name)
    first, _, second = backbone.projector
    other = nn.Sequential(first, nn.GELU(approximate="tanh"), second)
    assert moved(replace(backbone, projector=other), CASES[name]) > VISIBLE


def test_a_sum_in_float32_is_seen(loaded):
    backbone, stored = load(CASES["1.0 delta"].spec()), {}
    for part in ("llama-7b-base", "llava-med-1.0-delta"):
        for path in (CHECKPOINTS / part).glob("*.bin"):
            for name, tensor in torch.load(path, weights_only=True).items():
                stored.setdefault(name, []).append(tensor.float())
    for name, weight in backbone.language_model.named_parameters():
        base, delta = stored[name]
        weight[: len(base)] = delta[: len(base)] + base
    assert moved(backbone, CASES["1.0"]) > VISIBLE
    assert moved(loaded("1.0 delta"), CASES["1.0"]) < TOLERANCE


def test_the_class_token_among_the_features_is_seen(loaded):
    """As many features as before, so that only the numbers can tell."""
    case = CASES["1.5"]
    backbone = loaded("1.5")
    features = backbone.encode(case.tensors["s0.pixel_values"])[0]
    states = backbone.vision_states(case.tensors["s0.pixel_values"])
    shifted = backbone.projector(states[-2][:, :-1])[0]
    assert shifted.shape == features.shape
    assert (shifted - features).abs().max() > 1
