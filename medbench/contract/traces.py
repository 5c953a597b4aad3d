"""What a model and a process are before and after: all that a method could leave behind."""

from __future__ import annotations

import hashlib
import inspect
import random
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.models.llama import modeling_llama

from medbench.model.llava import Backbone

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def parts(backbone: Backbone) -> dict[str, nn.Module]:
    """Return the modules of a backbone by the names of its attributes."""
    return {
        "language_model": backbone.language_model,
        "vision_tower": backbone.vision_tower,
        "projector": backbone.projector,
    }


def fingerprint(backbone: Backbone) -> dict[str, Any]:
    """Return everything of the model's parts that patching or training would change.

    Modules, weights and hooks count by identity, numbers bit for bit.
    """
    found: dict[str, Any] = {}
    for part, whole in parts(backbone).items():
        for name, module in whole.named_modules():
            key = f"{part}.{name}".rstrip(".")
            found[f"{key} (class and mode)"] = (id(module), type(module), module.training)
            found[f"{key} (hooks)"] = [len(getattr(module, kind)) for kind in _HOOKS]
            # Methods set on the object hide those of its class.
            found[f"{key} (own methods)"] = sorted(
                k for k, v in vars(module).items() if callable(v)
            )
        for name, weight in whole.named_parameters():
            found[f"{part}.{name} (gradient)"] = (id(weight), weight.requires_grad, weight.grad)
            found[f"{part}.{name} (values)"] = (weight.data_ptr(), digest(weight))
        for name, buffer in whole.named_buffers():
            found[f"{part}.{name} (values)"] = digest(buffer)
        config = getattr(whole, "config", None)
        found[f"{part} (config)"] = str(config)
        # The one entry that a config does not print.
        found[f"{part} (attention)"] = getattr(config, "_attn_implementation", None)
    return found


def functions() -> dict[str, int]:
    """Return the functions that decoders elsewhere patch in modules and classes, by identity."""
    found: dict[str, int] = {}
    for owner in (modeling_llama, *vars(modeling_llama).values(), torch.nn.functional, nn.Module):
        if not (inspect.isclass(owner) or inspect.ismodule(owner)):
            continue
        for name, value in vars(owner).items():
            if inspect.isfunction(value):
                found[f"{owner.__name__}.{name}"] = id(value)
    for registry in (AttentionInterface(), AttentionMaskInterface()):
        for name in registry.valid_keys():
            found[f"{type(registry).__name__}.{name}"] = id(registry[name])
    return found


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the names under which two mappings differ."""
    return list(_changed(before, after))


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    missing = object()
    for name in {**before, **after}:
        if before.get(name, missing) != after.get(name, missing):
            yield name


def digest(values: Tensor) -> str:
    """Return the sha256 of a tensor's bytes."""
    plain = values.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(plain.numpy().tobytes()).hexdigest()


def randomness() -> dict[str, Any]:
    """Return the states of the generators that all of a process share."""
    numbers: Any = np.random.get_state(legacy=False)  # noqa: NPY002 - this is about it
    drawn = numbers["state"]
    return {
        "torch": digest(torch.get_rng_state()),
        "numpy": (drawn["key"].tobytes(), drawn["pos"], numbers["has_gauss"]),
        "random": random.getstate(),
    }


def scramble(seed: int) -> None:
    """Set the generators that all of a process share to another state."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


@contextmanager
def undisturbed() -> Generator[None]:
    """Keep sums in one order within the block, and put the shared generators back after it."""
    threads, drawn = torch.get_num_threads(), torch.get_rng_state()
    numbers, state = np.random.get_state(), random.getstate()  # noqa: NPY002
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(drawn)
        np.random.set_state(numbers)  # noqa: NPY002
        random.setstate(state)
