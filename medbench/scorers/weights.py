"""Weights of engines: where they are, whether they are whole, and whether they fill their model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from medbench.digests import sha256_of
from medbench.errors import UnavailableError, UserError

_SHA256 = re.compile(r"[0-9a-f]{64}")


def of_hub(hub_id: str, names: Iterable[str], *, needed_by: str) -> dict[str, Path]:
    """Return where the hub's cache keeps files of a repository.

    Args:
        hub_id: as packages spell it; the cache does not know a repository by two names.
        names: of files in it.
        needed_by: the metric, for the message.

    Raises:
        UnavailableError: one was not downloaded.
    """
    from huggingface_hub import try_to_load_from_cache

    found: dict[str, Path] = {}
    for name in names:
        path = try_to_load_from_cache(hub_id, name)
        if not isinstance(path, str):
            raise UnavailableError(
                f"{hub_id} is not on this machine",
                f"Its file {name} was not downloaded yet.",
                f"medbench doctor --metric {needed_by} --fetch",
            )
        found[name] = Path(path)
    return found


def of_folder(folder: str, names: Iterable[str], *, needed_by: str) -> dict[str, Path]:
    """Return the paths of files in a folder that a user named.

    Raises:
        UserError: the folder, or one of them, is not there.
    """
    root = Path(folder).expanduser()
    found = {name: root / name for name in names}
    missing = [name for name, path in found.items() if not path.is_file()]
    if missing:
        raise UserError(
            f"{needed_by}: {folder} lacks {', '.join(missing)}",
            "It is no folder." if not root.is_dir() else "",
            "Name the folder that holds them.",
        )
    return found


def hashes(files: Mapping[str, Path]) -> dict[str, str]:
    """Return each file's sha256, after comparing it with the one that the hub's cache notes.

    Raises:
        UserError: a file cannot be read, or is not what the hub sent: its download is broken.
    """
    found = sha256_of(files.values())
    for name, path in files.items():
        # The cache calls a large file by its sha256, and small ones by a shorter hash.
        noted = path.resolve().name
        if _SHA256.fullmatch(noted) and found[path] != noted:
            raise UserError(
                f"{name} is damaged",
                f"{path} has another hash than the hub has noted for it.",
                "Delete it and fetch it again.",
            )
    return {name: found[path] for name, path in files.items()}


def check_filled(what: str, wanted: Iterable[str], given: Iterable[str]) -> None:
    """Make sure that a checkpoint has a value for every parameter of a model.

    Packages that load without asking would score with random weights otherwise.

    Args:
        what: the checkpoint, for the message.
        wanted: the model's names; given: the checkpoint's.

    Raises:
        UserError: some are missing.
    """
    have = set(given)
    missing = [name for name in wanted if name not in have]
    if missing:
        raise UserError(
            f"{what} does not fill its model",
            f"{len(missing)} weights are not in it, first: {missing[0]}.",
            "It is another checkpoint, or broken; fetch it again.",
        )
