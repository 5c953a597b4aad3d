"""A sweep does what is left of a grid, goes past what fails, and says so in the end."""

import json
import shutil

import pytest

from medbench import runner, store

GRID = """
methods = ["greedy", "vcd[alpha=0.5|1.0]"]
tasks = ["mini"]
backbones = ["toy"]
seeds = "0-1"
batch_size = 5
"""

LAYOUT = """
title = "Two of them"
model = "Toy"

[[columns]]
heads = ["mini", "closed"]
task = "mini"
metric = "closed/strict"

[[groups]]
name = "plain"
backbone = "toy"
rows = [
    { label = "greedy", method = "greedy" },
    { label = "contrast", method = "vcd[alpha=0.5]" },
]
"""

BROKEN = '''"""Fails on its third batch."""

from dataclasses import dataclass

from medbench.method import Decoder


@dataclass(frozen=True)
class Broken(Decoder):
    """Fails on its third batch."""

    name = "broken"

    def combine(self, logits, step):
        if (len(logits["main"]) == 1) == self.single:
            raise RuntimeError("no more of it")
        return logits["main"]

    single: bool = True
'''


@pytest.fixture
def sweep(place, medbench):
    """Return a function that sweeps over a grid, given as text: (exit code, lines told)."""

    def call(text, *arguments):
        (place / "grid.toml").write_text(text, encoding="utf-8")
        code, out, err = medbench("sweep", "grid.toml", *arguments)
        assert out == ""
        return code, err.splitlines()

    return call


def finished(place):
    return sorted(path.parent for path in place.glob("results/runs/*/*/*/*/scores.json"))


def test_a_sweep_is_the_product_of_its_lists_and_does_nothing_twice(place, sweep, monkeypatch):
    code, told = sweep(GRID)
    assert code == 0
    assert told[0] == "6 cells: 6 left"
    assert told[-1] == "6 done, 0 failed"
    folders = finished(place)
    assert len(folders) == 6
    monkeypatch.setattr(runner, "execute", None)
    code, told = sweep(GRID)
    assert (code, told) == (0, ["6 cells: 6 there", "0 done, 0 failed"])


def test_a_cell_is_the_run_of_the_same_name(place, sweep, run, same):
    sweep(GRID)
    [folder] = [one for one in finished(place) if "greedy" in one.parts and _seed(one) == 1]
    before = (folder / "scores.json").read_bytes()
    shutil.rmtree(place / "results")
    assert run("greedy", "--batch-size", "5", "--seed", "1").resolve() == folder.resolve()
    assert (folder / "scores.json").read_bytes() == before
    command = json.loads((folder / "run.json").read_text())["command"]
    assert (
        command == "medbench run --method greedy --task mini --backbone toy --seed 1 --batch-size 5"
    )


def _seed(folder):
    return store.read_record(folder).seed


def test_cells_that_share_a_backbone_share_its_load(place, sweep, monkeypatch):
    loaded = []
    load = runner.load

    def counting(cell, report):
        loaded.append(cell.request.backbone)
        return load(cell, report)

    monkeypatch.setattr(runner, "load", counting)
    # Written in turns, done one after the other.
    text = GRID.replace('["toy"]', '["toy", "toy[seed=1]"]')
    text += '[[grid]]\nmethods = ["greedy"]\n[[grid]]\nmethods = ["beam"]\nseeds = "0"\n'
    code, told = sweep(text)
    assert (code, told[0], told[-1]) == (0, "6 cells: 6 left", "6 done, 0 failed")
    assert loaded == ["toy", "toy[seed=1]"]


def test_grids_add_to_and_replace_what_stands_above_them(place, sweep):
    text = GRID + '[[grid]]\nmethods = ["nucleus"]\n[[grid]]\nmethods = ["blind"]\nseeds = [3]\n'
    code, told = sweep(text, "--plan")
    names = [line.split(":")[0].strip() for line in told[1::2]]
    assert names == [
        "nucleus on mini with toy, seed 0, matched",
        "nucleus on mini with toy, seed 1, matched",
        "blind on mini with toy, seed 3, matched",
    ]
    assert not (place / "results").exists()


def test_what_fails_keeps_nothing_else_from_running_and_is_listed(place, plugin, sweep):
    plugin("methods", "broken", BROKEN)
    text = GRID.replace("[alpha=0.5|1.0]", "").replace('"greedy"', '"broken", "greedy"')
    text = text.replace('["mini"]', '["mini", "slake"]').replace("0-1", "0")
    code, told = sweep(text)
    assert code == 1
    assert told[0] == "6 cells: 3 left, 3 that cannot run"
    assert told[1] == "  broken on slake with toy, seed 0, matched: cannot run"
    end = told[told.index("2 done, 4 failed") :]
    assert [line for line in end if line.startswith("failed: ")] == [
        f"failed: {one} with toy, seed 0, matched"
        for one in ("broken on slake", "greedy on slake", "vcd on slake", "broken on mini")
    ]
    assert end[-2:] == [
        "  RuntimeError: no more of it",
        "  alone: medbench run --method broken --task mini --backbone toy --batch-size 5",
    ]
    assert "Traceback" not in "".join(told)
    # Mended, it goes on with the answers that are there.
    (folder,) = place.glob("results/runs/mini/toy/broken/*")
    assert len(store.read_rows(folder)) in (5, 10, 15, 20)


def test_a_backbone_that_does_not_load_fails_in_each_of_its_cells(place, sweep, monkeypatch):
    load = runner.load

    def failing(cell, report):
        if "seed=1" in cell.request.backbone:
            raise MemoryError
        return load(cell, report)

    monkeypatch.setattr(runner, "load", failing)
    code, told = sweep(GRID.replace('["toy"]', '["toy[seed=1]", "toy"]').replace("0-1", "0"))
    assert code == 1
    assert "3 done, 3 failed" in told
    assert told.count("  MemoryError: it says no more") == 6  # when it happens, and in the end


def test_parts_of_a_sweep_make_the_sweep(place, sweep, tmp_path_factory):
    assert sweep(GRID)[0] == 0
    whole = {one.relative_to(place): (one / "scores.json").read_bytes() for one in finished(place)}
    shutil.rmtree(place / "results")
    for part in ("3/3", "1/3"):
        code, told = sweep(GRID, "--shard", part)
        assert code == 0
        assert told[-1] == "0 done, 6 of which others answer parts, 0 failed"
    assert finished(place) == []
    code, told = sweep(GRID, "--shard", "2/3")
    assert (code, told[-1]) == (0, "6 done, 0 failed")
    parts = {one.relative_to(place): (one / "scores.json").read_bytes() for one in finished(place)}
    assert parts == whole


def test_an_interrupted_sweep_goes_on(place, sweep, monkeypatch):
    execute = runner.execute
    count = iter(range(100))

    def interrupted(*arguments, **options):
        if next(count) == 2:
            raise KeyboardInterrupt
        return execute(*arguments, **options)

    monkeypatch.setattr(runner, "execute", interrupted)
    code, told = sweep(GRID)
    assert code == 130
    assert told[-1] == "Interrupted. Run the same command again to go on."
    code, told = sweep(GRID)
    assert (code, told[0], told[-1]) == (0, "6 cells: 2 there, 4 left", "4 done, 0 failed")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods = 3", "a grid lacks 'tasks'"),
        (GRID.replace("methods", "method"), "a sweep has no 'method'"),
        (GRID + "[[grid]]\nseed = 3", "a grid has no 'seed'"),
        (GRID.replace('["mini"]', "[]"), "a grid lacks 'tasks'"),
        (GRID.replace('["mini"]', '"mini"'), "tasks is no list of texts"),
        (GRID.replace("greedy", "gredy"), "no method named 'gredy'"),
        (GRID.replace("alpha", "alpa"), "vcd has no parameter 'alpa'"),
        (GRID.replace("mini", "mimi"), "no task named 'mimi'"),
        (GRID.replace("toy", "tony"), "no backbone named 'tony'"),
        (GRID.replace("0-1", "1-0"), "the seeds '1-0' run backwards"),
        (GRID.replace("= 5", '= "5"'), "batch_size cannot be '5'"),
        (GRID.replace("= 5", "= true"), "batch_size cannot be True"),
        (GRID + "[ray]\ngpu = 1", "ray has no 'gpu'"),
        (GRID + "[ray]\ngpus = -1", "gpus cannot be -1"),
        ("ray = 1" + GRID, "'ray' is no table"),
        ("grid = 1" + GRID, "'grid' is no list of tables"),
        ("methods = [", "cannot read grid.toml"),
    ],
)
def test_a_file_that_is_none_is_refused_at_once(place, sweep, text, message):
    code, told = sweep(text)
    assert code == 2
    assert message in told[0]
    assert 2 <= len(told) <= 3
    assert not (place / "results").exists()


def test_what_a_table_lacks_is_a_sweep(place, medbench, sweep):
    """Written as a file, the commands that would fill a table are run by a sweep, to the last."""
    (place / "layout.toml").write_text(LAYOUT, encoding="utf-8")
    words = ("table", "layout.toml", "--missing")
    commands = medbench(*words)[1].splitlines()
    assert commands
    code, text, _ = medbench(*words, "--format", "toml")
    assert code == 0
    assert sweep(text)[0] == 0
    assert medbench(*words)[1] == ""
    assert medbench(*words, "--format", "toml") == (0, "\n", "")


def test_a_table_is_no_sweep(medbench):
    code, _, err = medbench("table", "1", "--format", "toml")
    assert code == 2
    assert "--missing" in err.splitlines()[0]


@pytest.mark.parametrize(
    "options",
    [
        ("--shards", "2"),
        ("--executor", "ray", "--shard", "1/2"),
        ("--shards", "0"),
        ("--shard", "3/2"),
    ],
)
def test_parts_that_make_no_sense_are_refused(sweep, options):
    code, told = sweep(GRID, *options)
    assert code == 2
    assert "2/8" in told[-1]


def test_a_file_that_is_not_there_is_refused(place, medbench):
    code, _, err = medbench("sweep", "nowhere.toml")
    assert code == 2
    assert err.splitlines()[0] == "cannot read nowhere.toml"
