"""`medbench plot`: scores along a parameter, where runs look, and what scores cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medbench import spec
from medbench.cli.options import runs_folder
from medbench.cli.verbs import Verbs

if TYPE_CHECKING:
    from medbench.figures.cost import Kind
    from medbench.figures.placement import Fit

_PATH = click.Path(path_type=Path)
_OUTPUT = click.option("--output", type=_PATH, required=True, help="File to draw: .svg or .png.")
_OUT = runs_folder()
_TASK = click.option("--task", default="", help="Only runs on this task.")
_BACKBONE = click.option("--backbone", default="", help="Only runs with this backbone.")
_PRESET = click.option("--preset", default="", help="Only runs of this preset.")


@click.group(cls=Verbs, subcommand_metavar="VERB [ARGUMENTS]")
def plot() -> None:
    """Draw figures of finished runs; needs medbench[plot]."""


@plot.command()
@click.argument("what")
@_OUTPUT
@click.option("--method", default="", help="Whose parameter WHAT is. [a3tune]")
@click.option("--metric", multiple=True, help="In place of the figure's; several: by commas.")
@_TASK
@_BACKBONE
@_PRESET
@_OUT
def ablation(
    what: str,
    output: Path,
    method: str,
    metric: tuple[str, ...],
    task: str,
    backbone: str,
    preset: str,
    out: Path,
) -> None:
    """Draw scores along a parameter, or method by method.

    WHAT is a figure of the A3Tune paper (4, 5a, 5b, 7a, 7b, 8), a file that describes one, or a
    parameter of --method.

    \b
    medbench plot ablation 8 --output lambda.svg
    medbench plot ablation R --task phantom --metric closed/strict --output heads.png
    """
    from medbench.figures import style
    from medbench.figures.gather import Asked, finished
    from medbench.figures.layout import read

    style.check_output(output)
    layout = read(what, method)
    metrics = [item for option in metric for item in spec.split(option, ",") if item]
    asked = Asked(task, backbone, preset)
    records = finished(out, asked)
    from medbench.figures.ablation import arrange
    from medbench.figures.ablation_picture import draw

    figure = arrange(layout, records, asked, metrics)
    draw(figure, output)
    _tell(output, figure.told)


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
    medbench plot attention lora a3tune --output attention.png
    medbench plot attention a3tune --sample test-30000001-1 --output one.png
    """
    from medbench.figures import style
    from medbench.figures.gather import Asked, finished, narrowed

    style.check_output(output)
    asked = Asked(task, backbone, preset)
    folders = all(Path(name).expanduser().is_dir() for name in names)
    records = [] if folders else narrowed(finished(out, asked), asked)
    from medbench.choose import side
    from medbench.figures.attention import arrange
    from medbench.figures.attention_picture import draw

    sides = [side(name, out, records) for name in names]
    figure = arrange(sides, samples=sample, data=data, fit=fit, show_restricted=show_restricted)
    draw(figure, output)
    _tell(output)


@plot.command()
@_OUTPUT
@click.option("--metric", default="closed/strict", show_default=True, help="The score.")
@click.option(
    "--cost",
    "kind",
    type=click.Choice(["seconds", "forwards"]),
    default="seconds",
    show_default=True,
    help="seconds: of one machine; forwards: tokens through the model per new one.",
)
@_TASK
@_BACKBONE
@_PRESET
@_OUT
def cost(
    output: Path, metric: str, kind: Kind, task: str, backbone: str, preset: str, out: Path
) -> None:
    """Draw score against cost, for all methods that have runs on a task with a backbone.

    \b
    medbench plot cost --task phantom --metric closed/strict --output cost.svg
    medbench plot cost --cost forwards --output forwards.svg
    """
    from medbench.figures import style
    from medbench.figures.gather import Asked, finished

    style.check_output(output)
    asked = Asked(task, backbone, preset)
    records = finished(out, asked)
    from medbench.figures.cost import arrange
    from medbench.figures.cost_picture import draw

    figure = arrange(records, asked, metric=metric, kind=kind)
    draw(figure, output)
    _tell(output, figure.told)


def _tell(output: Path, lines: Sequence[str] = ()) -> None:
    """Print what is not in a figure, and where it is."""
    for line in lines:
        click.echo(line, err=True)
    click.echo(str(output))
