"""What is wrong with an original checkpoint is said in three lines, and nothing else happens."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from medbench import hub

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden/backbones/checkpoints"
KINDS = ["llava", "llava_mistral", "llava_qwen2"]
NAMES = {
    "llava": "llava_med",
    "llava_mistral": "llava_med_1.5",
    "llava_qwen2": "huatuogpt_vision_7b",
}


# Folders and hub ids.


@pytest.fixture
def hub_folder(tmp_path, monkeypatch):
    """Return an empty folder in the place of the hub's files on this machine."""
    from huggingface_hub import constants

    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


def put_on_hub(folder, hub_id, source):
    """Lay a folder's files as a download leaves them: blobs, and links to them in a snapshot."""
    place = folder / f"models--{hub_id.replace('/', '--')}"
    snapshot = place / "snapshots" / ("0" * 40)
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text("0" * 40)
    shutil.copytree(source, place / "blobs")
    for path in (place / "blobs").rglob("*"):
        if path.is_file():
            link = snapshot / path.relative_to(place / "blobs")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    return snapshot


def test_a_folder_that_is_not_there(refused):
    what, why, do = refused('llava-med-1.5[weights="/nowhere/at/all"]')
    assert what == "llava_med_1.5: /nowhere/at/all is not a folder"
    assert why == "Nothing of that name exists."
    assert "hub id" in do


def test_a_file_in_the_place_of_a_folder(refused, tmp_path):
    (tmp_path / "file").write_text("")
    _, why, _ = refused(f'huatuogpt-vision-7b[weights="{tmp_path}/file"]')
    assert why == "It is a file."


def test_no_weights_at_all():
    import medbench

    with pytest.raises(medbench.UserError) as error:
        medbench.load_backbone("llava-med", device="cpu")
    assert error.value.lines() == [
        "llava_med needs weights",
        "It has no default: a folder or a hub id must be named.",
        '--backbone "llava_med[weights=DIR]", or a hub id.',
    ]


@pytest.mark.parametrize(
    ("spec", "hub_id"),
    [
        ("llava-med-1.5", "microsoft/llava-med-v1.5-mistral-7b"),
        ("huatuogpt-vision-7b", "FreedomIntelligence/HuatuoGPT-Vision-7B"),
        ("llava-med[weights=some/model]", "some/model"),
    ],
)
def test_a_hub_id_that_was_not_downloaded(refused, hub_folder, spec, hub_id):
    what, why, do = refused(spec)
    assert what.endswith(f": {hub_id} is not on this machine")
    assert "not downloaded" in why
    assert f"hf download {hub_id};" in do
    assert list(hub_folder.iterdir()) == []


FIND = """
import sys
from medbench import hub
print(hub.cached(sys.argv[1]))
"""


def test_the_hubs_files_are_looked_for_where_hf_home_says(tiny, tmp_path):
    put_on_hub(tmp_path / "hub", "owner/name", tiny("llava").checkpoint)
    for home, found in ((tmp_path, "snapshots"), (tmp_path / "empty", "None")):
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        done = subprocess.run(
            [sys.executable, "-c", FIND, "owner/name"],
            env={**kept, "HF_HOME": str(home), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert found in done.stdout


def test_a_downloaded_checkpoint_and_its_downloaded_tower_are_loaded(tiny, hub_folder, monkeypatch):
    import medbench

    made = tiny("llava_mistral")
    monkeypatch.chdir(hub_folder)
    place = put_on_hub(hub_folder, "microsoft/llava-med-v1.5-mistral-7b", made.checkpoint)
    assert hub.cached("microsoft/llava-med-v1.5-mistral-7b") == place
    put_on_hub(hub_folder, "openai/clip-vit-large-patch14-336", made.tower)
    found = medbench.load_backbone("llava-med-1.5", device="cpu", dtype="float32")
    expected = made.load()
    for part in ("language_model", "vision_tower", "projector"):
        theirs = getattr(expected, part).state_dict()
        for name, tensor in getattr(found, part).state_dict().items():
            assert torch.equal(tensor, theirs[name])


def test_a_half_downloaded_checkpoint(tiny, hub_folder, refused):
    made = tiny("llava_mistral")
    place = put_on_hub(hub_folder, "owner/name", made.checkpoint)
    (place / "model-00002-of-00002.safetensors").unlink()
    what, why, _ = refused(made, weights="owner/name")
    assert what == f"{place}: 1 of 2 weight files are missing"
    assert "model-00002-of-00002.safetensors" in why


@pytest.mark.parametrize("name", ["a/-b", "a/b.", "a--b/c", "a..b/c", "a/b.git", f"{'x' * 99}/y"])
def test_a_name_that_no_hub_id_can_have(refused, name):
    refused(f'llava-med-1.5[weights="{name}"]')


def test_a_folder_of_that_name_wins_over_the_hub(tiny, tmp_path, monkeypatch):
    shutil.copytree(tiny("llava").checkpoint, tmp_path / "owner/name")
    monkeypatch.chdir(tmp_path)
    assert hub.locate("owner/name", what="it") == Path("owner/name")


def test_the_command_line_says_it_without_a_traceback(medbench):
    code, _, err = medbench(
        "run", "--method", "greedy", "--task", "phantom", "--backbone", "llava-med[weights=/none]"
    )
    assert code == 2
    assert "Traceback" not in err
    assert "llava_med: /none is not a folder" in err


# config.json.


@pytest.mark.parametrize("kind", KINDS)
def test_no_config(copied, refused, kind):
    made = copied(kind)
    (made.checkpoint / "config.json").unlink()
    what, why, do = refused(made)
    assert what == f"no checkpoint in {made.checkpoint}"
    assert "config.json" in why
    assert "config.json" in do


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", "\x00"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_config(copied, refused, kind, content):
    made = copied(kind)
    (made.checkpoint / "config.json").write_text(content)
    what, _, do = refused(made)
    assert what == f"cannot read {made.checkpoint / 'config.json'}"
    assert do == "Download it again."


# Whose checkpoint, which backbone.
OTHERS = [
    ("llava", "llava_mistral"),
    ("llava", "llava_qwen2"),
    ("llava_mistral", "llava"),
    ("llava_mistral", "llava_qwen2"),
    ("llava_qwen2", "llava"),
    ("llava_qwen2", "llava_mistral"),
]


@pytest.mark.parametrize(("stored", "backbone"), OTHERS)
def test_another_backbones_checkpoint(tiny, refused, stored, backbone):
    made = tiny(stored)
    what, why, do = refused(made.spec().replace(made.spec().partition("[")[0], NAMES[backbone]))
    assert what == f"{made.checkpoint} is another kind of checkpoint"
    assert f"is '{stored}', not '{backbone}'" in why
    assert "medbench list backbones" in do


@pytest.mark.parametrize("stored", KINDS)
def test_llava_hf_refuses_all_of_them(tiny, refused, stored):
    _, why, do = refused(f'llava-hf[weights="{tiny(stored).checkpoint}"]')
    assert why
    assert "name the backbone that reads it" in do


def test_a_checkpoint_in_transformers_own_format(copied, refused):
    """Same model_type as 1.0."""
    made = copied("llava")
    made.change(text_config={}, vision_config={})
    what, why, _ = refused(made)
    assert what == f"{made.checkpoint} is another kind of checkpoint"
    assert "llava-hf reads it" in why


def test_a_text_model_without_a_tower(copied, refused):
    made = copied("llava_mistral")
    made.change(mm_vision_tower=...)
    _, why, _ = refused(made)
    assert why == "It lacks 'mm_vision_tower'."
    _, why, _ = refused(made, vision=None)
    assert why == "It lacks 'mm_vision_tower'."


@pytest.mark.parametrize("kind", ["foo", "identity", "mlpx_gelu", "mlp2x_relu", None])
def test_an_unknown_projector(copied, refused, kind):
    made = copied("llava_mistral")
    made.change(mm_projector_type=kind)
    what, why, do = refused(made)
    assert what == f"a projector of type '{kind}' is not known"
    assert "mlpNx_gelu" in why
    assert "llava-hf" in do


UNUSABLE = [
    {"hidden_size": ...},
    {"hidden_size": None},
    {"hidden_size": "a"},
    {"num_attention_heads": None},
    {"num_attention_heads": 3},
    {"intermediate_size": 1.5},
    {"rms_norm_eps": "small"},
    {"hidden_act": "foo"},
    {"rope_scaling": 5},
    {"mm_vision_select_layer": None},
]


@pytest.mark.parametrize("changes", UNUSABLE, ids=str)
def test_a_config_with_a_value_that_cannot_be_used(copied, refused, changes):
    made = copied("llava")
    made.change(**changes)
    what, _, _ = refused(made)
    assert str(made.checkpoint) in what


@pytest.mark.parametrize("layer", [-9, 7])
def test_a_layer_that_the_tower_does_not_have(copied, refused, layer):
    made = copied("llava_mistral")
    made.change(mm_vision_select_layer=layer)
    refused(made)


# Weights.


def test_a_missing_shard(copied, refused):
    for kind, pickled, name in (
        ("llava_mistral", False, "model-00002-of-00002.safetensors"),
        ("llava", True, "pytorch_model-00001-of-00002.bin"),
    ):
        made = copied(kind, name, pickled=pickled)
        (made.checkpoint / name).unlink()
        what, why, do = refused(made)
        assert what == f"{made.checkpoint}: 1 of 2 weight files are missing"
        assert why.endswith(f".index.json names {name}.")
        assert "Download" in do


def test_no_weights(copied, refused):
    made = copied("llava")
    for path in made.checkpoint.glob("*.safetensors"):
        path.unlink()
    what, why, _ = refused(made)
    assert "2 of 2 weight files are missing" in what
    (made.checkpoint / "model.safetensors.index.json").unlink()
    what, why, _ = refused(made)
    assert what == f"no weights in {made.checkpoint}"
    assert "model.safetensors" in why
    assert "pytorch_model.bin" in why


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": null}', "\x00"]
)
def test_a_damaged_index(copied, refused, content):
    made = copied("llava_mistral")
    index = made.checkpoint / "model.safetensors.index.json"
    index.write_text(content)
    what, why, _ = refused(made)
    assert what == f"cannot read {index}"
    assert why


def test_an_index_that_names_absent_files(copied, refused):
    made = copied("llava_mistral")
    names = {f"t{n}": f"absent-{n:02d}.safetensors" for n in range(10)}
    index = made.checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    what, why, _ = refused(made)
    assert what.endswith("10 of 10 weight files are missing")
    assert "absent-00.safetensors" in why
    assert "and 2 more" in why


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.99])
def test_truncated_safetensors(copied, refused, share):
    made = copied("llava_mistral")
    path = made.checkpoint / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    what, _, do = refused(made)
    assert what == f"cannot read {path}"
    assert "cut off" in do


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.99])
def test_truncated_pickles(copied, refused, share):
    made = copied("llava", pickled=True)
    path = made.checkpoint / "pytorch_model-00002-of-00002.bin"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    what, _, do = refused(made)
    assert what == f"cannot read {path}"
    assert "cut off" in do


@pytest.mark.parametrize(
    "name", ["pytorch_model-00001-of-00002.bin", "model-00001-of-00002.safetensors"]
)
def test_a_note_that_stands_for_a_file_that_was_not_fetched(copied, refused, name):
    made = copied("llava", pickled=name.endswith(".bin"))
    note = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9976578928\n"
    (made.checkpoint / name).write_text(note)
    what, _, do = refused(made)
    assert what == f"cannot read {made.checkpoint / name}"
    assert "download it again" in do


class Harmful:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("where", ["checkpoint", "tower", "base"])
def test_a_malicious_pickle_is_refused_and_not_run(copied, refused, tmp_path, where, old):
    harm = tmp_path / "harm"
    made = copied("llava", pickled=True)
    options = {}
    if where == "tower":
        path = made.tower / "pytorch_model.bin"
        (made.tower / "model.safetensors").unlink()
    elif where == "base":
        path = tmp_path / "base/pytorch_model.bin"
        path.parent.mkdir()
        options["base"] = path.parent
        tensors = made.tensors()
        tensors["model.norm.weight"] = torch.zeros(32)  # as in a delta
        made.store(tensors, "pytorch_model.bin")
    else:
        path = made.checkpoint / "pytorch_model-00001-of-00002.bin"
    harmful = {"model.norm.weight": Harmful(harm)}
    torch.save(harmful, path, _use_new_zipfile_serialization=not old)
    what, _, _ = refused(made, **options)
    assert what == f"cannot read {path}"
    assert not harm.exists()
    torch.load(path, weights_only=False)
    assert harm.exists(), "an unrestricted reader would have run it"


UNLIKE = {
    "a nested state": lambda tensors: {"state_dict": tensors},
    "a list": lambda tensors: list(tensors.values()),
    "one tensor": lambda tensors: next(iter(tensors.values())),
    "a number among tensors": lambda tensors: {**tensors, "step": 3},
    "names that are numbers": lambda tensors: {**tensors, 3: torch.ones(1)},
}


@pytest.mark.parametrize("form", UNLIKE)
def test_a_pickle_of_something_else(copied, refused, form):
    made = copied("llava")
    made.store(UNLIKE[form](made.tensors()), "pytorch_model.bin")
    what, _, _ = refused(made)
    assert str(made.checkpoint) in what


def test_a_pickle_of_the_older_format_is_read(tiny, copied):
    made = copied("llava")
    made.store(made.tensors(), "pytorch_model.bin", _use_new_zipfile_serialization=False)
    weight = made.load().language_model.get_output_embeddings().weight
    assert torch.equal(weight, tiny("llava").load().language_model.get_output_embeddings().weight)


def test_tensors_that_are_missing_left_over_and_of_another_shape_are_all_named(copied, refused):
    made = copied("llava_mistral")
    tensors = made.tensors()
    del tensors["model.norm.weight"], tensors["model.mm_projector.2.bias"]
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(5, 32)
    tensors["model.mm_projector.0.weight"] = torch.zeros(32, 17)
    tensors |= {"model.extra.weight": torch.zeros(2), "model.mm_projector.4.bias": torch.zeros(2)}
    made.store(tensors)
    what, why, do = refused(made)
    assert what == f"{made.checkpoint}: 6 tensors are not as config.json says"
    assert why == (
        "2 missing: model.mm_projector.2.bias, model.norm.weight; "
        "2 unexpected: model.extra.weight, model.mm_projector.4.bias; "
        "2 mismatched: model.layers.0.mlp.up_proj.weight [5, 32] for [64, 32], "
        "model.mm_projector.0.weight [32, 17] for [32, 16]."
    )
    assert "download both again" in do


def test_many_missing_tensors_are_counted(copied, refused):
    made = copied("llava_qwen2")
    made.store({"model.norm.weight": torch.ones(32)})
    _, why, _ = refused(made)
    assert "30 missing" in why
    assert "and 22 more" in why


@pytest.mark.parametrize("name", ["post_layernorm.bias", "encoder.layers.1.mlp.fc1.weight"])
def test_a_tower_tensor_that_is_missing(copied, refused, name):
    made = copied("llava_qwen2")
    tensors = made.tensors()
    del tensors[f"model.vision_tower.vision_tower.vision_model.{name}"]
    made.store(tensors)
    _, why, _ = refused(made)
    assert f"1 missing: {name}" in why
    made.load(vision_weights="openai")
    file = made.tower / "model.safetensors"
    kept = load_file(file)
    del kept[f"vision_model.{name}"]
    save_file(kept, file, metadata={"format": "pt"})
    what, why, _ = refused(made, vision_weights="openai")
    assert str(made.tower) in what
    assert f"1 missing: {name}" in why


@pytest.mark.parametrize("pickled", [False, True])
def test_the_files_that_are_checked_and_hashed_are_those_that_are_loaded(copied, pickled):
    """A single file left over beside shards."""
    made = copied("llava_mistral", pickled=pickled)
    from medbench.model.load import create_checkpoint

    shards = made.tensors()
    other = {**shards, "model.norm.weight": shards["model.norm.weight"] + 1}
    single = made.checkpoint / ("pytorch_model.bin" if pickled else "model.safetensors")
    if pickled:
        torch.save(other, single)
    else:
        save_file(other, single, metadata={"format": "pt"})
    norm = made.load().language_model.model.norm.weight
    from_single = torch.equal(norm, other["model.norm.weight"].float())
    assert from_single != torch.equal(norm, shards["model.norm.weight"].float())
    assert (single in create_checkpoint(made.spec()).files()) == from_single


def test_weights_under_another_file_name_are_not_taken(copied, refused):
    made = copied("llava_mistral")
    made.store(made.tensors(), "weights.safetensors")
    what, why, _ = refused(made)
    assert what == f"no weights in {made.checkpoint}"
    assert "model.safetensors" in why


def test_an_adapter_left_in_the_folder_is_refused(copied, refused):
    """transformers would put it on, and no hash would know."""
    made = copied("llava_mistral")
    (made.checkpoint / "adapter_config.json").write_text("{}", encoding="utf-8")
    what, why, _ = refused(made)
    assert what == f"{made.checkpoint} holds an adapter beside the weights"
    assert "adapter_config.json" in why


# Tokenizers.


@pytest.mark.parametrize("kind", ["llava", "llava_mistral"])
def test_no_tokenizer_of_a_llama(copied, refused, kind):
    made = copied(kind)
    (made.checkpoint / "tokenizer.model").unlink()
    what, why, do = refused(made)
    assert what == f"no tokenizer in {made.checkpoint}"
    assert "neither tokenizer.model nor tokenizer.json" in why
    assert "Download" in do


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_no_tokenizer_of_a_qwen(copied, refused, name):
    made = copied("llava_qwen2")
    (made.checkpoint / name).unlink()
    what, why, _ = refused(made)
    assert what == f"no tokenizer in {made.checkpoint}"
    assert "vocab.json with merges.txt" in why


DAMAGED = [
    ("llava", "tokenizer.model", b"\x00" * 500),
    ("llava_mistral", "tokenizer.model", b"version https://git-lfs.github.com/spec/v1\n"),
    ("llava", "added_tokens.json", b'{"<im_patch>": 36'),
    ("llava", "added_tokens.json", b"[]"),
    ("llava", "tokenizer_config.json", b"{"),
    ("llava_mistral", "tokenizer_config.json", b"[]"),
    ("llava_mistral", "special_tokens_map.json", b"{"),
    ("llava_qwen2", "vocab.json", b'{"a": 1'),
    ("llava_qwen2", "vocab.json", b""),
    ("llava_qwen2", "merges.txt", b"i"),
    ("llava_qwen2", "tokenizer_config.json", b""),
    ("llava_qwen2", "tokenizer.json", b"{}"),
]


@pytest.mark.parametrize(("kind", "name", "content"), DAMAGED)
def test_a_damaged_tokenizer(copied, refused, kind, name, content):
    made = copied(kind)
    (made.checkpoint / name).write_bytes(content)
    what, why, do = refused(made)
    assert what == f"cannot read the tokenizer in {made.checkpoint}"
    assert why
    assert "download it again" in do


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_tokenizer_model_that_is_cut_off_where_a_piece_ends(copied, refused, share):
    made = copied("llava_mistral")
    path = made.checkpoint / "tokenizer.model"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(made)


def test_merges_that_are_empty(copied, refused):
    made = copied("llava_qwen2")
    (made.checkpoint / "merges.txt").write_text("")
    refused(made)


@pytest.mark.parametrize("name", ["added_tokens.json", "one of them"])
def test_added_tokens_that_are_missing(copied, refused, name):
    made = copied("llava")
    path = made.checkpoint / "added_tokens.json"
    if name == "one of them":
        tokens = json.loads(path.read_text("utf-8"))
        del tokens["<im_end>"]
        path.write_text(json.dumps(tokens))
    else:
        path.unlink()
    what, why, do = refused(made)
    assert what == f"the tokenizer in {made.checkpoint} does not know the image's tokens"
    assert "<im_end>" in why
    assert "added_tokens.json" in do


def test_a_tokenizer_model_comes_before_a_conversion_of_it(copied, tiny):
    from transformers import LlamaTokenizer

    made = copied("llava_mistral")
    backend = LlamaTokenizer.from_pretrained(made.checkpoint).backend_tokenizer
    converted = json.loads(backend.to_str())
    words = converted["model"]["vocab"]
    words["A"], words["B"] = words["B"], words["A"]
    (made.checkpoint / "tokenizer.json").write_text(json.dumps(converted))
    ids = made.load().tokenizer("A B")["input_ids"]
    assert ids == tiny("llava_mistral").load().tokenizer("A B")["input_ids"]


# Towers.


@pytest.mark.parametrize("kind", KINDS)
def test_a_tower_folder_that_is_not_there(copied, refused, hub_folder, monkeypatch, kind):
    made = copied(kind)
    monkeypatch.chdir(hub_folder)
    shutil.rmtree(made.tower)
    what, _, do = refused(made)
    assert what == f"{NAMES[kind]}'s vision tower: {made.tower} is not a folder"
    assert "vision=DIR" in do
    what, _, do = refused(made, vision=None)
    assert what.startswith(f"{NAMES[kind]}'s vision tower: {made.config['mm_vision_tower']} is not")
    assert "vision=DIR" in do


def test_the_towers_folder_may_be_named_from_the_checkpoint(tiny, hub_folder, monkeypatch):
    monkeypatch.chdir(hub_folder)
    made = tiny("llava_qwen2")
    assert made.config["mm_vision_tower"].startswith("./vit")
    made.load(vision=None)
    made.load(vision=None, vision_weights="openai")


def test_a_checkpoints_own_tower_wins_over_one_in_the_working_folder(copied, monkeypatch):
    made, other = copied("llava_qwen2"), copied("llava_qwen2", "other")
    file = other.tower / "model.safetensors"
    changed = {name: tensor * 2 for name, tensor in load_file(file).items()}
    save_file(changed, file, metadata={"format": "pt"})
    expected = made.load(vision_weights="openai").vision_tower.state_dict()
    monkeypatch.chdir(other.checkpoint)
    found = made.load(vision=None, vision_weights="openai").vision_tower.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tower_without_a_name(copied, refused, kind, monkeypatch):
    made = copied(kind)
    made.change(mm_vision_tower="")
    monkeypatch.chdir(made.tower)
    refused(made, vision=None)


def test_a_tower_that_is_no_clip(tiny, copied, refused):
    made = copied("llava_mistral")
    for content in ({"model_type": "siglip"}, {"model_type": "llama"}, {}):
        (made.tower / "config.json").write_text(json.dumps(content))
        what, why, do = refused(made)
        assert what == f"{made.tower} is no CLIP"
        assert f"'{content.get('model_type')}'" in why
        assert "vision=DIR" in do
    what, _, _ = refused(made, vision=tiny("llava").checkpoint)
    assert what == f"{tiny('llava').checkpoint} is no CLIP"


CLIP = {"model_type": "clip"}
SQUARE = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": 4,
    "image_size": [24, 24],
}


@pytest.mark.parametrize(
    "content",
    [
        CLIP,
        {**CLIP, "vision_config": 3},
        {**CLIP, "vision_config": {"hidden_size": "a"}},
        {**CLIP, "vision_config": SQUARE},
    ],
    ids=str,
)
def test_a_tower_config_that_cannot_be_used(copied, refused, content):
    made = copied("llava_mistral")
    (made.tower / "config.json").write_text(json.dumps(content))
    what, _, _ = refused(made)
    assert str(made.tower) in what


def test_a_tower_without_config_or_weights(copied, refused):
    made = copied("llava_mistral")
    (made.tower / "model.safetensors").unlink()
    what, _, _ = refused(made)
    assert what == f"no weights in {made.tower}"
    (made.tower / "config.json").unlink()
    what, _, _ = refused(made)
    assert what == f"cannot read {made.tower / 'config.json'}"


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 30},
        {"size": {"shortest_edge": 30}},
        {"crop_size": {"height": 24, "width": 30}},
        {"crop_size": 30},
        {"size": None},
    ],
    ids=str,
)
def test_a_tower_of_another_size_than_its_processor(copied, refused, changes):
    made = copied("llava_mistral")
    made.change("openai/clip-vit-large-patch14-336/preprocessor_config.json", **changes)
    what, why, do = refused(made)
    assert what == f"{made.tower} scales images in a way medbench does not know"
    assert "24 pixels" in why
    assert next(iter(changes)) in why
    assert "vision=DIR" in do


@pytest.mark.parametrize(
    "changes",
    [
        {"resample": 2},
        {"do_normalize": False},
        {"rescale_factor": 1.0},
        {"image_mean": [0.5]},
        {"image_mean": None},
        {"image_std": [0, 0, 0]},
        {"crop_size": [24, 24]},
    ],
    ids=str,
)
def test_a_processor_that_does_what_is_not_done_here(copied, refused, changes):
    made = copied("llava_mistral")
    made.change("openai/clip-vit-large-patch14-336/preprocessor_config.json", **changes)
    refused(made)


def test_a_damaged_processor(copied, refused):
    made = copied("llava_mistral")
    file = made.tower / "preprocessor_config.json"
    for content in ("", "[]", '{"size":'):
        file.write_text(content)
        what, _, _ = refused(made)
        assert what == f"cannot read {file}"


def test_stored_tower_weights_without_a_tower_folder(copied, refused, hub_folder, monkeypatch):
    """Only of OpenAI's towers is it known what their config.json would say."""
    made = copied("llava_mistral")
    monkeypatch.chdir(hub_folder)
    shutil.rmtree(made.tower)
    options = {"vision": None, "vision_weights": "checkpoint"}
    # The known tower is far wider than the tiny one.
    _, why, _ = refused(made, **options)
    assert "model.mm_projector.0.weight [32, 16] for [32, 1024]" in why
    made.change(mm_vision_tower="owner/some-tower")
    what, why, do = refused(made, **options)
    assert what == "the vision tower owner/some-tower is not known"
    assert "config.json" in why
    assert "vision=DIR" in do


def test_a_known_tower_without_its_folder_is_loaded(copied, hub_folder, monkeypatch, images):
    from medbench.model import vision

    made = copied("llava_mistral")
    expected = made.load(vision_weights="checkpoint")
    known = expected.vision_tower.config
    assert vision.tower_config(None, "openai/clip-vit-large-patch14-336").image_size == 336
    monkeypatch.setattr("medbench.model.original.tower_config", lambda *_: known)
    monkeypatch.chdir(hub_folder)
    shutil.rmtree(made.tower)
    loaded = made.load(vision=None, vision_weights="checkpoint")
    pixels = expected.pixel_values(images[:2])
    assert torch.equal(loaded.pixel_values(images[:2]), pixels)
    assert torch.equal(loaded.encode(pixels), expected.encode(pixels))


# Delta weights.


def delta(weights, base=None):
    tower = GOLDEN.parent / "openai/clip-vit-large-patch14"
    given = f',base="{GOLDEN / base}"' if base else ""
    return f'llava-med[weights="{GOLDEN / weights}",vision="{tower}"{given}]'


def test_a_delta_without_its_base(refused):
    what, why, do = refused(delta("llava-med-1.0-delta"))
    assert what == f"{GOLDEN / 'llava-med-1.0-delta'} holds delta weights"
    assert "LLaMA 7B" in why
    assert "base=DIR" in do


def test_the_advice_for_a_bare_delta_can_be_followed(refused, medbench):
    _, _, do = refused(delta("llava-med-1.0-delta"))
    _, colon, command = do.partition("medbench ")
    assert colon
    assert medbench(*command.split())[0] == 0


@pytest.mark.parametrize(
    "base", ["llava-med-1.0-delta", "llava-med-1.0-target", "llava-med-v1.5-mistral-7b"]
)
def test_a_base_that_does_not_fit(refused, base):
    what, why, do = refused(delta("llava-med-1.0-delta", base))
    assert what == f"{GOLDEN / 'llava-med-1.0-delta'} is no delta of {GOLDEN / base}"
    assert "tensors do not fit: model." in why
    assert "LLaMA 7B" in do


def test_a_base_that_is_not_there(refused):
    what, _, _ = refused(delta("llava-med-1.0-delta", "nowhere"))
    assert what == f"llava_med's base: {GOLDEN / 'nowhere'} is not a folder"


def test_a_base_with_a_missing_shard(refused, tmp_path):
    base = shutil.copytree(GOLDEN / "llama-7b-base", tmp_path / "base")
    (base / "pytorch_model-00002-of-00002.bin").unlink()
    what, _, _ = refused(delta("llava-med-1.0-delta", base))
    assert what == f"{base}: 1 of 2 weight files are missing"


def test_a_base_for_a_checkpoint_that_is_whole(refused):
    refused(delta("llava-med-1.0-target", "llama-7b-base"))


def test_four_bits_without_the_package_that_makes_them(tiny, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    what, _, do = refused(tiny("llava"), quantize="4bit")
    assert "bitsandbytes" in what
    assert "medbench[4bit]" in do
