"""A small phantom, small files in official layouts, and some finished runs."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace

import pytest
from PIL import Image

from tests.tasks.conftest import slake_row

IMAGES = {"train": 8, "test": 8}


@contextmanager
def small_world():
    """Let the phantom be a few images inside the block."""
    from medbench.data.passport import hash_ids
    from medbench.phantom import splits
    from medbench.tasks.phantom import Phantom

    with pytest.MonkeyPatch.context() as patch:
        known = dict(Phantom.passport)
        for name, images in IMAGES.items():
            split = replace(splits.SPLITS[name], images=images)
            patch.setitem(splits.SPLITS, name, split)
            ids = [item.id for item in splits.items(split)]
            known[name] = {"rows": len(ids), "ids": hash_ids(ids)}
        patch.setattr(Phantom, "passport", known)
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Return a working folder with the runs that most pages speak of."""
    from medbench.cli import main

    place = tmp_path_factory.mktemp("finished")
    with small_world(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        methods = "greedy,vcd,lora,a3tune,nucleus,beam"
        for words in (["--method", methods], ["--method", "lora,a3tune", "--seeds", "1"]):
            assert main(["run", *words, "--task", "phantom"]) == 0
    return place


@pytest.fixture
def place(finished, tmp_path, monkeypatch):
    """Return a working folder of a test's own, with those runs, in the small world."""
    monkeypatch.delenv("MEDBENCH_PLUGINS", raising=False)
    shutil.copytree(finished, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    with small_world():
        yield tmp_path / "work"


@pytest.fixture
def slake(tmp_path, monkeypatch):
    """Return a folder with a SLAKE of a few questions, in the official layout."""
    from medbench.data.passport import hash_ids
    from medbench.tasks import slake as module

    root = tmp_path / "data" / "Slake1.0"
    splits = {"train": range(0, 4), "validation": range(4, 6), "test": range(6, 10)}
    for split, numbers in splits.items():
        rows = [
            slake_row(
                number,
                img_id=number,
                img_name=f"xmlab{number}/source.jpg",
                answer="Yes" if number % 2 else "No",
            )
            for number in numbers
        ]
        root.mkdir(parents=True, exist_ok=True)
        name = "validate" if split == "validation" else split
        (root / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
        for number in numbers:
            folder = root / "imgs" / f"xmlab{number}"
            folder.mkdir(parents=True)
            Image.new("RGB", (40, 30), (20 * number, 120, 150)).save(folder / "source.jpg")
            boxes = [{"Liver": [4.0, 5.0, 20.0, 10.0]}]
            (folder / "detection.json").write_text(json.dumps(boxes), encoding="utf-8")
    passport = {
        split: {"rows": len(numbers), "ids": hash_ids(f"slake-{one}" for one in numbers)}
        for split, numbers in splits.items()
    }
    monkeypatch.setattr(module.Slake, "passport", passport)
    ranges = {split: (min(numbers), max(numbers)) for split, numbers in splits.items()}
    monkeypatch.setattr(module, "_ID_RANGES", ranges)
    return root.parent


@pytest.fixture(scope="session")
def llava_med_15(tmp_path_factory):
    """Return the spec of a tiny LLaVA-Med-1.5 in the authors' format."""
    from medbench.model.tiny_original import TOWERS, write_tiny

    root = tmp_path_factory.mktemp("llava")
    checkpoint = write_tiny("llava_mistral", root)
    tower = TOWERS["llava_mistral"]
    vision = checkpoint / tower if (checkpoint / tower).is_dir() else root / tower
    return f"llava-med-1.5[weights={checkpoint},vision={vision}]"
