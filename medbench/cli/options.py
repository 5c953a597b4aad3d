"""Options that several commands take, said once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def runs_folder(told: str = "Folder of the runs.") -> Callable[[Command], Command]:
    """Add --out, the folder that runs are in or go to.

    Args:
        told: what its help says.
    """
    return click.option(
        "--out",
        type=click.Path(path_type=Path),
        default=Path("results/runs"),
        show_default=True,
        help=told,
        callback=_home,
    )


def narrowing(command: Command) -> Command:
    """Add --task, --backbone and --preset, which say which runs of a method are meant."""
    told = {
        "task": "Look for methods among runs of this task only.",
        "backbone": "The same, of this backbone.",
        "preset": "The same, of this preset.",
    }
    # The last one that is added is the first in the help.
    for name, text in reversed(told.items()):
        command = click.option(f"--{name}", default="", help=text)(command)
    return command


def _home(context: click.Context, option: click.Parameter, folder: Path) -> Path:
    """Return a folder with ~ spelled out, which shells leave in --out=~/runs."""
    return folder.expanduser()
