"""Provenance: what a run was made with, down to hashes of files and versions of packages."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medbench import __version__
from medbench.digests import sha256_of
from medbench.task import Sample, Task


def digest(content: Any) -> str:
    """Return the sha256 of an object as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def hash_files(paths: Iterable[Path]) -> str:
    """Return one sha256 over names and contents of files; "" for no files.

    Raises:
        UserError: a file cannot be read.
    """
    listed = list(paths)
    contents = sha256_of(listed)
    return digest([[path.name, contents[path]] for path in listed]) if listed else ""


def hash_samples(samples: Sequence[Sample]) -> str:
    """Return one sha256 over what the samples ask and what they are read from.

    Files of images and regions count by content, not by name. What a task knows beyond that
    (`meta`) counts as well: it may stand in the prompt.

    Raises:
        UserError: a file cannot be read.
    """
    files = [_files(sample) for sample in samples]
    contents = sha256_of(path for group in files for path in group)
    return digest(
        [
            [
                *(s.id, s.question, s.answer, s.kind, s.group),
                [contents[path] for path in group] or s.stamp,
                s.roi is not None,
                dict(s.meta),
            ]
            for s, group in zip(samples, files, strict=True)
        ]
    )


def describe_data(task: Task, passport: Mapping[str, Any]) -> dict[str, Any]:
    """Return which copy of a task's test data was read, and counts and hashes of what was in it.

    Raises:
        UserError: a file cannot be read.
    """
    edition = task.edition("test")
    return {
        "edition": edition.name,
        "note": edition.note,
        "files": {file.name: sha256 for file, sha256 in sha256_of(edition.files).items()},
        "restricted": task.restricted,
        "passport": dict(passport),
    }


def _files(sample: Sample) -> list[Path]:
    image = [sample.image] if isinstance(sample.image, Path) else []
    return [*image, *sample.roi_files]


def versions() -> dict[str, str]:
    """Return the version of medbench, of Python, and of every distribution imported so far."""
    import importlib.metadata as metadata

    owners = _owners(tuple(sys.path))
    loaded = {name.partition(".")[0] for name in sys.modules}
    names = {owner for module in loaded for owner in owners.get(module, ())}
    found = {name: metadata.version(name) for name in sorted(names)}
    # A bare checkout is no distribution.
    return {**found, "medbench": __version__, "python": platform.python_version()}


@functools.lru_cache(maxsize=1)
def _owners(search_path: tuple[str, ...]) -> Mapping[str, Sequence[str]]:
    """Return which distributions have a module of a name; looking costs a fifth of a second."""
    import importlib.metadata as metadata

    return metadata.packages_distributions()


def hardware(device: str = "cpu") -> dict[str, Any]:
    """Return what the run runs on: processor, cores, and the GPU if it runs on one."""
    import torch

    found: dict[str, Any] = {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        found["gpu"] = properties.name
        found["gpu_memory_gib"] = round(properties.total_memory / 2**30, 1)
        found["cuda"] = torch.version.cuda
    return found


def git_state() -> dict[str, Any]:
    """Return commit and dirtiness of the checkout medbench runs from, if it is one."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return {}
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(root, "status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {}


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
