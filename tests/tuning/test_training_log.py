"""What a line of the training log says, and that saying it changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from medbench.model.llava import Backbone
from medbench.tuning import loop
from medbench.tuning.adapter import Adapter, attached
from medbench.tuning.batch import collate
from medbench.tuning.loop import LOG
from medbench.tuning.step import losses, seen_losses

MakeTuner = Callable[..., Any]
MakeExample = Callable[[int], Any]


def trained(
    backbone: Backbone, tuner: Any, example: MakeExample, folder: Path, *, epochs: int = 3
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    folder.mkdir()
    with attached(backbone, tuner) as adapter:
        loop.train(tuner, adapter, 8, example, folder, seed=0, epochs=epochs)
        state = {name: value.clone() for name, value in adapter.state().items()}
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()], state


@pytest.mark.parametrize("recomputed", ["false", "true"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("lora", {}), ("a3tune", {"balance_weight": 0.1, "micro_batch": 2}), ("medalign", {})],
)
def test_telling_more_changes_no_bit_of_the_adapter(
    backbone: Backbone,
    make_tuner: MakeTuner,
    example: MakeExample,
    tmp_path: Path,
    name: str,
    options: dict[str, Any],
    recomputed: str,
) -> None:
    options = {**options, "dropout": 0.3, "gradient_checkpointing": recomputed}
    plain, wanted = trained(
        backbone, make_tuner(name, **options, log_terms_every=0), example, tmp_path / "plain"
    )
    told, found = trained(
        backbone, make_tuner(name, **options, log_terms_every=1), example, tmp_path / "told"
    )
    assert all(torch.equal(found[key], value) for key, value in wanted.items())
    assert [{k: v for k, v in one.items() if k != "gradient_norms"} for one in told] == plain
    # A single loss has its norm in `gradient_norm`.
    assert all(("gradient_norms" in one) == (name != "lora") for one in told)


def test_the_norms_are_those_of_each_losss_own_gradient_on_the_first_micro_batch(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample, tmp_path: Path
) -> None:
    tuner = make_tuner("a3tune", balance_weight=0.1, log_terms_every=2)
    log, _ = trained(backbone, tuner, example, tmp_path / "run")
    assert ["gradient_norms" in entry for entry in log] == [True, False, True, False, True, False]
    chosen = next(loop._order(8, 4, 3, 0))[:2]
    with attached(backbone, tuner) as adapter:
        for name, norm in log[0]["gradient_norms"].items():
            parts = losses(tuner, adapter, collate(adapter.backbone, [example(i) for i in chosen]))
            parts[name].mean().backward()
            gradients = [one.grad for one in adapter.trainable().values() if one.grad is not None]
            wanted = float(torch.stack([one.norm() for one in gradients]).norm())
            assert norm == pytest.approx(wanted, rel=1e-5), name
            for weight in adapter.trainable().values():
                weight.grad = None
    assert log[0]["gradient_norms"].keys() == {"language", "alignment", "balance"}


def test_a3tune_tells_the_share_in_the_segments_and_the_heads_chosen_most_often(
    backbone: Backbone,
    make_tuner: MakeTuner,
    example: MakeExample,
    shake: Callable[[Adapter], None],
    tmp_path: Path,
) -> None:
    tuner = make_tuner("a3tune", R=3)
    with attached(backbone, tuner) as adapter, torch.no_grad():
        shake(adapter)
        batch = collate(adapter.backbone, [example(i) for i in range(4)])
        view, _ = seen_losses(tuner, adapter, batch)
        seen = tuner.observe(view)
        assert view.attention is not None and view.valid is not None
        segments = batch.targets["segments"]
        heads = view.notes["heads"]
        wanted = []
        for row in range(4):
            if not segments.present[row].any():
                continue
            rows = view.attention[row][heads[row]].mean(0)[view.valid[row]].mean(0)
            inside = segments.values[row].amax(0) > 0
            wanted.append(float(rows[inside].sum() / rows.sum()))
        assert len(wanted) == 2  # samples 0 and 3 have no segment
        assert seen["in_segments"] == pytest.approx(wanted, rel=1e-5)
        assert len(seen["top_heads"]) == 4 * 3
        assert {tuple(one) for one in seen["top_heads"]} == {
            (layer, head) for _, layer, head in heads.nonzero().tolist()
        }
    log, _ = trained(backbone, tuner, example, tmp_path / "run")
    assert all(0 <= entry["in_segments"] <= 1 and len(entry["top_heads"]) <= 5 for entry in log)
    assert max(map(len, (tmp_path / "run" / LOG).read_text().splitlines())) < 500
    off, _ = trained(backbone, make_tuner("a3tune", align_weight=0), example, tmp_path / "off")
    assert not any("in_segments" in entry or "top_heads" in entry for entry in off)


def test_numbers_are_averaged_over_the_step_and_tuples_counted() -> None:
    one = {"share": [0.0, 1.0, 0.5], "heads": [(1, 2), (0, 3), (1, 2), (0, 1), (4, 4)]}
    two = {"share": [0.5], "heads": [(4, 4), (1, 2), (9, 9), (8, 8)], "empty": []}
    found = loop._summary([one, {}, two])
    assert found == {"share": 0.5, "heads": [[1, 2], [4, 4], [0, 1], [0, 3], [8, 8]]}
    assert loop._summary([two, one]) == found
