"""`medbench new`: what it writes runs as it is, and it writes over nothing."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMES = {
    "methods/softly.py": ("method", "softly"),
    "methods/look_there.py": ("method", "look_there", "--tuner"),
    "tasks/my_hospital.py": ("task", "my_hospital"),
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Work in an empty folder, with no plugins from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDBENCH_PLUGINS", raising=False)
    return tmp_path


@pytest.fixture
def begun(medbench, elsewhere):
    """Return the folder with a decoder, a tuner and a task begun in it."""
    for words in NAMES.values():
        code, _, err = medbench("new", *words)
        assert (code, err) == (0, "")
    return elsewhere


def python(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_method_is_written_with_its_test_and_what_to_do_next(medbench, elsewhere):
    code, out, _ = medbench("new", "method", "softly")
    assert code == 0
    assert files(elsewhere) == ["methods/softly.py", "tests/test_softly.py"]
    assert out.splitlines()[:2] == files(elsewhere)
    for command in ("medbench show softly", "pytest tests/test_softly.py", "--method softly"):
        assert command in out
    assert "docs/add-a-method.md" in out


def test_nothing_heavy_is_imported_to_write_it(elsewhere):
    code = "import sys; from medbench.cli import main; main(['new', 'method', 'mine'])"
    done = python(elsewhere, "-c", f"{code}; print({{'torch', 'numpy', 'PIL'}} & {{*sys.modules}})")
    assert done.stdout.endswith("set()\n"), done.stderr


def test_what_is_written_is_listed_and_shown(medbench, begun):
    listed = medbench("list")[1]
    for words in NAMES.values():
        assert f"  {words[1]} " in listed
        assert medbench("show", words[1])[0] == 0
    assert listed.count("[needs") >= 2
    assert "broken" not in listed


def test_a_method_that_was_begun_runs_and_is_another_than_greedy(medbench, begun):
    words = ("--task", "phantom", "--backbone", "toy", "--limit", "4", "--device", "cpu")
    code, _, err = medbench("run", "--method", "softly,greedy", *words)
    assert code == 0, err
    answers = [
        path.read_text("utf-8") for path in begun.glob("results/runs/phantom/toy/*/*/*.jsonl")
    ]
    assert len(answers) == 2
    assert answers[0] != answers[1]


@pytest.mark.slow
def test_the_tests_that_are_written_pass(begun):
    done = python(begun, "-m", "pytest", "-q", "-W", "error")
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout
    # Those of the contract, and one of each plugin's own.
    assert int(done.stdout.split(" passed")[0].split()[-1]) >= 50


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["ruff", "check", "--no-cache"], ["ruff", "format", "--check"], ["pyright"]]
)
def test_linters_have_nothing_to_say_of_it(begun, command):
    if importlib.util.find_spec(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = python(begun, "-m", *command, ".")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            ("method", "vcd"),
            ["there is a method named 'vcd'", "It is in {root}/methods/vcd.py."],
        ),
        (
            ("task", "phantom"),
            ["there is a task named 'phantom'", "It is in {root}/tasks/phantom.py."],
        ),
        (
            ("method", "my-method"),
            ["'my-method' cannot be the name of a file of Python", "Did you mean my_method?"],
        ),
        (("method", "Mine"), ["'Mine' cannot be", "Did you mean mine?"]),
        (("method", "2nd"), ["'2nd' cannot be", "a letter first."]),
        (("task", "lambda"), ["'lambda' cannot be", "a letter first."]),
        (("method", "../up"), ["'../up' cannot be", "Did you mean up?"]),
        (("metod", "mine"), ["no verb 'metod' of medbench new", "Did you mean method?"]),
    ],
)
def test_a_name_that_cannot_be_taken_is_refused(medbench, elsewhere, words, lines):
    code, out, err = medbench("new", *words)
    assert (code, out) == (2, "")
    assert 2 <= len(err.splitlines()) <= 3
    for line in lines:
        assert line.format(root=ROOT) in err
    assert files(elsewhere) == []


@pytest.mark.parametrize("there", ["methods/mine.py", "tests/test_mine.py"])
def test_nothing_is_written_over_or_beside_a_file_that_is_there(medbench, elsewhere, there):
    path = elsewhere / there
    path.parent.mkdir()
    path.write_text("own", encoding="utf-8")
    code, _, err = medbench("new", "method", "mine")
    assert code == 2
    assert err.startswith(f"{there} is there already\nNothing was written.\n")
    assert files(elsewhere) == [there]
    assert path.read_text("utf-8") == "own"


def test_a_broken_file_of_that_name_is_there_as_well(medbench, elsewhere):
    (elsewhere / "methods").mkdir()
    (elsewhere / "methods" / "other.py").write_text(
        "from medbench import Decoder\nclass A(Decoder):\n    name = 'mine'\n    needs = f()\n",
        encoding="utf-8",
    )
    code, _, err = medbench("new", "method", "mine")
    assert code == 2
    assert err.startswith("there is a method named 'mine'\nIt is in methods/other.py.\n")


def test_a_name_that_the_file_itself_uses_makes_another_class(medbench, elsewhere):
    assert medbench("new", "task", "sample")[0] == 0
    source = (elsewhere / "tasks" / "sample.py").read_text("utf-8")
    assert "class SampleTask(Task):" in source
    assert "yield Sample(" in source


def test_a_folder_that_cannot_be_written_to_is_said_so(medbench, elsewhere):
    (elsewhere / "methods").write_text("a file", encoding="utf-8")
    code, _, err = medbench("new", "method", "mine")
    assert code == 2
    assert err.startswith("cannot write methods/mine.py\n")
