"""`medbench show`: all that is known of one method, task, backbone, metric or provider."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, cast

import click

from medbench import plugins, spec
from medbench.errors import UserError
from medbench.method import Decoder
from medbench.plugins import FOLDERS, Kind, Parameter, Plugin
from medbench.source import split_arguments
from medbench.spec import Spec, normalise
from medbench.task import Task

# Literal attributes that are printed as they are, in this order.
_FACTS = (
    "version", "paper", "licence", "source", "restricted", "shared_images", "needs", "uses",
    "offers", "kinds", "range", "better", "extra", "metrics", "prompt", "rows_per_token",
    "extra_memory", "schedule", "deviates",
)  # fmt: skip
_EXAMPLES = {
    "golden examples": "golden",
    "golden examples of the published weights": "golden_published",
}
# What every decoder has comes after what is its own.
_SELECTION = {one.name for one in fields(Decoder)}
_TEXT_LENGTH = 300


@dataclass(frozen=True)
class Section:
    """A heading with lines of equally many columns; one column is running text."""

    heading: str
    lines: list[tuple[str, ...]]


@click.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(list(FOLDERS)), help="When several kinds have the name.")
@click.option("--data", help="A task's folder of official files; shows two samples.")
def show(name: str, kind: Kind | None, data: str | None) -> None:
    """Describe the method, task, backbone, metric or provider called NAME.

    A task's samples are shown where they can be read: with --data, or where no files are needed.
    """
    asked = spec.parse(name)
    for position, plugin in enumerate(_find(asked.name, [kind] if kind else list(FOLDERS))):
        if position:
            click.echo()
        sections = list(_sections(plugin))
        if plugin.kind == "task":
            sections.append(Section("samples", _samples(plugin, asked, data)))
        _print(sections)


def _find(name: str, kinds: list[Kind]) -> list[Plugin]:
    known: dict[Kind, list[str]] = {k: [p.name for p in plugins.find(k)] for k in kinds}
    # `closed` stands for closed/paper, closed/strict, ...
    matches: list[tuple[Kind, str]] = [
        (kind, normalise(full))
        for kind, names in known.items()
        for full in names
        if normalise(full) == name or (kind == "metric" and normalise(full).startswith(f"{name}/"))
    ]
    if not matches:
        what = kinds[0] if len(kinds) == 1 else "method, task, backbone, metric or provider"
        everything = [full for names in known.values() for full in names]
        raise UserError(
            f"no {what} named '{name}'", plugins.close(name, everything), "See: medbench list"
        )
    return [plugins.get(kind, full) for kind, full in dict.fromkeys(matches)]


def _sections(plugin: Plugin) -> Iterator[Section]:
    heading = f"{plugin.name}: {plugin.role or plugin.kind}, {plugin.origin}"
    text, _ = split_arguments(plugin.doc)
    yield Section(heading, [(paragraph,) for paragraph in text.split("\n\n")])
    facts = [
        (name.replace("_", " "), _text(plugin.attributes[name]))
        for name in _FACTS
        if plugin.attributes.get(name)
    ]
    yield Section("about", [*facts, ("file", plugins.shown(plugin.path))])
    yield Section("downloads", [*plugin.attributes.get("downloads", ())])
    common = _SELECTION if plugin.role == "decoder" else set[str]()
    yield Section("parameters", _parameters(plugin, lambda name: name not in common))
    if plugin.kind == "method" or len(plugin.variants) > 1:
        yield Section(
            "variants",
            [
                (f"variant={name}", _text(setting) or "the defaults above")
                for name, setting in plugin.variants.items()
            ],
        )
    heading = "how tokens are picked from the scores, the same for every decoder"
    yield Section(heading, _parameters(plugin, lambda name: name in common))
    if plugin.role == "decoder":
        selection = plugin.attributes.get("published") or {"select": "argmax"}
        yield Section("the same under the preset published", [(_text(selection),)])
    passport: dict[str, Any] = plugin.attributes.get("passport") or {}
    yield Section("passport", [(split, _text(counts)) for split, counts in passport.items()])
    tuning: dict[str, Any] = plugin.attributes.get("tuning") or {}
    yield Section("defaults for tuners", [(_text(tuning),)] if tuning else [])
    for heading, name in _EXAMPLES.items():
        golden = plugin.attributes.get(name) or ()
        examples = [(f"{out!r}", f"gold {gold!r}", f"{value:g}") for out, gold, value in golden]
        yield Section(heading, examples)


def _parameters(plugin: Plugin, wanted: Callable[[str], bool]) -> list[tuple[str, ...]]:
    return [
        (p.name, _type(p), "required" if p.required else _text(p.default), p.help)
        for p in plugin.parameters
        if wanted(p.name)
    ]


def _samples(plugin: Plugin, asked: Spec, data: str | None) -> list[tuple[str, ...]]:
    if plugin.attributes.get("restricted"):
        return [("Restricted: patients' text and images are not printed.",)]
    if data is not None:
        asked = Spec(asked.name, (*(v for v in asked.values if v[0] != "data"), ("data", data)))
    filled = plugins.values(plugin, asked)
    examples: tuple[tuple[str, str, str, str], ...] = plugin.attributes.get("examples", ())
    if examples:
        return [_sample(*example) for example in examples]
    task: Task = plugins.load(plugin)(**filled)
    try:
        samples = list(islice(task.samples("test"), 2))
    except UserError as error:
        if filled.get("data"):
            raise
        return [(". ".join(filter(None, (error.what, error.do))),)]
    return [_sample(s.id, s.kind, s.question, s.answer) for s in samples]


def _sample(name: str, kind: str, question: str, answer: str) -> tuple[str, ...]:
    return (name, kind, _short(question), f"-> {_short(answer)}")


def _type(parameter: Parameter) -> str:
    if parameter.choices:
        return " | ".join(map(_text, parameter.choices))
    return parameter.annotation


def _text(value: Any) -> str:
    """Write a literal the way a spec would."""
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value).items()
        return ", ".join(f"{key}={_text(item)}" for key, item in pairs)
    if isinstance(value, tuple | list):
        return ", ".join(map(_text, cast("list[Any]", value)))
    return {"None": "none", "": '""'}.get(str(value), str(value))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _TEXT_LENGTH else f"{text[:_TEXT_LENGTH]}…"


def _print(sections: list[Section]) -> None:
    filled = [section for section in sections if section.lines]
    if sys.stdout.isatty():
        _print_rich(filled)
    else:
        _print_plain(filled)


def _print_plain(sections: list[Section]) -> None:
    for position, section in enumerate(sections):
        if position:
            click.echo()
        click.echo(section.heading)
        widths = [max(map(len, column)) for column in zip(*section.lines, strict=True)]
        for number, line in enumerate(section.lines):
            if len(line) == 1:  # paragraphs of running text
                separator = "\n" if number else ""
                click.echo(separator + "\n".join(f"  {part}" for part in line[0].splitlines()))
            else:
                cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
                click.echo(f"  {'  '.join(cells)}".rstrip())


def _print_rich(sections: list[Section]) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    for position, section in enumerate(sections):
        if position:
            console.print()
        console.print(Text(section.heading, style="bold"))
        grid = Table.grid(padding=(0, 2))
        for _ in section.lines[0]:
            grid.add_column(overflow="fold")
        for number, line in enumerate(section.lines):
            if len(line) == 1 and number:
                grid.add_row("")
            grid.add_row(*(Text(_reflowed(cell)) for cell in line))
        console.print(Padding(grid, (0, 0, 0, 2), expand=False))


def _reflowed(paragraph: str) -> str:
    """Join a paragraph's lines, so that the terminal's width breaks them; keep lists and code."""
    lines = paragraph.splitlines()
    return paragraph if any(line[:1] in " -*" for line in lines) else " ".join(lines)
