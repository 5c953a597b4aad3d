"""Arrays computed once and kept on disk by content: one sqlite file for each way to compute them.

Such a file can be copied to another machine or shipped with a package: its name holds a hash of
everything that decides what is in it, and its keys are hashes of what it was computed from. What is
made of a restricted task's images is kept in files of its own, in a folder `restricted`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from medbench import memo_file
from medbench.digests import cache_folder
from medbench.provenance import digest
from medbench.task import Task

_LENGTH = 16


class Memo:
    """Arrays by key, in a file whose name says how they were made.

    Args:
        kind: first part of the file's name.
        made_with: everything that decides the arrays; hashed into the name, and kept in the file.
        folder: where to look and to write; "" takes the user's cache.
        shipped: a folder that is only looked into, if it has the file.
    """

    def __init__(
        self,
        kind: str,
        made_with: Mapping[str, Any],
        *,
        folder: str = "",
        shipped: Path | None = None,
    ) -> None:
        name = f"{kind}-{digest(dict(made_with))[:_LENGTH]}.sqlite"
        root = Path(folder).expanduser() if folder else cache_folder() / "labels"
        self.path = root / name
        self._shipped = shipped / name if shipped else None
        self._about = json.dumps(dict(made_with), sort_keys=True)
        self._private = False

    def of(self, task: Task) -> Memo:
        """Return where arrays made of a task's images are kept; those of restricted ones apart."""
        if not task.restricted or self._private:
            return self
        apart = copy(self)
        apart.path = self.path.parent / "restricted" / self.path.name
        apart._private = True
        return apart

    def read(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the arrays that are there, by key.

        Raises:
            UserError: a file is there and cannot be read.
        """
        found: dict[str, np.ndarray] = {}
        for path in (self._shipped, self.path):
            missing = [key for key in dict.fromkeys(keys) if key not in found]
            if path is not None and path.exists() and missing:
                stored = memo_file.read(path, missing)
                found |= {key: _decode(path, value) for key, value in stored.items()}
        return found

    def has(self, keys: Sequence[str]) -> set[str]:
        """Return which of the keys have an array."""
        found: set[str] = set()
        for path in (self._shipped, self.path):
            if path is not None and path.exists():
                found |= memo_file.present(path, keys)
        return found

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays; those that are there already stay as they are.

        Raises:
            UserError: the file cannot be written.
        """
        content = {key: _encode(value) for key, value in arrays.items()}
        memo_file.write(self.path, self._about, content, private=self._private)


def _encode(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _decode(path: Path, value: bytes) -> np.ndarray:
    try:
        return np.load(io.BytesIO(value), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise memo_file.broken(path, "read", error) from error
