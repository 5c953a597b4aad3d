"""A task's files: which edition is there, how many questions, how many of them without an image."""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medbench import plugins
from medbench.counting import counted
from medbench.data.passport import check_questions
from medbench.data.pictures import with_images
from medbench.doctor.finding import Finding, refused
from medbench.doctor.metrics import check_metrics
from medbench.errors import UserError
from medbench.metric import Setting
from medbench.plugins import Plugin
from medbench.restricted import read_split, withholding
from medbench.spec import Spec
from medbench.task import Sample, Task

# Ids of patients, studies and images, by their many digits; counts have fewer.
_TELLING = re.compile(r"\S*(?:\d{7}|[^\s\d,.]\d{5}|[0-9a-f]{8}-)\S*")


@dataclass(frozen=True)
class Read:
    """A task that was looked at, and the samples of the splits that could be read."""

    task: Task
    splits: Mapping[str, Sequence[Sample]]


def section(plugin: Plugin) -> str:
    """Return the heading that a task's findings stand under."""
    return f"task {plugin.name}"


def check_task(
    plugin: Plugin, spec: Spec, *, data: str, splits: Sequence[str]
) -> Generator[Finding, None, Read]:
    """Read splits, and compare their number with what is expected; no image is opened.

    Of a restricted task nothing but counts is told.

    Args:
        data: folder with the files, where the spec names none.
    """
    heading = section(plugin)
    task: Task = plugins.create("task", spec)[1]
    task = replace(task, data=data) if data and not task.data else task
    for name in ("licence", "source"):
        if said := getattr(task, name):
            yield Finding(heading, "good", f"{name}: {said}")
    if task.restricted:
        what = "restricted: access takes credentials, and nothing made of its data may be passed on"
        yield Finding(heading, "note", what, f"Credentials are given at {task.source}.")
    yield from _metrics(heading, task)
    found: dict[str, Sequence[Sample]] = {}
    told: set[str] = set()
    for split in splits:
        try:
            samples = read_split(task, split)
            if samples:
                found[split] = samples
            with withholding(task, samples):
                yield from _split(heading, task, split, samples)
        except UserError as error:
            if error.what not in told:  # what no split has is said once
                yield refused(heading, _veiled(task, error))
            told.add(error.what)
    if found and not task.examples:
        words = ["medbench", "data", "check", str(spec), *(["--data", data] if data else [])]
        what = "images were counted and not opened, and their content was not compared"
        yield Finding(heading, "note", what, f"To do both: {shlex.join(words)}")
    return Read(task, found)


def _metrics(heading: str, task: Task) -> Iterator[Finding]:
    yield from check_metrics(task.metrics, Setting(), heading=heading, wanted=False)
    if not task.metrics:
        yield Finding(heading, "note", "no metric scores its answers yet; they are kept")


def _split(heading: str, task: Task, split: str, samples: Sequence[Sample]) -> Iterator[Finding]:
    edition, expected = task.edition(split), task.expects(split).get("rows")
    images = {_image(sample) for sample in samples}
    known = f" of {expected}" if expected is not None else ""
    what = f"{split}: {len(samples)}{known} questions about {counted(len(images), 'image')}"
    yield Finding(heading, "good", f"{what}, {edition.name} edition")
    if edition.note:
        yield Finding(heading, "note", f"{split}: {edition.note}")
    for check in (
        lambda: check_questions(task, split, samples),
        lambda: with_images(task, split, samples, allow_missing=False),
    ):
        try:
            with withholding(task, samples):
                check()
        except UserError as error:
            yield refused(heading, _veiled(task, error))


def _veiled(task: Task, error: UserError) -> UserError:
    """Return an error without what looks like an id, where the task is restricted."""
    if not task.restricted:
        return error
    return UserError(
        *(_TELLING.sub("(withheld)", line) for line in (error.what, error.why, error.do))
    )


def _image(sample: Sample) -> Hashable:
    return sample.image if isinstance(sample.image, Path) else (sample.group, sample.stamp)
