"""A backbone's files: there, complete, and of one piece, without reading the weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medbench import plugins
from medbench.backbone import Checkpoint, LargeCheckpoint
from medbench.backbones.llava_med import LlavaMed
from medbench.counting import counted
from medbench.doctor.finding import Finding, one_line, refused, size
from medbench.doctor.hub_files import of_checkpoint
from medbench.doctor.packages import missing_of
from medbench.errors import UserError
from medbench.hub import locate
from medbench.original_checkpoint import OriginalCheckpoint
from medbench.plugins import Plugin
from medbench.spec import Spec

if TYPE_CHECKING:
    from medbench.model.llava import Backbone


@dataclass(frozen=True)
class Looked:
    """A backbone that was looked at.

    Attributes:
        skeleton: its parts as they would be loaded, without the weights' values; None where
            something is missing.
    """

    checkpoint: Checkpoint
    skeleton: Backbone | None = None


def section(plugin: Plugin) -> str:
    """Return the heading that a backbone's findings stand under."""
    return f"backbone {plugin.name}"


def check_backbone(plugin: Plugin, spec: Spec) -> Generator[Finding, None, Looked]:
    """Look for a backbone's files, and compare the tensors in them with its config."""
    heading = section(plugin)
    checkpoint: Checkpoint = plugins.create("backbone", spec)[1]
    for name in ("licence", "source"):
        if said := getattr(checkpoint, name):
            yield Finding(heading, "good", f"{name}: {said}")
    if getattr(checkpoint, "quantize", "none") == "4bit" and (lacking := missing_of("4bit")):
        what = f"quantize=4bit needs {', '.join(lacking)}, which is not installed"
        yield Finding(heading, "problem", what, 'pip install "medbench[4bit]"')
    lost = [refused(heading, error, _or_fetch(checkpoint)) for error in _unplaced(checkpoint)]
    if lost:
        yield from lost
        return Looked(checkpoint)
    try:
        files = list(checkpoint.files())
    except UserError as error:
        yield refused(heading, error, _or_fetch(checkpoint))
        return Looked(checkpoint)
    yield from _listed(heading, files)
    if isinstance(checkpoint, LlavaMed) and checkpoint.base:
        yield _delta(heading, checkpoint)
        return Looked(checkpoint)
    try:
        skeleton = without_values(checkpoint)
    except UserError as error:
        yield refused(heading, error, _or_fetch(checkpoint))
        return Looked(checkpoint)
    except Exception as error:
        # A plugin's own way of loading need not work without values.
        if plugin.origin == "built-in":
            raise
        what = f"it cannot be checked without loading it. {one_line(error)}"
        yield Finding(heading, "note", what, "Add --answer, which loads it.")
        return Looked(checkpoint)
    yield Finding(heading, "good", _described(skeleton))
    return Looked(checkpoint, skeleton)


def without_values(checkpoint: Checkpoint) -> Backbone:
    """Return a backbone as it would be loaded, on torch's device "meta": all but the numbers.

    Of the language model only the files' headers are read, so that fourteen gigabytes take
    seconds; the vision tower is read whole.

    Raises:
        UserError: files are missing or broken, or tensors are missing, left over, or of another
            shape.
    """
    import torch

    if isinstance(checkpoint, LargeCheckpoint):
        checkpoint = replace(checkpoint, device_map="none", quantize="none")
    return checkpoint.load(device=torch.device("meta"), dtype=torch.float16)


def _unplaced(checkpoint: Checkpoint) -> Iterator[UserError]:
    """Yield an error for each part of an original checkpoint that is nowhere."""
    if not isinstance(checkpoint, OriginalCheckpoint):
        return
    try:
        checkpoint.directory()
    except UserError as error:
        yield error
    for part, name in (("base", getattr(checkpoint, "base", "")), ("tower", checkpoint.vision)):
        try:
            if name:
                locate(name, what=f"{checkpoint.name}'s {part}")
        except UserError as error:
            yield error


def _or_fetch(checkpoint: Checkpoint) -> str:
    """Return how files of the hub come here, where a parameter names some."""
    return "Or run this again with --fetch." if of_checkpoint(checkpoint) else ""


def _listed(heading: str, files: list[Path]) -> Iterator[Finding]:
    """Yield what lies in each folder."""
    folders: defaultdict[Path, list[Path]] = defaultdict(list)
    for file in files:
        folders[file.parent].append(file)
    for folder, inside in folders.items():
        whole = sum(file.stat().st_size for file in inside)
        what = f"{_named(folder)}: {counted(len(inside), 'file')}, {size(whole)}"
        yield Finding(heading, "good", what)


def _named(folder: Path) -> str:
    """Return a folder, with owner, model and commit before it where it is the hub's cache."""
    snapshots = folder.parent
    if snapshots.name == "snapshots" and snapshots.parent.name.startswith("models--"):
        hub_id = snapshots.parent.name.removeprefix("models--").replace("--", "/", 1)
        return f"{hub_id} at {folder.name[:10]} in {snapshots.parent}"
    return str(folder)


def _delta(heading: str, checkpoint: LlavaMed) -> Finding:
    """Compare the tensors of a delta and its base, which are added while loading."""
    from medbench.model.delta import merged

    try:
        next(merged(checkpoint.base_directory(), checkpoint.directory()))
    except UserError as error:
        return refused(heading, error)
    what = "delta and base fit together; each load adds them, which takes main memory for both"
    do = (
        f'Add them once: medbench backbone convert "{checkpoint.name}[...]" --to original --out DIR'
    )
    return Finding(heading, "note", what, do)


def _described(skeleton: Backbone) -> str:
    parts = (skeleton.language_model, skeleton.vision_tower, skeleton.projector)
    weights = sum(weight.nelement() for part in parts for weight in part.parameters())
    depth, geometry = skeleton.depth, skeleton.geometry
    return (
        f"every tensor is there and of the shape its config states: {weights:,} weights, "
        f"{depth.language} decoder layers, {depth.vision} vision blocks, "
        f"{skeleton.image_tokens} image tokens of {geometry.size} x {geometry.size} pixels; "
        f"the tokenizer knows {len(skeleton.tokenizer):,} tokens"
    )
