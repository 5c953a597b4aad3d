"""What naming things costs: nothing heavy is imported, and an answer takes no time."""

import ast
import json
import os
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import medbench
from medbench import plugins

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {
    "torch", "numpy", "transformers", "peft", "accelerate", "pandas", "PIL", "matplotlib", "scipy",
    "statsmodels",
}  # fmt: skip
# Of CPU time; and where a busy machine makes all slower, in starts of Python with click.
SECONDS, STARTS = 0.3, 5
TRIES = 5
COMMANDS = {
    "--help": 0,
    "--version": 0,
    "list": 0,
    "list runs": 0,
    "table": 2,
    "table 1x": 2,
    "show opera": 0,
    "show slake": 0,
    "lst": 2,
    "show vdc": 2,
    "list --jsn": 2,
    "run --method vdc --task phantom": 2,
    "sweep nowhere.toml": 2,
    "new method vcd": 2,
}


def python(*arguments, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("MEDBENCH_PLUGINS", None)
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=folder, env=environment
    )


def timed(*arguments, folder):
    """Return what Python did, and its CPU time, less disturbed by others than the clock."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = python(*arguments, folder=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def modules(code, folder):
    """Return what a piece of Python has imported in the end."""
    report = "import json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = python("-c", f"{code}\n{report}", folder=folder)
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "command",
    [*COMMANDS, "table 1 --with paper", "run --method a3tune --task vqa_rad --data nowhere"],
)
def test_a_quick_verb_imports_nothing_heavy(command, tmp_path):
    code = f"from medbench.cli import main; main({command.split()!r})"
    assert HEAVY & modules(code, tmp_path) == set()


@pytest.mark.parametrize("kind", plugins.FOLDERS)
def test_to_show_a_plugin_imports_nothing_heavy(kind, tmp_path):
    names = [plugin.name for plugin in plugins.find(kind)]
    code = (
        f"import sys\nfrom medbench.cli import main\nfor name in {names}:\n"
        f"    assert main(['show', name]) == 0\n"
        f"    assert not {HEAVY} & {{*sys.modules}}, name"
    )
    done = python("-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_import_medbench_imports_nothing_heavy(tmp_path):
    loaded = modules("import medbench", tmp_path)
    assert HEAVY & loaded == set()
    assert [name for name in loaded if name.startswith("medbench.")] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_quick_verb_is_quick(command, tmp_path):
    python("-m", "medbench", *command.split(), folder=tmp_path)  # writes the byte code
    seconds = []
    while len(seconds) < TRIES:
        _, start = timed("-c", "import click", folder=tmp_path)
        done, taken = timed("-m", "medbench", *command.split(), folder=tmp_path)
        assert done.returncode == COMMANDS[command]
        seconds.append((taken, start))
        if taken < max(SECONDS, STARTS * start):
            return
    pytest.fail(f"medbench {command}: (seconds of CPU, of a start) {seconds}")


def test_every_public_name_leads_somewhere():
    for name in medbench.__all__:
        assert getattr(medbench, name) is not None
    assert dir(medbench) == medbench.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = medbench.nothing


def test_type_checkers_see_the_names_that_are_loaded_late():
    tree = ast.parse(Path(medbench.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and "TYPE" in ast.dump(node)]
    seen = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == medbench._LAZY
    assert {*seen, "__version__"} == set(medbench.__all__)


def test_no_module_hides_a_public_function():
    for name in medbench._LAZY:
        if name.islower():
            assert not (ROOT / "medbench" / f"{name}.py").exists()
            assert not (ROOT / "medbench" / name).exists()


def test_the_wheel_holds_every_package():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(settings["tool"]["setuptools"]["packages"])
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "medbench").rglob("*.py")
        if "__pycache__" not in path.parts
    }
    assert listed == there | {"medbench.methods", "medbench.results", "medbench.tasks"}
