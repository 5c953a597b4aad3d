"""Pickles of plain data: a reader that builds lists, dicts, texts and numbers, and nothing else.

A pickle is a program: read in the usual way, a file from the net can run any code. This reader
refuses whatever would import a class or call one, and so runs nothing.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn, cast

from medbench.errors import UserError

# What pickles have no code of their own for.
_CONTAINERS = {"set": set, "frozenset": frozenset}
_AGAIN = "Download it again from the official source."


def read_pickled_records(path: Path, keys: Iterable[str]) -> list[dict[str, Any]]:
    """Read a pickled list of dicts that all have `keys`.

    Raises:
        UserError: as `read_pickle`, or it is not such a list, or a dict lacks a key.
    """
    content = read_pickle(path)
    if not isinstance(content, list) or not content:
        raise _other_data(path, "It is not a list of questions.")
    keys = list(keys)
    for number, record in enumerate(cast("list[Any]", content), 1):
        if not isinstance(record, dict):
            raise _other_data(path, f"Entry {number} is not a dict.")
        missing = [key for key in keys if key not in record]
        if missing:
            raise _other_data(path, f"Entry {number} has no '{missing[0]}'.")
    return cast("list[dict[str, Any]]", content)


def read_pickle(path: Path) -> Any:
    """Read a pickle of lists, tuples, sets, dicts, texts, bytes, numbers, True, False and None.

    Raises:
        UserError: it cannot be read, is no pickle, is cut off, or holds anything else.
    """
    start = b""
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip()
            file.seek(0)
            # Files of Python 2 hold bytes for texts.
            return _Reader(file, encoding="utf-8").load()
    except _RefusedError as error:
        raise UserError(
            f"{path} holds more than texts and numbers",
            f"It asks for {error}; such a file can run any code, so it is not read.",
            _AGAIN,
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot read {path}", f"{error.strerror or error}.", "Check the path and its rights."
        ) from error
    # A damaged pickle is a wrong program, and fails in every way that one can.
    except Exception as error:
        why = f"{type(error).__name__}: cut off, damaged, or not a pickle."
        if start.startswith(b"<"):
            why = "It is a web page: the download most likely answered with a login page."
        raise UserError(f"{path} is not a readable pickle", why, _AGAIN) from error


class _RefusedError(Exception):
    """What a pickle asked for and does not get."""


class _Reader(pickle.Unpickler):
    """Hands out two containers where a pickle wants to import something, and nothing else."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        # Old protocols write Python 2's name of the module.
        if module_name in ("builtins", "__builtin__") and global_name in _CONTAINERS:
            return _CONTAINERS[global_name]
        raise _RefusedError(f"{module_name}.{global_name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _RefusedError("an object outside the file")


def _other_data(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is not the official file",
        why,
        "Other data sets and conversions use the same file names; download the official one.",
    )
