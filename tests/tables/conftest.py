"""Run folders whose right and wrong answers stand in the test, a layout, and the command."""

import csv
import io
import itertools
import json

import pytest

from medbench import store
from medbench.stats import bootstrap_mean

VERSIONS = {"medbench": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"}
MACHINE = {"machine": "x86_64", "system": "Linux", "gpu": ""}

LAYOUT = """
title = "A small table of Toy"
model = "Toy"
notes = ["What is known of Toy."]

[[columns]]
heads = ["World", "Closed"]
task = "phantom"
metric = "closed/paper"

[[columns]]
heads = ["World", "Open"]
task = "phantom"
metric = "recall/paper"

[[groups]]
name = "Toy"
backbone = "toy"
reference = "Greedy"
rows = [
    { label = "Greedy", method = "greedy" },
    { label = "VCD", method = "vcd" },
    { label = "DoLa", method = "dola" },
]

[[groups]]
name = "Toy + LoRA"
backbone = "toy"
reference = "Greedy"
rows = [
    { label = "Greedy", method = "lora", reference = "Toy / Greedy" },
    { label = "no image", method = "blind", reference = "" },
]
"""


def scored(rows):
    """Return what scores.json says of rows: means of theirs, as most metrics are."""
    scores = {}
    for name in dict.fromkeys(name for row in rows for name in row["scores"]):
        kept = [row for row in rows if row["scores"].get(name) is not None]
        values, groups = [row["scores"][name] for row in kept], [row["group"] for row in kept]
        low, high = bootstrap_mean(values, groups, resamples=200) or (None, None)
        scores[name] = {
            "value": sum(values) / len(values),
            "low": low,
            "high": high,
            "n": len(values),
            "groups": len(set(groups)),
            "notes": {},
        }
    return scores


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return the working folder; runs go to results/runs below it."""
    monkeypatch.chdir(tmp_path)
    for name in ("MEDBENCH_PLUGINS", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def make(place):
    """Return a writer of finished runs.

    make("vcd", "110", [0.5]) has three closed questions, the third of which is answered wrongly,
    and an open one with a recall of a half. Two questions are about one image.
    """

    numbers = itertools.count(1)

    def write(
        method="greedy",
        closed="10",
        recall=(),
        *,
        seed=0,
        task="phantom",
        backbone="toy",
        preset="matched",
        limit=None,
        missing_images=0,
        health=None,
        locations=("",),
        metrics=("closed/paper", "closed/strict"),
        pooled=None,
        seconds=0.5,
        tokens=4,
        peak_bytes=3 * 2**20,
        finished=True,
        restricted=False,
        edition="official",
        note="",
        versions=VERSIONS,
        hardware=MACHINE,
        identity=None,
        out=None,
        command=None,
    ):
        answers = [("closed", metrics, float(digit)) for digit in closed]
        answers += [("open", ("recall/paper",), value) for value in recall]
        rows = [
            {
                "id": f"{kind}-{at}",
                "group": f"image {at // 2}",
                "kind": kind,
                "question": "is it?",
                "gold": "yes",
                "output": "yes" if value else "no",
                "meta": {"location": locations[at % len(locations)], "number": at},
                "tokens": [*range(tokens)],
                "seconds": seconds,
                "forwards": 8,
                "peak_bytes": peak_bytes,
                "scores": {
                    **dict.fromkeys(names, value),
                    **({"bleu4/coco": 0.5} if pooled else {}),
                },
            }
            for at, (kind, names, value) in enumerate(answers)
        ]
        told = {
            "engine": 1,
            "task": {
                "name": task.partition("[")[0],
                "parameters": {},
                "source": "a",
                "version": 1,
                "samples": "b" * 64,
            },
            "backbone": {"name": backbone, "weights": "c" * 64, "dtype": "float32"},
            "tuner": None,
            "adapter": f"{method} {seed}",
            "decoder": {"name": method, "source": method},
            "preset": preset,
            "seed": seed,
            "limit": limit,
            "batch_size": 16,
        }
        for path, value in (identity or {}).items():
            part, _, name = path.rpartition(".")
            (told[part] if part else told)[name] = value
        key = f"{next(numbers):012}"  # in the order written
        out = place / "results" / "runs" if out is None else out
        folder = out / told["task"]["name"] / backbone / method.partition("[")[0] / key
        folder.mkdir(parents=True)
        words = f'--method "{method}" --task {task} --backbone {backbone}'
        words += f" --seed {seed}" * bool(seed) + f" --limit {limit}" * bool(limit)
        words += f" --preset {preset}" * (preset != "matched")
        store.begin(
            folder,
            {
                "key": key,
                "identity": told,
                "display": {"task": task, "backbone": backbone, "method": method},
                "samples": len(rows),
                "partial": limit is not None or missing_images > 0,
                "missing_images": missing_images,
                "data": {"edition": edition, "note": note, "restricted": restricted},
                "command": f"medbench run {words}" if command is None else command,
                "versions": versions,
                "hardware": hardware,
            },
        )
        scores = scored(rows)
        if pooled:
            scores["bleu4/coco"] |= {"value": pooled}
        if finished:
            store.finish(folder, rows, {"scores": scores, "health": health or {}})
        return folder

    return write


@pytest.fixture
def layout(place):
    """Return a writer of layouts: the one above, with parts of its text replaced."""

    def write(*replaced, text=LAYOUT):
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        path = place / "small.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def shown(medbench):
    """Return a function that prints a table and returns what is printed."""

    def call(*arguments):
        code, out, err = medbench("table", *arguments)
        assert (code, err) == (0, ""), (out, err)
        return out

    return call


@pytest.fixture
def tables(shown):
    """Return a function that returns the tables of a command as JSON has them."""

    def call(*arguments):
        return json.loads(shown(*arguments, "--format", "json"))

    return call


@pytest.fixture
def cells(tables):
    """Return a function that returns the only table's filled cells, by labels and metric."""

    def call(*arguments):
        (table,) = tables(*arguments)
        return {
            (row["group"], row["label"], column["metric"]): cell
            for row in table["rows"]
            for column, cell in zip(table["columns"], row["cells"], strict=True)
            if cell is not None
        }

    return call


@pytest.fixture
def lines_of_csv(shown):
    """Return a function that returns the lines of a table's CSV, by field."""

    def call(*arguments):
        return list(csv.DictReader(io.StringIO(shown(*arguments, "--format", "csv"))))

    return call


@pytest.fixture
def refused(medbench):
    """Return a function that prints a table that must be refused, and returns its lines."""

    def call(*arguments):
        code, out, err = medbench("table", *arguments)
        assert (code, out) == (2, ""), (code, out, err)
        assert "Traceback" not in err
        lines = err.splitlines()
        assert 1 <= len(lines) <= 3, lines
        return lines

    return call
