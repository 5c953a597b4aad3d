"""A bfloat16 backbone trains an adapter whose weights, moments and sums are float32."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from medbench.backbones.toy import Toy
from medbench.model.tiny import build_toy
from medbench.tuning import loop
from medbench.tuning.adapter import attached
from medbench.tuning.loop import CHECKPOINT, LOG

MakeTuner = Callable[..., Any]
MakeExample = Callable[[int], Any]


@pytest.mark.parametrize("recomputed", ["false", "true"])
@pytest.mark.parametrize("name", ["lora", "a3tune"])
def test_bfloat16_follows_float32_with_float32_adapter_weights(
    make_tuner: MakeTuner,
    example: MakeExample,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    recomputed: str,
) -> None:
    monkeypatch.setattr(loop, "SHORTEST", 0.0)
    monkeypatch.setattr(loop, "PATIENCE", 0.0)
    tuner = make_tuner(name, gradient_checkpointing=recomputed)
    logs: list[list[float]] = []
    moves: list[Tensor] = []
    for dtype in (torch.float32, torch.bfloat16):
        backbone = build_toy(Toy(), device=torch.device("cpu"), dtype=dtype)
        folder = tmp_path / str(dtype)
        folder.mkdir()

        def cast(index: int, dtype: torch.dtype = dtype) -> Any:
            one = example(index)
            return replace(one, prompt=replace(one.prompt, features=one.prompt.features.to(dtype)))

        with attached(backbone, tuner) as adapter:
            before = {key: value.clone() for key, value in adapter.state().items()}
            loop.train(tuner, adapter, 8, cast, folder, seed=0, epochs=4)
            adapter.save(folder)
            after = adapter.state()
            assert {value.dtype for value in after.values()} == {torch.float32}
            moves.append(torch.cat([(after[key] - before[key]).flatten() for key in before]))
        saved = [load_file(path) for path in folder.glob("*.safetensors")]
        assert {value.dtype for one in saved for value in one.values()} == {torch.float32}
        moments = torch.load(folder / CHECKPOINT, weights_only=True)["optimizer"]["state"]
        assert {one["exp_avg_sq"].dtype for one in moments.values()} == {torch.float32}
        entries = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
        logs.append([entry["loss"] for entry in entries])
    assert all(loss == loss and abs(loss) < 100 for loss in logs[1])
    assert logs[1] == pytest.approx(logs[0], rel=0.1)
    # Losses fall alike, and the adapter moves in the same direction.
    assert float(torch.corrcoef(torch.tensor(logs))[0, 1]) > 0.98
    assert float(torch.cosine_similarity(*moves, dim=0)) > 0.9
