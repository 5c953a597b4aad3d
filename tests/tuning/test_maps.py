"""Maps computed when they are needed equal those that were kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from medbench.backbones.toy import Toy
from medbench.model.attention import AttentionProbe
from medbench.model.llava import Backbone
from medbench.model.rows import positions, where
from medbench.model.tiny import build_toy
from medbench.tuning.adapter import Adapter, attached
from medbench.tuning.alignment import selected_map, top_heads, visual_ratio
from medbench.tuning.batch import collate
from medbench.tuning.step import forward

MakeTuner = Callable[..., Any]
MakeExample = Callable[[int], Any]


@pytest.fixture(params=[1, 2, 4])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    """Return a backbone whose four query heads share so many key heads."""
    toy = Toy(heads=4, kv_heads=request.param, layers=3)
    return build_toy(toy, device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize("heads", [1, 3, 5, 12])
def test_ratio_and_mean_are_those_of_all_maps_with_their_gradient(
    backbone: Backbone,
    make_tuner: MakeTuner,
    example: MakeExample,
    shake: Callable[[Adapter], None],
    heads: int,
) -> None:
    tuner = make_tuner("a3tune")
    gradients: list[list[Tensor]] = []
    with attached(backbone, tuner) as adapter:
        shake(adapter)
        for kept in (True, False):
            batch = collate(adapter.backbone, [example(i) for i in range(4)])
            view, _ = forward(tuner, adapter, batch)
            assert view.maps is not None and view.attention is not None
            assert view.valid is not None and not view.valid.all()
            ratio = visual_ratio(view.attention, view.valid)
            torch.testing.assert_close(view.maps.ratio(view.valid), ratio.detach())
            assert not view.maps.ratio(view.valid).requires_grad
            chosen = top_heads(ratio, heads)
            whole = selected_map(view.attention, chosen)
            found = whole if kept else view.maps.mean(chosen)
            torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-7)
            weight = torch.rand(found.shape, generator=torch.Generator().manual_seed(0))
            gradients.append(
                list(
                    torch.autograd.grad(
                        (found * weight).sum(),
                        list(adapter.trainable().values()),
                        allow_unused=True,
                        materialize_grads=True,
                    )
                )
            )
    assert any(bool(one.any()) for one in gradients[0])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(one.abs().max() + 1))


def test_all_maps_are_those_of_a_probe_bit_by_bit(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample
) -> None:
    tuner = make_tuner("a3tune")
    with attached(backbone, tuner) as adapter, torch.no_grad():
        batch = collate(adapter.backbone, [example(i) for i in range(3)])
        view, _ = forward(tuner, adapter, batch)
        taken: dict[int, Tensor] = {}
        queries, _ = where(batch.after_image)
        columns, _ = where(batch.masks.visual)
        adapter.model(
            inputs_embeds=batch.embeddings,
            attention_mask=batch.masks.filled.long(),
            position_ids=positions(batch.masks.filled),
            use_cache=False,
            probes=(AttentionProbe(queries, columns, taken.__setitem__),),
        )
        assert view.attention is not None
        assert torch.equal(view.attention, torch.stack([taken[i] for i in range(3)], dim=1))
