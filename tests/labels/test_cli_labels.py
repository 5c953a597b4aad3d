"""`medbench labels`, as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def spec(sam_folder: Path, clip: Path, tmp_path: Path, lenient: dict[str, Any]) -> str:
    """Return a spec of the provider with tiny models and a cache of its own."""
    settings = {"sam": sam_folder, "clip": clip, "cache": tmp_path / "cache", **lenient}
    return f"sam-biomedclip[{','.join(f'{key}={value}' for key, value in settings.items())}]"


def test_labels_are_counted_written_and_shown(medbench, spec, tmp_path):
    words = ["labels", "--task", "phantom", "--split", "validation", "--limit", "5"]
    words += ["--labels", spec, "--npz", str(tmp_path / "l.npz"), "--view", str(tmp_path / "v.png")]
    code, out, err = medbench(*words)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("sam_biomedclip[") and lines[0].endswith("on phantom, validation")
    assert str(tmp_path / "cache") not in out
    assert "  5 samples about 5 pictures" in lines
    assert any("right in top 1" in line and "random" in line for line in lines)
    assert any("ceiling" in line for line in lines)
    with Image.open(tmp_path / "v.png") as sheet:
        assert sheet.width > 1000
    with np.load(tmp_path / "l.npz") as file:
        assert len(file.files) == 5
        assert all(file[name].shape == (4, 256, 256) for name in file.files)
    again = medbench(*words, "--json")
    told = json.loads(again[1])
    assert (told["samples"], told["with_region"], told["without_region"]) == (5, 5, [])
    assert told["quality"]["right in top 4"]["n"] == 5


def test_the_file_written_is_labels_too(medbench, spec, tmp_path):
    file = tmp_path / "l.npz"
    limited = ["labels", "--task", "phantom", "--limit", "3"]
    assert medbench(*limited, "--labels", spec, "--npz", str(file))[0] == 0
    code, out, _ = medbench(*limited, "--labels", f"npz[file={file}]")
    assert code == 0 and "with a region      100.00 %  (3)" in out
    code, _, err = medbench("labels", "--task", "phantom", "--labels", f"npz[file={file}]")
    assert code == 2 and "no entry for 1597 of 1600 samples" in err


def test_samples_without_a_region_are_named(medbench, spec):
    none = spec.replace("pred_iou_thresh=-9.0", "pred_iou_thresh=9")
    code, out, _ = medbench("labels", "--task", "phantom", "--limit", "2", "--labels", none)
    assert code == 0
    assert "with a region        0.00 %  (0)" in out and "without            2: train-" in out


def test_the_datas_own_regions_need_no_models(medbench, tmp_path):
    words = ("labels", "--task", "phantom", "--limit", "9", "--labels", "roi")
    code, out, _ = medbench(*words, "--view", str(tmp_path / "v.png"), "--first", "3")
    assert code == 0 and "9 samples" in out and (tmp_path / "v.png").exists()


def test_experts_are_asked_ahead_too(medbench, clip, tmp_path):
    words = ["labels", "--task", "phantom", "--limit", "3"]
    words += ["--labels", f"open_clip[weights={clip},cache={tmp_path}]"]
    code, out, err = medbench(*words, "--fit", "pad")
    assert (code, err) == (0, "")
    assert "open_clip on phantom, train" in out and "3 samples about 3 pictures" in out
    (file,) = tmp_path.glob("expert-*.sqlite")
    before = file.read_bytes()
    assert medbench(*words, "--fit", "pad")[0] == 0 and file.read_bytes() == before
    code, _, err = medbench(*words)
    assert code == 2 and "does not know how the student places images" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--labels", "rois"), "no provider named 'rois'"),
        (("--labels", "roi[k=1]"), "roi has no parameter 'k'"),
        (("--labels", "sam-biomedclip[side=a]"), "cannot take side=a"),
        (("--labels", "open_clip", "--view", "v.png"), "open_clip gives no regions"),
        (("--labels", "open_clip[weights=absent]"), "no CLIP in absent"),
        (("--labels", "npz"), "npz needs a file"),
        (("--labels", "npz[file=absent.npz]"), "no labels in 'absent.npz'"),
        (("--labels", "roi", "--split", "dev"), "phantom has no split 'dev'"),
        (("--labels", "roi", "--k", "0"), "--k 0 makes no sense"),
        (("--labels", "roi", "--task", "vqa_rad"), "roi cannot run"),
        (("--labels", "roi", "--view", "sheet.txt"), "cannot write a picture to sheet.txt"),
        (("--labels", "roi", "--npz", "absent/l.npz"), "no folder absent"),
        (("--labels", "sam-biomedclip[sam=absent.pth]"), "no SAM in absent.pth"),
    ],
)
def test_a_mistake_is_said_in_three_lines(medbench, words, says):
    given = words if "--task" in words else ("--task", "phantom", *words)
    code, out, err = medbench("labels", *given)
    assert (code, out) == (2, "")
    assert says in err and len(err.splitlines()) <= 3
