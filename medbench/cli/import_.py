"""`medbench import`: score answers that another program wrote, or take in an exported run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from medbench.cli.options import runs_folder
from medbench.cli.progress import reporting
from medbench.cli.scores import tell_run
from medbench.counting import counted
from medbench.errors import UserError

if TYPE_CHECKING:
    from medbench.imported import Imported
    from medbench.sharing.unpacked import Taken

_OF_ANSWERS = ("task", "data", "method", "backbone", "seed", "id", "output", "partial")
_IDS = {
    "id": "the task's ids",
    "native_id": "the data set's own ids",
    "native_id_train": "the data set's own ids with a number behind",
}


@click.command("import")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE..."
)
@click.option("--task", help="A task's spec.")
@click.option("--data", default="", help="Folder with the task's official files; no images needed.")
@click.option("--method", help="What tables call the method.")
@click.option("--backbone", default="unknown", show_default=True, help="What they call the model.")
@click.option("--seed", default=0, show_default=True, help="The one the other program was given.")
@click.option("--id", "id", default="", help="Field with the sample's id, if it is not found.")
@click.option("--output", default="", help="Field with the answer, if it is not found.")
@click.option("--partial", is_flag=True, help="Leave out samples that the file has no answer for.")
@runs_folder("Where run folders go.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
@click.pass_context
def import_(context: click.Context, files: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Make a finished run of the answers in FILE: JSON lines, or a JSON list.

    Answers are matched with the task's test samples by id; gold answers in the file must be the
    task's, which --task and --method name. The same answers are imported once.

    A FILE that 'medbench export' wrote becomes the run that it was; --out and --json go with it.

    \b
    medbench import answers.jsonl --task slake --data DIR --method vcd --backbone llava-med
    medbench import out.json --task vqa_rad --data DIR --method m3id --id qid --output reply
    medbench import phantom-vcd-10efec4f570e.zip
    """
    from medbench.sharing.unpacked import is_packed

    packed = [file for file in files if is_packed(file.expanduser())]
    if packed:
        _check_packed(context, packed, files)
        for file in packed:
            _take(file, options["out"], as_json=as_json)
        return
    _check_answers(context, files)
    _score(files[0], as_json, options)


def _check_packed(context: click.Context, packed: Sequence[Path], files: Sequence[Path]) -> None:
    """Make sure that exported runs are given no option of answers, and no answers beside them.

    Raises:
        UserError: they are.
    """
    given = [
        option.opts[0]
        for option in context.command.params
        if isinstance(option, click.Option)
        and option.name in _OF_ANSWERS
        and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise UserError(
            f"{packed[0]} is an exported run, which takes no {given[0]}",
            "It says itself what it is a run of.",
            f"Leave out {' and '.join(given)}.",
        )
    others = [file for file in files if file not in packed]
    if others:
        raise UserError(
            f"{others[0]} is no exported run, as {packed[0]} is",
            "Answers of another program are imported by themselves.",
            f"medbench import {shlex.quote(str(others[0]))} --task TASK --method METHOD",
        )


def _check_answers(context: click.Context, files: Sequence[Path]) -> None:
    """Make sure that a file of answers is told what it is of, and comes alone.

    Raises:
        MissingParameter: it is not told.
        UserError: it does not come alone.
    """
    for option in context.command.params:
        if option.name in ("task", "method") and context.params[option.name] is None:
            raise click.MissingParameter(ctx=context, param=option)
    if len(files) > 1:
        raise UserError(
            f"{counted(len(files), 'file')} of answers at once",
            f"Each makes a run of its own; {files[1]} is the second.",
            "Import one after the other.",
        )


def _take(file: Path, out: Path, *, as_json: bool) -> None:
    """Make a run folder of an exported run, and say so."""
    from medbench.sharing.unpacked import import_run

    done = import_run(file.expanduser(), out)
    for line in _lines_of_run(file, done):
        click.echo(line, err=True)
    tell_run(done.folder, done.scores, as_json=as_json)


def _lines_of_run(file: Path, done: Taken) -> list[str]:
    shown = "{method} on {task} with {backbone}".format(**done.run["display"])
    lines = [f"{shown}, seed {done.run['identity']['seed']}, imported from {file}"]
    if done.run.get("withheld", False):
        lines.append("  without texts and ids: its task is restricted")
    if done.known:
        lines.append("  this run is there already; nothing was done")
    return lines


def _score(file: Path, as_json: bool, options: dict[str, Any]) -> None:
    """Make a run of another program's answers, and say what was read and how."""
    from medbench.imported import ImportRequest, import_predictions

    request = ImportRequest(file, **options)
    with reporting() as report:
        done = import_predictions(request, report)
    shown = f"{request.method} on {request.task} with {request.backbone}"
    for line in (f"{shown}, imported from {request.file}", *_lines(done)):
        click.echo(line, err=True)
    tell_run(done.folder, done.scores, as_json=as_json)


def _lines(done: Imported) -> list[str]:
    """Say what was read of the file, and how."""
    id_field, output_field = done.fields
    answers, golds = len(done.pairing.answers), done.pairing.golds
    lines = [
        f"  {counted(answers, 'answer')} in '{output_field}'; '{id_field}' has "
        f"{_IDS[done.pairing.ids]}; {counted(golds, 'gold answer')} compared"
    ]
    if done.missing:
        whole = answers + done.missing
        lines.append(f"  partial: {done.missing} of {whole} samples have no answer")
    if done.known:
        lines.append("  these answers are there already; nothing was done")
    return lines
