"""MedAlign as a user runs it: trained with an expert, reused, and answering without one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import medbench
from medbench.errors import UserError
from medbench.reporting import Report
from medbench.runner import Run
from tests.expert.conftest import STOCK, MakeFolder

TASK = '''
"""Six questions about three drawn images, for tests."""
from dataclasses import dataclass
import numpy as np
from PIL import Image
from medbench.task import Sample, Task


def image(seed):
    draw = np.random.default_rng(seed)
    return Image.fromarray(draw.integers(0, 256, (20, 30, 3), dtype=np.uint8))


def region():
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:15, 10:20] = True
    return mask


@dataclass(frozen=True)
class Drawn(Task):
    """Six questions about three drawn images."""

    name = "drawn"
    offers = ("roi",)
    metrics = ("closed/strict",)
    tuning = {
        "rank": 2, "epochs": 1, "batch_size": 3, "align_weight": 0.5, "q_experts": 2,
        "k_experts": 2, "expert_rank": 2, "labels": "roi", "expert": "grey",
    }
    max_new_tokens: int = 2

    def samples(self, split):
        for i in range(6):
            yield Sample(
                f"{split}-{i}", lambda seed=i // 2: image(seed), "is it dark?" + "?" * i,
                "yes" if i < 3 else "no", "closed", f"{split}-{i // 2}", stamp=str(i // 2),
                roi=region,
            )
'''
EXPERT = '''
"""An expert that sees shades of grey, for tests."""
from dataclasses import dataclass
import numpy as np
from medbench import images
from medbench.provider import Expert, ExpertView


@dataclass(frozen=True)
class Grey(Expert):
    """An expert that sees shades of grey."""

    name = "grey"

    side: int = 3

    def open(self, samples, around):
        def view(sample):
            image = images.opened(sample)
            cells = image.convert("L").resize((self.side, self.side))
            shades = np.asarray(cells, np.float32).reshape(-1, 1) / 255
            features = np.concatenate([shades, 1 - shades], 1)
            size = (image.height, image.width)
            return ExpertView((self.side, self.side), features @ features.T, shades[:, 0], size)

        return view
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for kind, name, source in (("tasks", "drawn", TASK), ("providers", "grey", EXPERT)):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"{name}.py").write_text(source)
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
        report=Report(stage=lambda name, remark: stages.append(f"{name} {remark}".strip())),
        **options,
    )
    return done, stages


def adapters(folder: Path, method: str) -> list[Path]:
    return sorted(folder.glob(f"runs/adapters/drawn/toy/{method}/*"))


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    lines = (path / "train.jsonl").read_text().splitlines()
    return json.loads((path / "adapter.json").read_text()), [json.loads(one) for one in lines]


def test_a_run_distils_saves_its_map_and_answers_the_same_without_the_expert(folder: Path) -> None:
    first, stages = run("medalign[micro_batch=2]")
    assert "label grey" in stages
    (path,) = adapters(folder, "medalign")
    record, log = read(path)
    assert record["samples_with"] == {"similarity": 6, "expert_attention": 6}
    assert len(log) == 2
    assert all(one["similarity"] > 0 and one["attention"] > 0 for one in log)
    assert list(load_file(path / "extension.safetensors")) == ["maps.1.weight"]
    again, stages = run("medalign[micro_batch=2]+greedy", batch_size=2)
    assert not any(one.startswith(("label", "train")) for one in stages)
    (folder / "providers" / "grey.py").unlink()
    given, stages = run(f"medalign[micro_batch=2,expert=open_clip,adapter={path}]", batch_size=3)
    assert stages[1].startswith("decode")
    answers = [[row["tokens"] for row in one.samples] for one in (first, again, given)]
    assert answers[0] == answers[1] == answers[2]


def test_the_experts_settings_are_part_of_the_adapters_key(folder: Path) -> None:
    for method in ("medalign", "medalign[expert=grey[side=4]]", "medalign[similarity_weight=0]"):
        _, stages = run(method)
        assert any(one.startswith("train") for one in stages)
    assert len(adapters(folder, "medalign")) == 3
    # Written out, the defaults are the same adapter.
    _, stages = run("medalign[expert=grey[side=3]]")
    assert not any(one.startswith("train") for one in stages)


def test_a3tune_takes_an_expert_beside_its_regions(folder: Path) -> None:
    _, stages = run("a3tune[R=2,similarity_weight=0.5]")
    assert [one for one in stages if one.startswith("label")] == ["label roi", "label grey"]
    (path,) = adapters(folder, "a3tune")
    record, log = read(path)
    assert record["samples_with"] == {"segments": 6, "similarity": 6}
    assert all(one["similarity"] > 0 and one["alignment"] > 0 for one in log)
    parts = {name.partition(".")[0] for name in load_file(path / "extension.safetensors")}
    assert parts == {"a3moe", "visual_map"}
    # Without the loss it is another adapter, and no expert counts.
    for method in ("a3tune[R=2]", "a3tune[R=2,expert=grey[side=4]]"):
        _, stages = run(method)
        told = [one for one in stages if one.startswith("label")]
        assert told == (["label roi"] if method == "a3tune[R=2]" else [])
    assert len(adapters(folder, "a3tune")) == 2


def test_a_layer_that_the_backbone_lacks_is_refused_before_anything_runs(folder: Path) -> None:
    with pytest.raises(UserError, match="cannot run on 2 decoder layers"):
        run("medalign[layer=2]")
    assert not (folder / "runs").exists()


def test_a_provider_of_regions_is_no_expert(folder: Path) -> None:
    with pytest.raises(UserError, match="medalign cannot take expert=roi") as raised:
        run("medalign[expert=roi]")
    assert "biomedclip, grey, open_clip, unimed_b16, unimed_l14_336" in raised.value.do


def test_a_run_with_a_real_tower_makes_its_views_once(
    folder: Path, folder_of: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expert = f"open_clip[weights={folder_of(STOCK)},cache={folder / 'views'}]"
    run(f"medalign[expert={expert}]")
    (path,) = adapters(folder, "medalign")
    record, log = read(path)
    assert record["samples_with"] == {"similarity": 6, "expert_attention": 6}
    assert all(one["similarity"] > 0 and one["attention"] > 0 for one in log)
    assert "weights" not in json.dumps(record["identity"]["tuner"])
    for name in [one for one in sys.modules if one.partition(".")[0] in ("open_clip", "timm")]:
        monkeypatch.setitem(sys.modules, name, None)
    # Another adapter from the same views: nothing is loaded for it.
    _, stages = run(f"medalign[expert={expert},attention_weight=0.5]")
    assert any(one.startswith("train") for one in stages)
