"""Weight files of a checkpoint folder: which there are, and which tensors are in them.

Only headers are read until tensors are asked for, so that a folder of fourteen gigabytes can be
checked in a second. Pickled files (`*.bin`) are read by torch's restricted reader only.
"""

from __future__ import annotations

import functools
import json
import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from medbench.errors import UserError

Shapes = dict[str, tuple[int, ...]]

# Buffers that old versions stored; they follow from the config.
_BUFFERS = ("rotary_emb.inv_freq", "embeddings.position_ids")
# In the order in which the originals' own loaders prefer them.
_SINGLE = ("model.safetensors", "pytorch_model.bin")
_NAMED = 8


def weight_files(directory: Path) -> list[Path]:
    """Return the weight files of a folder, sorted: those that transformers takes.

    One format only, safetensors before pickles; a single file before those of an index.

    Raises:
        UserError: there are none, or an index names files that are not there.
    """
    for name in _SINGLE:
        if (directory / name).is_file():
            return [directory / name]
        index = directory / f"{name}.index.json"
        if index.is_file():
            return _sharded(index)
    raise UserError(
        f"no weights in {directory}",
        "There is neither model.safetensors nor pytorch_model.bin in it, nor an index of parts.",
        "Download the checkpoint again, all of its files.",
    )


def stored_shapes(directory: Path) -> Shapes:
    """Return the shape of every stored tensor by name, from the files' headers.

    Raises:
        UserError: files are missing or broken.
    """
    shapes: Shapes = {}
    for path in weight_files(directory):
        shapes |= _shapes(path)
    return shapes


def read_tensors(directory: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """Return the stored tensors whose names are wanted, as they are stored.

    Raises:
        UserError: files are missing or broken.
    """
    return {
        name: tensor
        for path in weight_files(directory)
        for name, read in opened(path).items()
        if wanted(name)
        for tensor in [read()]
    }


def opened(path: Path) -> dict[str, Callable[[], Tensor]]:
    """Return for each tensor of a weight file a function that reads it.

    Raises:
        UserError: the file is broken.
    """
    if path.suffix != ".safetensors":
        return {
            name: functools.partial(_itself, tensor)
            for name, tensor in _unpickled(path, "cpu").items()
        }
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(path, framework="pt")
        return {name: functools.partial(file.get_tensor, name) for name in _kept(file.keys())}
    except (OSError, SafetensorError) as error:
        raise _broken(path, error) from error


def require(
    directory: Path,
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
) -> None:
    """Make sure that a folder holds exactly the tensors that its config asks for.

    Raises:
        UserError: tensors are missing, left over, or of another shape; names them.
    """
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    other = [
        f"{name} {list(found[name])} for {list(expected[name])}"
        for name in sorted(expected.keys() & found.keys())
        if tuple(found[name]) != tuple(expected[name])
    ]
    problems = [
        f"{len(names)} {kind}: {listed(names)}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("mismatched", other))
        if names
    ]
    if problems:
        raise UserError(
            f"{directory}: {len(missing) + len(unexpected) + len(other)} tensors are not as "
            "config.json says",
            f"{'; '.join(problems)}.",
            "The weights do not belong to config.json; download both again.",
        )


def listed(names: Iterable[str]) -> str:
    """Return names in one line, the first few and how many more."""
    names = list(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _sharded(index: Path) -> list[Path]:
    try:
        placed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted({index.parent / str(name) for name in placed.values()})
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _broken(index, error) from error
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise UserError(
            f"{index.parent}: {len(missing)} of {len(files)} weight files are missing",
            f"{index.name} names {listed(missing)}.",
            "Download the checkpoint again, all of its files.",
        )
    return files


def _shapes(path: Path) -> Shapes:
    if path.suffix != ".safetensors":
        return {name: tuple(tensor.shape) for name, tensor in _unpickled(path, "meta").items()}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in _kept(file.keys())}
    except (OSError, SafetensorError) as error:
        raise _broken(path, error) from error


def _kept(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.endswith(_BUFFERS)]


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _unpickled(path: Path, device: str) -> dict[str, Tensor]:
    try:
        # Mapped into memory: a page is read when its tensor is. Files of before 2020 cannot be.
        tensors = torch.load(
            path, map_location=device, mmap=zipfile.is_zipfile(path), weights_only=True
        )
        if not isinstance(tensors, dict) or not all(
            isinstance(name, str) and torch.is_tensor(tensor) for name, tensor in tensors.items()
        ):
            raise ValueError("it holds something else than tensors by name")
        return {name: tensors[name] for name in _kept(tensors)}
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> UserError:
    why = next(iter(str(error).splitlines()), "")[:200]
    return UserError(
        f"cannot read {path}",
        f"{type(error).__name__}: {why}" if why else f"{type(error).__name__}.",
        "The file is cut off, damaged, or of another kind; download it again.",
    )
