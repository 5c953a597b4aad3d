"""What the tests of a task look at: its splits, each read once, and their parts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from PIL.Image import Image

from medbench.contract.breach import telling
from medbench.data.pictures import open_image
from medbench.errors import UserError
from medbench.restricted import read_split, withholding
from medbench.task import Sample, Task


# Tasks are frozen: the same values read the same files.
@lru_cache(maxsize=4)
def read(task: Task, split: str) -> tuple[Sample, ...]:
    """Return a split's samples; those of restricted tasks know what to be called.

    Raises:
        UserError: they cannot be read.
    """
    return tuple(read_split(task, split))


def split_or_none(task: Task, split: str) -> tuple[Sample, ...] | None:
    """Return a split's samples, None where the task has no such split or it is not there."""
    try:
        return read(task, split)
    except UserError:
        return None


def needs_data(task: Task) -> bool:
    """Say whether a task that was given no folder cannot do without."""
    try:
        next(iter(task.samples("test")), None)
    # Whether it is the right error, a test of its own says.
    except Exception:
        return True
    return False


def opened(task: Task, samples: Sequence[Sample], sample: Sample) -> Image:
    """Return a sample's image; fail if it does not open."""
    try:
        with telling(f"the image of {sample.name} does not open"), withholding(task, samples):
            return open_image(sample.image)
    # A task's own code over files of any kind; its author needs to see where.
    except Exception as error:
        error.add_note(
            f"This is the image of {sample.name}. Sample.image is the path of a file, or a "
            "function that returns a PIL image."
        )
        raise


def is_text(value: object, *, empty: bool = False) -> bool:
    """Say whether a value is a text, and not an empty one unless it may be."""
    return isinstance(value, str) and (empty or bool(value.strip()))


def written(sample: Sample) -> tuple[str, str, str, str, str]:
    """Return what must be the same when a sample is read again."""
    return (sample.id, sample.question, sample.answer, sample.kind, sample.group)
