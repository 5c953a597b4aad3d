"""`medbench import`: score answers that another program wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medbench.cli.progress import reporting
from medbench.cli.scores import tell_run
from medbench.counting import counted

if TYPE_CHECKING:
    from medbench.imported import Imported

_IDS = {
    "id": "the task's ids",
    "native_id": "the data set's own ids",
    "native_id_train": "the data set's own ids with a number behind",
}


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--task", required=True, help="A task's spec.")
@click.option("--data", default="", help="Folder with the task's official files; no images needed.")
@click.option("--method", required=True, help="What tables call the method.")
@click.option("--backbone", default="unknown", show_default=True, help="What they call the model.")
@click.option("--seed", default=0, show_default=True, help="The one the other program was given.")
@click.option("--id", "id", default="", help="Field with the sample's id, if it is not found.")
@click.option("--output", default="", help="Field with the answer, if it is not found.")
@click.option("--partial", is_flag=True, help="Leave out samples that the file has no answer for.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("results/runs"),
    show_default=True,
    help="Where run folders go.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def import_(as_json: bool, **options: Any) -> None:
    """Make a finished run of the answers in FILE: JSON lines, or a JSON list.

    Answers are matched with the task's test samples by id; gold answers in the file must be the
    task's. The same answers are imported once.

    \b
    medbench import answers.jsonl --task slake --data DIR --method vcd --backbone llava-med
    medbench import out.json --task vqa_rad --data DIR --method m3id --id qid --output reply
    """
    from medbench.imported import ImportRequest, import_predictions

    request = ImportRequest(**options)
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
