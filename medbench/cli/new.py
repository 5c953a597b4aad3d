"""`medbench new`: begin a method or a task with a file that runs, and its test."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

import click

from medbench import plugins
from medbench.cli import templates
from medbench.cli.verbs import Verbs
from medbench.errors import UserError
from medbench.plugins import FOLDERS, Kind
from medbench.spec import normalise


@click.group(cls=Verbs, subcommand_metavar="VERB NAME")
def new() -> None:
    """Begin a method or a task: write a file that runs at once, and its test.

    \b
    medbench new method blurred
    medbench new task my_hospital
    """


@new.command()
@click.argument("name")
@click.option("--tuner", is_flag=True, help="Change weights instead of how tokens are chosen.")
def method(name: str, tuner: bool) -> None:
    """Write ./methods/NAME.py, a small contrast decoder, and ./tests/test_NAME.py."""
    code, test = (
        (templates.TUNER, templates.TUNER_TEST)
        if tuner
        else (templates.DECODER, templates.DECODER_TEST)
    )
    paths = _write("method", name, code, test)
    _tell(paths, f"medbench run --method {name} --task phantom --limit 100", "add-a-method")


@new.command()
@click.argument("name")
def task(name: str) -> None:
    """Write ./tasks/NAME.py, which reads JSON lines and images, and ./tests/test_NAME.py."""
    paths = _write("task", name, templates.TASK, templates.TASK_TEST)
    _tell(paths, f"medbench run --method greedy --task {name} --data DIR --limit 100", "add-a-task")


def _write(kind: Kind, name: str, code: str, test: str) -> tuple[Path, Path]:
    """Write a plugin's file and its test, and return where they are.

    Raises:
        UserError: the name cannot be taken, or a file is there or cannot be written.
    """
    _check_name(kind, name)
    paths = (Path(FOLDERS[kind]) / f"{name}.py", Path("tests") / f"test_{name}.py")
    for path in paths:
        if path.exists():
            raise UserError(
                f"{path} is there already",
                "Nothing was written.",
                f"Take another name, or remove it to begin again: medbench new {kind} {name}",
            )
    words = name.replace("_", " ").strip().capitalize()
    title = "".join(word.capitalize() for word in words.split())
    if re.search(rf"\b{title}\b", code):  # a task called sample is no Sample
        title += kind.capitalize()
    for path, text in zip(paths, (code, test), strict=True):
        filled = text.replace("NAME", name).replace("Title", title).replace("WORDS", words)
        try:
            path.parent.mkdir(exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(filled)
        except OSError as error:
            raise UserError(
                f"cannot write {path}",
                f"{error.strerror or error}.",
                "Change to a folder of your own, and run the command again.",
            ) from error
    return paths


def _check_name(kind: Kind, name: str) -> None:
    """Make sure that a plugin can have the name.

    Raises:
        UserError: it is no identifier, or another plugin has it.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        close = re.sub(r"\W+", "_", normalise(name)).strip("_")
        usable = re.fullmatch(r"[a-z][a-z0-9_]*", close) and not keyword.iskeyword(close)
        raise UserError(
            f"'{name}' cannot be the name of a file of Python",
            "Lower case letters, digits and '_' can, a letter first.",
            f"Did you mean {close}?" if usable else "",
        )
    for plugin in plugins.find(kind):
        if normalise(plugin.name) == name:
            raise UserError(
                f"there is a {kind} named '{name}'",
                f"It is in {plugins.shown(plugin.path)}.",
                "Take another name; two of one name would both be broken.",
            )


def _tell(paths: tuple[Path, Path], run: str, page: str) -> None:
    code, test = paths
    click.echo(f"{code}\n{test}\n")
    click.echo("It runs as it is. Next:")
    for command in (f"medbench show {code.stem}", f"pytest {test}", run):
        click.echo(f"  {command}")
    click.echo(f"Then write in {code} what yours does; docs/{page}.md says how.")
