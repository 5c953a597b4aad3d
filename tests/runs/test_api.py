"""`medbench.run`, `runs`, `load_backbone` and `generate` from Python, and what folders say."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import medbench
from medbench import store


@pytest.fixture(autouse=True)
def here(place):
    return place


def test_run_returns_its_folder_scores_and_samples(here):
    done = medbench.run(method="greedy", task="mini", backbone="toy", out="kept", limit=4)
    assert done.folder.parent == here.relative_to(here) / "kept/mini/toy/greedy"
    assert done.scores == json.loads((done.folder / "scores.json").read_text())
    assert len(done.samples) == 4
    row = done.samples[0]
    assert row.keys() >= {
        "id", "group", "kind", "question", "gold", "meta", "prompt", "output", "tokens", "stop",
        "seconds", "forwards", "image", "scores",
    }  # fmt: skip
    assert row["meta"] == {"number": int(row["id"][-1])}
    assert row["scores"].keys() == done.scores["scores"].keys()
    again = medbench.run("greedy", "mini", backbone="toy", out="kept", limit=4)
    assert again == done


def test_run_and_the_command_line_share_a_folder(run):
    folder = run("lora+vcd[alpha=0.5]", "--seed", "2")
    done = medbench.run("lora+vcd[alpha=0.5]", "mini", backbone="toy", seed=2)
    assert done.folder == folder


def test_runs_tells_complete_partial_unfinished_and_broken_ones(here, run):
    folders = {
        "complete": run(),
        "partial": run("greedy", "--limit", "3"),
        "unfinished": run("greedy", "--seed", "1"),
        "broken": run("greedy", "--seed", "2"),
    }
    (folders["unfinished"] / "scores.json").unlink()
    path = folders["unfinished"] / "samples.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    (folders["broken"] / "run.json").write_text("{")
    found = {record.state: record for record in medbench.runs()}
    assert {state: record.folder for state, record in found.items()} == folders
    assert (found["unfinished"].done, found["unfinished"].total) == (20, 21)
    assert found["unfinished"].scores == {}
    assert found["complete"].scores["closed/paper"]["n"] == 7
    assert found["complete"].health["rows"] == 21
    assert (found["complete"].task, found["complete"].method) == ("mini", "greedy")
    assert "run.json" in found["broken"].why
    assert medbench.runs("nowhere") == []


def test_a_record_that_lacks_something_is_broken_and_does_not_hide_the_others(here, run):
    one, two = run(), run("blind")
    for damage in ("{}", '{"schema": 1}', '{"schema": 1, "samples": 2, "display": 3}', "null"):
        (one / "run.json").write_text(damage)
        states = {record.folder: record.state for record in medbench.runs()}
        assert states == {one: "broken", two: "complete"}


def test_run_json_says_what_was_run_and_with_what(here, run):
    folder = run("lora+vcd[beta=0.2]", "--limit", "5", "--seed", "3")
    record = json.loads((folder / "run.json").read_text())
    assert record["schema"] == store.SCHEMA
    assert record["key"] == folder.name
    assert record["display"] == {"task": "mini", "backbone": "toy", "method": "lora+vcd[beta=0.2]"}
    assert (record["samples"], record["partial"]) == (5, True)
    for name in ("medbench", "python", "torch", "transformers", "peft", "numpy", "pillow"):
        assert record["versions"][name]
    assert record["versions"]["python"] == platform.python_version()
    assert record["hardware"]["cores"] >= 1
    assert record["device"] == "cpu"
    assert record["metrics"][0] == "closed/paper"
    assert record["command"] == (
        "medbench run --method 'lora+vcd[beta=0.2]' --task mini --backbone toy --seed 3 --limit 5"
    )
    identity = record["identity"]
    assert identity["decoder"]["parameters"]["beta"] == 0.2
    assert identity["decoder"]["selection"]["select"] == "argmax"
    assert identity["tuner"]["parameters"]["rank"] == 4
    assert identity["task"]["parameters"] == {"max_new_tokens": 5, "images": 7}
    assert "GMT" not in record["started"]
    assert record["started"].endswith("Z")
    (adapter,) = here.glob("results/runs/adapters/mini/toy/lora/*/adapter.json")
    trained = json.loads(adapter.read_text())
    assert trained["key"] == adapter.parent.name == record["adapter"]
    assert trained["samples"] == 21
    assert trained["parameters"] > 0


def test_every_distribution_that_was_imported_has_its_version(here, run):
    versions = json.loads((run() / "run.json").read_text())["versions"]
    import importlib.metadata as metadata

    owners = metadata.packages_distributions()
    for module in ("torch", "transformers", "tokenizers", "PIL", "numpy", "filelock", "click"):
        for name in owners[module]:
            assert versions[name] == metadata.version(name)


def test_equal_runs_have_equal_scores_and_nothing_of_time_or_machine_in_them(here, run):
    one = run("nucleus", "--out", "a")
    two = run("nucleus", "--out", "b")
    text = (one / "scores.json").read_text()
    assert text == (two / "scores.json").read_text()
    for word in ("seconds", "started", "/", "version"):
        assert word not in text.replace("closed/", "").replace("recall/", "").replace(
            "coverage/", ""
        ).replace("intensity/", "")


def test_adapters_count_their_regions_whole_even_if_training_was_cut(server, place):
    words = ("run", "--method", "a3tune[epochs=1]", "--task", "mini", "--backbone", "toy")
    kill = ("medbench.tuning.loop:_save", "after", 2, "kill")
    assert server.run(place, words, points=[kill], checkpoints=True) < 0
    assert server.run(place, words) == 0
    (path,) = place.glob("results/runs/adapters/mini/toy/a3tune/*/adapter.json")
    assert json.loads(path.read_text())["samples_with"] == {"segments": 14}


def test_generate_answers_as_a_run_does(here, run):
    from medbench.data.pictures import open_image

    rows = store.read_rows(run("vcd[alpha=0.5]"))
    task = medbench.load_task("mini")
    samples = {sample.id: sample for sample in task.samples("test")}
    chosen = [samples[row["id"]] for row in rows]
    answers = medbench.generate(
        medbench.load_backbone("toy", device="cpu", dtype="float32"),
        method="vcd[alpha=0.5]",
        images=[open_image(sample.image) for sample in chosen],
        prompts=[task.ask(sample) for sample in chosen],
        ids=[sample.id for sample in chosen],
        max_new_tokens=5,
        record_scores=2,
        batch_size=4,
    )
    assert [list(answer.token_ids) for answer in answers] == [row["tokens"] for row in rows]
    assert [answer.text for answer in answers] == [row["output"] for row in rows]
    assert all(answer.scores.shape[0] <= 2 for answer in answers)


def test_a_row_holds_the_map_and_the_region_that_the_rules_of_attention_name(here, run):
    import numpy as np

    from medbench.data.pictures import open_image
    from medbench.metrics.attention import decode_map, decode_mask

    folder = run("greedy")
    rows = store.read_rows(folder)
    task = medbench.load_task("mini")
    samples = {sample.id: sample for sample in task.samples("test")}
    chosen = [samples[row["id"]] for row in rows]
    backbone = medbench.load_backbone("toy", device="cpu", dtype="float32")
    answers = medbench.generate(
        backbone,
        method="greedy",
        images=[open_image(sample.image) for sample in chosen],
        prompts=[task.ask(sample) for sample in chosen],
        max_new_tokens=5,
        record_attention=True,
    )
    side, patch = backbone.geometry.size, backbone.geometry.patch
    grid, covered = side // patch, []
    for sample, row, answer in zip(chosen, rows, answers, strict=True):
        assert ("attention" in row) == ("roi" in row) == (sample.roi is not None)
        if sample.roi is None:
            continue
        # tests/decoding holds this map against eager attention of the answer's queries.
        attention = answer.attention.reshape(grid, grid)
        assert np.abs(decode_map(row["attention"]) - attention).max() < 1e-4
        # The drawn images are square: a patch is in where its centre falls into the region.
        mask = sample.roi()
        centres = ((np.arange(grid) + 0.5) * patch * len(mask) / side).astype(int)
        inside = mask[np.ix_(centres, centres)]
        assert np.array_equal(decode_mask(row["roi"]), inside)
        covered.append(inside.any())
        if inside.any():
            share = attention[inside].sum() / attention.sum()
            assert row["scores"]["intensity/sum"] == pytest.approx(share / inside.sum(), abs=1e-3)
        else:
            assert row["scores"]["intensity/sum"] is None
    score = store.read_scores(folder)["scores"]["intensity/sum"]
    assert (score["n"], score["notes"]["n_empty_region"]) == (sum(covered), covered.count(False))
    assert score["n"] > 0


def test_mistakes_are_user_errors(here):
    with pytest.raises(medbench.UserError, match="no method named 'vdc'"):
        medbench.run("vdc", "mini", backbone="toy")
    with pytest.raises(medbench.UserError, match="no device"):
        medbench.load_backbone("toy", device="tpu")


def test_the_module_is_named_without_anything_heavy():
    code = (
        "import sys, medbench; dir(medbench); medbench.runs;"
        "print([m for m in ('torch', 'numpy', 'transformers', 'PIL') if m in sys.modules])"
    )
    root = Path(medbench.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == "[]"
