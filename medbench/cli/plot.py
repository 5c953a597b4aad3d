"""`medbench plot`: scores along a parameter, where runs look, and what scores cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from medbench import spec
from medbench.cli.verbs import Verbs

if TYPE_CHECKING:
    from medbench.figures.cost import Kind
    from medbench.figures.placement import Fit

_PATH = click.Path(path_type=Path)
_OUTPUT = click.option(
    "--output", type=_PATH, required=True, help="File to draw: .svg, .png or .pdf."
)
_OUT = click.option(
    "--out",
    type=_PATH,
    default=Path("results/runs"),
    show_default=True,
    help="Folder of the runs.",
)
_TASK = click.option("--task", default="", help="Only runs on this task.")
_BACKBONE = click.option("--backbone", default="", help="Only runs with this backbone.")
_PRESET = click.option("--preset", default="", help="Only runs of this preset.")
_SEEDS = click.option("--seeds", default="", help="Only these seeds: 0,1,2 or 0-4.")


@click.group(cls=Verbs, subcommand_metavar="VERB [ARGUMENTS]")
def plot() -> None:
    """Draw figures of finished runs; needs medbench[plot]."""


@plot.command()
@click.argument("what")
@_OUTPUT
@click.option("--method", default="a3tune", show_default=True, help="Whose parameter WHAT is.")
@click.option("--metric", multiple=True, help="In place of the figure's; several: by commas.")
@_TASK
@_BACKBONE
@_PRESET
@_SEEDS
@_OUT
def ablation(
    what: str,
    output: Path,
    method: str,
    metric: tuple[str, ...],
    task: str,
    backbone: str,
    preset: str,
    seeds: str,
    out: Path,
) -> None:
    """Draw scores along a parameter, or as bars.

    WHAT is a figure of the A3Tune paper (4, 5a, 5b, 7a, 7b, 8), a file that describes one, or a
    parameter of --method.

    \b
    medbench plot ablation 8 --output lambda.pdf
    medbench plot ablation R --task phantom --metric closed/strict --output heads.png
    """
    from dataclasses import replace

    from medbench.figures import style
    from medbench.figures.layout import read
    from medbench.figures.runs import Where, finished, numbers

    style.check_output(output)
    layout = read(what, method)
    asked = tuple(item for option in metric for item in spec.split(option, ",") if item)
    layout = replace(layout, metrics=asked or layout.metrics)
    where = Where(out, task or layout.task, backbone, preset, numbers(seeds))
    records = finished(where)
    from medbench.figures.ablation import arrange, draw

    figure = arrange(layout, records, where)
    draw(figure, output)
    for line in figure.missing:
        click.echo(line, err=True)
    click.echo(str(output))


@plot.command()
@click.argument("names", nargs=-1, required=True, metavar="RUN...")
@_OUTPUT
@click.option("--sample", multiple=True, help="A sample's id; several: the option again.")
@click.option("--data", default="", help="Folder with the task's files, if the run's is gone.")
@click.option(
    "--fit",
    type=click.Choice(["crop", "pad", "squash"]),
    help="How the backbone places images, where the runs do not tell.",
)
@click.option("--show-restricted", is_flag=True, help="Draw images of a restricted task.")
@_TASK
@_BACKBONE
@_PRESET
@_OUT
def attention(
    names: tuple[str, ...],
    output: Path,
    sample: tuple[str, ...],
    data: str,
    fit: Fit | None,
    show_restricted: bool,
    task: str,
    backbone: str,
    preset: str,
    out: Path,
) -> None:
    """Draw where runs look: attention over the image, beside the region.

    RUN is a run's folder, a key, or a method; of several seeds the first is shown.

    \b
    medbench plot attention lora a3tune --output attention.pdf
    medbench plot attention a3tune --sample test-30000001-1 --output one.png
    """
    from medbench.figures import style
    from medbench.figures.runs import Where, finished

    style.check_output(output)
    folders = all(Path(name).expanduser().is_dir() for name in names)
    records = [] if folders else finished(Where(out, task, backbone, preset))
    from medbench.choose import side
    from medbench.figures.attention import arrange, draw

    sides = [side(name, out, records) for name in names]
    figure = arrange(sides, samples=sample, data=data, fit=fit, show_restricted=show_restricted)
    draw(figure, output)
    click.echo(str(output))


@plot.command()
@_OUTPUT
@click.option("--metric", default="closed/strict", show_default=True, help="Its score.")
@click.option(
    "--cost",
    "kind",
    type=click.Choice(["seconds", "forwards", "memory"]),
    default="seconds",
    show_default=True,
    help="seconds and memory of one machine; forwards: tokens through the model per new one.",
)
@_TASK
@_BACKBONE
@_PRESET
@_SEEDS
@_OUT
def cost(
    output: Path,
    metric: str,
    kind: Kind,
    task: str,
    backbone: str,
    preset: str,
    seeds: str,
    out: Path,
) -> None:
    """Draw score against cost, for all methods that have runs on a task with a backbone.

    \b
    medbench plot cost --task phantom --metric closed/strict --output cost.pdf
    medbench plot cost --cost forwards --output forwards.svg
    """
    from medbench.figures import style
    from medbench.figures.runs import Where, finished, numbers

    style.check_output(output)
    records = finished(Where(out, task, backbone, preset, numbers(seeds)))
    from medbench.figures.cost import arrange, draw

    figure = arrange(records, metric, kind)
    draw(figure, output)
    for line in figure.left_out:
        click.echo(line, err=True)
    click.echo(str(output))
