"""What came out of a run, as the verbs print it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from medbench.score_lines import as_lines, count_lines, unscored_lines


def tell_run(folder: Path, content: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what came out of a run: its scores, and where its folder is.

    Args:
        content: of its scores.json.
        as_json: print one object in place of the lines.
    """
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **content}, sort_keys=True))
        return
    for line in as_lines(content["scores"]):
        click.echo(f"  {line}")
    unscored = content.get("unscored", {})
    for line in unscored_lines(unscored):
        click.echo(f"  {line}")
    if unscored:
        click.echo(f"  to score by these later: medbench rescore {folder}")
    for line in count_lines(content):
        click.echo(f"  {line}")
    click.echo(f"  {folder}")


def tell_part(folder: Path, samples: int, *, as_json: bool) -> None:
    """Print how far a run is whose other parts have samples left.

    Args:
        samples: of the whole run.
    """
    from medbench import store

    done = len(store.read_rows(folder))
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "answered": done, "samples": samples}))
        return
    click.echo(f"  this part is done; {done} of {samples} samples of the run are answered")
    click.echo("  whichever part ends last scores them; the same run without --shard does the rest")
    click.echo(f"  {folder}")
