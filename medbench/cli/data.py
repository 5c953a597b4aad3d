"""`medbench data`: check a download, describe what is asked in it, unpack its archives."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medbench import plugins, spec
from medbench.cli.verbs import Verbs
from medbench.counting import counted
from medbench.errors import UserError

if TYPE_CHECKING:
    from medbench.data.audit import Audit
    from medbench.data.audit_splits import Found
    from medbench.task import Task

Steps = Callable[[str, int, int], None]


@click.group(cls=Verbs, subcommand_metavar="VERB [ARGUMENTS]")
def data() -> None:
    """Check and describe the official files of a task, and unpack their archives."""


@data.command()
@click.argument("task", required=False)
@click.option("--data", "folder", default="", help="Folder with the official files.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings, hashes in full.")
def check(task: str | None, folder: str, as_json: bool) -> int:
    """Say whether a download is complete, readable and the published one.

    Without TASK, every task is looked for in the folder. Exit code 0: all that was found is good;
    1: something is missing, broken, or other than published. Neither warnings nor what two splits
    share make it 1.

    \b
    medbench data check vqa_rad --data DIR
    medbench data check --data DIR
    """
    found, absent = ([_read_one(task, folder)], {}) if task else _read_all(folder)
    from medbench.data.audit import audit

    with _progress() as steps:
        audits = [audit(one, splits, partial(_named, steps, one)) for one, splits in found]
    good = all(one.good for one in audits)
    if as_json:
        tasks = [{"good": one.good, **asdict(one)} for one in audits]
        content = {"good": good, "tasks": tasks, "not_found": absent}
        click.echo(json.dumps(content, indent=1, ensure_ascii=False))
    else:
        _show(audits, absent)
    return 0 if good else 1


def _read_one(text: str, folder: str) -> tuple[Task, Found]:
    task = _create(text, folder)
    from medbench.data.audit_splits import read_splits

    found = read_splits(task)
    if found.is_absent and found.errors:
        raise next(iter(found.errors.values()))
    return task, found


def _read_all(folder: str) -> tuple[list[tuple[Task, Found]], dict[str, str]]:
    """Return the tasks whose files are in a folder, and of the others why they are not."""
    if not Path(folder).expanduser().is_dir() or not folder:
        raise UserError(
            f"{folder} is not a folder" if folder else "neither a task nor a folder given",
            "Without a task, every task is looked for in a folder.",
            "Write: medbench data check --data DIR",
        )
    from medbench.data.audit_splits import read_splits

    read: list[tuple[Task, Found]] = []
    absent: dict[str, str] = {}
    for plugin in plugins.find("task"):
        if plugin.attributes.get("examples"):
            continue  # it needs no files
        try:
            task = _create(plugin.name, folder)
        except UserError as error:
            absent[plugin.name] = _line(plugin.name, error)
            continue
        read.append((task, read_splits(task)))
    # Names such as test.json are many data sets': what one task reads well is no other's.
    taken = {path for _, one in read for split in one.splits for path in split.edition.files}
    found: list[tuple[Task, Found]] = []
    for task, splits in read:
        if splits.is_absent_beside(taken):
            absent[task.name] = _why_absent(task, splits.errors.values())
        else:
            found.append((task, splits))
    if not found:
        raise UserError(
            f"no task's files found in {folder}",
            f"Looked for {', '.join(absent)}.",
            "What one needs: medbench data check TASK --data DIR",
        )
    return found, absent


def _create(text: str, folder: str) -> Task:
    task: Task = plugins.create("task", spec.parse(text))[1]
    return replace(task, data=folder) if folder else task


def _why_absent(task: Task, errors: Iterable[UserError]) -> str:
    """Say in a line why a task's files are not there."""
    if task.restricted:
        return f"Its files are not there; named, {task.name} says which it looks for."
    # What was taken for its file tells more than what was not found.
    error = min(errors, key=lambda one: "not found in" in one.what)
    return _line(task.name, error)


def _line(name: str, error: UserError) -> str:
    parts = (error.what.removeprefix(f"{name}: "), error.why)
    return " ".join(part if part.endswith(".") else f"{part}." for part in parts if part)


def _show(audits: list[Audit], absent: dict[str, str]) -> None:
    from medbench.data.audit_text import page

    for position, one in enumerate(audits):
        if position:
            click.echo()
        _echo(page(one))
    if absent:
        click.echo()
        width = max(map(len, absent))
        _echo(["not found", *(f"  {name:<{width}}  {why}" for name, why in absent.items())])


@data.command()
@click.argument("task")
@click.option("--data", "folder", default="", help="Folder with the official files.")
@click.option("--split", default="test", show_default=True, help="train, validation or test.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def describe(task: str, folder: str, split: str, as_json: bool) -> None:
    """Count what a split asks, by kind and by whatever the data set tells of its questions.

    The share of the most frequent answer is what a model scores that never looks. Images are not
    opened.

    \b
    medbench data describe slake --data DIR --split train
    """
    created = _create(task, folder)
    from medbench.data import describe as counting

    told = counting.describe(created, split)
    if as_json:
        click.echo(json.dumps(asdict(told), indent=1, ensure_ascii=False))
    else:
        _echo(counting.lines(told))


@data.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
def unpack(paths: tuple[Path, ...]) -> int:
    """Unpack zip and tar archives, each where it lies.

    PATHS are archives, or folders: then all archives in them and one level below. What is there
    already stays as it is, and the same command goes on where one was stopped. Exit code 1: files
    of another size stood in the way.

    \b
    medbench data unpack DIR
    medbench data unpack DIR/imgs.zip
    """
    from medbench.data.archives import find_archives
    from medbench.data.archives import unpack as unpack_one

    archives = dict.fromkeys(one for path in paths for one in find_archives(path.expanduser()))
    complete = True
    for archive in archives:
        with _progress() as steps:
            done = unpack_one(archive, partial(steps, archive.name))
        click.echo(f"{archive}: {counted(done.written, 'file')} unpacked, {done.there} were there")
        if done.differing:
            complete = False
            click.echo(f"  {len(done.differing)} left as they are: of another size, or no file")
            click.echo(f"  First: {done.differing[0]}")
            click.echo("  Move them away and run the same command again.")
    return 0 if complete else 1


def _echo(lines: Iterable[str]) -> None:
    """Print lines, headings in bold where that can be seen."""
    for line in lines:
        click.secho(line, bold=not line.startswith(" "))


@contextmanager
def _progress() -> Generator[Steps]:
    """Yield what shows a line of progress on a terminal and nothing elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what, done, of: None
        return
    from rich import progress

    columns = (
        progress.TextColumn("  {task.description}", markup=False),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console, transient=True) as bar:

        def step(what: str, done: int, of: int) -> None:
            if not bar.tasks or bar.tasks[0].description != what:
                for line in bar.task_ids:
                    bar.remove_task(line)
                bar.add_task(what)
            bar.update(bar.task_ids[0], completed=done, total=of)

        yield step


def _named(steps: Steps, task: Task, what: str, done: int, of: int) -> None:
    steps(f"{task.name}: {what}", done, of)
