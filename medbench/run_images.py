"""The images that a run was asked about, from the task's data: rows hold only their hashes."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from medbench import spec
from medbench.loading import load_task
from medbench.restricted import read_split
from medbench.store import RunRecord
from medbench.task import Sample, Task

if TYPE_CHECKING:
    from PIL.Image import Image


def read_asked(run: RunRecord, data: str = "") -> tuple[Task, list[Sample]]:
    """Return a run's task, and the samples of the split that it answered, with their images.

    Args:
        data: folder of the task's files; by default the one that the run's command names.

    Raises:
        UserError: the files cannot be read; tells nothing of a restricted task's data.
    """
    folder = data or _data_of(run)
    task = load_task(run.task, data=Path(folder).expanduser() if folder else None)
    return task, read_split(task, "test")


def name(sample: Sample) -> str:
    """Return a name of a sample's image, the same for all questions about it."""
    # Drawn images have no path; there the group and its stamp are the image.
    path = sample.image if isinstance(sample.image, Path) else None
    return f"{sample.group}\n{sample.stamp}\n{path}"


def digest_of(image: Image) -> str:
    """Return what rows hold of an image: the sha256 of its RGB pixels."""
    return hashlib.sha256(image.tobytes()).hexdigest()


def _data_of(run: RunRecord) -> str:
    """Return the folder that a run's command names, "" for none."""
    words = shlex.split(run.command)
    options = dict(zip(words, words[1:], strict=False))
    written = dict(spec.parse(options.get("--task", run.task)).values)
    return written.get("data") or options.get("--data", "")
