"""`medbench compare`: two methods on the same questions, with tests and with what flipped."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from medbench import spec
from medbench.cli.options import narrowing, runs_folder
from medbench.errors import UserError


@click.command()
@click.argument("a")
@click.argument("b")
@narrowing
@runs_folder()
@click.option(
    "--metric",
    multiple=True,
    help="Only these metrics; separated by commas, or the option again. [all that both have]",
)
@click.option(
    "--format",
    "written_as",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
)
@click.option(
    "--samples", default=10, show_default=True, help="How many flipped questions to show."
)
@click.option(
    "--show-restricted", is_flag=True, help="Show texts and ids, though the task is restricted."
)
def compare(
    a: str,
    b: str,
    task: str,
    backbone: str,
    preset: str,
    out: Path,
    metric: tuple[str, ...],
    written_as: str,
    samples: int,
    show_restricted: bool,
) -> None:
    """Compare the runs B with the runs A, question by question.

    Each is a run's folder, a folder that holds some, a key, or a method. Runs of one side may
    differ by their seeds only; a question's value is their mean.

    \b
    medbench compare greedy vcd --task phantom
    medbench compare lora a3tune --metric closed/strict --samples 20
    """
    if samples < 0:
        raise UserError(
            f"--samples {samples} makes no sense", "It is a count.", "Take 0 for none, or more."
        )
    metrics = [one for text in metric for one in spec.split(text, ",") if one]
    from medbench import choose
    from medbench.comparing import compare as comparing
    from medbench.comparing.text import as_text

    first, second = choose.sides((a, b), out, task=task, backbone=backbone, preset=preset)
    found = comparing.compare(
        first, second, metrics=metrics, samples=samples, show_restricted=show_restricted
    )
    if written_as == "json":
        click.echo(json.dumps(asdict(found), indent=1, ensure_ascii=False, allow_nan=False))
        return
    click.echo("\n".join(line.rstrip() for line in as_text(found)))
