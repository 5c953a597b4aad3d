"""What an audit tells of a download: one thing that is wrong with it, or odd."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something to know about a download.

    Attributes:
        kind: its name for programs, e.g. "missing images"; count: how many there are.
        what: the same as a sentence; do: what to do about it, or what is done.
        why: the reason; first: the first case; "" where there is none, or it may not be told.
    """

    kind: str
    count: int
    what: str
    do: str
    why: str = ""
    first: str = ""
