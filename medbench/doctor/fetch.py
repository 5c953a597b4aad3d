"""Fetching what a spec names from the hub: only the files that are read, and only if asked to."""

from __future__ import annotations

import fnmatch
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from medbench.backbone import Checkpoint
from medbench.counting import counted
from medbench.doctor import hub_files
from medbench.doctor.finding import Finding, one_line, size
from medbench.doctor.machine import existing
from medbench.errors import UserError
from medbench.hub import cached
from medbench.provider import Provider

SECTION = "fetching"
# Formats of other frameworks, and of other programs.
_OTHERS = (
    "*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.ot", "*.tflite", "*.mlmodel", "*.gguf",
    "*.llamafile", "consolidated*",
)  # fmt: skip
# What describes a text tower and its tokenizer.
_DESCRIPTION = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
    "special_tokens_map.json",
)  # fmt: skip
# Weights in this format are read before those pickled beside them.
_SAFE = ("model.safetensors", "model.safetensors.index.json", "open_clip_model.safetensors")


def fetch_checkpoint(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Fetch a checkpoint, its base and its vision tower, as far as they are named and not here."""
    done: set[str] = set()
    # The tower is named by config.json, so it is looked for again when that has come.
    while fresh := [one for one in hub_files.of_checkpoint(checkpoint) if one not in done]:
        for hub_id in dict.fromkeys(fresh):
            done.add(hub_id)
            if not _is_whole(hub_id):
                yield from fetch(hub_id)


def fetch_provider(provider: Provider) -> Iterator[Finding]:
    """Fetch the CLIP that a provider names, and what describes its text tower."""
    try:
        list(provider.files())
    except UserError:
        for hub_id in hub_files.of_provider(provider):
            if cached(hub_id) is None:
                yield from fetch(hub_id)
    tower = hub_files.text_tower_of(provider)
    if tower and not hub_files.has_config(tower):
        yield from fetch(tower, only=_DESCRIPTION)


def fetch(hub_id: str, *, only: tuple[str, ...] = ()) -> Iterator[Finding]:
    """Fetch a repository of the hub into the hub's cache; files that have come are kept.

    Args:
        only: names of files; by default all that medbench reads.
    """
    try:
        yield from _fetch(hub_id, only)
    # The hub's client has changed its network library with its versions.
    except Exception as error:
        yield _failed(hub_id, error)


def chosen(names: Iterable[str]) -> list[str]:
    """Return which of a repository's files to fetch: every weight in one format, and the rest."""
    every = list(names)
    safe = {_folder(name) for name in every if PurePosixPath(name).name in _SAFE}
    return [
        name
        for name in every
        if not any(fnmatch.fnmatch(PurePosixPath(name).name, other) for other in _OTHERS)
        and not (name.endswith(".bin") and _folder(name) in safe)
        and "onnx" not in PurePosixPath(name).parts[:-1]
    ]


def _fetch(hub_id: str, only: tuple[str, ...]) -> Iterator[Finding]:
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    about = HfApi().model_info(hub_id, files_metadata=True)
    sizes = {one.rfilename: int(one.size or 0) for one in about.siblings or ()}
    wanted = [name for name in chosen(sizes) if not only or name in only]
    wanted.sort(key=lambda name: sizes[name])  # config.json long before the weights
    lacking = [
        name
        for name in wanted
        if not isinstance(try_to_load_from_cache(hub_id, name, revision=about.sha), str)
    ]
    whole = sum(sizes[name] for name in lacking)
    free = shutil.disk_usage(existing(Path(HF_HUB_CACHE))).free
    if whole > free:
        what = f"{hub_id} takes {size(whole)}; {size(free)} are free in {HF_HUB_CACHE}"
        yield Finding(SECTION, "problem", what, "Make room, or set HF_HOME to another disk.")
        return
    # One by one, and not as a snapshot: of that the client keeps a list of all files, duplicates
    # left out included, and without network it would call the snapshot incomplete for want of them.
    commits = {_commit(hf_hub_download(hub_id, name), name) for name in wanted}
    if len(commits) != 1:
        what = f"{hub_id} holds nothing to fetch"
        if commits:
            what = f"{hub_id} was changed while it was fetched"
        yield Finding(SECTION, "problem", what, "Look at it, and run this again.")
        return
    files = counted(len(lacking), "file")
    what = f"{hub_id}: {files}, {size(whole)}, at commit {commits.pop()[:10]} in {HF_HUB_CACHE}"
    yield Finding(SECTION, "good", what)


def _failed(hub_id: str, error: Exception) -> Finding:
    from huggingface_hub import errors

    page = f"https://huggingface.co/{hub_id}"
    what, do = (
        f"{hub_id} could not be fetched. {one_line(error)}",
        "Run this again: what has come is kept.",
    )
    if isinstance(error, errors.GatedRepoError):
        what = f"{hub_id} is gated: its owners decide who may have it"
        do = f"Ask for access at {page}, then: hf auth login"
    elif isinstance(error, errors.RepositoryNotFoundError) or _status(error) == 401:
        what = f"the hub has no {hub_id}, or not for you"
        do = "Check the name; if it is private: hf auth login"
    elif isinstance(error, errors.OfflineModeIsEnabled) or _is_offline():
        what, do = f"{hub_id} could not be fetched: HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE"
    return Finding(SECTION, "problem", what, do)


def _status(error: Exception) -> int:
    response: Any = getattr(error, "response", None)
    return int(getattr(response, "status_code", 0))


def _is_offline() -> bool:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return bool(HF_HUB_OFFLINE)


def _is_whole(hub_id: str) -> bool:
    """Say whether a model's config and all its weight files are here."""
    from medbench.model.weights import weight_files

    folder = cached(hub_id)
    try:
        return (
            folder is not None and (folder / "config.json").is_file() and bool(weight_files(folder))
        )
    except UserError:
        return False


def _commit(path: str, name: str) -> str:
    """Return the commit of a fetched file, the folder that its path in the repository starts in."""
    return Path(path).parents[len(PurePosixPath(name).parts) - 1].name


def _folder(name: str) -> PurePosixPath:
    return PurePosixPath(name).parent
