"""Run folders without models: rows with given scores, written as `medbench run` writes them."""

import hashlib
from xml.etree import ElementTree

import matplotlib.font_manager  # noqa: F401  fonts are looked for before the cache moves, and once
import pytest
from PIL import Image

from medbench import canonical, store
from medbench.rows import Row
from medbench.stats import bootstrap_mean

MACHINE = {"machine": "x86_64", "system": "Linux 1", "cores": 2, "threads": 1}
_SVG = "{http://www.w3.org/2000/svg}"
METRICS = {"closed": ("closed/paper", "closed/strict"), "open": ("recall/paper", "recall/strict")}


def scored(rows):
    """Return scores.json's scores: plain means of the rows' own."""
    names = dict.fromkeys(name for row in rows for name in row["scores"])
    scores = {}
    for name in names:
        kept = [row for row in rows if row["scores"].get(name) is not None]
        values = [row["scores"][name] for row in kept]
        groups = [row["group"] for row in kept]
        low, high = bootstrap_mean(values, groups, resamples=200) or (None, None)
        scores[name] = {
            "value": sum(values) / len(values) if values else None,
            "low": low,
            "high": high,
            "n": len(values),
            "groups": len(set(groups)),
            "notes": {},
        }
    return scores


@pytest.fixture
def root(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def made(root):
    """Return a writer of finished runs, two questions an image, closed and open by turns.

    made("a3tune[R=6]", 7, 5) has 7 of 10 closed and 5 of 10 open questions right.
    """

    def make(
        method,
        closed=6,
        opened=6,
        *,
        each=10,
        seed=0,
        task="phantom",
        backbone="phantom",
        preset="matched",
        limit=None,
        hardware=MACHINE,
        seconds=0.1,
        forwards=2,
        identity=None,
        out=None,
        command=None,
        finish=True,
        **record,
    ):
        rows: list[Row] = []
        for at in range(each):
            for kind, right in (("closed", at < closed), ("open", at < opened)):
                rows.append(
                    {
                        "id": f"{kind}-{at}",
                        "group": f"image {at}",
                        "kind": kind,
                        "question": "is it?",
                        "gold": "yes",
                        "output": "yes" if right else "no",
                        "tokens": [5, 2],
                        "seconds": seconds,
                        "forwards": forwards,
                        "peak_bytes": 2**30,
                        "scores": dict.fromkeys(METRICS[kind], float(right)),
                    }
                )
        facts = {
            "engine": 1,
            "task": {"name": task.partition("[")[0], "version": 1, "samples": "a", "source": "b"},
            "backbone": {"name": backbone, "weights": "c", "dtype": "float32", "source": "d"},
            "tuner": None,
            "adapter": f"{method} {seed}",
            "decoder": {"name": canonical.method(method, task)},
            "preset": preset,
            "seed": seed,
            "limit": limit,
            "batch_size": 16,
            **(identity or {}),
        }
        key = hashlib.sha256(f"{method} {task} {facts}".encode()).hexdigest()[:12]
        folder = (out or root) / task.partition("[")[0] / backbone / method.partition("[")[0] / key
        folder.mkdir(parents=True)
        seeded = f" --seed {seed}" if seed else ""
        store.begin(
            folder,
            {
                "key": key,
                "identity": facts,
                "display": {"task": task, "backbone": backbone, "method": method},
                "samples": len(rows),
                "partial": limit is not None,
                "missing_images": 0,
                "data": {"edition": "official", "note": "", "restricted": False},
                "command": command or f'medbench run --method "{method}" --task {task}{seeded}',
                "hardware": hardware,
                "started": "2026-01-01T00:00:00Z",
                "device": "cpu",
                "versions": {},
                "git": {},
                **record,
            },
        )
        if finish:
            store.finish(folder, rows, {"scores": scored(rows), "health": {}})
        return folder

    return make


@pytest.fixture
def drawn(medbench, tmp_path):
    """Return a function that draws a figure in both formats, twice, and returns the SVG's text."""

    def draw(*arguments):
        for ending, begin in (("svg", b"<?xml"), ("png", b"\x89PNG\r\n")):
            twice = []
            for name in ("one", "two"):
                path = tmp_path / f"{name}.{ending}"
                code, out, err = medbench("plot", *arguments, "--output", path)
                assert code == 0, err
                assert out == f"{path}\n"
                twice.append(path.read_bytes())
            assert twice[0] == twice[1], f"two {ending} of the same runs differ"
            assert twice[0].startswith(begin)
        with Image.open(tmp_path / "one.png") as image:
            image.load()
            assert min(image.size) > 300
        assert not list(tmp_path.glob(".*"))
        tree = ElementTree.parse(tmp_path / "one.svg")
        return "\n".join("".join(part.itertext()).strip() for part in tree.iter(f"{_SVG}text"))

    return draw
