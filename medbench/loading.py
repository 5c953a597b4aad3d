"""From a spec string to a task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medbench import plugins, spec
from medbench.task import Task


def load_task(text: str, *, data: str | Path | None = None) -> Task:
    """Return the task of a spec, such as `slake` or `slake[closed_rule=strict]`.

    Args:
        text: the spec.
        data: folder with the official files; the same as the parameter `data`.

    Raises:
        UserError: an unknown name or parameter.
    """
    _, task = plugins.create("task", spec.parse(text))
    return task if data is None else replace(task, data=str(data))
