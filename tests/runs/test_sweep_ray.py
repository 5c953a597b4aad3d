"""A sweep on a Ray cluster of two nodes, one of which is killed: the files of a plain sweep."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medbench import store

pytest.importorskip("ray", reason="medbench[ray] is not installed")

ROOT = Path(__file__).resolve().parents[2]

GRID = """
methods = ["slow", "broken", "lora", "lora+vcd"]
tasks = ["mini"]
backbones = ["toy"]
batch_size = 2
"""

# Slow enough to be found at work, and with a mistake of its own elsewhere.
SLOW = '''"""Takes its time."""

import time
from dataclasses import dataclass

from medbench.method import Decoder


@dataclass(frozen=True)
class Slow(Decoder):
    """Takes its time."""

    name = "slow"

    def combine(self, logits, step):
        time.sleep(0.15)
        return logits["main"]
'''

BROKEN = '''"""Fails."""

from dataclasses import dataclass

from medbench.method import Decoder


@dataclass(frozen=True)
class Broken(Decoder):
    """Fails."""

    name = "broken"

    def combine(self, logits, step):
        raise RuntimeError("no more of it")
'''

# Sends work to a folder that the nodes do not have, as where machines share no files.
AWAY = """
from dataclasses import replace
from pathlib import Path

from medbench.cell import Request
from medbench.errors import UserError
from medbench.sweeping import cluster
from medbench.sweeping.survey import Surveyed

there = replace(cluster.connect(1, 0), place=Path("/away"))
request = Request(method="lora", task="mini", backbone="toy")
try:
    cluster.survey_there(there, [request])
except UserError as error:
    print(*error.lines(), sep="\\n")
left = Surveyed(request, "left", adapter=Path("an adapter"))
[outcome] = cluster.run_there(there, [left], [])
print(outcome.state, *outcome.failure.lines, sep="\\n")
"""


class TwoNodes:
    """A cluster of two nodes in a process of its own."""

    def __init__(self, log):
        self.log = log.open("w")
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("two_nodes.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment(),
        )
        self.address, self.raylet = self.process.stdout.readline().split()

    def workers(self):
        """Return the processes that the second node started."""
        wanted = f"RAY_RAYLET_PID={self.raylet}".encode()
        return [path for path in Path("/proc").glob("[0-9]*") if wanted in _read(path / "environ")]

    def kill_second(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "removed\n"

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()
        self.log.close()


def _read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def environment(**more):
    known = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return {**known, "RAY_USAGE_STATS_ENABLED": "0", **more}


def writes(process, name):
    """Say whether a process has a file of such a name open for its answers."""
    try:
        files = [path.readlink() for path in (process / "fd").iterdir()]
    except OSError:
        return False
    return any(file.name.startswith(name) for file in files)


@pytest.fixture
def nodes(place):
    if not Path("/proc").is_dir():
        pytest.skip("needs /proc, to see which node is at work")
    cluster = TwoNodes(place / "cluster.log")
    yield cluster
    cluster.close()


def contents(place, same):
    """Return what the runs and adapters below a folder hold, without what it cost."""
    root = place / "results" / "runs"
    runs = {
        path.parent.relative_to(root): (same.answers(path.parent), path.read_bytes())
        for path in root.glob("*/*/*/*/scores.json")
    }
    adapters = {
        path.relative_to(root): path.read_bytes()
        for path in root.glob("adapters/**/*")
        if path.suffix == ".safetensors"
    }
    return runs, adapters


def files(place):
    root = place / "results" / "runs"
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    return {path for path in found if "/broken/" not in path}


@pytest.mark.slow
def test_a_node_killed_during_a_sweep_leaves_the_files_of_a_plain_one(
    place, plugin, nodes, medbench, same, tmp_path_factory, monkeypatch
):
    plugin("methods", "slow", SLOW)
    plugin("methods", "broken", BROKEN)
    (place / "grid.toml").write_text(GRID, encoding="utf-8")
    words = ["sweep", "grid.toml", "--executor", "ray", "--shards", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "medbench", *words],
        cwd=place,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(RAY_ADDRESS=nodes.address),
    )
    end = time.monotonic() + 120
    busy = []
    while not busy:
        assert time.monotonic() < end, process.stderr.read() if process.poll() else "none at work"
        time.sleep(0.01)
        busy = [one for one in nodes.workers() if writes(one, "samples.")]
    nodes.kill_second()
    _, told = process.communicate(timeout=300)
    assert not any(one.is_dir() for one in busy), "the worker outlived its node"
    lines = told.splitlines()
    assert process.returncode == 1, told
    assert lines[0] == "4 cells: 4 left"
    assert "3 done, 1 failed" in lines, told
    assert lines[-3].startswith("failed: broken on mini")
    assert lines[-2] == "  RuntimeError: no more of it"

    local = tmp_path_factory.mktemp("local")
    for name in ("methods", "tasks"):
        (local / name).symlink_to(place / name)
    monkeypatch.chdir(local)
    (local / "grid.toml").write_text(GRID, encoding="utf-8")
    assert medbench("sweep", "grid.toml")[0] == 1
    assert len(contents(place, same)[0]) == 3
    assert contents(place, same) == contents(local, same)
    assert files(place) == files(local)
    for path in (local / "results" / "runs").glob("mini/*/*/*"):
        there = place / path.relative_to(local)
        known = ("command", "key", "identity", "display", "samples", "data", "adapter", "metrics")
        one, two = store.read_run(path), store.read_run(there)
        assert {key: one[key] for key in known} == {key: two[key] for key in known}


@pytest.mark.slow
def test_a_cluster_says_what_it_lacks(place, nodes):
    def python(*words):
        return subprocess.run(
            [sys.executable, *words],
            cwd=place,
            capture_output=True,
            text=True,
            env=environment(RAY_ADDRESS=nodes.address),
        )

    def sweep(text):
        (place / "grid.toml").write_text(text, encoding="utf-8")
        done = python("-m", "medbench", "sweep", "grid.toml", "--executor", "ray")
        return done.returncode, done.stderr.splitlines()

    grid = GRID.replace('"slow", "broken", "lora", "lora+vcd"', '"greedy"')
    code, lines = sweep(grid + "[ray]\ncpus = 2")
    assert (code, lines[0]) == (2, "no machine of the cluster has 2 CPUs and 0 GPUs")
    code, lines = sweep(grid.replace('["mini"]', '["slake", "mini"]'))
    assert code == 1
    assert lines[0] == "2 cells: 1 left, 1 that cannot run"
    assert "1 done, 1 failed" in lines
    done = python("-c", AWAY)
    lacks = [
        f"{os.uname().nodename} has no folder /away",
        "The machines of the cluster share no files.",
        "Start the sweep in a folder that all of them have.",
    ]
    assert done.stdout.splitlines() == [*lacks, "failed", *lacks], done.stderr
