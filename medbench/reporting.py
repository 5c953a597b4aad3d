"""Where long jobs tell how far they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """Where a run tells how far it is; the default is silence.

    Attributes:
        stage: called with "plan", "load", "wait", "label", "train", "decode", "score" or "view"
            when one begins.
        progress: called with samples or steps done, the total, and a short remark.
    """

    stage: Callable[[str, str], None] = lambda name, remark: None
    progress: Callable[[int, int, str], None] = lambda done, total, remark: None
