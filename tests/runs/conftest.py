"""A small drawn task in a working folder, medbench in this process, and medbench in others."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MINI = '''"""Drawn squares, three questions each."""

from dataclasses import dataclass
from functools import partial

from medbench.task import Sample, Task


@dataclass(frozen=True)
class Mini(Task):
    """Drawn squares, three questions each."""

    name = "mini"
    offers = ("roi",)
    metrics = ("closed/paper", "closed/strict", "recall/paper", "coverage/sum", "intensity/sum")
    tuning = {
        "epochs": 2,
        "learning_rate": 0.02,
        "rank": 4,
        "batch_size": 8,
        "align_weight": 0.1,
        "labels": "roi",
        "R": 4,
        "expert_rank": 2,
        "q_experts": 2,
        "k_experts": 3,
    }

    max_new_tokens: int = 5
    images: int = 7

    def samples(self, split):
        for image in range(self.images):
            for number in range(3):
                closed = number == 0
                yield Sample(
                    id=f"{split}-{image}-{number}",
                    image=partial(draw, image),
                    question=f"is {image} over {number}?" if closed else f"what is {image}?",
                    answer="yes" if closed else "left lung",
                    kind="closed" if closed else "open",
                    group=f"image {image}",
                    stamp=f"square {image}",
                    roi=partial(region, image) if number else None,
                    meta={"number": number},
                )


def draw(image):
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (24, 24), (30 * image, 90, 250 - 30 * image))
    ImageDraw.Draw(picture).rectangle((image, 6, image + 9, 15), fill=(255, 255, 9 * image))
    return picture


def region(image):
    import numpy as np

    mask = np.zeros((24, 24), bool)
    mask[6:16, image : image + 10] = True
    return mask
'''

# A task that reads files, so that they can be damaged.
FILED = '''"""Questions in a file, images in a folder."""

from dataclasses import dataclass

from medbench.data.find import find_file
from medbench.data.passport import check_passport
from medbench.data.read import read_records
from medbench.task import Sample, Task


@dataclass(frozen=True)
class {title}(Task):
    """Questions in a file, images in a folder."""

    name = "{name}"
    source = "example.org"
    metrics = ("closed/strict",)

    max_new_tokens: int = 3

    def samples(self, split):
        path = find_file(self, ["{name}.json"], ["{name}-1.0"])
        for row in read_records(path, ["id", "question", "answer", "image"]):
            image = path.parent / row["image"]
            yield Sample(row["id"], image, row["question"], row["answer"], "closed",
                         row["image"], meta=row.get("meta", {{}}))
'''


@pytest.fixture(autouse=True)
def one_thread():
    """Keep sums in one order, and leave the cores to others."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return the working folder: it has the tasks `mini`, `filed` and `other`, and no runs."""
    monkeypatch.chdir(tmp_path)
    for name in ("MEDBENCH_PLUGINS", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    write_tasks(tmp_path)
    return tmp_path


def write_tasks(folder):
    tasks = folder / "tasks"
    tasks.mkdir()
    (tasks / "mini.py").write_text(MINI, encoding="utf-8")
    for name in ("filed", "other"):
        source = FILED.format(name=name, title=name.title())
        (tasks / f"{name}.py").write_text(source, encoding="utf-8")


@pytest.fixture
def plugin(place):
    """Return a writer of plugins into the working folder: plugin("methods", "mine", source)."""

    def write(kind, name, source):
        path = place / kind / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")
        return path

    return write


@pytest.fixture
def write_files():
    """Return a writer of a task's files below a folder: nine questions on three images."""
    from PIL import Image

    def write(root, name):
        folder = root / f"{name}-1.0"
        folder.mkdir(parents=True)
        rows = [
            {"id": f"q{n}", "question": f"is it {n}?", "answer": "yes", "image": f"{n % 3}.png"}
            for n in range(9)
        ]
        (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
        for n in range(3):
            Image.new("RGB", (20, 20), (80 * n, 9, 9)).save(folder / f"{n}.png")
        return root

    return write


@pytest.fixture
def files(place, write_files):
    """Return the data folder of the task `filed`."""
    return write_files(place / "data", "filed")


@pytest.fixture
def run(medbench):
    """Return a function that runs cells on `mini` with `toy`, and returns their folders."""

    def call(method="greedy", *arguments):
        words = ["run", "--method", method, "--task", "mini", "--backbone", "toy", "--json"]
        code, out, err = medbench(*words, *arguments)
        assert code == 0, err
        folders = [Path(json.loads(line)["folder"]) for line in out.splitlines()]
        return folders[0] if len(folders) == 1 else folders

    return call


@pytest.fixture
def refused(medbench):
    """Return a function that runs a command that must be refused, and returns its lines."""

    def call(*arguments):
        code, out, err = medbench("run", *arguments)
        lines = [line for line in err.splitlines() if not line.startswith(("[", "  "))]
        heads = [line for line in lines if line.endswith((", matched", ", published"))]
        lines = [line for line in lines if line not in heads]
        assert code == 2, (code, out, err)
        assert "Traceback" not in err
        assert 2 <= len(lines) <= 3, lines
        assert all(line.strip() for line in lines)
        return lines

    return call


class Server:
    """Starts medbench in processes forked from one that has imported everything."""

    def __init__(self):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        for name in ("MEDBENCH_PLUGINS", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, **question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, folder, arguments, **options):
        """Start a process in a folder and return its id."""
        words = [str(word) for word in arguments]
        return self.ask(start={"folder": str(folder), "arguments": words, **options})["pid"]

    def wait(self, pid):
        """Wait for a process and return its exit code, negative for a signal."""
        return self.ask(wait=pid)["status"]

    def run(self, folder, arguments, **options):
        return self.wait(self.start(folder, arguments, **options))

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()


@pytest.fixture(scope="session")
def server():
    """Return a server of processes, one for the whole session."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    started = Server()
    yield started
    started.close()


@pytest.fixture(scope="session")
def undisturbed(server, tmp_path_factory):
    """Return a function: arguments of a run -> its working folder after nothing went wrong."""
    known = {}

    def folder(arguments):
        if arguments not in known:
            path = tmp_path_factory.mktemp("undisturbed")
            write_tasks(path)
            assert server.run(path, arguments) == 0, (path / "stderr.txt").read_text()
            known[arguments] = path
        return known[arguments]

    return folder


@pytest.fixture
def snapshot(tmp_path_factory):
    """Return a function that copies a folder, to be damaged."""

    def copy(folder):
        target = tmp_path_factory.mktemp("copy") / "folder"
        shutil.copytree(folder, target)
        return target

    return copy


class Same:
    """What must be equal between two working folders that hold the same run."""

    def folder(self, place, pattern="results/runs/mini/*/*/*"):
        (folder,) = place.glob(pattern)
        return folder

    def answers(self, folder):
        """Return the lines of samples.jsonl without what they cost, which alone may differ."""
        lines = (folder / "samples.jsonl").read_bytes().splitlines(keepends=True)
        return [json.dumps(self.answer(json.loads(line))).encode() for line in lines]

    def answer(self, row):
        """Return a row without what it cost."""
        return {key: value for key, value in row.items() if key not in ("seconds", "peak_bytes")}

    def run(self, place, other):
        one, two = self.folder(place), self.folder(other)
        assert one.name == two.name
        assert len(self.answers(one)) == 21
        assert self.answers(one) == self.answers(two)
        assert (one / "scores.json").read_bytes() == (two / "scores.json").read_bytes()
        assert names(one) == names(two), "temporary files are left"

    def adapter(self, place, other):
        one, two = (self.folder(p, "results/runs/adapters/mini/*/*/*") for p in (place, other))
        assert names(one) == names(two), "temporary files are left"
        for name in names(one):
            assert (one / name).read_bytes() == (two / name).read_bytes(), name

    def wait_for(self, path, seconds=60):
        end = time.monotonic() + seconds
        while not path.exists():
            assert time.monotonic() < end, f"{path} did not come"
            time.sleep(0.005)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="session")
def same():
    """Return what compares two working folders that hold the same run."""
    return Same()
