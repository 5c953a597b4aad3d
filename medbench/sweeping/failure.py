"""Why a cell of a sweep failed, as text: it is told at the end, and may come from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from medbench.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """What went wrong: lines to be read, the first of which says what."""

    lines: tuple[str, ...]


def attempted(work: Callable[[], T]) -> T | Failure:
    """Return what a function returns, or how it failed; what ends the whole process passes."""
    try:
        return work()
    except UserError as error:
        return Failure(tuple(error.lines()))
    except Exception as error:
        # The error itself would keep alive what its frames hold: a model, a GPU's memory.
        told = str(error).strip() or "it says no more"
        return Failure((f"{type(error).__name__}: {told.splitlines()[0]}",))
