"""The manifest of an exported run: which files it holds, and what each must be."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from medbench import __version__, store
from medbench.errors import UserError

MANIFEST = "manifest.json"
FORMAT, SCHEMA = "medbench run", 1
# In the order they stand in the file, and are written.
MEMBERS = (store.RUN, store.SAMPLES, store.SCORES)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Member:
    """What one file of an export must be: the sha256 of its content, and its size in bytes."""

    sha256: str
    size: int

    @classmethod
    def of(cls, content: bytes) -> Member:
        """Return what a content is."""
        return cls(hashlib.sha256(content).hexdigest(), len(content))


@dataclass(frozen=True)
class Manifest:
    """What an exported run's file says of itself.

    Attributes:
        medbench: version that wrote it.
        withheld: whether texts and ids were left out.
        files: by name.
    """

    medbench: str
    withheld: bool
    files: Mapping[str, Member]

    @classmethod
    def of(cls, contents: Mapping[str, bytes], *, withheld: bool) -> Manifest:
        """Return the manifest of contents that this version writes."""
        files = {name: Member.of(content) for name, content in contents.items()}
        return cls(__version__, withheld, files)

    def to_bytes(self) -> bytes:
        """Return the content of the manifest's file."""
        content = {
            "format": FORMAT,
            "schema": SCHEMA,
            "medbench": self.medbench,
            "withheld": self.withheld,
            "files": {name: asdict(member) for name, member in self.files.items()},
        }
        return f"{json.dumps(content, indent=2)}\n".encode()


def read_manifest(content: bytes, what: str) -> Manifest:
    """Read a manifest.

    Args:
        what: the file that it is in, for messages.

    Raises:
        UserError: it is none of ours, of a newer medbench, or does not say what it must.
    """
    try:
        read = json.loads(content)
        schema = read["schema"]
        if read["format"] != FORMAT or type(schema) is not int:
            raise ValueError("it is another format")
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise not_ours(what) from error
    if schema > SCHEMA:
        raise UserError(
            f"{what} is from a newer medbench",
            f"Its manifest's schema is {schema}; this version reads up to {SCHEMA}.",
            "Upgrade medbench.",
        )
    try:
        return _manifest(read)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{what} has a broken manifest",
            f"{type(error).__name__}: {error}.",
            "Ask for the file again.",
        ) from error


def not_ours(what: str) -> UserError:
    """Return the error for a zip file that holds something else."""
    return UserError(
        f"{what} is no exported run",
        f"It has no {MANIFEST} of medbench.",
        "Take a file that 'medbench export' wrote; answers are imported from .jsonl or .json.",
    )


def _manifest(read: Mapping[str, Any]) -> Manifest:
    if not isinstance(read["medbench"], str) or not isinstance(read["withheld"], bool):
        raise TypeError("medbench or withheld is of another type")
    files = {name: _member(one) for name, one in cast("dict[str, Any]", read["files"]).items()}
    if set(files) != set(MEMBERS):
        raise ValueError(f"it lists {', '.join(files) or 'nothing'} instead of {_NAMES}")
    return Manifest(read["medbench"], read["withheld"], files)


def _member(one: Mapping[str, Any]) -> Member:
    sha256, size = one["sha256"], one["size"]
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError("a sha256 is none")
    if type(size) is not int or size < 0:
        raise ValueError("a size is none")
    return Member(sha256, size)


_NAMES = ", ".join(MEMBERS)
