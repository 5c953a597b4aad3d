"""`--record-steps`: rows keep where every token looked, and nothing else of a run moves."""

import json
from dataclasses import replace

import numpy as np
import pytest

import medbench as package
from medbench import store
from medbench.answering import _looked
from medbench.decoding.answer import Answer
from medbench.metrics.attention import decode_map

# What only the flag adds to a row, and what differs from run to run.
ADDED, COSTS = ("attention", "steps"), ("seconds", "peak_bytes")

NO_REGIONS = '''"""A drawn square, no regions."""

from dataclasses import dataclass
from functools import partial

from medbench.task import Sample, Task


@dataclass(frozen=True)
class Bare(Task):
    """A drawn square, no regions."""

    name = "bare"
    metrics = ("closed/strict",)

    max_new_tokens: int = 3

    def samples(self, split):
        for number in range(4):
            yield Sample(str(number), draw, f"is it {number}?", "yes", "closed", "square")


def draw():
    from PIL import Image

    return Image.new("RGB", (20, 20), (200, 90, 9))
'''


@pytest.fixture(autouse=True)
def here(place):
    return place


def without(row, names):
    return {name: value for name, value in row.items() if name not in names}


@pytest.mark.parametrize("method", ["greedy", "beam", "vcd[select=sample]", "opera", "lora+pai"])
def test_the_flag_adds_steps_and_moves_nothing_else(run, method):
    plain = run(method)
    asked = run(method, "--record-steps", "--out", "asked")
    assert asked.name == plain.name
    assert (asked / store.SCORES).read_bytes() == (plain / store.SCORES).read_bytes()
    assert store.read_scores(asked)["scores"]["coverage/sum"]["n"] > 0
    with_region = 0
    for row, other in zip(store.read_rows(asked), store.read_rows(plain), strict=True):
        assert "steps" not in other
        assert ("attention" in other) == ("roi" in other) == (row["id"][-1] != "0")
        with_region += "roi" in row
        if "roi" in row:
            assert row["attention"] == other["attention"]
        assert without(row, (*ADDED, *COSTS)) == without(other, (*ADDED, *COSTS))
        maps = decode_map(row["steps"]["attention"])
        assert maps.shape == (len(row["tokens"]), 4, 4)
        mean = decode_map(row["attention"])
        assert np.abs(maps.mean(0) - mean).max() < 1e-3 * mean.max()
    assert with_region == 14


def test_steps_and_pieces_are_those_of_generate(run):
    from medbench.data.pictures import open_image

    rows = store.read_rows(run("greedy", "--record-steps", "--limit", "6"))
    task = package.load_task("mini")
    samples = {sample.id: sample for sample in task.samples("test")}
    backbone = package.load_backbone("toy", device="cpu", dtype="float32")
    answers = package.generate(
        backbone,
        images=[open_image(samples[row["id"]].image) for row in rows],
        prompts=[row["prompt"] for row in rows],
        max_new_tokens=5,
        record_attention="steps",
    )
    for row, answer in zip(rows, answers, strict=True):
        maps = decode_map(row["steps"]["attention"]).reshape(len(row["tokens"]), 16)
        assert np.abs(maps - answer.attention_steps).max() < 1e-4
        pieces = row["steps"]["pieces"]
        assert len(pieces) == len(row["tokens"])
        assert "".join(pieces) == backbone.tokenizer.decode(row["tokens"])
    assert any(len(row["tokens"]) > 1 for row in rows)


def test_samples_of_a_task_without_regions_have_attention_and_steps(plugin, medbench):
    plugin("tasks", "bare", NO_REGIONS)
    words = ["run", "--method", "greedy", "--task", "bare", "--backbone", "toy"]
    contents = []
    for folder, flag in (("plain", ()), ("asked", ("--record-steps",))):
        code, _, err = medbench(*words, "--out", folder, *flag)
        assert code == 0, err
        (record,) = package.runs(folder)
        for row in store.read_rows(record.folder):
            assert "roi" not in row
            assert ("attention" in row, "steps" in row) == (bool(flag), bool(flag))
        contents.append((record.folder / store.SCORES).read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize("method", ["blind", "shuffled"])
def test_answers_that_did_not_see_their_image_have_no_steps(run, method):
    for row in store.read_rows(run(method, "--record-steps", "--limit", "3")):
        assert not row.keys() & {"attention", "roi", "steps"}


def test_a_finished_run_without_steps_stays_as_it_is_and_says_so(run, medbench):
    folder = run("greedy")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    words = ["run", "--method", "greedy", "--task", "mini", "--backbone", "toy", "--record-steps"]
    code, out, err = medbench(*words)
    assert code == 0
    assert "note: 21 of 21 answers are there already, recorded without steps" in err
    assert "--out DIR" in err
    assert "coverage/sum" in out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert "21 of 21" in medbench(*words, "--plan")[2]
    assert "note" not in medbench(*words, "--out", "new")[2]
    # Once more: now they are there.
    assert "note" not in medbench(*words, "--out", "new")[2]
    assert "note" not in medbench(*words[:-1])[2]


def test_a_run_that_goes_on_has_steps_from_there(run, medbench):
    batches = ("--batch-size", "5")
    folder = run("greedy", *batches)
    scores = (folder / store.SCORES).read_bytes()
    lines = (folder / store.SAMPLES).read_bytes().splitlines(keepends=True)
    (folder / store.SAMPLES).write_bytes(b"".join(lines[:7]))
    (folder / store.SCORES).unlink()
    words = ["run", "--method", "greedy", "--task", "mini", "--backbone", "toy", *batches]
    code, _, err = medbench(*words, "--record-steps")
    assert code == 0
    assert "note: 7 of 21 answers are there already, recorded without steps" in err
    assert ["steps" in row for row in store.read_rows(folder)] == [False] * 7 + [True] * 14
    assert (folder / store.SCORES).read_bytes() == scores


def test_python_asks_for_steps_too_and_run_json_says_how(here):
    done = package.run("greedy", "mini", backbone="toy", limit=2, record_steps=True)
    assert all("steps" in row for row in done.samples)
    record = json.loads((done.folder / store.RUN).read_text())
    assert record["command"].endswith("--limit 2 --record-steps")
    assert "record_steps" not in json.dumps(record["identity"])


def test_a_class_token_is_no_patch(toy):
    """Where it is among the features, it stands first."""
    backbone = replace(toy(), vision_select="full")
    steps = np.arange(34, dtype=np.float32).reshape(2, 17) / 64
    answer = Answer([39, 2], "y", "eos", None, steps.mean(0), steps)
    found = _looked(backbone, answer, None)
    assert found.keys() == {"attention", "steps"}
    assert np.array_equal(decode_map(found["steps"]["attention"]).reshape(2, 16), steps[:, 1:])
    assert np.array_equal(decode_map(found["attention"]).ravel(), steps.mean(0)[1:])
    assert found["steps"]["pieces"] == ["y", "</s>"]
