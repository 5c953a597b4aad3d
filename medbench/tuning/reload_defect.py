"""What MedAlign's published evaluation loses when it loads an adapter, to be had on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from medbench.model.rows import RowMasks


class DroppedLora(nn.Module):
    """Leaves out, while answering, the LoRA that the published reload loses without a word.

    There, modules that had been wrapped were saved under other names than they are looked up:
    all LoRA of layer l - 1 and that of the attention of layer l. In training it acts.

    Args:
        layers: l, of each map.
    """

    def __init__(self, layers: Sequence[int]) -> None:
        super().__init__()
        self.layers = tuple(layers)

    def attach(self, layers: nn.ModuleList) -> Callable[[], None]:
        """Hook onto the layers that have LoRA by now; return what takes the hooks off."""
        handles = [one.register_forward_hook(self._hook) for one in self._lost(layers)]

        def detach() -> None:
            for handle in handles:
                handle.remove()

        return detach

    def begin(self, masks: RowMasks, *, joins: bool = False) -> None:
        """Do nothing: all rows are alike."""

    def settle(self) -> None:
        """Do nothing."""

    def keep(self, rows: Tensor) -> None:
        """Do nothing."""

    def _lost(self, layers: nn.ModuleList) -> Iterator[nn.Module]:
        found = dict[int, nn.Module]()
        for layer in self.layers:
            for part in (layers[layer - 1], cast(Any, layers[layer]).self_attn):
                for one in cast("Iterable[Any]", part.modules()):
                    if isinstance(one, LoraLayer):
                        found[id(one)] = cast(Any, one)
        yield from found.values()

    def _hook(self, module: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> Tensor | None:
        return None if self.training else cast(Any, module).base_layer(*inputs)
