"""`medbench labels`: compute a task's weak labels ahead, tell how good they are, show them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medbench import plugins, spec, supervise
from medbench.cli.progress import reporting
from medbench.errors import UserError

if TYPE_CHECKING:
    from medbench.model.geometry import Fit
    from medbench.provider import Region
    from medbench.task import Sample

    Labelled = Sequence[tuple[Sample, Sequence[Region]]]


@click.command()
@click.option("--task", required=True, help="A task's spec.")
@click.option("--data", default="", help="Folder with the task's official files.")
@click.option("--split", default="train", show_default=True, help="Samples to label.")
@click.option("--labels", default="sam-biomedclip", show_default=True, help="A provider's spec.")
@click.option(
    "--fit",
    type=click.Choice(["pad", "crop", "squash"]),
    help="How the backbone places images; experts' views depend on it.",
)
@click.option("--k", "--K", "-K", "k", default=4, show_default=True, help="Regions kept of each.")
@click.option("--limit", type=int, help="Only the first N samples of the split.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--allow-missing-images", is_flag=True, help="Leave out samples without an image.")
@click.option(
    "--allow-restricted",
    is_flag=True,
    help="Let --npz and --view hold ids, images and texts of a restricted task.",
)
@click.option("--npz", type=click.Path(path_type=Path), help="Write the published layout.")
@click.option("--view", type=click.Path(path_type=Path), help="Write a contact sheet (PNG).")
@click.option("--first", default=24, show_default=True, help="Samples on the sheet.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def labels(
    task: str,
    data: str,
    split: str,
    labels: str,
    fit: Fit | None,
    k: int,
    limit: int | None,
    device: str,
    allow_missing_images: bool,
    allow_restricted: bool,
    npz: Path | None,
    view: Path | None,
    first: int,
    as_json: bool,
) -> None:
    """Compute weak labels, or experts' views, ahead of training, and say what came out.

    What was computed before is not computed again, neither here nor in `medbench run`.

    \b
    medbench labels --task slake --data DIR --labels "sam-biomedclip[sam=sam_vit_h_4b8939.pth]"
    medbench labels --task phantom --view labels.png
    medbench labels --task slake --data DIR --labels "biomedclip" --fit pad
    """
    for name, value in (("--k", k), ("--first", first), ("--limit", limit)):
        if value is not None and value < 1:
            raise UserError(f"{name} {value} makes no sense", "It is a count.", "Take 1 or more.")
    _check_writable(npz, view)
    from medbench.cell import prepare_task

    facts = plugins.get("task", spec.parse(task).name).attributes
    plugin, provider = supervise.create_one(labels, facts)
    if plugin.role == "expert" and (npz or view):
        raise UserError(f"{plugin.name} gives no regions", "", "Leave out --npz and --view.")
    if facts.get("restricted") and (npz or view) and not allow_restricted:
        raise UserError(
            f"{task} is restricted",
            "A sheet shows patients' images and texts, an .npz names them by their ids.",
            "Add --allow-restricted, and keep what is written to yourself.",
        )
    prepared, found = prepare_task(task, data, split, allow_missing=allow_missing_images)
    samples = list(islice(found.samples, limit))

    from medbench.labels.report import counts, describe, figures, tiles
    from medbench.model.load import resolve_device
    from medbench.provider import Surroundings
    from medbench.restricted import withholding

    told: dict[str, Any] = {
        "task": prepared.name,
        "split": split,
        "labels": supervise.shown_provider(labels),
        "missing_images": len(found.missing),
    }
    with withholding(prepared, samples), reporting() as report:
        report.stage("label", provider.name)
        where = resolve_device(device, "auto")[0]
        give = provider.open(samples, Surroundings(prepared, fit, where, report.progress))
        if plugin.role == "expert":
            told |= counts(samples)
            chosen: Labelled = []
        else:
            whole: Labelled = [(sample, give(sample)) for sample in samples]
            chosen = [(sample, regions[:k]) for sample, regions in whole]
            told |= figures(whole, k)
        if npz:
            from medbench.labels import published

            published.write(npz, chosen)
            told["npz"] = str(npz)
        if view:
            from medbench.labels.sheet import sheet

            sheet(tiles(chosen[:first])).save(view)
            told["view"] = str(view)
    if as_json:
        import json

        click.echo(json.dumps(told, sort_keys=True))
        return
    for line in describe(told):
        click.echo(line)


def _check_writable(npz: Path | None, view: Path | None) -> None:
    """Refuse files that could not be written, before hours of work and not after."""
    for path in filter(None, (npz, view)):
        if not path.absolute().parent.is_dir():
            raise UserError(f"no folder {path.parent}", f"{path.name} is to be written there.")
    if view and view.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UserError(f"cannot write a picture to {view}", "", "Name it .png, .jpg or .webp.")
