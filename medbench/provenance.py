"""Provenance: what a run was made with, down to hashes of files and versions of packages."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from medbench.task import Sample


def digest(content: Any) -> str:
    """Return the sha256 of an object as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def hash_files(paths: Iterable[Path]) -> str:
    """Return one sha256 over names and contents of files; "" for no files."""
    parts = [[path.name, _hash_file(path)] for path in paths]
    return digest(parts) if parts else ""


def hash_samples(samples: Sequence[Sample]) -> str:
    """Return one sha256 over what the samples ask and what their images are stamped with."""
    return digest(
        [[s.id, s.question, s.answer, s.kind, s.group, s.stamp, s.roi is not None] for s in samples]
    )


def versions() -> dict[str, str]:
    """Return the version of every distribution imported so far, and of Python."""
    import importlib.metadata as metadata

    owners = metadata.packages_distributions()
    loaded = {name.partition(".")[0] for name in sys.modules}
    names = {owner for module in loaded for owner in owners.get(module, ())}
    found = {name: metadata.version(name) for name in sorted(names)}
    return {"python": platform.python_version(), **found}


def hardware() -> dict[str, Any]:
    """Return what the run runs on: processor, cores, and the GPU with its driver if any."""
    import torch

    found: dict[str, Any] = {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
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


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
