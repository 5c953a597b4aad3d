"""Running out of memory, said so that a user can act on it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch

from medbench.errors import UserError

# What torch raises when the main memory is full has no class of its own.
_CPU_WORDS = "DefaultCPUAllocator"


@contextmanager
def explaining_full_memory(doing: str, at_once: int, do: str) -> Generator[None]:
    """Turn "out of memory" into an error that says at what, and what to lower.

    Args:
        doing: "answering" or "training on"; at_once: how many samples.
        do: what halves them, with {} for half.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        kinds = (MemoryError, torch.OutOfMemoryError)
        if not isinstance(error, kinds) and _CPU_WORDS not in str(error):
            raise
        count = f"{at_once} samples at once" if at_once > 1 else "a single sample"
        one = "Fewer is not possible; take --dtype bfloat16, or a device with more memory."
        raise UserError(
            f"not enough memory for {doing} {count}",
            f"{type(error).__name__}: {error}".partition("\n")[0].partition(". ")[0] + ".",
            do.format(at_once // 2) if at_once > 1 else one,
        ) from error
