"""Progress in a terminal: one line for what is being done, and none elsewhere."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medbench.reporting import Report

_STAGES = {
    "plan": "planning",
    "load": "loading",
    "wait": "waiting",
    "label": "labelling",
    "train": "training",
    "decode": "answering",
    "score": "scoring",
    "view": "gathering",
}


@contextmanager
def reporting() -> Generator[Report]:
    """Yield a report that shows a line of progress on a terminal and nothing elsewhere."""
    from rich.console import Console

    from medbench.reporting import Report

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Report()
        return
    from rich import progress

    columns = (
        progress.TextColumn("  {task.description:<10}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(),
        # Specs have brackets, which are not markup.
        progress.TextColumn("{task.fields[remark]}", markup=False),
    )
    with progress.Progress(*columns, console=console, transient=True) as bar:
        lines: list[progress.TaskID] = []

        def stage(name: str, remark: str) -> None:
            for line in lines:
                bar.remove_task(line)
            lines[:] = [bar.add_task(_STAGES[name], total=None, remark=remark, rate="")]

        def step(done: int, total: int, remark: str) -> None:
            (line,) = lines
            task = bar.tasks[0]
            if task.total is None:
                # What was done before this process counts neither for the rate nor the time left.
                bar.reset(line, total=total, completed=done)
            rate = f"{task.speed:.1f}/s" if task.speed else ""
            remark = remark or task.fields["remark"]
            # Short stages would be over before the next tick draws them.
            ended = done == total
            bar.update(line, completed=done, rate=rate, remark=remark, refresh=ended)

        yield Report(stage, step)
