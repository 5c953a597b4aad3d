"""A backbone's files: those of every kind that are whole, and each way not to be."""

import json

import pytest

from medbench.doctor.backbone import without_values

KINDS = ("llava_med", "llava_med_1.5", "huatuogpt_vision_7b")


def first(found, start):
    return next((one.what for one in found if one.what.startswith(start)), "")


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_a_whole_checkpoint_is_good(small, look, problems, said, name, pickled):
    one = small(name, pickled=pickled)
    found, looked = look(one.spec())
    assert problems(found) == [], said(found)
    assert first(found, "licence: ") and first(found, "source: https://")
    assert first(found, f"{one.checkpoint}: ").endswith("KiB")
    assert first(found, f"{one.tower}: ")
    depth = "2 decoder layers, 3 vision blocks"
    assert depth in first(found, "every tensor is there")
    assert looked.skeleton.depth.language == 2


def test_the_values_are_not_read(small, look):
    one = small("llava_med_1.5")
    _, looked = look(one.spec())
    parts = (looked.skeleton.language_model, looked.skeleton.vision_tower)
    assert {weight.device.type for part in parts for weight in part.parameters()} == {"meta"}
    # Zeros for all weights, and the headers as they were: nobody looks.
    for path in one.checkpoint.glob("*.safetensors"):
        data = bytearray(path.read_bytes())
        start = 8 + int.from_bytes(data[:8], "little")
        data[start:] = bytes(len(data) - start)
        path.write_bytes(data)
    assert look(one.spec())[1].skeleton is not None


@pytest.mark.parametrize("spec", ["phantom", "toy", "toy[text=qwen2,layers=3]"])
def test_what_ships_is_whole(look, problems, spec):
    found, looked = look(spec)
    assert problems(found) == []
    assert "every tensor is there" in found[-1].what
    assert looked.skeleton.layers == (4 if spec == "phantom" else 3 if "3" in spec else 2)


def test_a_directory_of_transformers_is_compared_too(look, problems, tmp_path):
    import shutil
    from pathlib import Path

    import medbench.phantom

    shipped = Path(medbench.phantom.__file__).with_name("weights")
    directory = shutil.copytree(shipped, tmp_path / "directory")
    assert problems(look(f"llava-hf[weights={directory}]")[0]) == []
    config = json.loads((directory / "config.json").read_text("utf-8"))
    config["text_config"]["num_hidden_layers"] += 1
    (directory / "config.json").write_text(json.dumps(config), "utf-8")
    ((what, do),) = problems(look(f"llava-hf[weights={directory}]")[0])
    assert "missing tensors" in what and "layers.4" in what
    assert do.startswith("The weights do not belong to config.json")


@pytest.mark.parametrize("name", KINDS)
def test_a_missing_part_is_named(small, look, problems, name):
    one = small(name)
    lost = sorted(one.checkpoint.glob("model-*.safetensors"))[1]
    lost.unlink()
    ((what, do),) = problems(look(one.spec())[0])
    assert "1 of 2 weight files are missing" in what and lost.name in what
    assert do == "Download the checkpoint again, all of its files."


def test_a_part_that_is_cut_off_is_named(small, look, problems):
    one = small("llava_med_1.5")
    path = sorted(one.checkpoint.glob("model-*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:-10])
    ((what, do),) = problems(look(one.spec())[0])
    assert what.startswith(f"cannot read {path}") and "download it again" in do


def test_weights_of_another_model_are_named(small, look, problems):
    one = small("llava_med_1.5")
    config = json.loads((one.checkpoint / "config.json").read_text("utf-8"))
    config["intermediate_size"] += 1
    (one.checkpoint / "config.json").write_text(json.dumps(config), "utf-8")
    ((what, _),) = problems(look(one.spec())[0])
    assert "tensors are not as config.json says" in what and "mismatched" in what


def test_another_kind_of_checkpoint_is_named(small, look, problems):
    one = small("huatuogpt_vision_7b")
    ((what, _),) = problems(look(f"llava-med-1.5[weights={one.checkpoint},vision={one.tower}]")[0])
    assert "is another kind of checkpoint" in what and "'llava_qwen2', not 'llava_mistral'" in what


def test_a_tower_that_is_cut_off_or_missing_is_named(small, look, problems):
    one = small("llava_med")
    path = one.tower / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    ((what, _),) = problems(look(one.spec())[0])
    assert what.startswith(f"cannot read {path}")
    path.unlink()
    ((what, _),) = problems(look(one.spec())[0])
    assert what.startswith(f"no weights in {one.tower}")
    ((what, do),) = problems(look(one.spec(vision=""))[0])
    assert what.startswith("llava_med's vision tower: openai/clip-vit-large-patch14 is not on")
    assert do.endswith("Or run this again with --fetch.")


def test_a_tokenizer_that_is_missing_is_named(small, look, problems):
    one = small("llava_med_1.5")
    (one.checkpoint / "tokenizer.model").unlink()
    ((what, _),) = problems(look(one.spec())[0])
    assert what.startswith(f"no tokenizer in {one.checkpoint}")


def test_all_that_is_nowhere_is_said_at_once(look, problems, tmp_path):
    found, looked = look(f"llava-med[weights={tmp_path}/a,base={tmp_path}/b,vision=no/tower]")
    assert [what.split(": ")[0] for what, _ in problems(found)] == [
        "llava_med",
        "llava_med's base",
        "llava_med's tower",
    ]
    assert looked.skeleton is None
    assert first(found, "licence: Microsoft Research License")


def test_a_backbone_without_weights_says_what_to_write(look, problems):
    for name in ("llava-med", "llava-hf"):
        ((what, do),) = problems(look(name)[0])
        assert "need" in what and "weights=" in do


def test_a_hub_id_in_transformers_format_says_how_to_get_it(look, problems):
    ((what, do),) = problems(look("llava-hf[weights=llava-hf/llava-1.5-7b-hf]")[0])
    assert "llava-hf/llava-1.5-7b-hf is not on this machine" in what
    assert "hf download llava-hf/llava-1.5-7b-hf" in do
    assert do.endswith("Or run this again with --fetch.")


@pytest.fixture
def delta(small):
    """Return LLaMA's part of a tiny LLaVA-Med 1.0 as base, and what has to be added to it."""
    import torch
    from safetensors.torch import load_file, save_file

    one = small("llava_med")
    tensors = {}
    for path in sorted(one.checkpoint.glob("*.safetensors")):
        tensors |= load_file(path)
        path.unlink()
    (one.checkpoint / "model.safetensors.index.json").unlink()
    base = {k: v.clone() for k, v in tensors.items() if "mm_projector" not in k}
    less = {k: torch.zeros_like(v) if k in base else v for k, v in tensors.items()}
    folder = one.root / "base"
    folder.mkdir()
    save_file(base, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(less, one.checkpoint / "model.safetensors", metadata={"format": "pt"})
    return one, folder


def test_a_bare_delta_is_a_problem_and_with_its_base_a_note(delta, look, problems):
    one, base = delta
    ((what, do),) = problems(look(one.spec())[0])
    assert "holds delta weights" in what and "base=DIR" in do
    found, looked = look(one.spec(base=base))
    assert problems(found) == []
    assert found[-1].state == "note" and "backbone convert" in found[-1].do
    assert looked.skeleton is None


def test_a_base_that_does_not_fit_is_a_problem(delta, look, problems, small):
    one, _ = delta
    other = small("llava_med_1.5")
    ((what, _),) = problems(look(one.spec(base=other.checkpoint))[0])
    assert "is no delta of" in what


def test_four_bits_without_their_package_are_a_problem(small, look, problems, monkeypatch):
    from medbench.doctor import backbone

    one = small("llava_med_1.5")
    monkeypatch.setattr(backbone, "missing_of", lambda extra: [f"what {extra} needs"])
    assert problems(look(one.spec())[0]) == []
    ((what, do),) = problems(look(one.spec(quantize="4bit"))[0])
    assert what.startswith("quantize=4bit needs what 4bit needs")
    assert do == 'pip install "medbench[4bit]"'


def test_spreading_and_four_bits_do_not_keep_it_from_being_looked_at(small):
    from medbench.model.load import create_checkpoint

    one = small("huatuogpt_vision_7b")
    for spec in (one.spec(device_map="auto"), one.spec(quantize="4bit")):
        assert without_values(create_checkpoint(spec)).layers == 2


def test_another_ones_backbone_need_not_load_without_values(tmp_path, monkeypatch, look, problems):
    text = (
        "from dataclasses import dataclass\nfrom medbench.backbone import Checkpoint\n"
        '@dataclass(frozen=True)\nclass Mine(Checkpoint):\n    "Mine."\n    name = "mine"\n'
        "    def load(self, *, device, dtype):\n        raise NotImplementedError('no values')\n"
    )
    (tmp_path / "backbones").mkdir()
    (tmp_path / "backbones" / "mine.py").write_text(f"# of medbench\n{text}", "utf-8")
    monkeypatch.chdir(tmp_path)
    found, looked = look("mine")
    assert problems(found) == []
    assert found[-1].state == "note" and "NotImplementedError: no values" in found[-1].what
    assert looked.skeleton is None
