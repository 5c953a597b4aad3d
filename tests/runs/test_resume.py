"""Killed at any moment and started again, a run ends with the answers of one left in peace."""

import json
import os
import random
import shutil
import signal
import time

import pytest

from medbench import store

ARGUMENTS = ("run", "--task", "mini", "--backbone", "toy", "--batch-size", "5", "--method")
GREEDY = (*ARGUMENTS, "greedy")

# What the parts of a run call, in the order in which they are called.
LOADING = {
    "before the backbone is loaded": ("medbench.runner:load", "before", 1, "kill"),
    "before run.json": ("medbench.store:begin", "before", 1, "kill"),
    "while run.json is written": ("pathlib:Path.replace", "before", 1, "kill"),
    "after run.json": ("medbench.store:begin", "after", 1, "kill"),
}
ANSWERING = {
    "before the first answer": ("medbench.answering:_answer", "before", 1, "kill"),
    "between two tokens": ("medbench.decoding.loop:pick", "after", 7, "kill"),
    "before a batch is written": ("medbench.answering:_answer", "after", 2, "kill"),
    "after a batch": ("os:fsync", "after", 2 + 1, "kill"),
    "in the middle of a line": ("os:fsync", "after", 2 + 1, "cut 60"),
    "in the middle of a batch": ("os:fsync", "after", 3 + 1, "cut 900"),
    "at the end of a line": ("os:fsync", "after", 2 + 1, "cut 1"),
    "before the last batch": ("medbench.answering:_answer", "before", 5, "kill"),
}
SCORING = {
    "before scoring": ("medbench.runner:_score", "before", 1, "kill"),
    "in the middle of scoring": ("medbench.task_scores:measure", "after", 2, "kill"),
    "while samples.jsonl is rewritten": ("pathlib:Path.replace", "before", 2, "kill"),
    "after samples.jsonl is rewritten": ("medbench.store:write_json", "before", 2, "kill"),
    "after scores.json": ("medbench.store:write_json", "after", 2, "kill"),
}
TRAINING = {
    "before training": ("medbench.adapting:train", "before", 1, "kill"),
    "in a backward pass": ("torch:Tensor.backward", "after", 2, "kill"),
    "after a step": ("medbench.tuning.loop:_step", "after", 2, "kill"),
    "before a checkpoint is renamed": ("torch:save", "after", 2, "kill"),
    "after a checkpoint": ("medbench.tuning.loop:_save", "after", 2, "kill"),
    "after the last step": ("medbench.adapting:train", "after", 1, "kill"),
    "between the adapter's files": ("medbench.tuning.lora:save", "after", 1, "kill"),
    "after the adapter's files": ("medbench.adapting:hash_weights", "before", 1, "kill"),
    "while adapter.json is written": ("medbench.adapting:write_json", "before", 1, "kill"),
    "after adapter.json": ("medbench.adapting:write_json", "after", 1, "kill"),
}
PLAIN = {**LOADING, **ANSWERING, **SCORING}


def kill_and_go_on(server, place, arguments, *points, **options):
    """Kill a run at each of the points in turn, then let it finish."""
    for point in points:
        status = server.run(place, arguments, points=[point], **options)
        assert status == -signal.SIGKILL, (place / "stderr.txt").read_text()
    assert server.run(place, arguments, **options) == 0, (place / "stderr.txt").read_text()


@pytest.mark.parametrize("when", PLAIN)
def test_a_greedy_run_killed_at_any_point_ends_with_equal_bytes(
    server, undisturbed, same, place, when
):
    kill_and_go_on(server, place, GREEDY, PLAIN[when])
    same.run(place, undisturbed(GREEDY))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["vcd[select=sample]", "shuffled"])
@pytest.mark.parametrize("when", ANSWERING)
def test_other_answers_killed_at_any_point_end_with_equal_bytes(
    server, undisturbed, same, place, method, when
):
    arguments = (*ARGUMENTS, method)
    kill_and_go_on(server, place, arguments, PLAIN[when])
    same.run(place, undisturbed(arguments))


@pytest.mark.parametrize("method", ["nucleus", "vcd[select=sample]"])
def test_a_sampled_run_killed_again_and_again_ends_with_equal_bytes(
    server, undisturbed, same, place, method
):
    arguments = (*ARGUMENTS, method)
    cut = ("os:fsync", "after", 1, "cut 700")
    points = [PLAIN["in the middle of a batch"], cut, cut, PLAIN["before scoring"]]
    kill_and_go_on(server, place, arguments, *points)
    same.run(place, undisturbed(arguments))
    assert len(set(same.answers(same.folder(place)))) == 21


@pytest.mark.parametrize(
    "when",
    [
        "after a checkpoint",
        "after the last step",
        "between the adapter's files",
        pytest.param("in the middle of a line", id="while answering"),
    ],
)
def test_a_training_run_that_was_killed_ends_with_equal_bytes(
    server, undisturbed, same, place, when
):
    arguments = (*ARGUMENTS, "a3tune+vcd")
    point = {**TRAINING, **ANSWERING}[when]
    if when in ANSWERING:
        # adapter.json is synced as well.
        point = (*point[:2], point[2] + 1, point[3])
    # Checkpoints are synced as well, and would be counted with the lines.
    kill_and_go_on(server, place, arguments, point, checkpoints=when not in ANSWERING)
    same.run(place, undisturbed(arguments))
    same.adapter(place, undisturbed(arguments))


@pytest.mark.slow
@pytest.mark.parametrize("when", TRAINING)
def test_a_training_run_killed_at_any_point_ends_with_equal_bytes(
    server, undisturbed, same, place, when
):
    arguments = (*ARGUMENTS, "a3tune")
    kill_and_go_on(server, place, arguments, TRAINING[when], checkpoints=True)
    same.run(place, undisturbed(arguments))
    same.adapter(place, undisturbed(arguments))


def test_steps_taken_are_not_taken_again_until_the_adapter_is_whole(server, place, same):
    arguments = (*ARGUMENTS, "a3tune")
    last = TRAINING["after the adapter's files"]
    assert server.run(place, arguments, points=[last], checkpoints=True) == -signal.SIGKILL
    never = ("medbench.tuning.loop:_step", "before", 1, "kill")
    assert server.run(place, arguments, points=[never], checkpoints=True) == 0
    folder = same.folder(place, "results/runs/adapters/mini/*/*/*")
    assert not (folder / "checkpoint.pt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["greedy", "nucleus", "vcd[select=sample]", "a3tune"])
def test_a_run_killed_at_random_moments_ends_with_equal_bytes(
    server, undisturbed, same, place, method
):
    arguments = (*ARGUMENTS, method)
    begin = time.monotonic()
    undisturbed(arguments)
    length = min(time.monotonic() - begin, 3.0) or 1.0
    draw = random.Random(method)
    killed = 0
    for _ in range(12):
        pid = server.start(place, arguments, checkpoints=True)
        time.sleep(draw.uniform(0, length) ** 2 / length)
        os.kill(pid, signal.SIGKILL)
        killed += server.wait(pid) == -signal.SIGKILL
    assert killed
    kill_and_go_on(server, place, arguments)
    same.run(place, undisturbed(arguments))


def test_an_interrupted_run_says_so_and_goes_on(server, undisturbed, same, place):
    pid = server.start(place, GREEDY, points=[("medbench.answering:_answer", "after", 3, "pause")])
    same.wait_for(place / "paused")
    os.kill(pid, signal.SIGINT)
    assert server.wait(pid) == 130
    lines = (place / "stderr.txt").read_text().splitlines()
    assert lines[-1] == "Interrupted. Run the same command again to go on."
    assert len(store.read_rows(same.folder(place))) == 10
    assert server.run(place, GREEDY) == 0
    same.run(place, undisturbed(GREEDY))


def test_a_file_cut_at_any_byte_of_its_last_two_lines_is_mended(place, run):
    folder = run("greedy", "--batch-size", "5")
    path = folder / "samples.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)[:4]
    whole = b"".join(lines)
    ids = [json.loads(line)["id"] for line in lines]
    kept = len(whole) - len(lines[-1]) - len(lines[-2])
    for length in range(kept, len(whole) + 1):
        path.write_bytes(whole[:length])
        store.repair(folder)
        rows = store.read_rows(folder)
        expected = whole[:length].count(b"\n")
        assert [row["id"] for row in rows] == ids[:expected]
        assert path.read_bytes() == b"".join(lines[:expected])


def test_a_run_cut_at_any_of_many_bytes_is_finished_with_equal_bytes(place, same, run):
    folder = run("nucleus", "--batch-size", "5")
    path, scores = folder / "samples.jsonl", folder / "scores.json"
    whole, scored, expected = path.read_bytes(), scores.read_bytes(), same.answers(folder)
    lines = whole.splitlines(keepends=True)
    last = len(lines[-1]) + len(lines[-2])
    cuts = [0, 1, len(lines[0]), len(whole) // 2, len(whole) - 1]
    for length in [*cuts, *range(len(whole) - last, len(whole), last // 7)]:
        path.write_bytes(whole[:length])
        scores.unlink()
        run("nucleus", "--batch-size", "5")
        assert same.answers(folder) == expected, length
        assert scores.read_bytes() == scored, length


def test_only_what_is_missing_is_answered_again(place, run):
    folder = run("greedy", "--batch-size", "5")
    path = folder / "samples.jsonl"
    before = path.read_bytes().splitlines(keepends=True)
    # The eighth answer is lost: its batch is computed again, but only that line is new.
    path.write_bytes(b"".join(before[:7] + before[8:]))
    (folder / "scores.json").unlink()
    run("greedy", "--batch-size", "5")
    after = path.read_bytes().splitlines(keepends=True)
    assert [a == b for a, b in zip(before, after, strict=True)].count(False) <= 1
    assert after[:7] + after[8:] == before[:7] + before[8:]
    assert json.loads(after[7])["output"] == json.loads(before[7])["output"]


@pytest.mark.parametrize("damage", [b'{"id": "test-0-0", "outp', b"17", b"[]", b"\x00\x00", b""])
def test_a_broken_line_in_the_middle_is_named(place, run, refused, damage):
    folder = run()
    path = folder / "samples.jsonl"
    lines = path.read_bytes().splitlines()
    lines[3] = damage
    path.write_bytes(b"\n".join(lines) + b"\n")
    (folder / "scores.json").unlink()
    kept = path.read_bytes()
    what, why, do = refused("--method", "greedy", "--task", "mini", "--backbone", "toy")
    assert what == f"line 4 of {path} is broken"
    assert do == "Delete that line; the same command then answers the sample again."
    assert path.read_bytes() == kept
    path.write_bytes(b"\n".join(lines[:3] + lines[4:]) + b"\n")
    assert run() == folder
    assert len(store.read_rows(folder)) == 21


def test_a_complete_run_is_not_touched(place, run, monkeypatch):
    folder = run()
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}

    def loaded(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("medbench.runner.load", loaded)
    assert run() == folder
    before.pop(".lock")
    assert before == {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.iterdir()
        if path.name != ".lock"
    }


def test_an_adapter_folder_without_its_record_is_trained_again(place, run):
    run("lora")
    (folder,) = place.glob("results/runs/adapters/mini/toy/lora/*")
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}
    (folder / "adapter.json").unlink()
    (folder / "adapter_config.json").unlink()
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    shutil.rmtree(place / "results/runs/mini")
    run("lora")
    assert files == {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"
    }


def test_a_run_that_goes_on_elsewhere_says_so(place, run, monkeypatch):
    folder = run()
    (folder / "scores.json").unlink()
    first = json.loads((folder / "run.json").read_text())
    run()
    assert json.loads((folder / "run.json").read_text()) == first
    (folder / "scores.json").unlink()
    monkeypatch.setattr("medbench.provenance.hardware", lambda device: {"cores": 999})
    run()
    second = json.loads((folder / "run.json").read_text())
    (note,) = second.pop("continued")
    assert second == first
    assert note["hardware"] == {"cores": 999}
    assert note["versions"] == first["versions"]
