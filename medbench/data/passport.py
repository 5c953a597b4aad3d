"""Passports: the counts and hashes that a task's files must match.

`rows` is the number of samples of a split; `ids`, `questions` and `images` are sha256 over their
ids, over their ids, questions and answers, and over the contents of their images, in the order of
the files. What is not known of a data set is left out.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medbench.counting import counted
from medbench.digests import sha256_of
from medbench.errors import UserError
from medbench.task import Sample, Task


def passport_of(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the passport of samples; `images` is None where an image is missing or drawn.

    Raises:
        UserError: an image file cannot be read.
    """
    return {
        "rows": len(samples),
        "ids": hash_ids(sample.id for sample in samples),
        "questions": hash_questions(samples),
        "images": hash_images(samples),
    }


def check_passport(
    task: Task,
    split: str,
    ids: Sequence[str],
    *,
    expected: Mapping[str, Any] | None = None,
    gaps: Sequence[str] = (),
) -> None:
    """Compare the ids read with what the files should hold.

    Args:
        ids: in the file's order.
        expected: counts and hashes; by default what the task expects of its edition.
        gaps: ids that the official file has and this one lacks, where the task can tell.

    Raises:
        UserError: an id comes twice, or number or hash of the ids differ; names the difference,
            but no id of a restricted task.
    """
    expected = task.expects(split) if expected is None else expected
    wanted = expected.get("rows", len(ids))
    again = f"Download the official files again ({task.source}); copies that circulate differ."
    found = f"{task.name}: {len(ids)} of {wanted} {split} questions found"
    twice = [id for id, count in Counter(ids).items() if count > 1]
    if twice:
        first = f"number {ids.index(twice[0]) + 1}" if task.restricted else twice[0]
        why = f"{counted(len(twice), 'id comes', 'ids come')} more than once, first: {first}."
        raise UserError(found, why, again)
    if len(ids) != wanted:
        difference = abs(wanted - len(ids))
        if len(ids) > wanted:
            why = f"{counted(difference, 'id')} too many."
        else:
            first = f", first: {gaps[0]}" if gaps and not task.restricted else ""
            why = f"{counted(difference, 'id')} missing{first}."
        raise UserError(found, why, again)
    if "ids" in expected and expected["ids"] != hash_ids(ids):
        why = "The number is right, but some ids are others or stand in another order."
        raise UserError(f"{task.name}: the {split} questions are not the official ones", why, again)


def check_questions(task: Task, split: str, samples: Sequence[Sample]) -> None:
    """Compare questions and answers with what the files should hold, where that is known.

    Raises:
        UserError: they differ: someone edited the file.
    """
    expected = task.expects(split)
    if len(samples) == expected.get("rows") and expected.get("questions", "") not in (
        "",
        hash_questions(samples),
    ):
        raise UserError(
            f"{task.name}: some {split} questions or answers are not the official ones",
            "Their ids are right, but texts were changed: cleaned, translated or corrected.",
            f"Download the official files again ({task.source}).",
        )


def hash_ids(ids: Iterable[str]) -> str:
    """Return the sha256 of ids, one a line."""
    return hashlib.sha256("\n".join(ids).encode("utf-8")).hexdigest()


def hash_questions(samples: Iterable[Sample]) -> str:
    """Return the sha256 of ids, questions and answers, a JSON list of three a line."""
    lines = (json.dumps([s.id, s.question, s.answer], ensure_ascii=False) for s in samples)
    return hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest()


def hash_images(samples: Sequence[Sample]) -> str | None:
    """Return the sha256 of the contents of all images, in order; None if they are not all there.

    Raises:
        UserError: an image file cannot be read.
    """
    paths = [sample.image for sample in samples if isinstance(sample.image, Path)]
    if not all(path.is_file() for path in dict.fromkeys(paths)):
        return None
    contents = sha256_of(paths)
    marks = [
        contents[sample.image] if isinstance(sample.image, Path) else sample.stamp
        for sample in samples
    ]
    return hash_ids(marks) if all(marks) else None
