"""`medbench view`: the samples of runs side by side, in one page for the browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from medbench.cli.options import narrowing, runs_folder
from medbench.errors import UserError

if TYPE_CHECKING:
    from medbench.figures.placement import Fit

_LEAST, _MOST = 32, 4096


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("view.html"),
    show_default=True,
    help="File to write.",
)
@narrowing
@runs_folder()
@click.option("--data", default="", help="Folder with the task's files, if the run's is gone.")
@click.option(
    "--fit",
    type=click.Choice(["crop", "pad", "squash"]),
    help="How the backbone places images, where the runs do not tell.",
)
@click.option(
    "--image-size",
    default=256,
    show_default=True,
    help="Longest side of the pictures in the page, in pixels.",
)
@click.option(
    "--show-restricted", is_flag=True, help="Show texts and images, though the task is restricted."
)
def view(
    names: tuple[str, ...],
    output: Path,
    task: str,
    backbone: str,
    preset: str,
    out: Path,
    data: str,
    fit: Fit | None,
    image_size: int,
    show_restricted: bool,
) -> None:
    """Write a page that shows the samples of runs side by side.

    RUN is a run's folder, a key, or a method; of several seeds the first is shown. A run that is
    not finished is named by its folder.

    \b
    medbench view lora a3tune --task phantom
    medbench view results/runs/phantom/phantom/vcd/* --output vcd.html
    """
    if not _LEAST <= image_size <= _MOST:
        raise UserError(
            f"--image-size {image_size} makes no sense",
            "It is the longest side of a picture, in pixels.",
            f"Take a number from {_LEAST} to {_MOST}.",
        )
    output = output.expanduser()
    if not output.absolute().parent.is_dir():
        raise UserError(f"no folder {output.parent}", f"{output.name} is to be written there.")
    from medbench.cli.progress import reporting
    from medbench.viewer import chosen, content, page

    found = chosen.find(names, out, task=task, backbone=backbone, preset=preset)
    with reporting() as report:
        report.stage("view", "")
        shown = content.gather(
            found,
            data=data,
            fit=fit,
            size=image_size,
            show_restricted=show_restricted,
            step=lambda done, total: report.progress(done, total, ""),
        )
        size = page.write(shown, output)
    for line in shown.told:
        click.echo(line, err=True)
    click.echo(f"{output} ({size / 1e6:.1f} MB)")
