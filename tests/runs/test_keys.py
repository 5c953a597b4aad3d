"""Everything that can move an answer moves the key, and nothing else does."""

import json
import os
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest
from PIL import Image

from medbench import plugins
from medbench.cell import Request, plan
from medbench.errors import UserError
from medbench.method import Tuner
from medbench.order import in_order

BASE = Request("lora+vcd", "mini", "toy", dtype="float32", device="cpu")
FILED = replace(BASE, method="greedy", task="filed", data="data")

CHECKPOINT = '''"""The toy, with a file."""

from dataclasses import dataclass
from pathlib import Path

from medbench.backbones.toy import Toy


@dataclass(frozen=True)
class Stored(Toy):
    """The toy, with a file."""

    name = "stored"
    unkeyed = ("weights",)

    weights: str = ""

    def files(self):
        yield Path(self.weights) / "model.bin"
'''
DECODER = '''"""One."""

from medbench import Decoder


class Mine(Decoder):
    """One."""

    name = "mine"
'''


def key(request=BASE, **changes):
    return plan(replace(request, **changes)).key


def keys(request=BASE, **changes):
    """Return the keys of the run and of its adapter."""
    cell = plan(replace(request, **changes))
    return cell.key, cell.adapter.key


@pytest.fixture(autouse=True)
def here(place, files):
    return place


# A field of a request and another value for it. What is not here must not move the key.
MOVES = {
    "method": "lora+greedy",
    "task": "mini[max_new_tokens=4]",
    "backbone": "toy[seed=1]",
    "seed": 1,
    "limit": 5,
    "batch_size": 3,
    "dtype": "bfloat16",
    "preset": "published",
}
STAYS = {
    "data": "data",
    "allow_missing_images": True,
    "out": Path("elsewhere"),
    "device": "auto",
    "record_steps": True,
}


def test_every_field_of_a_request_is_thought_of():
    assert {one.name for one in fields(Request)} == MOVES.keys() | STAYS.keys()


@pytest.mark.parametrize("name", MOVES)
def test_what_moves_answers_moves_the_key(name):
    assert key(**{name: MOVES[name]}) != key()


def test_the_seed_moves_the_key_without_an_adapter_too():
    assert key(method="vcd", seed=1) != key(method="vcd")


@pytest.mark.parametrize("name", STAYS)
def test_what_moves_no_answer_does_not_move_the_key(name):
    assert keys(**{name: STAYS[name]}) == keys()


def test_the_kind_of_device_moves_the_key_and_its_number_does_not(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert key(device="cuda") != key()
    assert key(device="cuda:1") == key(device="cuda")
    with pytest.raises(UserError, match="no device 'cuda:2' here"):
        key(device="cuda:2")


def other_value(parameter):
    """Return the text of a value of the parameter's type that is not its default."""
    if parameter.name == "labels":
        return "wrong"
    if parameter.choices:
        return next(str(c) for c in parameter.choices if c != parameter.default)
    if isinstance(parameter.default, bool):
        return str(not parameter.default).lower()
    return "0.375" if "float" in parameter.annotation else "7"


def parameters():
    for kind, name in (("method", "a3tune"), ("method", "vcd"), ("backbone", "toy")):
        for parameter in plugins.get(kind, name).parameters:
            # The last two want an expert's weights; tests/expert looks after them.
            if parameter.name not in (*Tuner.unkeyed, "expert", "similarity_weight"):
                yield kind, name, parameter


@pytest.mark.parametrize(
    ("kind", "name", "parameter"),
    [pytest.param(*one, id=f"{one[1]}-{one[2].name}") for one in parameters()],
)
def test_every_parameter_of_a_plugin_moves_the_key(kind, name, parameter):
    base = replace(BASE, method="a3tune+vcd")
    text = f"{name}[{parameter.name}={other_value(parameter)}]"
    changed = base.method.replace(name, text) if kind == "method" else text
    moved = replace(base, **{kind: changed})
    assert key(moved) != key(base)
    # What only decodes needs no other adapter.
    assert (keys(moved)[1] == keys(base)[1]) == (name == "vcd")


@pytest.mark.parametrize("text", ["gradient_checkpointing=true", "log_terms_every=7"])
def test_how_a_training_keeps_and_tells_moves_no_key(text):
    assert keys(method=f"a3tune[{text}]") == keys(method="a3tune")


def test_each_of_several_processes_takes_its_own_gpu_and_the_key_stays(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    alone = key(device="cuda")
    for name, value in {"WORLD_SIZE": 3, "MASTER_ADDR": "here", "RANK": 1}.items():
        monkeypatch.setenv(name, str(value))
    for local in range(2):
        monkeypatch.setenv("LOCAL_RANK", str(local))
        cell = plan(replace(BASE, device="cuda"))
        assert (cell.device, cell.key) == (f"cuda:{local}", alone)
        with pytest.raises(UserError, match="cuda:1 is one device"):
            key(device="cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="more processes than GPUs"):
        key(device="cuda")


def test_the_selection_moves_the_key_where_the_preset_sets_it():
    assert key(method="vcd[select=sample]") != key(method="vcd")
    assert key(method="vcd", preset="published") != key(method="vcd")


@pytest.mark.parametrize(
    "same",
    [
        {"method": "lora+vcd[alpha=0.5,beta=0.2]"},
        {"method": "LoRA+VCD[beta=0.20,alpha=.5]"},
        {"method": " lora + vcd[ Beta = 2e-1 , ALPHA = 0.5 ] "},
        {"method": "lora+vcd[variant=official-pope,alpha=0.5]"},
        {"method": "lora+vcd[alpha=0.5,beta=0.2,noise-step=500,select=preset]"},
        {"method": "lora[rank=4,alpha=16]+vcd[alpha=0.5,beta=0.2]"},
        {"backbone": "Toy[layers=2,seed=0]", "method": "lora+vcd[alpha=0.5,beta=0.2]"},
        {"task": "MINI[max-new-tokens=5]", "method": "lora+vcd[alpha=0.5,beta=0.2]"},
    ],
)
def test_another_way_to_write_the_same_does_not_move_the_key(same):
    cell = plan(replace(BASE, **same))
    first = plan(replace(BASE, method="lora+vcd[alpha=0.5,beta=0.2]"))
    assert (cell.key, cell.adapter.key, cell.folder) == (
        first.key,
        first.adapter.key,
        first.folder,
    )


def test_the_order_of_options_does_not_move_the_folder(medbench):
    options = [
        ("--method", "greedy"),
        ("--task", "mini"),
        ("--backbone", "toy"),
        ("--seed", "3"),
        ("--limit", "4"),
    ]
    forth = medbench("run", "--plan", *[word for pair in options for word in pair])
    back = medbench("run", "--plan", *[word for pair in options[::-1] for word in pair])
    assert forth == back
    assert forth[0] == 0


def test_a_limit_of_all_samples_or_more_is_no_limit():
    assert key(limit=21) == key(limit=99) == key()
    assert key(limit=20) != key()
    assert not plan(replace(BASE, limit=21)).partial


def test_the_adapter_depends_on_what_trains_it_alone():
    run, adapter = keys()
    for change in (
        {"method": "lora"},
        {"method": "lora+nucleus"},
        {"method": "lora+vcd[alpha=0.5]"},
        {"preset": "published"},
        {"limit": 3},
        {"batch_size": 1},
    ):
        other, same = keys(**change)
        assert same == adapter, change
        assert other != run, change
    for change in (
        {"seed": 1},
        {"method": "lora[rank=8]+vcd"},
        {"method": "a3tune+vcd"},
        {"backbone": "toy[width=16]"},
        {"dtype": "bfloat16"},
        {"task": "mini[images=6]"},
    ):
        other, moved = keys(**change)
        assert moved != adapter, change
        assert other != run, change


def test_the_source_of_each_plugin_moves_the_key(here, plugin):
    base = replace(BASE, method="mine")
    plugin("methods", "mine", DECODER)
    first = key(base)
    plugin("methods", "mine", DECODER + "\n# changed\n")
    second = key(base)
    assert first != second
    plugin("methods", "mine", DECODER.replace("\n", "\r\n"))
    assert key(base) == first, "line ends of another system are no change"
    task = here / "tasks" / "mini.py"
    run, adapter = keys()
    task.write_text(task.read_text() + "\n# changed\n")
    assert keys()[0] != run
    assert keys()[1] != adapter


def test_weights_move_the_key_and_their_place_does_not(here, plugin):
    plugin("backbones", "stored", CHECKPOINT)
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (here / name).mkdir()
        (here / name / "model.bin").write_bytes(content)
    one, same, other = (keys(backbone=f"stored[weights={name}]") for name in "abc")
    assert one == same
    assert one[0] != other[0]
    assert one[1] != other[1]
    # In place, by another of the same size.
    path = here / "a" / "model.bin"
    path.write_bytes(b"2")
    later = path.stat().st_mtime_ns + 1_000_000
    os.utime(path, ns=(later, later))
    assert keys(backbone="stored[weights=a]") == other


def test_unreadable_weights_are_a_message(here, plugin):
    plugin("backbones", "stored", CHECKPOINT)
    with pytest.raises(UserError, match=r"cannot read nowhere.model\.bin"):
        key(backbone="stored[weights=nowhere]")


@pytest.mark.parametrize("field", ["id", "question", "answer", "image", "meta"])
def test_what_a_sample_says_moves_the_key(here, field):
    path = here / "data" / "filed-1.0" / "filed.json"
    rows = json.loads(path.read_text())
    before = key(FILED)
    path.write_text(json.dumps(rows[::-1]))
    assert key(FILED) == before, "the order in the file is not the order of a run"
    rows[4][field] = {"meta": {"modality": "CT"}, "image": "0.png"}.get(field, "other")
    path.write_text(json.dumps(rows))
    assert key(FILED) != before


def test_another_image_under_the_same_name_moves_the_key(here):
    before = key(FILED)
    Image.new("RGB", (20, 30), "teal").save(here / "data" / "filed-1.0" / "1.png")
    assert key(FILED) != before


def test_the_data_folder_may_move(here):
    before = plan(FILED)
    shutil.move(here / "data", here / "moved")
    after = plan(replace(FILED, data="moved"))
    assert (after.key, after.folder) == (before.key, before.folder)
    assert key(replace(FILED, data="", task="filed[data=moved]")) == before.key
    assert "moved" not in json.dumps(after.identity) + json.dumps(after.display)


def test_missing_images_move_the_key(here):
    before = key(FILED)
    assert key(FILED, allow_missing_images=True) == before
    (here / "data" / "filed-1.0" / "1.png").unlink()
    with pytest.raises(UserError, match="3 of 9 test samples lack their image"):
        key(FILED)
    cell = plan(replace(FILED, allow_missing_images=True))
    assert cell.key != before
    assert cell.partial
    assert len(cell.samples) == 6


def test_folders_and_tables_do_not_show_where_an_adapter_lies(here, run):
    run("lora", "--seed", "0")
    (folder,) = here.glob("results/runs/adapters/mini/toy/lora/*")
    cell = plan(replace(BASE, method=f"lora[adapter={folder}]+vcd"))
    assert cell.display["method"] == "lora+vcd"
    assert cell.key == key()
    assert cell.adapter.key == keys()[1]


def test_the_order_of_runs_is_a_hash_of_ids_and_grows_at_the_end(here):
    every = plan(BASE).every
    ids = [one.id for one in every]
    assert in_order(reversed(every)) == every
    assert ids != sorted(ids)
    for limit in (1, 5, 20):
        assert [one.id for one in plan(replace(BASE, limit=limit)).samples] == ids[:limit]
    # Numbers stand here so that nobody changes the order, and with it every limited run, unseen.
    assert ids[:3] == ["test-6-0", "test-0-0", "test-0-2"]


def test_two_samples_of_one_id_are_refused(here):
    path = here / "data" / "filed-1.0" / "filed.json"
    rows = json.loads(path.read_text())
    rows[4]["id"] = rows[5]["id"]
    path.write_text(json.dumps(rows))
    with pytest.raises(UserError, match="2 test samples with the id 'q5'"):
        plan(FILED)


def test_the_command_of_a_request_asks_for_it_again(here):
    request = Request(
        "lora[rank=4]+vcd[alpha=0.5]",
        "mini",
        "toy",
        seed=3,
        limit=2,
        data="a folder",
        allow_missing_images=True,
        out=Path("o"),
    )
    assert request.command == (
        "medbench run --method 'lora[rank=4]+vcd[alpha=0.5]' --task mini --backbone toy "
        "--data 'a folder' --seed 3 --limit 2 --allow-missing-images --out o"
    )
