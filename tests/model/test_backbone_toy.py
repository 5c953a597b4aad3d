import pytest
import torch

import medbench
from medbench import UserError


def load(spec):
    return medbench.load_backbone(spec, device="cpu", dtype="float32")


def weights(backbone):
    parts = (backbone.vision_tower, backbone.projector, backbone.language_model)
    return torch.cat([weight.flatten() for part in parts for weight in part.parameters()])


@pytest.mark.parametrize("text", ["llama", "mistral", "qwen2"])
def test_a_seed_gives_the_same_weights_whatever_was_drawn_before(text):
    torch.manual_seed(1)
    first = weights(load(f"toy[text={text},seed=3]"))
    torch.rand(7)
    assert torch.equal(weights(load(f"toy[text={text},seed=3]")), first)
    other = weights(load(f"toy[text={text},seed=4]"))
    assert other.shape == first.shape
    assert not torch.equal(other, first)


def test_loading_a_toy_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load("toy[seed=9]")
    assert torch.equal(torch.rand(3), expected)


def test_a_toy_is_small():
    assert len(weights(load("toy"))) < 50_000


def test_parameters_shape_the_model():
    backbone = load("toy[layers=3,heads=2,kv_heads=1,width=16,text=qwen2]")
    config = backbone.language_model.config
    assert (backbone.layers, backbone.heads) == (3, 2)
    assert (config.num_key_value_heads, config.hidden_size) == (1, 16)
    assert config.model_type == "qwen2"


def test_the_image_moves_the_answer(toy, images):
    backbone = toy()
    answers = medbench.generate(
        backbone, images=images, prompts=["what is it?"] * len(images), max_new_tokens=8
    )
    assert len({tuple(answer.token_ids) for answer in answers}) > 4


def test_every_printable_letter_is_a_token_and_comes_back(toy):
    tokenizer = toy().tokenizer
    text = "Is it 5 mm? (no)\n[yes] ~|{}"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) == len(text)
    assert tokenizer.unk_token_id not in ids
    assert toy().text(ids) == text


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ("toy[text=gpt2]", "text"),
        ("tyo", "no backbone named 'tyo'"),
        ("toy[layer=2]", "no parameter 'layer'"),
    ],
)
def test_what_there_is_not_is_refused(spec, what):
    with pytest.raises(UserError, match=what):
        load(spec)


def test_devices_and_types_that_there_are_not_are_refused():
    with pytest.raises(UserError, match="no device 'abacus'"):
        medbench.load_backbone("toy", device="abacus")
    with pytest.raises(UserError, match="no dtype 'float8'"):
        medbench.load_backbone("toy", device="cpu", dtype="float8")


def test_the_automatic_type_follows_the_device():
    from medbench.model.load import resolve_device

    assert resolve_device("cpu", "auto") == ("cpu", "float32")
    assert resolve_device("cpu", "bfloat16") == ("cpu", "bfloat16")
