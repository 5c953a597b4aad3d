"""Reading files of questions, with errors that say what is wrong with the file.

They are raised `from None`: what Python raises over a file holds the whole file.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from medbench.errors import UserError

_AGAIN = "Download it again from the official source."


def read_json(path: Path) -> Any:
    """Read a JSON file in UTF-8.

    Raises:
        UserError: the file cannot be read, is empty, is something else, or is cut off.
    """
    text = _text(path, "JSON")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = f"{_fault(error, text)}: cut off or edited."
        raise UserError(f"{path} is damaged JSON", why, _AGAIN) from None


def read_json_lines(path: Path, keys: Iterable[str]) -> list[dict[str, Any]]:
    """Read a file with one JSON object a line, each of which has all `keys`.

    Raises:
        UserError: it cannot be read, a line is no JSON object, or an object lacks a key.
    """
    records: list[Any] = []
    # Not splitlines(): JSON strings may hold other separators than the newline.
    for number, line in enumerate(_text(path, "JSON lines").split("\n"), 1):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            why = f"Line {number}: {_fault(error, line)}: cut off or edited."
            raise UserError(f"{path} is damaged", why, _AGAIN) from None
    return _checked(path, records, keys)


def read_table(path: Path, columns: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file, gzipped if its name says so, column by name.

    Raises:
        UserError: it cannot be read, lacks a column, or has a row of another length.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            missing = [name for name in columns if name not in (rows.fieldnames or ())]
            if missing:
                raise _other_data(path, f"it has no column '{missing[0]}'")
            for row in rows:
                if None in row or None in row.values():
                    why = f"Line {rows.line_num} has another number of fields than the first one."
                    raise UserError(f"{path} is a damaged table", why, _AGAIN)
                yield row
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        why = f"{type(error).__name__}: cut off, damaged, or not a table."
        if isinstance(error, OSError) and error.strerror:
            why = f"{error.strerror}."
        raise UserError(f"cannot read {path}", why, _AGAIN) from None


def read_records(path: Path, keys: Iterable[str]) -> list[dict[str, Any]]:
    """Read a JSON list of objects that all have `keys`.

    Raises:
        UserError: it is not readable JSON, not such a list, or a record lacks a key.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise _other_data(path, "it is not a list of questions")
    return _checked(path, cast("list[Any]", content), keys)


def _checked(path: Path, records: list[Any], keys: Iterable[str]) -> list[dict[str, Any]]:
    keys = list(keys)
    if not records:
        raise _other_data(path, "it is not a list of questions")
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise _other_data(path, f"entry {number} is not an object")
        missing = [key for key in keys if key not in record]
        if missing:
            raise _other_data(path, f"entry {number} has no '{missing[0]}'")
    return records


def _text(path: Path, what: str) -> str:
    """Return a file's text, or say what it is instead."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {path}", f"{error.strerror or error}.", "Check the path and its rights."
        ) from None
    if not data.strip():
        raise UserError(f"{path} is empty", "It has no content at all.", _AGAIN)
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        why = "It is a web page (or XML): the download most likely answered with a login page."
        raise UserError(f"{path} is not {what}", why, _AGAIN)
    if data.startswith(b"version https://git-lfs"):
        why = "It is a git-lfs pointer; the content itself was not fetched."
        raise UserError(f"{path} is not {what}", why, "Run 'git lfs pull' where it came from.")
    try:
        # utf-8-sig reads plain UTF-8 as well, and some editors add the mark.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        why = f"Byte {error.start} is not UTF-8."
        raise UserError(f"{path} cannot be decoded", why, _AGAIN) from None


def _fault(error: ValueError | RecursionError, text: str) -> str:
    """Say what is wrong with a text of JSON; its reader has three ways to fail."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos} of {len(text)}"
    if isinstance(error, RecursionError):
        return "Lists or objects are nested too deeply"
    return "A number has too many digits"


def _other_data(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is not the official file",
        f"{why[0].upper()}{why[1:]}.",
        "Other data sets and conversions use the same file names; download the official one.",
    )
