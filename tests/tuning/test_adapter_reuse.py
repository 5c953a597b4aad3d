"""Adapters belong to a key: what was trained once is used again, by chains and by path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import medbench
from medbench.errors import UserError
from medbench.reporting import Report
from medbench.runner import Run

TASK = '''
"""Six drawn questions, for tests."""
from dataclasses import dataclass
import numpy as np
from PIL import Image
from medbench.task import Sample, Task


def image(shade):
    return Image.fromarray(np.full((16, 16, 3), shade, dtype=np.uint8))


def region():
    mask = np.zeros((16, 16), dtype=bool)
    mask[:8, :8] = True
    return mask


@dataclass(frozen=True)
class Drawn(Task):
    """Six drawn questions."""

    name = "drawn"
    offers = ("roi",)
    metrics = ("closed/strict",)
    tuning = {
        "rank": 2,
        "epochs": 1,
        "batch_size": 3,
        "align_weight": 0.5,
        "q_experts": 2,
        "labels": "roi",
    }
    max_new_tokens: int = 2

    def samples(self, split):
        for i in range(6):
            yield Sample(
                f"{split}-{i}", lambda shade=30 * i: image(shade), "is it dark?",
                "yes" if i < 3 else "no", "closed", f"{split}-{i}", stamp=str(i), roi=region,
            )
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "drawn.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(method: str, **options: Any) -> tuple[Run, list[str]]:
    """Run a method and return also the stages that it went through."""
    stages: list[str] = []
    done = medbench.run(
        method=method,
        task="drawn",
        backbone="toy",
        device="cpu",
        out="runs",
        report=Report(stage=lambda name, _: stages.append(name)),
        **options,
    )
    return done, stages


def adapter_of(done: Run) -> str:
    return json.loads((done.folder / "run.json").read_text())["adapter"]


SMALL = "lora[micro_batch=3]"


def test_an_adapter_is_trained_once_and_used_by_every_chain_with_its_key(folder: Path) -> None:
    first, stages = run(SMALL)
    assert "train" in stages
    second, stages = run(f"{SMALL}+beam[beams=2]")
    assert "train" not in stages
    assert adapter_of(first) == adapter_of(second)
    for changed, options in ((SMALL, {"seed": 1}), ("lora[micro_batch=3,alpha=4]", {})):
        other, stages = run(changed, **options)
        assert "train" in stages
        assert adapter_of(other) != adapter_of(first)
    path = next(folder.glob(f"runs/adapters/drawn/toy/lora/{adapter_of(first)}"))
    assert {one.name for one in path.iterdir()} >= {"adapter.json", "adapter_model.safetensors"}
    given, stages = run(f"lora[micro_batch=3,adapter={path}]", batch_size=2)
    assert stages[:2] == ["load", "decode"]
    answers = [[row["tokens"] for row in done.samples] for done in (first, given)]
    assert answers[0] == answers[1]


def test_an_a3tune_run_says_what_it_aligned_with_and_answers_the_same_from_its_adapter(
    folder: Path,
) -> None:
    method = "a3tune[micro_batch=3,R=2,head_selection=fixed,expert_rank=2,k_experts=2]"
    first, stages = run(method)
    assert "train" in stages
    path = next(folder.glob("runs/adapters/drawn/toy/a3tune/*"))
    record = json.loads((path / "adapter.json").read_text())
    assert (record["samples"], record["samples_with"]) == (6, {"segments": 6})
    log = [json.loads(line) for line in (path / "train.jsonl").read_text().splitlines()]
    assert len(log) == 2 and len(log[0]["heads"]) == 2
    assert all(entry["alignment"] > 0 for entry in log)
    assert not (path / "checkpoint.pt").exists()
    again, stages = run(f"{method}+greedy", batch_size=2)
    assert "train" not in stages
    assert [row["tokens"] for row in first.samples] == [row["tokens"] for row in again.samples]


def test_an_adapter_trained_with_other_settings_is_refused(folder: Path) -> None:
    first, _ = run(SMALL)
    path = next(folder.glob(f"runs/adapters/*/*/*/{adapter_of(first)}"))
    with pytest.raises(UserError, match="trained with other settings"):
        run(f"lora[micro_batch=3,alpha=4,adapter={path}]")
