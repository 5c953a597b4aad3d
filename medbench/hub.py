"""Where a checkpoint is: a folder, or what a hub id stands for on this machine.

Nothing is downloaded here: fourteen gigabytes are fetched when a user says so, not on the way.
"""

from __future__ import annotations

import re
from pathlib import Path

from medbench.errors import UserError

_HUB_ID = re.compile(r"[\w.\-]+/[\w.\-]+")


def locate(name: str, *, what: str, beside: Path | None = None) -> Path:
    """Return the folder that a path or a hub id stands for.

    Args:
        name: a path, or a hub id such as "openai/clip-vit-large-patch14-336".
        what: whose folder it is, for the message.
        beside: a folder that relative paths start from first, as those in its config.json do.

    Raises:
        UserError: there is no such folder, or the hub's files are not on this machine.
    """
    for root in (*([beside] if beside else []), Path()):
        folder = root / Path(name).expanduser()
        if folder.is_dir():
            return folder
    if is_hub_id(name):
        downloaded = cached(name)
        if downloaded is None:
            raise UserError(
                f"{what}: {name} is not on this machine",
                "It is no folder here, and the hub's files were not downloaded yet.",
                f"Download it: hf download {name}; or name the folder it lies in.",
            )
        return downloaded
    exists = Path(name).expanduser().exists()
    raise UserError(
        f"{what}: {name} is not a folder",
        "It is a file." if exists else "Nothing of that name exists.",
        "Give the folder with config.json and the weights, or a hub id.",
    )


def is_hub_id(name: str) -> bool:
    """Say whether a name has the form of a hub id, owner/model."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return bool(_HUB_ID.fullmatch(name)) and not name.startswith(".")


def cached(hub_id: str) -> Path | None:
    """Return the folder that a hub id's files were downloaded to; None if they were not."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, local_files_only=True))
    except LocalEntryNotFoundError as error:
        # Of a repository that holds several formats a user need not have all; what is missing of
        # those that are read is said by who reads them.
        partly = getattr(error, "snapshot_path", None)
        return Path(partly) if partly else None
