"""`medbench table`: the runs found, or a paper's table filled from them."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medbench import spec
from medbench.cli.options import runs_folder

if TYPE_CHECKING:
    from medbench.store import RunRecord
    from medbench.tables.layout import Layout
    from medbench.tables.model import Table

_MANY = " Several: separated by commas, or the option again."
_FORMATS = ("text", "md", "tex", "csv", "json", "html", "toml")


@click.command()
@click.argument("layout", required=False)
@runs_folder()
@click.option("--task", multiple=True, help=f"Only these tasks, or a layout on them.{_MANY}")
@click.option("--backbone", multiple=True, help=f"Only these, or a layout with one.{_MANY}")
@click.option("--metric", multiple=True, help=f"Instead of the headline metrics.{_MANY}")
@click.option("--preset", default="", help="Only runs of this preset.")
@click.option("--reference", default="", help="Compare all methods with this one.")
@click.option("--with", "beside", type=click.Choice(["paper"]), help="Published numbers beside.")
@click.option("--cost", is_flag=True, help="Seconds, forward passes and memory as well.")
@click.option("--missing", is_flag=True, help="Print the commands that would fill a layout.")
@click.option(
    "--format",
    "written_as",
    type=click.Choice(_FORMATS),
    default="text",
    show_default=True,
    help="toml: of --missing, a file for medbench sweep.",
)
def table(
    layout: str | None,
    out: Path,
    task: tuple[str, ...],
    backbone: tuple[str, ...],
    metric: tuple[str, ...],
    preset: str,
    reference: str,
    beside: str | None,
    cost: bool,
    missing: bool,
    written_as: str,
) -> None:
    """Print the finished runs: methods down, tasks and metrics across.

    With LAYOUT they fill the rows and columns of a published table: 1, 2, 3, 4, 5, 8, 9, 10, 11 or
    12 of A3Tune, or those of a TOML file. Runs over part of the samples, and runs of another
    preset, stand in tables of their own.

    \b
    medbench table --reference greedy
    medbench table 1 --with paper
    medbench table 1 --task phantom --backbone phantom --cost --format tex
    medbench table 1 --missing --format toml > table1.toml
    """
    if written_as == "toml" and not missing:
        _refuse_toml()
    tasks, backbones = _items(task), _items(backbone)
    if layout is None:
        _refuse_without_layout(beside, missing=missing)
        records = _collect(out, tasks, backbones, preset)
        tables = _arranged(records, _items(metric), reference, cost=cost)
    else:
        _refuse_with_layout(metric, reference, backbones)
        from medbench.tables.layout import on, read

        asked = on(read(layout), tasks=tasks, backbone="".join(backbones))
        records = _all(out)
        _check_backbone(backbones, records)
        tables = _filled(asked, records, preset, cost=cost, beside=beside)
        if missing:
            _print_missing(tables, records, out, written_as)
            return
    _print(tables, written_as)
    _tell_left_out(records)


def _refuse_toml() -> None:
    from medbench.errors import UserError

    raise UserError(
        "--format toml is a way to write --missing",
        "It makes a file for medbench sweep, of the runs that a table lacks.",
        "Add --missing, or take another format.",
    )


def _refuse_without_layout(beside: str | None, *, missing: bool) -> None:
    from medbench.errors import UserError

    for option, given in (("--with", beside), ("--missing", missing)):
        if given:
            raise UserError(
                f"{option} needs a table to look at",
                "Without one, rows and columns are the runs that there are.",
                f"medbench table 1 {option}{' paper' if beside else ''}",
            )


def _refuse_with_layout(metric: Sequence[str], reference: str, backbones: Sequence[str]) -> None:
    from medbench.errors import UserError

    for option, given in (("--metric", metric), ("--reference", reference)):
        if given:
            raise UserError(
                f"{option} and a layout do not go together",
                "A layout says which metrics it shows and what its rows are compared with.",
                "Copy the layout's file, change it there, and name the file.",
            )
    if len(backbones) > 1:
        raise UserError(
            "a layout takes one backbone at a time", "", "Give --backbone once, twice the command."
        )


def _check_backbone(backbones: Sequence[str], records: Sequence[RunRecord]) -> None:
    """Make sure that a backbone is one of ours, or that of a run; a typo must not be empty rows."""
    from medbench import canonical, plugins
    from medbench.errors import UserError

    for text in backbones:
        try:
            one = spec.parse(text)
            plugins.values(plugins.get("backbone", one.name), one)
        except UserError:
            wanted = canonical.backbone(text)
            # Imported answers may be of any.
            if not any(canonical.backbone(run.backbone) == wanted for run in records):
                raise


def _collect(
    out: Path, tasks: Sequence[str], backbones: Sequence[str], preset: str
) -> list[RunRecord]:
    from medbench.errors import UserError
    from medbench.tables.arrange import collect

    records = collect(out, tasks=tasks, backbones=backbones)
    kept = [one for one in records if not preset or one.preset in ("", preset)]
    if preset and not any(one.preset for one in kept):
        known = ", ".join(sorted({one.preset for one in records if one.preset}))
        raise UserError(f"no runs of preset '{preset}'", f"There are runs of: {known}.")
    return kept


def _all(out: Path) -> list[RunRecord]:
    from medbench.run_index import find_runs

    return find_runs(out)


def _arranged(
    records: Sequence[RunRecord], metrics: Sequence[str], reference: str, *, cost: bool
) -> list[Table]:
    from medbench.tables.arrange import arrange, referring
    from medbench.tables.complete import complete

    tables = arrange(records, metrics)
    if reference:
        tables = referring(tables, reference)
    return [complete(one, cost=cost) for one in tables]


def _filled(
    layout: Layout, records: Sequence[RunRecord], preset: str, *, cost: bool, beside: str | None
) -> list[Table]:
    from medbench import plugins
    from medbench.errors import UserError
    from medbench.presets import PRESETS
    from medbench.tables.complete import complete
    from medbench.tables.fill import fill

    presets = [*PRESETS, *(one.preset for one in records if one.preset)]
    if preset and preset not in presets:
        names = ", ".join(dict.fromkeys(presets))
        raise UserError(
            f"no preset '{preset}'", plugins.close(preset, presets), f"There are: {names}."
        )
    if beside and not layout.published:
        raise UserError(
            f"{layout.name} names no published numbers",
            "",
            "Leave --with out, or write published = NAME of results/paper into the layout.",
        )
    paper = layout.published if beside else ""
    return [complete(one, cost=cost, paper=paper) for one in fill(layout, records, preset=preset)]


def _print(tables: Sequence[Table], written_as: str) -> None:
    from medbench.tables import data, html, latex, markdown, text
    from medbench.tables.sheets import sheets

    shown = [sheet for one in tables for sheet in sheets(one)]
    terminal = sys.stdout.isatty()
    bold = partial(click.style, bold=True) if terminal else None
    width = shutil.get_terminal_size().columns if terminal else None
    writers: dict[str, Callable[[], str]] = {
        "text": lambda: text.as_text(shown, bold, width),
        "md": lambda: markdown.as_markdown(shown),
        "tex": lambda: latex.as_latex(shown),
        "html": lambda: html.as_html(shown),
        "csv": lambda: data.as_csv(tables),
        "json": lambda: data.as_json(tables),
    }
    written = writers[written_as]()
    if written:
        click.echo(written.removesuffix("\n"))


def _print_missing(
    tables: Sequence[Table], records: Sequence[RunRecord], out: Path, written_as: str
) -> None:
    from medbench.tables.commands import to_fill

    commands = [command for one in tables for command in to_fill(one, records, out=out)]
    if written_as == "toml":
        from medbench.sweeping.written import as_file

        click.echo(as_file(commands), nl=False)
        return
    for command in commands:
        click.echo(command)


def _tell_left_out(records: Sequence[RunRecord]) -> None:
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
