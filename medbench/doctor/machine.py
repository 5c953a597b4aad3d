"""The machine: memory, folders that can be written, Java, plugins that cannot be used."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from medbench import plugins
from medbench.digests import cache_folder
from medbench.doctor.finding import Finding, size
from medbench.errors import UnavailableError
from medbench.scorers import java

_SECTION = "machine"
_CGROUP = Path("/sys/fs/cgroup")


def check_machine(results: Path) -> Iterator[Finding]:
    """Look at the machine, at the folders that runs write to, and at Java."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    what = f"{platform.system()} {platform.release()} on {platform.machine()}, {cores} cores"
    free = free_memory()
    memory = "" if free is None else f", {size(free)} of main memory free"
    yield Finding(_SECTION, "good", what + memory)
    yield _folder("results", results, "problem", "Take another folder: --out DIR")
    keeps = "Without it weights are hashed for each run anew: set XDG_CACHE_HOME to another folder."
    yield _folder("cache", cache_folder(), "note", keeps)
    yield _java()


def check_plugins() -> Iterator[Finding]:
    """Name the plugins that cannot be used, and why."""
    every = [plugin for kind in plugins.FOLDERS for plugin in plugins.find(kind)]
    own = [plugin for plugin in every if plugin.origin != "built-in" and not plugin.broken]
    for plugin in filter(lambda one: one.broken, every):
        what = f"the {plugin.kind} '{plugin.name}' is broken: {plugin.broken}"
        yield Finding(_SECTION, "problem", what, f"Mend {plugins.shown(plugin.path)}.")
    if own:
        named = ", ".join(f"{one.name} ({one.origin})" for one in own)
        yield Finding(_SECTION, "good", f"plugins beside medbench's own: {named}")


def free_memory() -> int | None:
    """Return how many bytes of main memory this process may still take; None if unknown."""
    try:
        import psutil
    except ImportError:
        return None
    return min([int(psutil.virtual_memory().available), *_left_by_groups()])


def existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    folder = folder.expanduser().absolute()
    return next((one for one in (folder, *folder.parents) if one.is_dir()), folder)


def _left_by_groups(root: Path = _CGROUP, own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Yield what Linux's control groups, so containers and batch systems, leave this process."""
    try:
        path = own.read_text(encoding="utf-8").strip().rpartition("::")[2].lstrip("/")
    except OSError:
        return
    group = root / path
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root):
            return
        try:
            limit = (folder / "memory.max").read_text(encoding="utf-8").strip()
            used = int((folder / "memory.current").read_text(encoding="utf-8"))
            # Pages of files are given up when memory is wanted.
            stated = (folder / "memory.stat").read_text(encoding="utf-8")
        except (OSError, ValueError):
            continue
        pages = re.search(r"^inactive_file (\d+)", stated, re.MULTILINE)
        if limit.isdecimal():
            yield max(0, int(limit) - used + (int(pages[1]) if pages else 0))


def _folder(name: str, folder: Path, state: str, do: str) -> Finding:
    place = existing(folder)
    try:
        # Rights alone do not tell: disks are full, quotas reached, mounts read-only.
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"medbench")
            file.flush()
    except OSError as error:
        what = f"{name} cannot be written: {folder} ({error.strerror or error})"
        return Finding(_SECTION, "problem" if state == "problem" else "note", what, do)
    free = size(shutil.disk_usage(place).free)
    return Finding(_SECTION, "good", f"{name}: {folder}, {free} free")


def _java() -> Finding:
    try:
        found = java.find()
    except UnavailableError as error:
        return Finding(_SECTION, "note", error.what, error.do)
    return Finding(_SECTION, "good", f"Java {found.version} (for report metrics in Java)")
