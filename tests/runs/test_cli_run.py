"""`medbench run`: grids, plans, what is printed where, and one load for many cells."""

import json
import re

import pytest

from medbench import store
from medbench.run_index import find_runs

WORDS = ("run", "--task", "mini", "--backbone", "toy", "--method")
LOADS = '''"""A toy that says when it is loaded."""

from dataclasses import dataclass
from pathlib import Path

from medbench.backbones.toy import Toy


@dataclass(frozen=True)
class Loud(Toy):
    """A toy that says when it is loaded."""

    name = "loud"

    def load(self, *, device, dtype):
        with Path("loads.txt").open("a") as file:
            file.write(f"seed {self.seed}\\n")
        return super().load(device=device, dtype=dtype)
'''
SILENT = LOADS.replace('        with Path("loads.txt").open("a") as file:\n', "").replace(
    '            file.write(f"seed {self.seed}\\n")\n', '        raise RuntimeError("loaded")\n'
)


@pytest.fixture
def loads(place, plugin):
    """Return a function that tells which backbones were loaded so far."""
    plugin("backbones", "loud", LOADS)

    def read():
        path = place / "loads.txt"
        return path.read_text().splitlines() if path.exists() else []

    return read


def test_a_grid_runs_every_cell_and_loads_each_backbone_once(place, medbench, loads):
    words = (
        "run",
        "--task",
        "mini[images=3],mini[images=2]",
        "--backbone",
        "loud[seed=1|2]",
        "--json",
    )
    code, out, err = medbench(*words, "--method", "greedy,vcd[alpha=0.5|1]", "--seeds", "3-4")
    assert code == 0
    cells = [json.loads(line) for line in out.splitlines()]
    assert len(cells) == len({cell["folder"] for cell in cells}) == 2 * 2 * 3 * 2
    assert loads() == ["seed 1", "seed 2"]
    assert (
        err.splitlines()[0] == "[1/24] greedy on mini[images=3] with loud[seed=1], seed 3, matched"
    )
    assert err.splitlines()[-1] == (
        "[24/24] vcd[alpha=1] on mini[images=2] with loud[seed=2], seed 4, matched"
    )
    assert {(r.task, r.method, r.seed) for r in find_runs() if r.state == "complete"} == {
        (task, method, seed)
        for task in ("mini[images=3]", "mini[images=2]")
        for method in ("greedy", "vcd[alpha=0.5]", "vcd[alpha=1]")
        for seed in (3, 4)
    }
    again = medbench(*words, "--method", "greedy,vcd[alpha=0.5|1]", "--seeds", "3-4")
    assert again == (code, out, err)
    assert len(loads()) == 2


def test_a_chain_that_shares_an_adapter_leaves_the_backbone_as_it_was(place, medbench, loads):
    words = ("run", "--task", "mini", "--backbone", "loud", "--json", "--method")
    _, out, _ = medbench(*words, "lora,greedy,a3tune+vcd,vcd")
    _, alone, _ = medbench(*words, "greedy", "--out", "alone")
    assert loads() == ["seed 0"] * 2
    folders = [json.loads(line)["folder"] for line in (out + alone).splitlines()]
    rows = [[row["tokens"] for row in store.read_rows(place / folder)] for folder in folders]
    assert rows[1] == rows[4]
    assert rows[0] != rows[1]


def test_a_mistake_in_the_last_cell_is_told_before_the_first_one_runs(place, refused, loads):
    words = ("--task", "mini", "--backbone", "loud", "--seed", "0,1")
    lines = refused(*words, "--method", "greedy,lora[adapter=none]")
    assert lines[0] == "no adapter in none"
    lines = refused(*words, "--method", "greedy,vcd[select=argmax,top_p=3]")
    assert "top_p" in lines[0]
    assert loads() == []
    assert not (place / "results").exists()


def test_cells_done_before_one_that_fails_are_kept(place, medbench, plugin):
    mini = (place / "tasks" / "mini.py").read_text()
    frail = mini.replace('"mini"', '"frail"').replace("Mini", "Frail")
    assert "def draw(image):\n" in frail
    fail = '    if Path("broken").exists():\n        raise OSError("gone")\n'
    frail = frail.replace(
        "def draw(image):\n", f"def draw(image):\n    from pathlib import Path\n{fail}"
    )
    plugin("tasks", "frail", frail)
    (place / "broken").touch()
    words = ("run", "--task", "mini,frail", "--backbone", "toy", "--method", "greedy")
    code, _, err = medbench(*words)
    assert code == 2
    assert "cannot read the image of sample" in err
    (done,) = [record for record in find_runs() if record.state == "complete"]
    assert done.task == "mini"
    (place / "broken").unlink()
    assert medbench(*words)[0] == 0
    assert {record.state for record in find_runs()} == {"complete"}


def test_a_plan_loads_nothing_and_says_what_is_there(place, medbench, plugin, run):
    plugin("backbones", "silent", SILENT.replace("loud", "silent").replace("Loud", "Silent"))
    words = ("run", "--task", "mini", "--backbone", "silent", "--method", "greedy,lora+vcd")
    code, out, err = medbench(*words, "--plan")
    assert code == 0
    assert [re.sub(r"[0-9a-f]{12}", "KEY", line) for line in out.splitlines()] == [
        "  results/runs/mini/silent/greedy/KEY: 0 of 21 answered, 21 samples to answer",
        "  results/runs/mini/silent/lora+vcd/KEY: 0 of 21 answered, 21 samples to answer",
        "  results/runs/adapters/mini/silent/lora/KEY: to train on 21",
    ]
    assert err.splitlines() == [
        "greedy on mini with silent, seed 0, matched",
        "lora+vcd on mini with silent, seed 0, matched",
    ]
    assert not (place / "results").exists(), "a plan leaves nothing behind"
    with pytest.raises(RuntimeError, match="loaded"):
        medbench(*words)


def test_a_plan_knows_what_is_done(place, medbench, run):
    folder = run("lora+vcd")
    plan = (*WORDS, "lora+vcd,lora", "--plan")
    code, out, _ = medbench(*plan)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].endswith(": 21 of 21 answered, complete")
    assert lines[1].endswith(": trained")
    assert lines[2].endswith(": 0 of 21 answered, 21 samples to answer")
    assert lines[3] == lines[1]
    (folder / "scores.json").unlink()
    path = folder / "samples.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    assert medbench(*plan)[1].splitlines()[0].endswith(": 20 of 21 answered, 1 samples to answer")


def test_away_from_a_terminal_only_lines_are_printed(place, medbench):
    code, out, err = medbench(*WORDS, "lora")
    assert code == 0
    assert err == "lora on mini with toy, seed 0, matched\n"
    assert "\x1b" not in out + err
    assert "\r" not in out + err
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:5]] == [
        "closed/paper", "closed/strict", "recall/paper", "coverage/sum", "intensity/sum",
    ]  # fmt: skip
    assert re.fullmatch(r"  \S+ +[\d.]+  \[[\d.]+, [\d.]+\]  n=7, 7 images", lines[0])
    assert re.fullmatch(r"  21 answers: \d+ empty, \d+ cut at the length limit", lines[5])
    assert re.fullmatch(r"  yes-no questions: gold yes 7 -> .*", lines[6])
    assert re.fullmatch(r"  paper and strict rules differ on: closed \d, recall \d+", lines[7])
    assert re.fullmatch(r"  results/runs/mini/toy/lora/[0-9a-f]{12}", lines[8])
    assert len(lines) == 9


def test_a_terminal_shows_how_far_a_run_is(place, medbench, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    code, out, err = medbench(*WORDS[:3], "--backbone", "toy[seed=7]", "--method", "lora")
    assert code == 0
    assert "\x1b" not in out
    # The first line names the cell, wherever it is printed.
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err.partition("\n")[2])
    for part in ("loading", "toy[seed=7]", "training", "6/6", "loss", "answering", "21", "scoring"):
        assert part in shown, part


def test_what_was_done_before_counts_neither_for_the_rate_nor_the_time_left(place, run):
    from medbench.cell import Request, plan
    from medbench.reporting import Report
    from medbench.runner import execute

    folder = run("greedy", "--batch-size", "5")
    path = folder / "samples.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:12]))
    (folder / "scores.json").unlink()
    told = []
    report = Report(
        lambda name, remark: told.append((name, remark)),
        lambda done, total, remark: told.append((done, total)),
    )
    execute(plan(Request("greedy", "mini", "toy", batch_size=5)), report=report)
    assert told == [
        ("load", "toy"),
        ("decode", "12 of 21 already there"),
        (12, 21),
        (15, 21),
        (20, 21),
        (21, 21),
        ("score", "closed/paper"),
        ("score", "closed/strict"),
        ("score", "recall/paper"),
        ("score", "coverage/sum"),
        ("score", "intensity/sum"),
    ]


def test_json_is_one_object_a_cell_and_nothing_else(place, medbench):
    code, out, _ = medbench(*WORDS, "greedy,blind", "--json")
    assert code == 0
    first, second = (json.loads(line) for line in out.splitlines())
    assert first.keys() == {
        "folder", "schema", "scores", "unscored", "health", "confusion", "disagreements",
    }  # fmt: skip
    for cell in (first, second):
        folder = cell.pop("folder")
        assert cell == json.loads((place / folder / "scores.json").read_text())


def test_several_tasks_find_their_files_in_one_folder(place, medbench, files, write_files):
    write_files(files, "other")
    words = ("run", "--task", "filed,other", "--data", files, "--backbone", "toy")
    code, out, err = medbench(*words, "--method", "greedy", "--json")
    assert code == 0, err
    assert [record.task for record in find_runs()] == ["filed", "other"]
    (place / "elsewhere").mkdir()
    (files / "other-1.0").rename(place / "elsewhere" / "other-1.0")
    again = [*words, "--method", "greedy", "--json"]
    again[2] = "filed,other[data=elsewhere]"
    assert medbench(*again)[1] == out


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("2", [2]), ("0,2, 5", [0, 2, 5]), ("1-3", [1, 2, 3]), ("0-1,1-2", [0, 1, 2])],
)
def test_seeds_are_a_list_of_numbers_and_ranges(place, medbench, text, seeds):
    _, _, err = medbench(*WORDS, "greedy", "--plan", "--seeds", text)
    assert re.findall(r"seed (\d+)", err) == [str(seed) for seed in seeds]


@pytest.mark.parametrize("text", ["", "x", "1.5", "-1", "4-2", "1,", "²", "0-x"])
def test_other_seeds_are_refused(place, refused, text):
    assert refused("--method", "greedy", "--task", "mini", "--seeds", text)[-1].startswith("Write ")
