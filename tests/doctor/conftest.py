"""Checkpoints to be looked at, a hub to be asked, and what the doctor says."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    "llava_med": "llava",
    "llava_med_1.5": "llava_mistral",
    "huatuogpt_vision_7b": "llava_qwen2",
}


@dataclass(frozen=True)
class Small:
    """A tiny checkpoint on disk: a folder `checkpoint`, and its tower."""

    name: str
    root: Path
    tower: Path

    @property
    def checkpoint(self):
        return self.root / "checkpoint"

    def spec(self, **options):
        options = {"weights": self.checkpoint, "vision": self.tower, **options}
        return f"{self.name}[{','.join(f'{k}={v}' for k, v in options.items() if v)}]"


@pytest.fixture(autouse=True)
def home(monkeypatch):
    """Set a home folder that no test's files are in: its name is not told."""
    monkeypatch.setenv("HOME", "/home/somebody")


@pytest.fixture
def small(tmp_path):
    """Return a writer of tiny checkpoints, which tests may damage."""
    from medbench.model.tiny_original import TOWERS, write_tiny

    def write(name, **options):
        root = tmp_path / name
        checkpoint = write_tiny(KINDS[name], root, **options)
        tower = TOWERS[KINDS[name]]
        inside = (checkpoint / tower).is_dir()
        return Small(name, root, checkpoint / tower if inside else root / tower)

    return write


@pytest.fixture
def finished():
    """Return a function that ends a generator: (what it yields, what it returns)."""

    def run(generator):
        found = []
        while True:
            try:
                found.append(next(generator))
            except StopIteration as end:
                return found, end.value

    return run


@pytest.fixture
def look(finished):
    """Return a function that looks at a backbone: (findings, what came of it)."""
    from medbench import plugins, spec
    from medbench.doctor.backbone import check_backbone

    def check(text):
        asked = spec.parse(text)
        return finished(check_backbone(plugins.get("backbone", asked.name), asked))

    return check


@pytest.fixture
def asked():
    """Return a reader of requests, as the command line makes them."""
    from medbench.cell import Request
    from medbench.doctor.asked import look_up

    def read(**options):
        parts = {"method": "", "task": "", "backbone": "", "device": "cpu", **options}
        return look_up(Request(**parts))

    return read


@pytest.fixture
def hub():
    """Return a maker of hubs that hold repositories, id -> path -> bytes."""
    file = Path(__file__).with_name("hub.py")
    spec = importlib.util.spec_from_file_location("medbench_tests_hub", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = []

    def make(repositories):
        made.append(module.Hub(repositories))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def elsewhere(tmp_path):
    """Return a runner of Python in a process of its own, which a test's hub and home belong to."""

    def run(*arguments, endpoint="http://127.0.0.1:9", **variables):
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "*",
            **variables,
        }
        environment.pop("HF_TOKEN", None)
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
        )

    return run


# The doctor without its known answers, which have tests of their own and take seconds.
DOCTOR = """
import sys
from medbench.cli import main
from medbench.doctor import examination
examination.check_known_answers = lambda: iter(())
sys.exit(main(["doctor", "--json", *sys.argv[1:]]))
"""


@pytest.fixture
def examined(elsewhere):
    """Return a function that runs the doctor elsewhere: (exit code, its JSON)."""

    def run(*arguments, **options):
        done = elsewhere("-c", DOCTOR, *arguments, **options)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    return run


@pytest.fixture
def problems():
    """Return the problems among findings, as (what, do)."""
    return lambda found: [(one.what, one.do) for one in found if one.state == "problem"]


@pytest.fixture
def said():
    """Return all that findings say, in one text."""
    return lambda found: "\n".join(f"{one.state} {one.what} -> {one.do}" for one in found)
