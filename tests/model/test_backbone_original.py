"""Backbones in their authors' formats against transformers' own classes on the same tensors."""

from dataclasses import replace

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import medbench
from medbench.model.attention import AttentionProbe
from medbench.model.rows import left_padded, positions

KINDS = ["llava", "llava_mistral", "llava_qwen2"]
PROJECTOR, TOWER = "model.mm_projector.", "model.vision_tower.vision_tower.vision_model."
# Enough of them that answers end at different lengths.
ENDS = (2, 20, 21, 22, 23, 24, 25, 26, 27, 28)
TOLERANCE = 5e-5


def text_model(config):
    """Return the text model that a config.json means, its fields written out."""
    fields = {
        "vocab_size": config["vocab_size"],
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["intermediate_size"],
        "num_hidden_layers": config["num_hidden_layers"],
        "num_attention_heads": config["num_attention_heads"],
        "rms_norm_eps": config["rms_norm_eps"],
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
    }
    if config["model_type"] == "llava":
        fields["num_key_value_heads"] = config["num_attention_heads"]
        return LlamaForCausalLM(LlamaConfig(**fields, rope_theta=10000.0))
    fields["num_key_value_heads"] = config["num_key_value_heads"]
    if config["model_type"] == "llava_mistral":
        mistral = MistralConfig(**fields, rope_theta=10000.0, sliding_window=None)
        return MistralForCausalLM(mistral)
    return Qwen2ForCausalLM(Qwen2Config(**fields, rope_theta=1e6, use_sliding_window=False))


def vision_config(tiny):
    side = 16 if tiny.kind == "llava" else 24
    return CLIPVisionConfig(
        image_size=side,
        patch_size=4,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
    )


def tower_tensors(tiny, source):
    """Return a tower's tensors by their names behind `vision_model.`."""
    if source == "stored":
        prefix, found = TOWER, tiny.tensors()
    else:
        prefix, found = "vision_model.", tiny.tensors(tiny.tower)
    named = {
        name.removeprefix(prefix): tensor.float()
        for name, tensor in found.items()
        if name.startswith(prefix) and tensor.is_floating_point()
    }
    assert len(named) == 55
    return named


class Reference:
    """Transformers' classes, filled by `load_state_dict`, with eager attention."""

    def __init__(self, tiny, source):
        self.config, stored = tiny.config, tiny.tensors()
        self.language_model = text_model(self.config).eval()
        language = {
            name: tensor.float()
            for name, tensor in stored.items()
            if "mm_projector" not in name and "vision_tower" not in name and "inv_freq" not in name
        }
        self.language_model.load_state_dict(language, strict=True)
        self.language_model.set_attn_implementation("eager")
        self.tower = CLIPVisionModel(vision_config(tiny)).eval()
        inner = getattr(self.tower, "vision_model", self.tower)
        inner.load_state_dict(tower_tensors(tiny, source), strict=False)
        assert all(
            torch.equal(tensor, inner.state_dict()[name])
            for name, tensor in tower_tensors(tiny, source).items()
        )
        self.tower.set_attn_implementation("eager")
        self.weights = {
            name.removeprefix(PROJECTOR): tensor.float()
            for name, tensor in stored.items()
            if name.startswith(PROJECTOR)
        }

    @torch.no_grad()
    def features(self, pixels):
        return self.project(self.tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:])

    def project(self, hidden):
        linear, weights = torch.nn.functional.linear, self.weights
        if "weight" in weights:
            return linear(hidden, weights["weight"], weights["bias"])
        deep = torch.nn.functional.gelu(linear(hidden, weights["0.weight"], weights["0.bias"]))
        return linear(deep, weights["2.weight"], weights["2.bias"])

    def embed(self, ids, features, image):
        table = self.language_model.get_input_embeddings().weight
        rows, unused = [], list(features)
        for token in ids:
            rows.append(unused.pop(0) if token == image else table[token])
        assert not unused
        return torch.stack(rows).detach()


# Where the tower of each kind's answers comes from unless it is told otherwise.
DEFAULTS = {"llava": "folder", "llava_mistral": "folder", "llava_qwen2": "stored"}


@pytest.fixture(scope="module")
def reference(tiny):
    made = {}

    def make(kind, source=None):
        source = source or DEFAULTS[kind]
        if (kind, source) not in made:
            made[kind, source] = Reference(tiny(kind), source)
        return made[kind, source]

    return make


@pytest.fixture(scope="module")
def inputs(images, questions):
    """Return ready ids of prompts of different lengths, and pixels."""

    def make(loaded, count=6):
        pixels = loaded.pixel_values(images[:count])
        prompts = [
            loaded.prompt(question, features)
            for question, features in zip(questions[:count], loaded.encode(pixels), strict=True)
        ]
        return [prompt.ids.tolist() for prompt in prompts], pixels

    return make


STORAGES = {
    "safetensors shards": ("safetensors", False),
    "pickled shards": ("bin", False),
    "one safetensors": ("safetensors", True),
    "one pickle": ("bin", True),
}


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_way_of_storing_gives_the_stored_tensors(copied, reference, kind, storage):
    suffix, single = STORAGES[storage]
    made = copied(kind, pickled=suffix == "bin")
    if single:
        name = "pytorch_model.bin" if suffix == "bin" else "model.safetensors"
        made.store(made.tensors(), name)
        (file,) = [path for path in made.checkpoint.iterdir() if path.name.endswith(suffix)]
        assert file.name == name
    else:
        assert len(list(made.checkpoint.glob(f"*-of-00002.{suffix}"))) == 2
    loaded = made.load()
    expected = reference(kind)
    theirs = expected.language_model.state_dict()
    ours = loaded.language_model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    projector = loaded.projector.state_dict()
    assert projector.keys() == expected.weights.keys()
    assert all(torch.equal(projector[name], expected.weights[name]) for name in projector)
    tower = loaded.vision_tower.state_dict()
    theirs = expected.tower.state_dict()
    assert tower.keys() == theirs.keys()
    assert all(torch.equal(tower[name], tensor) for name, tensor in theirs.items())


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_features_and_logits_are_those_of_transformers(backbone, reference, inputs, kind):
    loaded, expected = backbone(kind), reference(kind)
    ids, pixels = inputs(loaded)
    for row, pixel in zip(ids, pixels, strict=True):
        features = loaded.encode(pixel[None])[0]
        theirs = expected.features(pixel[None])[0]
        assert (features - theirs).abs().max() < TOLERANCE
        assert theirs.std() > 0.1
        prompt = loaded.prompt_from_ids(row, features)
        logits = loaded.language_model(inputs_embeds=loaded.embed(prompt)[None]).logits
        embedded = expected.embed(row, theirs, loaded.image_token_id)[None]
        wanted = expected.language_model(inputs_embeds=embedded).logits
        assert (logits - wanted).abs().max() < TOLERANCE
        assert wanted.abs().max() > 1


@pytest.mark.parametrize(("select", "layer"), [("patch", -1), ("cls_patch", -2), ("cls_patch", 1)])
@torch.no_grad()
def test_other_selections_of_the_towers_states_are_read(copied, reference, images, select, layer):
    made = copied("llava_mistral")
    made.change(mm_vision_select_feature=select, mm_vision_select_layer=layer)
    loaded, expected = made.load(), reference("llava_mistral")
    pixels = loaded.pixel_values(images[:2])
    states = expected.tower(pixels, output_hidden_states=True).hidden_states[layer]
    found, wanted = loaded.encode(pixels), expected.project(states)
    wanted = wanted if select == "cls_patch" else wanted[:, 1:]
    assert loaded.image_tokens == found.shape[1] == wanted.shape[1]
    assert (found - wanted).abs().max() < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_say_what_they_are(tiny, backbone, kind):
    from medbench.model.load import create_checkpoint

    loaded = backbone(kind)
    grid = 4 if kind == "llava" else 6
    assert loaded.name == create_checkpoint(tiny(kind).spec()).name
    assert (loaded.layers, loaded.heads, loaded.image_tokens) == (2, 4, grid * grid)
    assert loaded.geometry.grid == (grid, grid)
    assert loaded.geometry.fit == ("crop" if kind == "llava" else "pad")
    assert loaded.depth == create_checkpoint(tiny(kind).spec()).depth()
    assert (loaded.depth.language, loaded.depth.vision) == (2, 3)
    assert loaded.eos_token_ids == (loaded.tokenizer.eos_token_id,)
    assert (loaded.image_token_id == -200) == (kind != "llava")


@pytest.mark.parametrize("kind", ["llava_mistral", "llava_qwen2"])
@torch.no_grad()
def test_each_source_of_the_tower_is_what_it_says(backbone, reference, images, kind):
    for choice, source in (("openai", "folder"), ("checkpoint", "stored")):
        loaded = backbone(kind, vision_weights=choice)
        pixels = loaded.pixel_values(images[:2])
        for other in ("folder", "stored"):
            theirs = reference(kind, other).features(pixels)
            moved = (loaded.encode(pixels) - theirs).abs().max()
            assert moved < TOLERANCE if other == source else moved > 0.1


@torch.no_grad()
def padded_logits(loaded, rows):
    """Return logits of a left-padded batch of embeddings, and which positions are real."""
    filled = left_padded([torch.ones(len(row), dtype=torch.bool) for row in rows])
    output = loaded.language_model(
        inputs_embeds=left_padded(rows),
        attention_mask=filled.long(),
        position_ids=positions(filled),
    )
    return output.logits, filled


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_logits_of_a_padded_batch_are_those_of_rows_alone(backbone, reference, inputs, kind):
    loaded, expected = backbone(kind), reference(kind)
    ids, pixels = inputs(loaded)
    rows = [
        expected.embed(row, expected.features(pixel[None])[0], loaded.image_token_id)
        for row, pixel in zip(ids, pixels, strict=True)
    ]
    assert len({len(row) for row in rows}) > 3
    logits, filled = padded_logits(loaded, rows)
    for row, found, real in zip(rows, logits, filled, strict=True):
        wanted = expected.language_model(inputs_embeds=row[None]).logits[0]
        assert (found[real] - wanted).abs().max() < TOLERANCE


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_generate_alone_and_in_a_padded_batch(
    backbone, reference, inputs, kind, beams
):
    loaded, expected = backbone(kind), reference(kind)
    ids, pixels = inputs(loaded)
    answers = []
    for row, pixel in zip(ids, pixels, strict=True):
        embedded = expected.embed(row, expected.features(pixel[None])[0], loaded.image_token_id)
        answered = expected.language_model.generate(
            inputs_embeds=embedded[None],
            attention_mask=torch.ones(1, len(row), dtype=torch.long),
            num_beams=beams,
            do_sample=False,
            max_new_tokens=16,
            eos_token_id=list(ENDS),
            pad_token_id=0,
        )
        answers.append(answered[0].tolist())
    for batch_size in (1, 6):
        found = medbench.generate(
            replace(loaded, eos_token_ids=ENDS, stop_strings=()),
            method="greedy" if beams == 1 else f"beam[beams={beams}]",
            input_ids=ids,
            pixel_values=pixels,
            max_new_tokens=16,
            batch_size=batch_size,
        )
        assert [answer.token_ids for answer in found] == answers
    assert len(set(map(tuple, answers))) > 3
    assert len(set(map(len, answers))) > 1, "rows must end at different times"


def as_llava(tiny, source, image):
    """Return transformers' own LLaVA with a checkpoint's tensors under its names."""
    reference = Reference(tiny, source)
    config = LlavaConfig(
        vision_config=vision_config(tiny),
        text_config=reference.language_model.config,
        image_token_id=image,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        image_seq_length=36,
    )
    model = LlavaForConditionalGeneration(config).eval()
    named = {"lm_head.weight": reference.language_model.lm_head.weight}
    for name, tensor in reference.language_model.model.state_dict().items():
        named[f"model.language_model.{name}"] = tensor
    for name, tensor in reference.tower.state_dict().items():
        named[f"model.vision_tower.{name}"] = tensor
    for place, number in (("0", "1"), ("2", "2")):
        for part in ("weight", "bias"):
            name = f"model.multi_modal_projector.linear_{number}.{part}"
            named[name] = reference.weights[f"{place}.{part}"]
    model.load_state_dict(named, strict=True)
    model.set_attn_implementation("eager")
    return model


@pytest.mark.parametrize("source", ["folder", "stored"])
@pytest.mark.parametrize("kind", ["llava_mistral", "llava_qwen2"])
@torch.no_grad()
def test_logits_and_answers_are_those_of_transformers_llava(tiny, backbone, inputs, kind, source):
    choice = {"folder": "openai", "stored": "checkpoint"}[source]
    loaded = backbone(kind, vision_weights=choice)
    ids, pixels = inputs(loaded, 3)
    # A token that no prompt holds stands for the image there.
    image = next(token for token in range(200, 260) if not any(token in row for row in ids))
    model = as_llava(tiny(kind), source, image)
    for row, pixel in zip(ids, pixels, strict=True):
        theirs = torch.tensor([[image if token == -200 else token for token in row]])
        wanted = model(input_ids=theirs, pixel_values=pixel[None]).logits[0]
        prompt = loaded.prompt_from_ids(row, loaded.encode(pixel[None])[0])
        found = loaded.language_model(inputs_embeds=loaded.embed(prompt)[None]).logits[0]
        assert (found - wanted).abs().max() < TOLERANCE
        answered = model.generate(
            input_ids=theirs,
            attention_mask=torch.ones_like(theirs),
            pixel_values=pixel[None],
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=list(ENDS),
            pad_token_id=0,
        )
        answer = medbench.generate(
            replace(loaded, eos_token_ids=ENDS),
            input_ids=[row],
            pixel_values=pixel[None],
            max_new_tokens=12,
        )[0]
        assert answer.token_ids == answered[0, theirs.shape[1] :].tolist()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_loads_in_all_parts_and_answers(backbone, images, questions, kind, dtype):
    loaded, wanted = backbone(kind, dtype), getattr(torch, dtype)
    for part in (loaded.language_model, loaded.vision_tower, loaded.projector):
        assert {weight.dtype for weight in part.parameters()} == {wanted}
        assert not part.training
        assert not any(weight.requires_grad for weight in part.parameters())
    assert loaded.dtype == wanted
    features = loaded.encode(loaded.pixel_values(images[:2]))
    assert features.dtype == wanted
    assert features.isfinite().all()
    answers = medbench.generate(
        loaded,
        images=images[:4],
        prompts=questions[:4],
        max_new_tokens=6,
        record_scores=6,
        record_attention=True,
    )
    for answer in answers:
        assert answer.token_ids
        assert answer.scores.dtype == torch.float32
        assert answer.scores.isfinite().all()
        assert 0 < answer.attention.sum() < 1.01


# Largest difference from eager attention, which rounds scores and rows once more in half precision.
PROBED = {"float32": 1e-5, "bfloat16": 0.1, "float16": 0.02}


@pytest.mark.parametrize("dtype", PROBED)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_probed_attention_is_that_of_eager_attention(backbone, inputs, kind, dtype):
    loaded = backbone(kind, dtype)
    ids, pixels = inputs(loaded)
    rows = [
        loaded.embed(loaded.prompt_from_ids(row, loaded.encode(pixel[None])[0]))
        for row, pixel in zip(ids, pixels, strict=True)
    ]
    embedded = left_padded(rows)
    filled = left_padded([torch.ones(len(row), dtype=torch.bool) for row in rows])
    common = {"attention_mask": filled.long(), "position_ids": positions(filled)}
    last = embedded.shape[1] - 1
    queries = torch.tensor([[last, last - 3]]).expand(len(rows), 2)
    taken = {}
    probe = AttentionProbe(queries, None, taken.__setitem__)
    loaded.language_model(inputs_embeds=embedded, probes=(probe,), **common)
    assert sorted(taken) == list(range(loaded.layers))
    found = torch.stack([taken[layer] for layer in sorted(taken)])
    assert found.dtype == torch.float32

    def eager(dtype):
        model = text_model_of(loaded, dtype)
        output = model(inputs_embeds=embedded.to(dtype), output_attentions=True, **common)
        return torch.stack(output.attentions)[:, :, :, [last, last - 3]].float()

    theirs = eager(loaded.dtype)
    assert (found - theirs).abs().max() < PROBED[dtype]
    assert theirs.max() > 0.1
    if dtype != "float32":
        exact = eager(torch.float32)
        assert (found - exact).abs().mean() < 1.2 * (theirs - exact).abs().mean()


def text_model_of(loaded, dtype):
    """Return a copy of a loaded text model with eager attention."""
    plain = type(loaded.language_model)(loaded.language_model.config).to(dtype).eval()
    plain.load_state_dict(loaded.language_model.state_dict())
    plain.set_attn_implementation("eager")
    return plain
