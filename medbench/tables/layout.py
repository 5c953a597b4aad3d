"""Layouts: a table's rows and columns as data, read from a TOML file and checked.

    title = "..."            source = "..."       published = "a3tune-table1"
    model = "LLaVA-Med"      across = "metrics"    unit = "percent"    notes = ["..."]
    [[columns]]              heads = ["SLAKE", "Open"]  task = "slake"  metric = "recall/paper"
    [[groups]]               name = "LLaVA-Med"  backbone = "llava_med"  reference = "Greedy"
    [[groups.rows]]          label = "VCD"  method = "vcd"

docs/tables.md tells what each key means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from medbench import canonical, plugins, spec
from medbench.errors import UserError
from medbench.shipped import results
from medbench.tables.model import Where
from medbench.toml_file import TomlFile


@dataclass(frozen=True)
class LayoutColumn:
    """A metric of a task; `where` keeps the samples whose `meta` has one of these values."""

    heads: tuple[str, ...]
    task: str
    metric: str
    where: Where = ()


@dataclass(frozen=True)
class LayoutRow:
    """A method on a backbone; `reference` is the (group, label) of the row it is compared with."""

    group: str
    label: str
    backbone: str
    method: str
    reference: tuple[str, str] | None = None


@dataclass(frozen=True)
class Layout:
    """A table's rows and columns.

    Attributes:
        name: of its file.
        title, source: what stands above it, and where the original is.
        model: what title, groups and labels call the backbone; with another one that is replaced.
        published: name of the file of published numbers, "" for none.
        across: what stands in columns.
        unit: "percent", or "fraction".
        notes: what to know of its rows and columns.
    """

    name: str
    title: str
    source: str
    model: str
    published: str
    across: Literal["metrics", "methods"]
    unit: Literal["percent", "fraction"]
    columns: tuple[LayoutColumn, ...]
    rows: tuple[LayoutRow, ...]
    notes: tuple[str, ...]


def read(asked: str) -> Layout:
    """Read a layout.

    Args:
        asked: the number of a shipped table, or the path of a TOML file.

    Raises:
        UserError: there is no such table, or the file is not a layout.
    """
    path = _find(asked)
    return _layout(TomlFile(path, "A layout"), path.stem)


def on(layout: Layout, *, tasks: Sequence[str] = (), backbone: str = "") -> Layout:
    """Return a layout whose metrics are asked of other tasks, or whose rows of another backbone.

    A metric that a task does not have is left out there. Columns of a task that the layout has
    itself, and rows of its own backbone, stay as they are.

    Raises:
        UserError: a task is unknown or has none of the layout's metrics.
    """
    if backbone:
        layout = _with_backbone(layout, backbone)
    if not tasks:
        return layout
    # The dataset's name stands first; parts of a dataset have names of their own.
    asked = dict.fromkeys(
        (one.heads if one.where else one.heads[1:], one.metric, one.where) for one in layout.columns
    )
    columns: list[LayoutColumn] = []
    for task in tasks:
        own = [one for one in layout.columns if canonical.task(one.task) == canonical.task(task)]
        if own:
            columns += own
            continue
        one = spec.parse(task)
        plugin = plugins.get("task", one.name)
        plugins.values(plugin, one)
        has = plugin.attributes.get("metrics", ())
        found = [
            LayoutColumn((task, *heads), task, metric, where)
            for heads, metric, where in asked
            if metric in has
        ]
        if not found:
            raise UserError(
                f"{task} has none of the metrics of {layout.name}",
                f"It has: {', '.join(has)}.",
                f"The table asks for: {', '.join(dict.fromkeys(m for _, m, _ in asked))}.",
            )
        columns += found
    return replace(layout, columns=tuple(columns))


def _with_backbone(layout: Layout, backbone: str) -> Layout:
    wanted = canonical.backbone(backbone)
    if all(canonical.backbone(row.backbone) == wanted for row in layout.rows):
        return layout

    def named(text: str) -> str:
        return text.replace(layout.model, backbone) if layout.model else text

    def place(reference: tuple[str, str] | None) -> tuple[str, str] | None:
        return None if reference is None else (named(reference[0]), named(reference[1]))

    rows = (
        replace(
            row,
            group=named(row.group),
            label=named(row.label),
            backbone=backbone,
            reference=place(row.reference),
        )
        for row in layout.rows
    )
    notes = tuple(named(note) for note in layout.notes)
    return replace(layout, title=named(layout.title), rows=tuple(rows), notes=notes)


def shipped() -> list[str]:
    """Return the names that `read` knows, in their order."""
    names = [path.stem.removeprefix("table") for path in results("tables").glob("table*.toml")]
    return sorted(names, key=lambda name: (len(name), name))


def _find(asked: str) -> Path:
    path = Path(asked).expanduser()
    if path.suffix == ".toml" or path.is_file():
        if not path.is_file():
            raise UserError(f"no file {path}", "", f"Shipped tables: {', '.join(shipped())}.")
        return path
    found = results("tables") / f"table{asked}.toml"
    if not found.is_file():
        raise UserError(
            f"no table '{asked}'",
            plugins.close(asked, shipped()),
            f"There are {', '.join(shipped())}, or name a TOML file with rows and columns.",
        )
    return found


def _layout(file: TomlFile, name: str) -> Layout:
    content = file.content
    texts = ("title", "source", "model", "published", "across", "unit")
    file.check("the file", content, (*texts, "notes", "columns", "groups"), ("columns", "groups"))
    columns = [_column(file, one) for one in _some(file, "columns", content)]
    rows = [row for group in _some(file, "groups", content) for row in _group(file, group)]
    places = [(row.group, row.label) for row in rows]
    file.check_names("rows", places)
    file.check_names("columns", [column.heads for column in columns])
    for row in rows:
        if row.reference is not None and row.reference not in places:
            labels = plugins.close(row.reference[1], [label for _, label in places])
            raise file.error(f"no row '{' / '.join(row.reference)}' to compare with", labels)
    return Layout(
        name=name,
        title=file.text("title", content),
        source=file.text("source", content),
        model=file.text("model", content),
        published=file.text("published", content),
        across=cast("Any", file.choice("across", content, ("metrics", "methods"))),
        unit=cast("Any", file.choice("unit", content, ("percent", "fraction"))),
        columns=tuple(columns),
        rows=tuple(rows),
        notes=file.texts("notes", content, ()),
    )


def _some(file: TomlFile, key: str, part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = file.tables(key, part)
    if not found:
        raise file.error(f"'{key}' is no list of tables", f"Write [[{key}]].")
    return found


def _column(file: TomlFile, one: Mapping[str, Any]) -> LayoutColumn:
    file.check("a column", one, ("heads", "task", "metric", "where"), ("task", "metric"))
    task, metric = file.text("task", one), file.text("metric", one)
    file.check_spec("task", task)
    file.check_spec("metric", metric)
    return LayoutColumn(file.texts("heads", one, (task, metric)), task, metric, _where(file, one))


def _where(file: TomlFile, one: Mapping[str, Any]) -> Where:
    where = one.get("where", {})
    if not isinstance(where, dict):
        raise file.error("where is no table of fields and values")
    found: list[tuple[str, tuple[str, ...]]] = []
    for field, wanted in cast("dict[str, Any]", where).items():
        values = cast("list[Any]", wanted if isinstance(wanted, list) else [wanted])
        found.append((field, tuple(str(value) for value in values)))
    return tuple(found)


def _group(file: TomlFile, one: Mapping[str, Any]) -> list[LayoutRow]:
    keys = ("name", "backbone", "reference", "rows")
    file.check("a group", one, keys, ("name", "backbone", "rows"))
    name, backbone = file.text("name", one), file.text("backbone", one)
    file.check_spec("backbone", backbone)
    reference = file.text("reference", one)
    return [_row(file, row, name, backbone, reference) for row in _some(file, "rows", one)]


def _row(
    file: TomlFile, one: Mapping[str, Any], group: str, backbone: str, reference: str
) -> LayoutRow:
    file.check("a row", one, ("label", "method", "reference"), ("method",))
    method = file.text("method", one)
    file.check_chain(method)
    label = file.text("label", one) or method
    reference = file.text("reference", one) if "reference" in one else reference
    above, slash, below = reference.rpartition(" / ")
    compared = (above if slash else group, below)
    has_reference = bool(reference) and compared != (group, label)
    return LayoutRow(group, label, backbone, method, compared if has_reference else None)
