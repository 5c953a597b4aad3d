"""Memory: the most that was held, and running out of it said so that a user can act on it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from medbench.errors import UserError

# What torch raises when the main memory is full has no class of its own.
_CPU_WORDS = "DefaultCPUAllocator"
_PROCESS = Path("/proc/self")


def forget_peak(device: str) -> None:
    """Let the most memory held so far count no more."""
    if device.startswith("cuda"):
        for card in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(card)
    else:
        with suppress(OSError):
            (_PROCESS / "clear_refs").write_text("5")


def peak_bytes(device: str) -> int | None:
    """Return the most memory held since `forget_peak`, None where the system does not tell.

    Args:
        device: "cuda" or "cuda:N" for what tensors took, over all cards; else for all that the
            process held in main memory, the interpreter and its libraries included.
    """
    if device.startswith("cuda"):
        cards = range(torch.cuda.device_count())
        return sum(torch.cuda.max_memory_allocated(card) for card in cards)
    if not (_PROCESS / "clear_refs").exists():
        return None
    lines = (_PROCESS / "status").read_text().splitlines()
    found = next((line for line in lines if line.startswith("VmHWM:")), None)
    return None if found is None else int(found.split()[1]) * 1024


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
