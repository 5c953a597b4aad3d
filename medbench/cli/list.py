"""`medbench list`: what there is, by reading and not running it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

from medbench import plugins
from medbench.cli.options import runs_folder
from medbench.errors import UserError
from medbench.plugins import FOLDERS, Plugin

if TYPE_CHECKING:
    from medbench.store import RunRecord

_KINDS = [*FOLDERS.values(), "runs"]


@click.command("list")
@click.argument("kind", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@runs_folder()
def list_(kind: str | None, as_json: bool, out: Path) -> None:
    """List methods, tasks, backbones, metrics, providers or runs; all of them without KIND.

    Nothing that is listed is run: descriptions are read from the source.
    """
    wanted = _KINDS if kind is None else [_plural(kind)]
    found: dict[str, list[Any]] = {
        folder: [_plugin_facts(plugin) for plugin in plugins.find(one)]
        for one, folder in FOLDERS.items()
        if folder in wanted
    }
    # Without a kind, a folder of runs that is not there is no news.
    if "runs" in wanted and (kind is not None or out.is_dir()):
        found["runs"] = _runs(out)
    if as_json:
        # A record is its fields; all else is there as it is printed.
        click.echo(json.dumps(found, indent=1, ensure_ascii=False, default=_as_json))
        return
    for position, (heading, entries) in enumerate(found.items()):
        if position:
            click.echo()
        click.echo(click.style(heading, bold=True))
        lines = [_run_columns(e) if heading == "runs" else _plugin_columns(e) for e in entries]
        _print_columns(lines or [["none"]])


def _plural(kind: str) -> str:
    for known in _KINDS:
        if kind.lower() in (known, known.removesuffix("s")):
            return known
    raise UserError(
        f"nothing called '{kind}' to list",
        plugins.close(kind, _KINDS),
        f"Take one of {', '.join(_KINDS)}.",
    )


def _plugin_facts(plugin: Plugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "role": plugin.role,
        "summary": plugin.summary,
        "needs": plugin.attributes.get("needs", ()),
        "offers": plugin.attributes.get("offers", ()),
        "origin": plugin.origin,
        "path": str(plugin.path),
        "broken": plugin.broken,
    }


def _plugin_columns(facts: dict[str, Any]) -> list[str]:
    if facts["broken"]:
        where = plugins.shown(Path(facts["path"]))
        return [facts["name"], "broken", f"{facts['broken']} ({where})"]
    notes = [f"{word} {', '.join(facts[word])}" for word in ("needs", "offers") if facts[word]]
    if facts["origin"] != "built-in":
        notes.append(facts["origin"])
    notes = [f"[{'; '.join(notes)}]"] if notes else []
    return [facts["name"], facts["role"], " ".join([facts["summary"], *notes])]


def _runs(out: Path) -> list[RunRecord]:
    from medbench.run_index import find_runs

    return find_runs(out)


def _as_json(value: object) -> object:
    return str(value) if isinstance(value, Path) else vars(value)


def _run_columns(record: RunRecord) -> list[str]:
    if record.state == "broken":
        return ["", "broken", *[""] * 6, f"{plugins.shown(record.folder)}: {record.why}"]
    scores = [
        f"{name} {100 * score['value']:.2f}"
        for name, score in record.scores.items()
        if score["value"] is not None
    ]
    state = record.state
    if state == "unfinished":
        state += f" {record.done}/{record.total}"
    return [
        record.key,
        state,
        record.task,
        record.backbone,
        record.method,
        f"seed {record.seed}",
        record.preset,
        "" if record.limit is None else f"limit {record.limit}",
        ", ".join(scores),
    ]


def _print_columns(lines: list[list[str]]) -> None:
    """Print aligned columns; in a terminal the last one is wrapped."""
    *widths, _ = [max(map(len, column)) for column in zip(*lines, strict=True)]
    written: list[str] = []
    for *cells, last in lines:
        # A column that is empty throughout takes no room.
        padded = [c.ljust(width) for c, width in zip(cells, widths, strict=True) if width]
        before = "  ".join(["", *padded, ""])
        room = shutil.get_terminal_size().columns - len(before)
        parts = wrap(last, room) if sys.stdout.isatty() and room > 20 else [last]
        for number, part in enumerate(parts or [""]):
            written.append(f"{before if number == 0 else ' ' * len(before)}{part}".rstrip())
    click.echo("\n".join(written))
