"""Benchmark of hallucination mitigation for medical vision-language models."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medbench.backbone import Checkpoint
    from medbench.decoding.generate import generate
    from medbench.errors import UserError
    from medbench.loading import load_task
    from medbench.method import Decoder, Method, Tuner
    from medbench.metric import Metric
    from medbench.model.load import load_backbone
    from medbench.run_index import find_runs as runs
    from medbench.runner import run
    from medbench.scoring import score
    from medbench.task import Sample, Task

__version__ = "0.1.0"

__all__ = [
    "Checkpoint",
    "Decoder",
    "Method",
    "Metric",
    "Sample",
    "Task",
    "Tuner",
    "UserError",
    "__version__",
    "generate",
    "load_backbone",
    "load_task",
    "run",
    "runs",
    "score",
]

# Public name -> (module, name in it); imported at first use, so that naming medbench costs nothing.
_LAZY = {
    "Checkpoint": ("medbench.backbone", "Checkpoint"),
    "Decoder": ("medbench.method", "Decoder"),
    "Method": ("medbench.method", "Method"),
    "Metric": ("medbench.metric", "Metric"),
    "Sample": ("medbench.task", "Sample"),
    "Task": ("medbench.task", "Task"),
    "Tuner": ("medbench.method", "Tuner"),
    "UserError": ("medbench.errors", "UserError"),
    "generate": ("medbench.decoding.generate", "generate"),
    "load_backbone": ("medbench.model.load", "load_backbone"),
    "load_task": ("medbench.loading", "load_task"),
    "run": ("medbench.runner", "run"),
    "runs": ("medbench.run_index", "find_runs"),
    "score": ("medbench.scoring", "score"),
}

# Installed, methods/ and tasks/ lie inside the package; in a checkout they lie beside it.
if not Path(__file__).with_name("methods").is_dir():
    __path__.append(str(Path(__file__).resolve().parent.parent))


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'medbench' has no attribute '{name}'")
    module, attribute = _LAZY[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
