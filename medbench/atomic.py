"""Writing files so that a reader never sees half of one, whatever is killed when."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medbench.errors import UserError

# Out of space, out of quota, and a limit on the size of files.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What safetensors and torch.save say of a full disk, without raising an OSError.
_FULL_WORDS = ("No space left", "os error 28", "File too large", "unexpected pos")
_PART = ".part"


def write_atomically(path: Path, write: Callable[[Path], object], *, private: bool = False) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place by rename.

    Args:
        private: whether only its owner may read the file, from its first byte on.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_PART}")
    try:
        if private:
            temporary.touch(mode=0o600)
        write(temporary)
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write an object as indented JSON in its own order, atomically."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda target: target.write_text(text, encoding="utf-8"))


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes killed while writing; call it under a lock."""
    for part in folder.glob(f".*{_PART}"):
        part.unlink(missing_ok=True)


def is_full(error: Exception) -> bool:
    """Say whether an error means that no space is left."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return any(words in str(error) for words in _FULL_WORDS)


@contextmanager
def explaining_full_disks(folder: Path) -> Generator[None]:
    """Turn "no space left" into an error that says where, and that nothing is lost."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not is_full(error):
            raise
        raise UserError(
            f"no space left for {folder}",
            "What was written before is kept.",
            "Free some space and run the same command again; it goes on where it stopped.",
        ) from error
