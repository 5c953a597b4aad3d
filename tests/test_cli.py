"""The command line: what the verbs print, what a mistake prints, and the exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medbench.cli import VERBS

ROOT = Path(__file__).resolve().parent.parent
METHOD = 'from medbench import Decoder\nclass A(Decoder):\n    "Mine."\n    name = "{}"\n'


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDBENCH_PLUGINS", raising=False)
    return tmp_path


def test_help_names_every_verb(medbench):
    code, out, err = medbench("--help")
    assert (code, err) == (0, "")
    assert all(f"  {verb} " in out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(medbench, verb):
    code, out, _ = medbench(verb, "--help")
    assert code == 0
    assert out.startswith(f"Usage: medbench {verb}")


def test_nothing_asked_is_asked_wrongly(medbench):
    code, out, err = medbench()
    assert (code, out) == (2, "")
    assert "Verbs:" in err


def test_version(medbench):
    import medbench as package

    assert medbench("--version") == (0, f"medbench {package.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["lst"], ["no verb 'lst'", "Did you mean list?", "See: medbench --help"]),
        (["zzz"], ["no verb 'zzz'", "See: medbench --help"]),
        (
            ["list", "--jsn"],
            ["no option '--jsn'", "Did you mean --json?", "See: medbench list --help"],
        ),
        (
            ["--versoin"],
            ["no option '--versoin'", "Did you mean --version?", "See: medbench --help"],
        ),
        (
            ["list", "metod"],
            [
                "nothing called 'metod' to list",
                "Did you mean methods?",
                "Take one of methods, tasks, backbones, metrics, providers, runs.",
            ],
        ),
        (
            ["show", "vdc"],
            [
                "no method, task, backbone, metric or provider named 'vdc'",
                "Did you mean vcd?",
                "See: medbench list",
            ],
        ),
        (["show", "vcd", "--kind", "task"], ["no task named 'vcd'", "See: medbench list"]),
    ],
)
def test_a_mistake_is_three_short_lines(medbench, arguments, lines):
    code, out, err = medbench(*arguments)
    assert (code, out) == (2, "")
    assert err.splitlines() == lines


def test_other_usage_errors_are_short_too(medbench):
    code, out, err = medbench("show")
    assert (code, out) == (2, "")
    assert err == "Missing argument 'NAME'.\nSee: medbench show --help\n"
    code, _, err = medbench("table", "--format", "excel")
    assert code == 2
    assert err.splitlines()[-1] == "See: medbench table --help"


def test_an_interrupt_says_how_to_go_on(medbench, monkeypatch):
    def interrupted(kind):
        raise KeyboardInterrupt

    monkeypatch.setattr("medbench.plugins.find", interrupted)
    code, _, err = medbench("list")
    assert code == 130
    assert err.splitlines()[-1] == "Interrupted. Run the same command again to go on."


def test_a_closed_pipe_is_silent():
    command = f"{sys.executable} -m medbench list --json | {sys.executable} -c 'pass'"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment)
    assert done.stderr == ""


def test_list_has_every_kind_and_says_what_is_broken(medbench, elsewhere):
    (elsewhere / "methods").mkdir()
    (elsewhere / "methods" / "mine.py").write_text(METHOD.format("mine"), encoding="utf-8")
    (elsewhere / "methods" / "bad.py").write_text("medbench = (\n", encoding="utf-8")
    (elsewhere / "methods" / "again.py").write_text(METHOD.format("greedy"), encoding="utf-8")
    code, out, err = medbench("list")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line for line in lines if line and line[0] != " "] == [
        "methods", "tasks", "backbones", "metrics", "providers",
    ]  # fmt: skip
    assert any(
        line.split() == ["mine", "decoder", "Mine.", "[working", "folder]"] for line in lines
    )
    (bad,) = [line for line in lines if line.startswith("  bad ")]
    assert "broken" in bad
    assert "syntax error in line 1" in bad
    doubled = [line for line in lines if line.startswith("  greedy ")]
    assert len(doubled) == 2
    assert all("again.py" in line and "greedy.py" in line for line in doubled)


def test_list_json(medbench):
    code, out, _ = medbench("list", "Method", "--json")
    assert code == 0
    found = json.loads(out)
    assert list(found) == ["methods"]
    (vcd,) = [one for one in found["methods"] if one["name"] == "vcd"]
    assert vcd["role"] == "decoder"
    assert vcd["needs"] == ["pixels"]
    assert Path(vcd["path"]).name == "vcd.py"


def test_show_a_method(medbench):
    code, out, _ = medbench("show", "VCD")
    assert code == 0
    for part in (
        "vcd: decoder, built-in", "2311.16922", "needs", "deviates", "select=sample",
        "noise_step", "500", "variant=paper", "variant=official", "vcd.py",
    ):  # fmt: skip
        assert part in out
    assert "Args:" not in out


def test_show_metrics_by_their_first_name(medbench):
    _, both, _ = medbench("show", "closed")
    _, one, _ = medbench("show", "closed/paper")
    assert "closed/paper: metric" in both
    assert "closed/strict: metric" in both
    assert "closed/strict: metric" not in one
    assert "golden examples" in one


def test_show_a_task_without_its_data(medbench):
    code, out, _ = medbench("show", "slake")
    assert code == 0
    assert "rows=1061" in out
    assert "no data folder given" in out


def test_show_a_task_with_wrong_data(medbench, elsewhere):
    code, _, err = medbench("show", "slake", "--data", str(elsewhere / "none"))
    assert code == 2
    assert len(err.splitlines()) <= 3


TASK = """
from medbench import Sample, Task
class Own(Task):
    "Two questions."
    name = "own"
    restricted = {restricted}
    def samples(self, split):
        for i in range(5):
            yield Sample(f"id{{i}}", lambda: None, f"what  is\\n{{i}}?", "yes", "closed", "g")
"""


def test_show_checks_the_parameters_of_a_task_that_needs_no_files(medbench):
    code, _, err = medbench("show", "phantom[foo=1]")
    assert code == 2
    assert "phantom has no parameter 'foo'" in err


def test_show_two_samples_but_none_of_patients(medbench, elsewhere):
    (elsewhere / "tasks").mkdir()
    path = elsewhere / "tasks" / "own.py"
    path.write_text(TASK.format(restricted=False), encoding="utf-8")
    _, out, _ = medbench("show", "own")
    assert [line.split() for line in out.splitlines() if line.startswith("  id")] == [
        [f"id{i}", "closed", "what", "is", f"{i}?", "->", "yes"] for i in (0, 1)
    ]
    path.write_text(TASK.format(restricted=True), encoding="utf-8")
    _, out, _ = medbench("show", "own", "--data", str(elsewhere))
    assert "id0" not in out
    assert "not printed" in out


def test_one_name_of_two_kinds_shows_both(medbench, elsewhere):
    (elsewhere / "tasks").mkdir()
    source = TASK.format(restricted=False).replace('"own"', '"toy"')
    (elsewhere / "tasks" / "toy.py").write_text(source, encoding="utf-8")
    _, out, _ = medbench("show", "toy")
    assert "toy: task" in out
    assert "toy: backbone" in out
    _, out, _ = medbench("show", "toy", "--kind", "backbone")
    assert "toy: task" not in out


def test_show_in_a_terminal_is_the_same_text(medbench, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERM", "dumb")
    _, plain, _ = medbench("show", "vcd")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    _, rich, _ = medbench("show", "vcd")
    # A narrow terminal folds cells, which mixes the words of a line but loses none.
    assert sorted(rich.split()) == sorted(plain.split())


def write_run(root, method, value, **more):
    """Write a finished run folder as `medbench run` does."""
    folder = root / "phantom" / "toy" / method / f"key-{method}"
    folder.mkdir(parents=True)
    task = {"name": "phantom", "parameters": {}, "version": 1, "samples": "a"}
    identity = {"task": task, "seed": 0, "preset": "matched", "limit": None}
    record = {
        "schema": 1,
        "key": f"key-{method}",
        "display": {"task": "phantom", "backbone": "toy", "method": method},
        "identity": identity,
        "samples": 4,
        "partial": False,
        "missing_images": 0,
        "data": {"edition": "official", "note": ""},
        **more,
    }
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    if value is not None:
        score = {"value": value, "low": None, "high": None, "n": 4, "groups": 2, "notes": {}}
        scores = {"schema": 1, "scores": {"closed/paper": score}, "health": {}}
        (folder / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    return folder


def test_table_and_list_of_runs(medbench, elsewhere):
    out_folder = elsewhere / "results" / "runs"
    write_run(out_folder, "greedy", 0.25)
    write_run(out_folder, "vcd", 0.5)
    write_run(out_folder, "blind", None)
    (write_run(out_folder, "dola", 0.75) / "run.json").write_text("{", encoding="utf-8")
    code, out, err = medbench("table")
    assert code == 0
    assert "Not shown: 1 broken, 1 unfinished." in err
    assert any(line.split() == ["vcd", "*50.00"] for line in out.splitlines())
    assert "4 q / 2 img" in out
    assert "Preset matched" in out
    assert "dola" not in out
    code, out, _ = medbench("list", "runs")
    states = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert "unfinished 0/4" in states["key-blind"]
    assert "closed/paper 50.00" in states["key-vcd"]
    assert "cannot read" in states["broken"]
    code, out, _ = medbench("list", "runs", "--json")
    assert {run["state"] for run in json.loads(out)["runs"]} == {"complete", "unfinished", "broken"}
    assert "runs" in json.loads(medbench("list", "--json")[1])


def test_table_says_that_runs_have_no_metric(medbench, elsewhere):
    folder = write_run(elsewhere / "results" / "runs", "greedy", 0.25)
    scores = {"schema": 1, "scores": {}, "health": {}}
    (folder / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    assert medbench("table") == (
        0,
        "",
        "Not shown: 1 run has answers and no metric to score them.\n",
    )


@pytest.mark.parametrize("written_as", ["md", "csv", "json"])
def test_table_formats_end_in_one_newline(medbench, elsewhere, written_as):
    write_run(elsewhere / "r", "vcd", 0.5)
    code, out, err = medbench("table", "--out", "r", "--format", written_as)
    assert (code, err) == (0, "")
    assert out.endswith("\n")
    assert not out.endswith("\n\n")


def test_table_without_runs(medbench):
    code, out, err = medbench("table")
    assert (code, out) == (2, "")
    assert err.splitlines()[0].startswith("no runs in ")
