"""Small data sets in the official layouts, and the real files where they are at hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medbench.data.passport import hash_ids
from medbench.tasks import slake as slake_module
from medbench.tasks import vqa_rad as rad_module
from medbench.tasks.slake import Slake
from medbench.tasks.vqa_rad import VqaRad

_REAL = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


@pytest.fixture
def real_data() -> Path:
    if not _REAL.is_dir():
        pytest.skip("the real files are not beside this checkout")
    return _REAL


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def draw(path: Path, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 150)).save(path)


def slake_row(qid: int, **changes: Any) -> dict[str, Any]:
    row = {
        "img_id": qid // 2,
        "img_name": f"xmlab{qid // 2}/source.jpg",
        "question": "Is the liver enlarged?",
        "answer": "Yes",
        "q_lang": "en",
        "location": "Abdomen",
        "modality": "CT",
        "answer_type": "CLOSED",
        "base_type": "vqa",
        "content_type": "Size",
        "triple": ["vhead", "_", "_"],
        "qid": qid,
    }
    return {**row, **changes}


def rad_row(qid: int | str, **changes: Any) -> dict[str, Any]:
    row = {
        "qid": qid,
        "phrase_type": "test_freeform",
        "qid_linked_id": f"link-{qid}",
        "image_case_url": "https://example.org",
        "image_name": f"synpic{int(qid) // 2}.jpg",
        "image_organ": "HEAD",
        "evaluation": "given",
        "question": "Is there a mass?",
        "question_relation": "NULL",
        "question_frame": "NULL",
        "question_type": "PRES",
        "answer": "Yes",
        "answer_type": "CLOSED",
    }
    return {**row, **changes}


def passport(prefix: str, splits: Mapping[str, list[int | str]]) -> dict[str, dict[str, Any]]:
    return {
        split: {"rows": len(ids), "ids": hash_ids(f"{prefix}-{native}" for native in ids)}
        for split, ids in splits.items()
    }


@pytest.fixture
def small_slake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SLAKE of six test questions, four of them English, on three images."""
    root = tmp_path / "Slake1.0"
    rows = [
        slake_row(0),
        slake_row(1, question="What is in the left lung?", answer="Nodule", answer_type="OPEN"),
        slake_row(2, question="肝脏正常吗?", answer="不是", q_lang="zh"),
        slake_row(3, question="Is this a lung or a liver?", answer="Lung"),
        slake_row(4, question="Does the lung look healthy?", answer="no"),
        slake_row(5, question="器官?", answer="肺", q_lang="zh", answer_type="OPEN"),
    ]
    write_json(root / "test.json", rows)
    for number in range(3):
        folder = root / "imgs" / f"xmlab{number}"
        draw(folder / "source.jpg")
        write_json(
            folder / "detection.json",
            [{"Left Lung": [20.0, 5.0, 10.0, 10.0]}, {"Right Lung": [2.0, 5.0, 10.0, 10.0]}],
        )
    write_json(root / "imgs" / "xmlab0" / "detection.json", [{"Liver": [30.5, 20.0, 20.0, 5.0]}])
    monkeypatch.setattr(Slake, "passport", passport("slake", {"test": [0, 1, 3, 4]}))
    monkeypatch.setattr(slake_module, "_ID_RANGES", {"test": (0, 5)})
    monkeypatch.setattr(slake_module, "_ROWS", {"zh": {"test": 2}, "all": {"test": 6}})
    return root


@pytest.fixture
def small_rad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A VQA-RAD of five test and two training questions with the dirt of the real one."""
    root = tmp_path / "vqa_rad"
    rows = [
        rad_row("0"),
        rad_row(1, answer=4, answer_type="OPEN", question="How many\tmasses?"),
        rad_row(2, answer="Maybe", answer_type="CLOSED ", phrase_type="freeform"),
        rad_row(3, answer="Abnormal", phrase_type="test_para"),
        rad_row(4, answer="MRI", question="CT or MRI?"),
        rad_row(5, answer="no", phrase_type="para"),
        rad_row(6, answer="Heart \tnodule", answer_type="OPEN"),
    ]
    write_json(root / "VQA_RAD Dataset Public.json", rows)
    for number in range(4):
        draw(root / "VQA_RAD Image Folder" / f"synpic{number}.jpg")
    monkeypatch.setattr(
        VqaRad, "passport", passport("vqa_rad", {"train": [2, 5], "test": ["0", 1, 3, 4, 6]})
    )
    monkeypatch.setattr(rad_module, "_N_ROWS", 7)
    return root
