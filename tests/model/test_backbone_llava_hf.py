"""`llava_hf` against transformers' own forward and generate, and its errors."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MistralConfig,
    Qwen2Config,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import medbench
from medbench import UserError
from medbench.model.llava_format import read_config
from medbench.model.load import create_checkpoint
from medbench.model.tiny import toy_tokenizer

FEW, MANY = [2], [2, 20, 21, 22, 23, 24]
# Name -> text model, its options, what ends an answer.
MODELS = {
    "llama": (LlamaConfig, {"num_key_value_heads": 2}, FEW),
    "llama, every head its own key": (LlamaConfig, {"num_key_value_heads": 4}, MANY),
    "mistral": (MistralConfig, {"num_key_value_heads": 1, "sliding_window": None}, MANY),
    "mistral, window": (MistralConfig, {"num_key_value_heads": 2, "sliding_window": 20}, MANY),
    "qwen2": (Qwen2Config, {"num_key_value_heads": 2, "rope_theta": 1e6}, MANY),
    "qwen2, tied": (Qwen2Config, {"num_key_value_heads": 4, "tie_word_embeddings": True}, FEW),
}
CHAT = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %} {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


def save(directory, text_class, options, ends, seed=0):
    """Write a random LLaVA directory as anybody would export one."""
    tokenizer = toy_tokenizer()
    tied = options.get("tie_word_embeddings", False)
    text = text_class(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **options,
    )
    vision = CLIPVisionConfig(
        image_size=16,
        patch_size=4,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=4,
        image_seq_length=16,
        tie_word_embeddings=tied,
    )
    model = LlavaForConditionalGeneration(config)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            values = torch.randn(weight.shape, generator=draw) * 0.3
            weight.copy_(1 + values / 3 if name.endswith("norm.weight") else values)
    model.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
    model.generation_config.pad_token_id = 0
    model.save_pretrained(directory)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(directory)
    processor(tokenizer).image_processor.save_pretrained(directory)
    return directory


def processor(tokenizer):
    images = CLIPImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        chat_template=CHAT,
        num_additional_image_tokens=1,
    )


def load(directory, **options):
    options = {"weights": directory, **options}
    text = ",".join(f'{key}="{value}"' for key, value in options.items())
    return medbench.load_backbone(f"llava-hf[{text}]", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the directory of a model of `MODELS`, saved at its first use."""
    made = {}

    def directory(name):
        if name not in made:
            text_class, options, ends = MODELS[name]
            place = tmp_path_factory.mktemp("llava")
            made[name] = save(place, text_class, options, ends, seed=len(name))
        return made[name]

    return directory


@pytest.fixture(scope="module")
def theirs(saved):
    loaded = {}

    def model(name, attention="sdpa"):
        if (name, attention) not in loaded:
            loaded[name, attention] = LlavaForConditionalGeneration.from_pretrained(
                saved(name), attn_implementation=attention
            ).eval()
        return loaded[name, attention]

    return model


@pytest.fixture(scope="module")
def ours(saved):
    loaded = {}

    def backbone(name):
        if name not in loaded:
            loaded[name] = load(saved(name))
        return loaded[name]

    return backbone


@pytest.fixture
def inputs(images, questions):
    """Return ready ids (ragged, most with text on both sides of the image) and pixels."""

    def make(backbone):
        pixels = backbone.pixel_values(images)
        prompts = [
            backbone.prompt(question, features)
            for question, features in zip(questions, backbone.encode(pixels), strict=True)
        ]
        return [prompt.ids.tolist() for prompt in prompts], pixels

    return make


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_embeddings_and_logits_are_those_of_transformers(ours, theirs, inputs, name):
    backbone, model = ours(name), theirs(name)
    ids, pixels = inputs(backbone)
    for row, pixel in zip(ids[:4], pixels, strict=False):
        features = backbone.encode(pixel[None])[0]
        tower = model.model.get_image_features(pixel_values=pixel[None], return_dict=True)
        assert (features - torch.cat(list(tower.pooler_output))).abs().max() < 1e-5
        prompt = backbone.prompt_from_ids(row, features)
        embedded = backbone.embed(prompt)[None]
        logits = backbone.language_model(inputs_embeds=embedded).logits
        expected = model(input_ids=torch.tensor([row]), pixel_values=pixel[None]).logits
        assert (logits - expected).abs().max() < 1e-5
        assert expected.abs().max() > 1


@pytest.mark.parametrize("beams", [1, 5])
@pytest.mark.parametrize("name", MODELS)
def test_answers_are_those_of_generate_token_for_token(ours, theirs, inputs, name, beams):
    backbone, model = ours(name), theirs(name)
    ids, pixels = inputs(backbone)
    expected = []
    for row, pixel in zip(ids, pixels, strict=True):
        whole = model.generate(
            input_ids=torch.tensor([row]),
            attention_mask=torch.ones(1, len(row), dtype=torch.long),
            pixel_values=pixel[None],
            num_beams=beams,
            do_sample=False,
            max_new_tokens=24,
        )
        expected.append(whole[0, len(row) :].tolist())
    for batch_size in (1, 8):
        answers = medbench.generate(
            backbone,
            method="beam" if beams > 1 else "greedy",
            input_ids=ids,
            pixel_values=pixels,
            max_new_tokens=24,
            batch_size=batch_size,
        )
        assert [answer.token_ids for answer in answers] == expected
    ends = MODELS[name][2]
    assert list(backbone.eos_token_ids) == ends
    lengths = {len(tokens) for tokens in expected}
    assert len(set(map(tuple, expected))) > 4
    if ends is MANY:
        assert len(lengths) > 2, "rows must finish at different times"
    else:
        assert max(lengths) == 24, "rows must run to the limit"


@pytest.mark.parametrize("name", ["llama", "mistral, window", "qwen2"])
@torch.no_grad()
def test_recorded_attention_is_that_of_eager_transformers(ours, theirs, inputs, name):
    backbone, model = ours(name), theirs(name, "eager")
    ids, pixels = inputs(backbone)
    answers = medbench.generate(
        backbone,
        input_ids=ids,
        pixel_values=pixels,
        max_new_tokens=12,
        record_attention=True,
    )
    for row, pixel, answer in zip(ids, pixels, answers, strict=True):
        # From embeddings: an untrained model may well answer with the image's own token.
        prompt = backbone.embed(backbone.prompt_from_ids(row, backbone.encode(pixel[None])[0]))
        answered = model.get_input_embeddings()(torch.tensor(answer.token_ids))
        embedded = torch.cat([prompt, answered])[None]
        maps = model(inputs_embeds=embedded, output_attentions=True).attentions
        rows = torch.stack(maps)[:, 0, :, len(row) - 1 : -1].mean((0, 1, 2))
        columns = [place for place, token in enumerate(row) if token == 4]
        assert np.abs(rows[columns].numpy() - answer.attention).max() < 1e-5


def test_prompts_and_pixels_are_those_of_the_processor(ours, saved, images, questions):
    backbone = ours("llama")
    made = processor(backbone.tokenizer)
    for image, question in zip(images, questions, strict=True):
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text = made.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        batch = made(images=image, text=text, add_special_tokens=False, return_tensors="pt")
        features = backbone.encode(backbone.pixel_values([image]))[0]
        prompt = backbone.prompt(question, features)
        assert prompt.ids.tolist() == batch["input_ids"][0].tolist()
        pixels = backbone.pixel_values([image])
        assert (pixels - batch["pixel_values"]).abs().max() < 1e-4
        assert backbone.text(prompt.ids[prompt.question]) == question


def test_weights_are_shared_frozen_and_in_the_asked_precision(saved, ours):
    backbone = ours("llama")
    for part in (backbone.language_model, backbone.vision_tower, backbone.projector):
        assert not any(weight.requires_grad for weight in part.parameters())
        assert not part.training
        assert {weight.dtype for weight in part.parameters()} == {torch.float32}
        assert {weight.device.type for weight in part.parameters()} == {"cpu"}
    half = medbench.load_backbone(
        f"llava-hf[weights={saved('llama')}]", device="cpu", dtype="bfloat16"
    )
    assert half.dtype == torch.bfloat16
    assert {weight.dtype for weight in half.language_model.parameters()} == {torch.bfloat16}
    answer = medbench.generate(
        half,
        method="vcd",
        images=[Image.new("RGB", (9, 9))],
        prompts=["a"],
        max_new_tokens=3,
        record_scores=3,
        record_attention=True,
    )[0]
    assert answer.scores.dtype == torch.float32
    assert answer.attention.dtype == np.float32


def test_the_parts_say_what_they_are(ours):
    backbone = ours("llama")
    assert (backbone.layers, backbone.heads, backbone.image_tokens) == (2, 4, 16)
    assert backbone.geometry.fit == "crop"
    assert backbone.geometry.grid == (4, 4)
    assert backbone.name == "llava_hf"
    assert backbone.device.type == "cpu"


def test_both_of_the_towers_selections_are_read(saved, tmp_path, images, questions):
    copied = copy(saved("llama"), tmp_path)
    config = json.loads((copied / "config.json").read_text())
    config |= {"vision_feature_select_strategy": "full", "vision_feature_layer": -1}
    (copied / "config.json").write_text(json.dumps(config | {"image_seq_length": 17}))
    backbone = load(copied)
    model = LlavaForConditionalGeneration.from_pretrained(copied)
    pixels = backbone.pixel_values(images[:1])
    with torch.no_grad():
        tower = model.model.get_image_features(pixel_values=pixels, return_dict=True)
    features = backbone.encode(pixels)
    assert backbone.image_tokens == features.shape[1] == 17
    assert (features[0] - torch.cat(list(tower.pooler_output))).abs().max() < 1e-5
    answer = medbench.generate(
        backbone, images=images[:2], prompts=questions[:2], max_new_tokens=2, record_attention=True
    )[0]
    assert answer.attention.shape == (17,)


def copy(directory, target):
    return shutil.copytree(directory, target / "copy")


def refused(directory, **options):
    with pytest.raises(UserError) as error:
        load(directory, **options)
    lines = error.value.lines()
    assert 2 <= len(lines) <= 3
    assert all(line and "\n" not in line for line in lines)
    return " | ".join(lines)


def test_a_template_of_the_users_own_is_used(saved, tmp_path):
    backbone = load(saved("llama"), prompt="Q <image> {question} A")
    assert backbone.template.text == "Q <image> {question} A"
    copied = copy(saved("llama"), tmp_path)
    (copied / "medbench.json").write_text('{"prompt": "M <image> {question}"}')
    assert load(copied).template.text == "M <image> {question}"
    assert load(copied, prompt="Q <image> {question}").template.text == "Q <image> {question}"
    (copied / "medbench.json").write_text("{}")
    assert load(copied).template.text == "<s>user: <image>\n{question} assistant:"
    assert "must hold <image> once" in refused(copied, prompt="no places")


def test_a_missing_tensor_is_named(saved, tmp_path):
    from safetensors.torch import load_file, save_file

    copied = copy(saved("llama"), tmp_path)
    tensors = load_file(copied / "model.safetensors")
    dropped = next(name for name in tensors if "layers.1.self_attn.k_proj" in name)
    kept = {name: tensor for name, tensor in tensors.items() if name != dropped}
    save_file(kept, copied / "model.safetensors", metadata={"format": "pt"})
    said = refused(copied)
    assert "1 missing tensors" in said
    assert "layers.1.self_attn.k_proj.weight" in said


def test_a_tensor_too_many_is_named(saved, tmp_path):
    from safetensors.torch import load_file, save_file

    copied = copy(saved("llama"), tmp_path)
    tensors = load_file(copied / "model.safetensors")
    extra = {f"model.mm_extra_{index}.weight": torch.zeros(2) for index in range(7)}
    save_file(tensors | extra, copied / "model.safetensors", metadata={"format": "pt"})
    said = refused(copied)
    assert "7 unexpected tensors" in said
    assert "mm_extra_0.weight" in said
    assert "and 2 more" in said


def test_a_tensor_of_another_shape_is_refused(saved, tmp_path):
    from safetensors.torch import load_file, save_file

    copied = copy(saved("llama"), tmp_path)
    tensors = load_file(copied / "model.safetensors")
    name = next(name for name in tensors if "layers.0.mlp.up_proj" in name)
    tensors[name] = tensors[name][:8].clone()
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    said = refused(copied)
    assert "1 mismatched tensors" in said
    assert "layers.0.mlp.up_proj.weight" in said


def test_a_directory_of_llava_med_1_0_is_not_taken_for_this_format(tmp_path):
    """Only the config is read: if this failed, a model of 7B would be built."""
    flat = {"model_type": "llava", "hidden_size": 4096, "mm_vision_tower": "clip"}
    (tmp_path / "config.json").write_text(json.dumps(flat))
    with pytest.raises(UserError, match="not in transformers' LLaVA format") as error:
        read_config(tmp_path)
    assert "no text_config" in error.value.why
    assert "name the backbone that reads it" in error.value.do


def test_another_model_type_is_refused(saved, tmp_path):
    copied = copy(saved("llama"), tmp_path)
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"model_type": "llava_next"}))
    said = refused(copied)
    assert "model_type is 'llava_next'" in said


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_truncated_weights_are_said_to_be_so(saved, tmp_path, share):
    copied = copy(saved("llama"), tmp_path)
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: int(share * weights.stat().st_size)])
    said = refused(copied)
    assert "cannot load" in said
    assert "Download it again" in said


@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer.json", "preprocessor_config.json", "generation_config.json"]
)
def test_truncated_json_is_said_to_be_so(saved, tmp_path, file):
    copied = copy(saved("llama"), tmp_path)
    text = (copied / file).read_text()
    (copied / file).write_text(text[: len(text) // 2])
    said = refused(copied)
    assert "cannot" in said
    assert str(copied) in said
    assert "Download it again" in said


def test_json_that_is_no_object_is_refused(saved, tmp_path):
    copied = copy(saved("llama"), tmp_path)
    (copied / "config.json").write_text("[1, 2]")
    assert "config.json" in refused(copied)


def test_a_directory_that_is_not_there_is_said_to_be_so(tmp_path):
    said = refused(tmp_path / "nowhere")
    assert "nowhere is not a folder" in said
    assert "hub id" in said


def test_a_folder_without_a_config_is_said_to_be_so(tmp_path):
    said = refused(tmp_path)
    assert "no checkpoint in" in said
    assert "config.json" in said


def test_a_hub_id_is_found_where_it_was_downloaded_to(saved, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--somebody--llava"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(saved("llama"), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    found = create_checkpoint("llava-hf[weights=somebody/llava]").files()
    assert {path.parent.name for path in found} == {commit}
    with pytest.raises(UserError, match="somebody/other is not on this machine"):
        list(create_checkpoint("llava-hf[weights=somebody/other]").files())


def test_a_directory_without_safetensors_is_said_to_be_so(saved, tmp_path):
    copied = copy(saved("llama"), tmp_path)
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    said = refused(copied)
    assert "no weights in" in said
    assert "pickled weights are not read" in said


def test_no_directory_at_all_is_said_to_be_so():
    with pytest.raises(UserError, match="needs a directory"):
        medbench.load_backbone("llava-hf", device="cpu")


def test_an_image_processor_that_scales_to_another_size_is_refused(saved, tmp_path):
    copied = copy(saved("llama"), tmp_path)
    config = json.loads((copied / "preprocessor_config.json").read_text())
    config["size"] = {"shortest_edge": 18}
    (copied / "preprocessor_config.json").write_text(json.dumps(config))
    assert "18" in refused(copied)


@pytest.mark.parametrize(
    ("changes", "fit"),
    [
        ({}, "crop"),
        ({"size": 16, "crop_size": 16}, "crop"),
        ({"do_pad": True}, "pad"),
        ({"do_pad": False}, "crop"),
        ({"size": {"height": 16, "width": 16}, "do_center_crop": False}, "squash"),
    ],
)
def test_the_image_processor_says_how_images_fit(saved, tmp_path, changes, fit):
    copied = copy(saved("llama"), tmp_path)
    config = json.loads((copied / "preprocessor_config.json").read_text())
    (copied / "preprocessor_config.json").write_text(json.dumps(config | changes))
    geometry = load(copied).geometry
    assert (geometry.fit, geometry.size, geometry.patch) == (fit, 16, 4)
    assert geometry.mean == tuple(config["image_mean"])


def test_every_file_that_can_move_an_answer_is_hashed(saved):
    from medbench.backbones.llava_hf import LlavaHF

    directory = saved("llama")
    files = {path.name for path in LlavaHF(weights=str(directory)).files()}
    assert files >= {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert (
        "chat_template.jinja" in files or CHAT in (directory / "tokenizer_config.json").read_text()
    )


def test_loading_leaves_transformers_as_talkative_as_it_was(saved, capfd):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load(saved("llama"))
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")
