"""`medbench backbone`: write checkpoints in other formats."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from medbench import plugins, spec
from medbench.cli.progress import reporting
from medbench.cli.verbs import Verbs
from medbench.errors import UserError

if TYPE_CHECKING:
    from medbench.original_checkpoint import OriginalCheckpoint


@click.group(cls=Verbs, subcommand_metavar="VERB [ARGUMENTS]")
def backbone() -> None:
    """Write checkpoints in other formats."""


@backbone.command()
@click.argument("backbone")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A folder to make.")
@click.option(
    "--to",
    type=click.Choice(["original", "llava-hf"]),
    default="llava-hf",
    show_default=True,
    help="original: base + delta as one checkpoint; llava-hf: transformers' own LLaVA format.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "bfloat16", "float32"]),
    default="float16",
    show_default=True,
    help="Of the weights written as llava-hf.",
)
def convert(backbone: str, out: Path, to: Literal["original", "llava-hf"], dtype: str) -> None:
    """Write the checkpoint of a backbone's spec in another format.

    \b
    medbench backbone convert "llava-med[weights=DELTA,base=LLAMA]" --to original --out DIR
    medbench backbone convert "llava-med-1.5[weights=DIR]" --out DIR --dtype bfloat16
    """
    checkpoint = _original(backbone)
    with _new_folder(out) as folder, reporting() as report:
        if to == "original":
            from medbench.model.merge import write_merged

            base, delta = _parts(checkpoint)
            report.stage("merge", checkpoint.name)
            write_merged(base, delta, folder, report=lambda n, of: report.progress(n, of, ""))
        else:
            import torch

            from medbench.model.export import write_llava_hf

            report.stage("load", checkpoint.name)
            loaded = checkpoint.load(device=torch.device("cpu"), dtype=getattr(torch, dtype))
            report.stage("write", "llava-hf")
            write_llava_hf(loaded, folder)
    click.echo(str(out))


def _original(written: str) -> OriginalCheckpoint:
    """Return the checkpoint of a spec.

    Raises:
        UserError: it is not one in its authors' format.
    """
    from medbench.original_checkpoint import OriginalCheckpoint

    plugin, checkpoint = plugins.create("backbone", spec.parse(written))
    if not isinstance(checkpoint, OriginalCheckpoint):
        raise UserError(
            f"{plugin.name} has no authors' format to convert from",
            "It is in transformers' LLaVA format, or has no files at all.",
            "medbench list backbones tells which are in an original format.",
        )
    return checkpoint


def _parts(checkpoint: OriginalCheckpoint) -> tuple[Path, Path]:
    """Return the folders of base and delta.

    Raises:
        UserError: the spec names no base.
    """
    from medbench.backbones.llava_med import LlavaMed

    if not isinstance(checkpoint, LlavaMed) or not checkpoint.base:
        raise UserError(
            f"{checkpoint.name} has nothing to merge",
            "Only LLaVA-Med 1.0 is published as a delta, and the spec must name its base.",
            'Write "llava-med[weights=DELTA,base=LLAMA]", or take --to llava-hf.',
        )
    return checkpoint.base_directory(), checkpoint.directory()


@contextmanager
def _new_folder(out: Path) -> Generator[Path]:
    """Yield a folder beside `out` that takes its place in the end; a killed start leaves no `out`.

    Raises:
        UserError: `out` is there and not empty, or cannot be made.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already", "", "Name a folder that is new or empty.")
    part = out.with_name(f"{out.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        if out.exists():
            out.rmdir()
        part.rename(out)
    except OSError as error:
        raise UserError(f"cannot write {out}", f"{error.strerror or error}.", "") from error
