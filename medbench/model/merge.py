"""Writing base + delta as one checkpoint in the original format, a few gigabytes at a time."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from medbench.atomic import write_json
from medbench.model.delta import merged
from medbench.model.weights import stored_shapes

SHARD_BYTES = 2 * 2**30
INDEX = "model.safetensors.index.json"


def write_merged(
    base: Path,
    delta: Path,
    out: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write base + delta into a folder: weights as safetensors, all other files of the delta.

    Never more than one new file's tensors are held in memory, beside pages of the files read.

    Args:
        base, delta: folders.
        out: an empty folder.
        shard_bytes: size of a weight file.
        report: is told how many of how many tensors are written.

    Raises:
        UserError: the two do not fit together, or a file is broken.
    """
    total = len(stored_shapes(delta))
    placed: dict[str, str] = {}
    size = 0
    for number, part in enumerate(_parts(merged(base, delta), shard_bytes), 1):
        file = f"model-{number:05d}.safetensors"
        save_file(part, out / file, metadata={"format": "pt"})
        placed |= dict.fromkeys(part, file)
        size += sum(tensor.nbytes for tensor in part.values())
        part.clear()  # before the next one is gathered
        report(len(placed), total)
    index = {"metadata": {"total_size": size}, "weight_map": placed}
    write_json(out / INDEX, index)
    for path in sorted(delta.iterdir()):
        weights = path.suffix in (".bin", ".safetensors") or path.name.endswith(".index.json")
        if path.is_file() and not weights:
            shutil.copyfile(path, out / path.name)


def _parts(tensors: Iterator[tuple[str, Tensor]], most: int) -> Iterator[dict[str, Tensor]]:
    """Yield the tensors in parts of at most so many bytes, or of one tensor."""
    part: dict[str, Tensor] = {}
    held = 0
    for name, tensor in tensors:
        if part and held + tensor.nbytes > most:
            yield part
            part, held = {}, 0
        part[name] = tensor.contiguous()
        held += tensor.nbytes
    if part:
        yield part
