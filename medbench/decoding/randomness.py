"""Randomness that belongs to a sample, whatever its place in the batch or the run."""

from __future__ import annotations

import hashlib

import torch


def sample_seed(seed: int, sample_id: str, purpose: str) -> int:
    """Return a 63-bit seed from the run's seed, the sample's id and what it is used for."""
    digest = hashlib.sha256(f"{seed}\n{sample_id}\n{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, sample_id: str, purpose: str) -> torch.Generator:
    """Return a CPU generator of that seed; on the CPU so that every device draws the same."""
    return torch.Generator().manual_seed(sample_seed(seed, sample_id, purpose))
