"""Traps on the way from an original checkpoint to an answer; each test fails in its trap."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    CLIPModel,
    CLIPVisionModel,
    LlavaConfig,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import medbench
from medbench.model.original import text_config

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["llava", "llava_mistral", "llava_qwen2"]
STORED = "model.vision_tower.vision_tower.vision_model."
TOLERANCE = 5e-5


@torch.no_grad()
def encoded(backbone, images):
    return backbone.encode(backbone.pixel_values(images[:2]))


@pytest.fixture
def prompts(images, questions):
    """Return ready ids and pixels of a backbone's prompts."""

    def make(loaded, count=4):
        pixels = loaded.pixel_values(images[:count])
        features = loaded.encode(pixels)
        pairs = zip(questions[:count], features, strict=True)
        return [loaded.prompt(*pair).ids.tolist() for pair in pairs], pixels

    return make


# What config.json says is what is loaded.


def test_transformers_takes_1_0_for_a_model_of_default_sizes_and_we_do_not(backbone, tiny):
    """Its config.json says `llava`, as transformers' own format does, and keeps its fields flat."""
    misread = AutoConfig.from_pretrained(tiny("llava").checkpoint)
    assert isinstance(misread, LlavaConfig)
    assert misread.text_config.hidden_size == 4096
    config = backbone("llava").language_model.config
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (32, 2, 371)
    assert config.model_type == "llama"


# Fields of models of seven billion weights.
SIZES = {
    "llava": {"vocab_size": 32003, "rms_norm_eps": 1e-6},
    "llava_mistral": {
        "vocab_size": 32000,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
        "rope_scaling": None,
        "max_position_embeddings": 32768,
    },
    "llava_qwen2": {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-6,
        "sliding_window": 131072,
        "use_sliding_window": False,
        "max_window_layers": 28,
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_the_text_model_comes_from_the_file(kind):
    flat = {
        "model_type": kind,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "mm_vision_tower": "x",
        **SIZES[kind],
    }
    found = text_config(Path(), flat)
    for name in flat.keys() - {"model_type", "mm_vision_tower", "rope_theta", "rope_scaling"}:
        if name != "sliding_window":
            assert getattr(found, name) == flat[name], name
    assert found.rope_parameters["rope_theta"] == flat.get("rope_theta", 10000.0)
    assert found.rope_parameters["rope_type"] == "default"
    assert getattr(found, "sliding_window", None) is None, "none of them cuts the view"


@pytest.mark.parametrize("kind", KINDS)
def test_theta_and_epsilon_of_the_file_reach_the_layers(copied, kind):
    made = copied(kind)
    made.change(rope_theta=5000.0, rms_norm_eps=0.25)
    model = made.load().language_model.model
    assert model.norm.variance_epsilon == model.layers[0].input_layernorm.variance_epsilon == 0.25
    width = model.config.hidden_size // model.config.num_attention_heads
    rates = 5000.0 ** (-torch.arange(0, width, 2) / width)
    assert torch.allclose(model.rotary_emb.inv_freq, rates)


# Sliding windows: the tiny prompts are longer than the windows here.


def text_fields(made):
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "rms_norm_eps", "rope_theta",
    )  # fmt: skip
    return {name: made.config[name] for name in names}


def filled(model, made):
    kept = {
        name: tensor.float()
        for name, tensor in made.tensors().items()
        if "mm_projector" not in name and "vision_tower" not in name
    }
    model.load_state_dict(kept, strict=True)
    model.set_attn_implementation("eager")
    return model.eval()


@torch.no_grad()
def same_answers(made, loaded, theirs, prompts):
    """Compare logits with another model's, and answers alone and in a batch with its own."""
    ids, pixels = prompts(loaded)
    answers, moved = [], 0.0
    for row, pixel in zip(ids, pixels, strict=True):
        prompt = loaded.prompt_from_ids(row, loaded.encode(pixel[None])[0])
        embedded = loaded.embed(prompt)[None]
        found = loaded.language_model(inputs_embeds=embedded).logits
        moved = max(moved, float((found - theirs(inputs_embeds=embedded).logits).abs().max()))
        answered = theirs.generate(
            inputs_embeds=embedded,
            attention_mask=torch.ones(embedded.shape[:2], dtype=torch.long),
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=None,
            pad_token_id=0,
        )
        answers.append(answered[0].tolist())
    found = [
        [
            answer.token_ids
            for answer in medbench.generate(
                replace(loaded, eos_token_ids=()),
                input_ids=ids,
                pixel_values=pixels,
                max_new_tokens=12,
                batch_size=batch_size,
            )
        ]
        for batch_size in (1, 4)
    ]
    return moved, found == [answers, answers]


def test_a_window_that_is_stated_and_switched_off_cuts_nothing(tiny, prompts):
    made = tiny("llava_qwen2")
    assert (made.config["sliding_window"], made.config["use_sliding_window"]) == (8, False)
    loaded = made.load()
    whole = Qwen2Config(**text_fields(made), use_sliding_window=False)
    moved, same = same_answers(made, loaded, filled(Qwen2ForCausalLM(whole), made), prompts)
    assert moved < TOLERANCE
    assert same
    cut = Qwen2Config(
        **text_fields(made), use_sliding_window=True, sliding_window=8, max_window_layers=0
    )
    moved, _ = same_answers(made, loaded, filled(Qwen2ForCausalLM(cut), made), prompts)
    assert moved > 0.1, "the window would be seen"


def test_a_window_that_is_stated_and_on_cuts_as_transformers_does(copied, prompts):
    made = copied("llava_mistral")
    made.change(sliding_window=20)
    loaded = made.load()
    cut = MistralConfig(**text_fields(made), sliding_window=20)
    moved, same = same_answers(made, loaded, filled(MistralForCausalLM(cut), made), prompts)
    assert moved < TOLERANCE
    assert same
    whole = MistralConfig(**text_fields(made), sliding_window=None)
    moved, _ = same_answers(made, loaded, filled(MistralForCausalLM(whole), made), prompts)
    assert moved > 0.1


def test_qwens_window_that_is_on_cuts_as_transformers_does(copied, prompts):
    made = copied("llava_qwen2")
    made.change(use_sliding_window=True, sliding_window=20, max_window_layers=1)
    cut = Qwen2Config(
        **text_fields(made), use_sliding_window=True, sliding_window=20, max_window_layers=1
    )
    assert cut.layer_types == ["full_attention", "sliding_attention"]
    theirs = filled(Qwen2ForCausalLM(cut), made)
    moved, same = same_answers(made, made.load(), theirs, prompts)
    assert moved < TOLERANCE
    assert same


@pytest.mark.parametrize("stated", [None, ...])
def test_a_window_of_none_or_of_nothing_cuts_no_short_prompt(copied, prompts, stated):
    """Unstated is 4096 with Mistral, then as now: no prompt here is as long."""
    made = copied("llava_mistral")
    made.change(sliding_window=stated)
    loaded = made.load()
    assert loaded.language_model.config.sliding_window == (None if stated is None else 4096)
    whole = MistralConfig(**text_fields(made), sliding_window=None)
    moved, same = same_answers(made, loaded, filled(MistralForCausalLM(whole), made), prompts)
    assert moved < TOLERANCE
    assert same


# Tokenizers.


@pytest.mark.parametrize("text", [" leading", "  two", " ", " \n", "a  b", "a", "", "\n", " a "])
@pytest.mark.parametrize("kind", ["llava", "llava_mistral"])
def test_one_blank_is_put_in_front_of_a_text_and_its_own_are_kept(backbone, kind, text):
    tokenizer = backbone(kind).tokenizer
    first, *tokens = tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])
    assert first == "<s>"
    kept = text.replace(" ", "▁").replace("\n", "<0x0A>")
    assert "".join(tokens) == (f"▁{kept}" if text else "")


@pytest.mark.parametrize("kind", ["llava", "llava_mistral"])
def test_every_piece_between_added_tokens_gets_its_blank(backbone, kind):
    tokenizer = backbone(kind).tokenizer
    mark = "<im_end>" if kind == "llava" else "</s>"
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(f"a{mark}\nb{mark} c")["input_ids"])
    assert tokens == ["<s>", "▁a", mark, "▁", "<0x0A>", "b", mark, "▁", "▁", "c"]


def test_transformers_own_tokenizers_lose_the_leading_blank(backbone, tiny):
    """Why there is a loader of our own; goes when this fails."""
    from transformers import AutoTokenizer, LlamaTokenizer

    for kind in ("llava", "llava_mistral"):
        ours = backbone(kind).tokenizer
        theirs = LlamaTokenizer.from_pretrained(tiny(kind).checkpoint)
        assert len(theirs(" leading")["input_ids"]) < len(ours(" leading")["input_ids"])
    generic = AutoTokenizer.from_pretrained(tiny("llava").checkpoint)
    ours = backbone("llava").tokenizer
    assert generic("\nIs it")["input_ids"] != ours("\nIs it")["input_ids"]


def test_bytes_that_are_no_letter_are_joined_one_by_one_by_1_0_only(backbone):
    """As sentencepiece joins them; the fast tokenizer gives up the whole run of bytes."""
    for kind, expected in (("llava", "a\ufffdé"), ("llava_mistral", "a\ufffd\ufffd\ufffd")):
        loaded = backbone(kind)
        tokens = ["▁a", "<0xFF>", "<0xC3>", "<0xA9>"]
        assert loaded.text(loaded.tokenizer.convert_tokens_to_ids(tokens)) == expected


def test_rows_that_no_token_has_are_kept_and_decode_to_nothing(tiny):
    made = tiny("llava_qwen2")
    loaded = made.load()
    known, rows = len(loaded.tokenizer), made.config["vocab_size"]
    assert rows == known + 8
    for part in (
        loaded.language_model.get_input_embeddings(),
        loaded.language_model.get_output_embeddings(),
    ):
        assert len(part.weight) == rows
    stored = made.tensors()["lm_head.weight"].float()
    assert torch.equal(loaded.language_model.get_output_embeddings().weight, stored)
    yes = loaded.tokenizer("yes")["input_ids"]
    assert loaded.text([rows - 1]) == ""
    assert loaded.text([known, *yes, rows - 1]) == "yes"


def test_an_answer_of_a_row_that_no_token_has_goes_on(tiny, images):
    loaded = tiny("llava_qwen2").load()
    rows = loaded.language_model.config.vocab_size
    weight = loaded.language_model.get_output_embeddings().weight
    with torch.no_grad():
        weight[:-1] = 0
        weight[-1] = weight[-1].sign() * 100
    answers = medbench.generate(loaded, images=images[:3], prompts=["a"] * 3, max_new_tokens=4)
    unnamed = [answer for answer in answers if rows - 1 in answer.token_ids]
    assert unnamed, "the row must come out at least once"
    assert all(answer.text == loaded.text(answer.token_ids).strip() for answer in unnamed)


# Vision towers: names of several ages.


def renamed(made, change):
    made.store({change(name): tensor for name, tensor in made.tensors().items()})


AGES = {
    "outer module twice": lambda name: name,
    "outer module once": lambda name: name.replace("vision_tower.vision_tower.", "vision_tower."),
    "no inner level": lambda name: name.replace(".vision_model.", "."),
    "no outer model": lambda name: name.replace("model.vision_tower.", "vision_tower.", 1),
}


@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("kind", ["llava_mistral", "llava_qwen2"])
def test_stored_towers_of_every_age_are_found(backbone, copied, images, kind, age):
    made = copied(kind)
    renamed(made, AGES[age])
    expected = encoded(backbone(kind, vision_weights="checkpoint"), images)
    assert torch.equal(encoded(made.load(vision_weights="checkpoint"), images), expected)
    other = encoded(backbone(kind, vision_weights="openai"), images)
    assert (other - expected).abs().max() > 0.1
    assert torch.equal(encoded(made.load(vision_weights="openai"), images), other)


@pytest.mark.parametrize("kind", ["llava_mistral", "llava_qwen2"])
def test_old_buffers_are_passed_over(backbone, copied, images, kind):
    made = copied(kind)
    buffers = {
        f"{STORED}embeddings.position_ids": torch.arange(37)[None],
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.full((4,), 7.0),
        "model.layers.1.self_attn.rotary_emb.inv_freq": torch.full((4,), 7.0),
    }
    made.store(made.tensors() | buffers)
    for choice in ("openai", "checkpoint"):
        expected = backbone(kind, vision_weights=choice)
        found = made.load(vision_weights=choice)
        assert torch.equal(encoded(found, images), encoded(expected, images))
        rates = found.language_model.model.rotary_emb.inv_freq
        assert torch.equal(rates, expected.language_model.model.rotary_emb.inv_freq)


@pytest.mark.parametrize("kind", KINDS)
def test_towers_that_todays_transformers_wrote_are_read(tiny, tmp_path, images, kind):
    made = tiny(kind)
    expected = encoded(made.load(**folder(kind)), images)
    for number, form in enumerate((CLIPModel, CLIPVisionModel)):
        target = tmp_path / str(number)
        form.from_pretrained(made.tower, dtype=torch.float32).save_pretrained(target)
        assert torch.equal(encoded(made.load(**folder(kind), vision=target), images), expected)


def folder(kind):
    """Return the option that takes the tower's own folder."""
    return {} if kind == "llava" else {"vision_weights": "openai"}


def test_a_tower_folder_without_the_inner_level_is_read(backbone, copied, images):
    made = copied("llava_mistral")
    from safetensors.torch import load_file, save_file

    file = made.tower / "model.safetensors"
    kept = {
        name.removeprefix("vision_model."): tensor
        for name, tensor in load_file(file).items()
        if name.startswith("vision_model.")
    }
    save_file(kept, file, metadata={"format": "pt"})
    made.change("openai/clip-vit-large-patch14-336/config.json", **vision_only(made))
    expected = encoded(backbone("llava_mistral"), images)
    assert torch.equal(encoded(made.load(), images), expected)


def vision_only(made):
    config = json.loads((made.tower / "config.json").read_text("utf-8"))["vision_config"]
    return {**config, "model_type": "clip_vision_model"}


# Images: our own geometry, and nothing of torchvision.


def odd_images():
    draw = np.random.default_rng(1)
    sizes = [(40, 53), (61, 45), (48, 48), (3, 90), (90, 3), (1, 1), (24, 25), (200, 7), (16, 16)]
    coloured = [Image.fromarray(draw.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in sizes]
    grey = Image.fromarray(draw.integers(0, 256, (33, 21), dtype=np.uint8))
    return [*coloured, grey, coloured[0].convert("P"), coloured[1].convert("RGBA")]


def squared(image):
    """Put an image in the middle of a square of the mean colour."""
    side = max(image.size)
    canvas = Image.new("RGB", (side, side), (122, 116, 104))
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_the_slow_clip_processor(backbone, kind):
    loaded = backbone(kind)
    side = loaded.geometry.size
    theirs = CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    for image in odd_images():
        image = image.convert("RGB")
        placed = image if kind == "llava" else squared(image)
        wanted = theirs(images=placed, return_tensors="pt")["pixel_values"]
        assert (loaded.pixel_values([image]) - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_every_mode_are_taken_as_rgb(backbone, kind):
    loaded = backbone(kind)
    for image in odd_images():
        assert torch.equal(
            loaded.pixel_values([image]), loaded.pixel_values([image.convert("RGB")])
        )


# Stands for a package whose names can all be imported and none of them used.
TORCHVISION = """
class Name:
    def __getattr__(self, name):
        return Name()

    def __call__(self, *given, **named):
        raise RuntimeError("torchvision was called")


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return Name()
"""
ANSWER = """
import sys
import medbench
from PIL import Image

image = Image.new("RGB", (30, 20), (9, 90, 200))
for spec in sys.argv[1:]:
    backbone = medbench.load_backbone(spec, device="cpu", dtype="float32")
    medbench.generate(backbone, images=[image], prompts=["a"], max_new_tokens=2)
    print(float(backbone.pixel_values([image]).sum()))

from transformers import CLIPImageProcessor

try:
    CLIPImageProcessor()(images=image)
except Exception as error:
    print(error)
"""


def test_an_installed_torchvision_changes_no_pixel(backbone, tiny, tmp_path):
    """With it, transformers' own image processor makes others; so it must not be asked."""
    for part in ("", "io", "transforms", "transforms/functional", "transforms/v2/functional"):
        package = tmp_path / "torchvision" / part
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(TORCHVISION)
    (tmp_path / "torchvision/transforms/v2/__init__.py").write_text(TORCHVISION)
    about = tmp_path / "torchvision-0.99.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.99.0\n")
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", ANSWER, *(tiny(kind).spec() for kind in KINDS)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *sums, theirs = done.stdout.splitlines()
    assert theirs == "torchvision was called", "the trap is not set"
    image = Image.new("RGB", (30, 20), (9, 90, 200))
    for kind, found in zip(KINDS, sums, strict=True):
        pixels = backbone(kind).pixel_values([image])
        assert float(found) == pytest.approx(float(pixels.sum()))


# Which tower's weights: stated, recorded, and part of the key.


def test_each_kind_takes_the_tower_that_its_authors_loader_ends_up_with(tiny, images):
    for kind, choice in (("llava_mistral", "openai"), ("llava_qwen2", "checkpoint")):
        made = tiny(kind)
        usual = encoded(made.load(), images)
        assert torch.equal(usual, encoded(made.load(vision_weights=choice), images))
        other = {"openai": "checkpoint", "checkpoint": "openai"}[choice]
        assert (usual - encoded(made.load(vision_weights=other), images)).abs().max() > 0.1


@pytest.mark.parametrize(
    ("kind", "usual", "other"),
    [("llava_mistral", "openai", "checkpoint"), ("llava_qwen2", "checkpoint", "openai")],
)
def test_which_tower_was_taken_is_recorded_and_moves_the_key(tiny, tmp_path, kind, usual, other):
    from medbench.cell import Request, plan
    from medbench.model.load import create_checkpoint

    made = tiny(kind)
    named = create_checkpoint(made.spec(vision_weights=usual))
    assert create_checkpoint(made.spec()) == named
    options = {"limit": 2, "device": "cpu", "dtype": "float32", "out": tmp_path / "runs"}
    done = medbench.run("greedy", "phantom", backbone=made.spec(), **options)
    assert len(done.samples) == 2
    record = json.loads((done.folder / "run.json").read_text("utf-8"))
    backbone = record["identity"]["backbone"]
    assert backbone["parameters"]["vision_weights"] == usual
    changed = plan(Request("greedy", "phantom", made.spec(vision_weights=other), **options))
    assert changed.key != record["key"]
    assert changed.identity["backbone"]["parameters"]["vision_weights"] == other
    assert changed.identity["backbone"]["weights"] != backbone["weights"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_hashes_cover_every_file_that_moves_an_answer(copied, kind):
    from medbench.model.load import create_checkpoint
    from medbench.provenance import hash_files

    def digest(made, **options):
        return hash_files(create_checkpoint(made.spec(**folder(kind), **options)).files())

    whole = digest(copied(kind))
    assert digest(copied(kind, "same")) == whole
    made = copied(kind, "changed")
    weights = sorted(made.checkpoint.glob("model-*.safetensors"))
    assert len(weights) == 2
    tokenizer = ["vocab.json", "merges.txt"] if kind == "llava_qwen2" else ["tokenizer.model"]
    tokenizer += ["added_tokens.json"] if kind == "llava" else []
    files = [made.checkpoint / name for name in ("config.json", "tokenizer_config.json")]
    files += [made.checkpoint / name for name in tokenizer] + weights
    files += [made.tower / name for name in ("config.json", "preprocessor_config.json")]
    files += [made.tower / "model.safetensors"]
    for path in files:
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        assert digest(made) != whole, path
        path.write_bytes(before)
    assert digest(made) == whole


def test_places_on_disk_move_no_hash(copied):
    from medbench import keys
    from medbench.model.load import create_checkpoint

    one, other = (create_checkpoint(copied("llava", name).spec()) for name in ("one", "other"))
    assert one != other
    assert keys.keyed(one) == keys.keyed(other)


# Loading says nothing.


@pytest.fixture
def logged():
    """Return the messages that transformers logs from now on."""
    messages = []

    class Keep(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())

    logger, keep = logging.getLogger("transformers"), Keep(logging.WARNING)
    logger.addHandler(keep)
    yield messages
    logger.removeHandler(keep)


@pytest.mark.parametrize("kind", KINDS)
def test_loading_prints_nothing(tiny, capfd, logged, kind):
    tiny(kind).load()
    assert capfd.readouterr() == ("", "")
    assert logged == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_old_padding_number_touches_no_weight(copied, images, kind):
    made = copied(kind)
    made.change(pad_token_id=-1)
    loaded = made.load()
    stored = made.tensors()["model.embed_tokens.weight"].float()
    assert torch.equal(loaded.language_model.get_input_embeddings().weight, stored)
    assert medbench.generate(loaded, images=images[:2], prompts=["a", "bc"], max_new_tokens=2)


def test_an_old_padding_number_is_not_talked_about(copied, logged):
    made = copied("llava_mistral")
    made.change(pad_token_id=-7)
    made.load()
    assert logged == []
