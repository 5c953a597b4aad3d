"""Several extensions as one, and finding one of them again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar, cast

from torch import Tensor, nn

from medbench.model.rows import RowMasks
from medbench.tuning.adapter import Extension

Part = TypeVar("Part", bound=nn.Module)


class Extensions(nn.Module):
    """Extensions that act together; each keeps its own hooks, rows and weights.

    Args:
        parts: by name, under which their weights are saved; in the order of their hooks.
    """

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    @property
    def parts(self) -> list[Extension]:
        """The extensions, in order."""
        return [cast(Extension, part) for part in self.children()]

    def attach(self, layers: nn.ModuleList) -> Callable[[], None]:
        """Hook all parts onto the layers; return what takes them off again."""
        detachers = [part.attach(layers) for part in self.parts]

        def detach() -> None:
            for one in reversed(detachers):
                one()

        return detach

    def begin(self, masks: RowMasks, *, joins: bool = False) -> None:
        """Pass new rows on."""
        for part in self.parts:
            part.begin(masks, joins=joins)

    def settle(self) -> None:
        """Pass on that the prompts are through."""
        for part in self.parts:
            part.settle()

    def keep(self, rows: Tensor) -> None:
        """Pass on which rows stay."""
        for part in self.parts:
            part.keep(rows)


def together(parts: Mapping[str, nn.Module | None]) -> nn.Module | None:
    """Return the extensions that there are as one: none, the only one, or `Extensions`."""
    there = {name: part for name, part in parts.items() if part is not None}
    return Extensions(there) if len(there) > 1 else next(iter(there.values()), None)


def part(extension: nn.Module | None, kind: type[Part]) -> Part | None:
    """Return the part of an extension that is of a kind, or None."""
    if isinstance(extension, kind):
        return extension
    if isinstance(extension, Extensions):
        return next((one for one in extension.children() if isinstance(one, kind)), None)
    return None
