"""Running out of memory, said so that a user can act on it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch

from medbench.errors import UserError

# What torch raises when the main memory is full has no class of its own.
_CPU_WORDS = "DefaultCPUAllocator"


@contextmanager
def explaining_full_memory(doing: str, do: str) -> Generator[None]:
    """Turn "out of memory" into an error that says at what, and what to lower.

    Args:
        doing: what was done, such as "answering 16 samples at once".
        do: what asks for less memory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        full = isinstance(error, torch.OutOfMemoryError | MemoryError) or _CPU_WORDS in str(error)
        if not full:
            raise
        raise UserError(
            f"not enough memory for {doing}",
            f"{type(error).__name__}: {error}".partition("\n")[0].partition(". ")[0] + ".",
            do,
        ) from error
