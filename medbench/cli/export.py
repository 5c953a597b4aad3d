"""`medbench export`: runs as files for others, and their samples as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import click

from medbench.cli.options import runs_folder
from medbench.counting import counted
from medbench.errors import UserError

if TYPE_CHECKING:
    from medbench.sharing.packed import Exported

Format = Literal["zip", "parquet", "csv"]
_FORMATS = get_args(Format)
_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--output", type=_PATH, help="File to write; of several runs, a folder. [here]")
@click.option(
    "--format",
    "written_as",
    type=click.Choice(_FORMATS),
    help="zip: whole runs; else their samples. [by the name of --output, or zip]",
)
@click.option(
    "--show-restricted", is_flag=True, help="With texts and ids, though the task is restricted."
)
@runs_folder("Where runs are, for keys.")
def export(
    runs: tuple[str, ...],
    output: Path | None,
    written_as: Format | None,
    show_restricted: bool,
    out: Path,
) -> None:
    """Pack each RUN into a file that `medbench import` makes the same run of.

    A run is named by its folder, by a folder that holds some, or by its key; it must be finished.
    As Parquet or CSV, the samples of all of them go into one file.

    \b
    medbench export 72ddcb116258
    medbench export results/runs/phantom --output shared
    medbench export results/runs/phantom --output samples.parquet
    """
    output = output.expanduser() if output else None
    kind = _format(written_as, output)
    from medbench.choose import find

    folders = find(runs, out)
    if kind != "zip":
        if output is None:
            raise UserError(
                "the table has no name", "It may be of many runs.", f"Add --output samples.{kind}"
            )
        from medbench.frame import write_frame

        samples, withheld = write_frame(
            folders, output, written_as=kind, show_restricted=show_restricted
        )
        click.echo(str(output))
        told = f"  {counted(samples, 'sample')} of {counted(len(folders), 'run')}"
        click.echo(f"{told}{_left_out(withheld)}", err=True)
        return
    from medbench.sharing.packed import export_run

    for folder, path in zip(folders, _paths(folders, output), strict=True):
        done = export_run(folder, path, show_restricted=show_restricted)
        click.echo(str(done.path))
        click.echo(_told(done), err=True)


def _format(asked: Format | None, output: Path | None) -> Format:
    """Return the format that is meant.

    Raises:
        UserError: the file's name is that of another one.
    """
    ending = output.suffix.lower().removeprefix(".") if output else ""
    by_name: Format | None = next((one for one in _FORMATS if one == ending), None)
    if asked and by_name and asked != by_name:
        raise UserError(
            f"--format {asked} does not write {output}",
            f"It is called .{ending}.",
            f"Name it .{asked}, or leave out --format.",
        )
    return asked or by_name or "zip"


def _paths(folders: Sequence[Path], output: Path | None) -> list[Path]:
    """Return the file that each run goes to.

    Raises:
        UserError: several would go to one.
    """
    from medbench import store
    from medbench.sharing.packed import file_name

    if output and len(folders) == 1 and not output.is_dir() and output.suffix:
        return [output]
    if output and (output.is_file() or output.suffix.lower() == ".zip"):
        raise UserError(
            f"{output} cannot hold {counted(len(folders), 'run')}",
            "Each run makes a file of its own, named after it.",
            f"Name a folder: --output {output.with_suffix('')}",
        )
    paths = [(output or Path()) / file_name(store.read_run(folder)) for folder in folders]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice:
        first, second, *_ = [one for one, path in zip(folders, paths, strict=True) if path == twice]
        raise UserError(
            f"{first} and {second} are the same run",
            f"Both would be {twice}.",
            "Name one of them.",
        )
    return paths


def _told(done: Exported) -> str:
    shown = "{method} on {task} with {backbone}".format(**done.display)
    size = f"{done.size / 2**20:.1f} MiB"
    if done.restricted and not done.withheld:
        more = "; with texts and ids of a restricted task, to be shared under its licence only"
    else:
        more = _left_out(done.withheld)
    return f"  {shown}, {counted(done.samples, 'sample')}, {size}{more}"


def _left_out(withheld: bool) -> str:
    left_out = "; the task is restricted: without texts, ids, attention and hashes of images"
    return left_out if withheld else ""
