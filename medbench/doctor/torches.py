"""torch, and torchvision beside it: whether the two match, and which GPUs torch finds."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from medbench.doctor.finding import Finding, one_line, size

_SECTION = "installation"
# A first import writes byte code, and a busy network disk takes its time.
_IMPORT_SECONDS = 180
_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def check_torch() -> Iterator[Finding]:
    """Import torchvision, if it is there, and torch; name the GPUs."""
    torch, torchvision = _version("torch"), _version("torchvision")
    if torch is None:
        return  # said where all packages are compared
    if torchvision is not None:
        yield _pair(torch, torchvision)
    try:
        import torch as _  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        what = f"torch {torch} cannot be imported. {one_line(error)}"
        yield Finding(_SECTION, "problem", what, _again(f'"torch=={_public(torch)}"', torch))
        return
    yield from _gpus(torch)


def _pair(torch: str, torchvision: str) -> Finding:
    """Import torchvision in a process of its own: a wrong one fails only then, deep inside."""
    named = f"torchvision {torchvision} (built for {_build('torchvision')})"
    beside = f"torch {torch} (built for {_build('torch')})"
    do = _again(f'"torch=={_public(torch)}" torchvision', torch)
    wanted = _wanted_torch(torch)
    if wanted:
        return Finding(_SECTION, "problem", f"{named} needs torch{wanted}, here is {beside}", do)
    why = _import_error("torchvision")
    if why:
        what = f"{named} cannot be imported beside {beside}. {why}"
        return Finding(_SECTION, "problem", what, do)
    return Finding(_SECTION, "good", f"{named} fits {beside}")


def _wanted_torch(torch: str) -> str:
    """Return the range of torch that torchvision asks for, if this one lies outside; else ""."""
    from packaging.requirements import Requirement

    for text in importlib.metadata.requires("torchvision") or ():
        one = Requirement(text)
        if one.name == "torch" and not one.specifier.contains(torch, prereleases=True):
            return str(one.specifier)
    return ""


def _import_error(module: str) -> str:
    """Return why a module cannot be imported, "" if it can."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import {module}"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_IMPORT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"The import was not done after {_IMPORT_SECONDS} seconds."
    if not done.returncode:
        return ""
    last = (done.stderr.strip().splitlines() or [f"It ended with {done.returncode}."])[-1]
    return last.strip()


def _again(packages: str, torch: str) -> str:
    """Return the command that installs packages again, from the index of torch's own build."""
    _, _, local = torch.partition("+")
    index = f" --index-url {_CPU_INDEX.removesuffix('cpu')}{local}" if local else ""
    return f"Both from one index: pip install --force-reinstall {packages}{index}"


def _gpus(version: str) -> Iterator[Finding]:
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        there = torch.cuda.is_available()
    driver = _driver()
    if not there:
        yield _no_gpu(version, driver, next((str(one.message) for one in said), ""))
        return
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        free, whole = torch.cuda.mem_get_info(number)
        what = f"cuda:{number}: {about.name}, {size(free)} of {size(whole)} free"
        yield Finding(_SECTION, "good", what)
    cuda = f"CUDA {torch.version.cuda}"
    yield Finding(_SECTION, "good", f"driver {driver or 'not known'}, torch's {cuda}")


def _no_gpu(version: str, driver: str, said: str) -> Finding:
    if not driver:
        what = "no GPU: answers are computed on the CPU, in float32 unless --dtype says otherwise"
        return Finding(_SECTION, "note", what)
    built = _build("torch")
    why = said.splitlines()[0] if said else f"torch {version} is built for {built}."
    do = "Install a torch that fits the driver: https://pytorch.org/get-started/locally"
    what = f"there is a GPU (driver {driver}), and torch does not find it. {why}"
    return Finding(_SECTION, "problem", what, do)


def _driver() -> str:
    """Return the version of NVIDIA's driver; "" if there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else next(iter(done.stdout.split()), "")


def _build(package: str) -> str:
    """Return what torch or torchvision was built for, read from its version.py."""
    found = importlib.util.find_spec(package)
    text = ""
    if found is not None and found.origin:
        file = Path(found.origin).with_name("version.py")
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
    stated = re.search(r"^(cuda|hip)\b[^=\n]*= *'([^']+)'", text, re.MULTILINE)
    if stated:
        return f"{'CUDA' if stated[1] == 'cuda' else 'ROCm'} {stated[2]}"
    local = re.search(r"__version__ = '[^+']*\+(\w+)'", text)
    built = local[1] if local else ""
    if built.startswith("cu"):
        return f"CUDA {built[2:-1]}.{built[-1:]}"
    return "the CPU" if built == "cpu" or re.search(r"^cuda\b.*None", text, re.M) else "?"


def _public(version: str) -> str:
    return version.partition("+")[0]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
