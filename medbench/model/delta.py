"""Delta weights: LLaVA-Med 1.0 as published is what has to be added to LLaMA 7B."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from medbench.errors import UserError
from medbench.model.weights import listed, opened, read_tensors, stored_shapes, weight_files

# Tensors with more rows in the delta: those of added tokens, which are stored whole.
_LONGER = ("model.embed_tokens.weight", "lm_head.weight")
_OWN = "model.mm_projector."
_NORM = "model.norm.weight"
_REOPEN_BYTES = 2 * 2**30


def merged(base: Path, delta: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of base + delta, one at a time.

    Sums are made in float16, as the authors' program makes them: in float32 they come out
    otherwise. Rows of added tokens and the projector are taken as they are.

    Raises:
        UserError: the two do not fit together, or a file is broken.
    """
    _check(base, delta)
    of_base, of_delta = _reader(base), _reader(delta)
    for name in stored_shapes(delta):
        tensor = of_delta(name)
        if name.startswith(_OWN):
            yield name, tensor.clone()
            continue
        addend = of_base(name)
        tensor = tensor.to(torch.float16, copy=True)
        tensor[: len(addend)] += addend.to(torch.float16)
        yield name, tensor


def is_delta(directory: Path) -> bool:
    """Say whether a checkpoint is a delta: its last norm is near zero, a model's is not."""
    norm = read_tensors(directory, lambda name: name == _NORM).get(_NORM)
    return norm is not None and float(norm.float().abs().mean()) < 0.05


def refuse_a_bare_delta(directory: Path) -> None:
    """Make sure that a checkpoint is not the delta alone, which loads and answers nonsense.

    Raises:
        UserError: it is.
    """
    if is_delta(directory):
        raise UserError(
            f"{directory} holds delta weights",
            "They have to be added to LLaMA 7B; alone they answer nonsense.",
            "Give base=DIR, or add them once: medbench backbone convert --help",
        )


def _reader(directory: Path) -> Callable[[str], Tensor]:
    """Return a function that reads a tensor by name, with one file open at a time.

    A file is opened anew after some gigabytes: pages once read count as memory until then.
    """
    places = {name: path for path in weight_files(directory) for name in opened(path)}
    latest: dict[Path, dict[str, Callable[[], Tensor]]] = {}
    read_bytes = 0

    def read(name: str) -> Tensor:
        nonlocal read_bytes
        path = places[name]
        if path not in latest or read_bytes > _REOPEN_BYTES:
            latest.clear()
            latest[path] = opened(path)
            read_bytes = 0
        tensor = latest[path][name]()
        read_bytes += tensor.nbytes
        return tensor

    return read


def _check(base: Path, delta: Path) -> None:
    if not is_delta(delta):
        raise UserError(
            f"{delta} is no delta",
            "Its weights are those of a whole model; base= would be added to them once more.",
            "Leave out base=.",
        )
    of_base, of_delta = stored_shapes(base), stored_shapes(delta)
    shared = {name: shape for name, shape in of_delta.items() if not name.startswith(_OWN)}
    wrong = sorted(
        {*shared.keys() ^ of_base.keys()}
        | {
            name
            for name in shared.keys() & of_base.keys()
            if not _fits(name, of_base[name], shared[name])
        }
    )
    if wrong:
        raise UserError(
            f"{delta} is no delta of {base}",
            f"{len(wrong)} tensors do not fit: {listed(wrong)}.",
            "The base is LLaMA 7B in transformers' format, the delta LLaVA-Med 1.0's.",
        )


def _fits(name: str, base: tuple[int, ...], delta: tuple[int, ...]) -> bool:
    return base == delta or (name in _LONGER and base[1:] == delta[1:] and base[0] <= delta[0])
