"""Gradient checkpointing: layers computed again on the way back instead of kept."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from medbench.tuning.adapter import Adapter

# What transformers sets on a model and its layers, and does not take off again.
_MARKS = (
    "gradient_checkpointing",
    "_gradient_checkpointing_func",
    "_require_grads_hook",
    "_require_grads_hooks",
)


@contextmanager
def recomputing(adapter: Adapter) -> Generator[None]:
    """Let the language model's layers be computed again in the backward pass, within a block.

    Not reentrant: the reentrant kind would give no gradient to what leaves a layer by another way
    than its output, as the attention maps do, and none at all where the input needs none, as with
    frozen embeddings. Draws of dropout are repeated.
    """
    model: Any = adapter.model.get_base_model()
    before = [(module, _marks(module)) for module in model.modules()]
    with warnings.catch_warnings():
        # The name of today is deprecated; the new one is not in every supported version.
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    # Only reentrant checkpointing needs inputs with a gradient.
    model.disable_input_require_grads()
    try:
        yield
    finally:
        for module, marks in before:
            for name in _marks(module).keys() - marks.keys():
                delattr(module, name)
            vars(module).update(marks)


def _marks(module: Any) -> dict[str, Any]:
    return {name: vars(module)[name] for name in _MARKS if name in vars(module)}
