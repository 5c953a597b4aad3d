"""`medbench table`: the runs found, as methods x tasks."""

from __future__ import annotations

import sys
from collections import Counter
from functools import partial
from pathlib import Path

import click

from medbench import spec
from medbench import table as tables
from medbench import table_text as text

_MANY = " Several: separated by commas, or the option again."


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("results/runs"),
    show_default=True,
    help="Folder of the runs.",
)
@click.option("--task", multiple=True, help=f"Only these tasks.{_MANY}")
@click.option("--backbone", multiple=True, help=f"Only these backbones.{_MANY}")
@click.option("--metric", multiple=True, help=f"Instead of the headline metrics.{_MANY}")
@click.option(
    "--format",
    "written_as",
    type=click.Choice(["text", "md", "csv", "json"]),
    default="text",
    show_default=True,
)
def table(
    out: Path,
    task: tuple[str, ...],
    backbone: tuple[str, ...],
    metric: tuple[str, ...],
    written_as: str,
) -> None:
    """Print the finished runs: methods down, tasks and metrics across.

    Runs over part of the samples, and runs of another preset, stand in tables of their own.
    """
    records = tables.collect(out, tasks=_items(task), backbones=_items(backbone))
    arranged = tables.arrange(records, _items(metric))
    bold = partial(click.style, bold=True) if sys.stdout.isatty() else None
    writers = {
        "text": partial(text.as_text, bold=bold),
        "md": text.as_markdown,
        "csv": text.as_csv,
        "json": text.as_json,
    }
    written = writers[written_as](arranged)
    if written:
        click.echo(written.removesuffix("\n"))
    finished = [r for r in records if r.state in ("complete", "partial")]
    unscored = sum(not record.scores for record in finished)
    if unscored:
        runs = "1 run has" if unscored == 1 else f"{unscored} runs have"
        click.echo(f"Not shown: {runs} answers and no metric to score them.", err=True)
    left_out = Counter(r.state for r in records if r.state not in ("complete", "partial"))
    if left_out:
        counts = ", ".join(f"{number} {state}" for state, number in sorted(left_out.items()))
        click.echo(f"Not shown: {counts}. See: medbench list runs", err=True)


def _items(options: tuple[str, ...]) -> list[str]:
    return [item for option in options for item in spec.split(option, ",") if item]
