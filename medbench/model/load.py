"""From a spec string to a loaded backbone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from medbench import plugins, processes, spec
from medbench.backbone import Checkpoint
from medbench.errors import UserError

if TYPE_CHECKING:
    from medbench.model.llava import Backbone

DTYPES = ("float32", "bfloat16", "float16")


def load_backbone(text: str, *, device: str = "auto", dtype: str = "auto") -> Backbone:
    """Load a backbone from its spec, such as `phantom` or `llava-hf[weights=PATH]`.

    Args:
        text: the spec.
        device: "auto" (a GPU when there is one), "cpu", "cuda", "cuda:1", ...
        dtype: "auto" (bfloat16 on a GPU, float32 elsewhere), "float32", "bfloat16", "float16".

    Raises:
        UserError: an unknown name or parameter, missing weights, no such device.
    """
    checkpoint = create_checkpoint(text)
    device, dtype = resolve_device(device, dtype)
    import torch

    return checkpoint.load(device=torch.device(device), dtype=getattr(torch, dtype))


def create_checkpoint(text: str) -> Checkpoint:
    """Return the checkpoint plugin of a spec with its parameters set, nothing loaded."""
    _, instance = plugins.create("backbone", spec.parse(text))
    return instance


def resolve_device(device: str, dtype: str) -> tuple[str, str]:
    """Return the device and dtype that "auto" stands for.

    Raises:
        UserError: a device this machine does not have, or an unknown dtype.
    """
    check_words(device, dtype)
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(f"no device '{device}' here", "torch finds no GPU.", "Take --device cpu.")
    count = torch.cuda.device_count()
    if number and int(number) >= count:
        why = f"torch finds {count} of them, cuda:0 to cuda:{count - 1}."
        raise UserError(f"no device '{device}' here", why, "Take one of these.")
    if kind == "cuda" and processes.count() > 1:
        device = _own_gpu(device, count)
    if dtype == "auto":
        dtype = "bfloat16" if kind == "cuda" else "float32"
    return device, dtype


def check_words(device: str, dtype: str) -> None:
    """Make sure that device and dtype are such words, whether or not this machine has the device.

    Raises:
        UserError: one is not.
    """
    if dtype not in ("auto", *DTYPES):
        raise UserError(f"no dtype '{dtype}'", "", f"Take auto, {', '.join(DTYPES)}.")
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise UserError(f"no device '{device}'", "", "Take auto, cpu, cuda or cuda:N.")


def _own_gpu(device: str, count: int) -> str:
    """Return the GPU of this process, where several were started together."""
    if ":" in device:
        why = f"{processes.count()} processes were started, and each would take it."
        raise UserError(f"{device} is one device", why, "Leave out --device.")
    if processes.local_index() >= count:
        why = f"torch finds {count}, and each process takes one."
        raise UserError("more processes than GPUs", why, f"Start {count} on this machine.")
    return f"cuda:{processes.local_index()}"
