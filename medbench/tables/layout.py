"""Layouts: a table's rows and columns as data, read from a TOML file and checked.

    title = "..."            source = "..."       published = "a3tune-table1"
    model = "LLaVA-Med"      across = "metrics"    unit = "percent"    notes = ["..."]
    [[columns]]              heads = ["SLAKE", "Open"]  task = "slake"  metric = "recall/paper"
    [[groups]]               name = "LLaVA-Med"  backbone = "llava_med"  reference = "Greedy"
    [[groups.rows]]          label = "VCD"  method = "vcd"

docs/tables.md tells what each key means.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from medbench import canonical, plugins, spec
from medbench.errors import UserError
from medbench.plugins import Kind
from medbench.shipped import results
from medbench.tables.model import Where


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
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = f"{error.strerror if isinstance(error, OSError) else error}."
        raise UserError(f"cannot read {path}", why, "A layout is a TOML file.") from error
    return _Reader(path).layout(content)


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


class _Reader:
    """Reads one file; its errors name it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._checked: set[tuple[Kind, str]] = set()

    def layout(self, content: Mapping[str, Any]) -> Layout:
        texts = ("title", "source", "model", "published", "across", "unit")
        keys = (*texts, "notes", "columns", "groups")
        self._check("the file", content, keys, ("columns", "groups"))
        columns = tuple(self._column(one) for one in self._tables("columns", content["columns"]))
        rows = tuple(
            row for group in self._tables("groups", content["groups"]) for row in self._group(group)
        )
        places = [(row.group, row.label) for row in rows]
        self._check_names("rows", places)
        self._check_names("columns", [column.heads for column in columns])
        for row in rows:
            if row.reference is not None and row.reference not in places:
                labels = plugins.close(row.reference[1], [label for _, label in places])
                raise self._error(f"no row '{' / '.join(row.reference)}' to compare with", labels)
        return Layout(
            name=self._path.stem,
            title=self._text("title", content),
            source=self._text("source", content),
            model=self._text("model", content),
            published=self._text("published", content),
            across=cast("Any", self._choice("across", content, ("metrics", "methods"))),
            unit=cast("Any", self._choice("unit", content, ("percent", "fraction"))),
            columns=columns,
            rows=rows,
            notes=self._texts("notes", content, ()),
        )

    def _column(self, one: Mapping[str, Any]) -> LayoutColumn:
        self._check("a column", one, ("heads", "task", "metric", "where"), ("task", "metric"))
        task, metric = self._text("task", one), self._text("metric", one)
        self._known("task", task)
        self._known("metric", metric)
        heads = self._texts("heads", one, (task, metric))
        return LayoutColumn(heads, task, metric, self._where(one))

    def _where(self, one: Mapping[str, Any]) -> Where:
        where = one.get("where", {})
        if not isinstance(where, dict):
            raise self._error("where is no table of fields and values")
        found: list[tuple[str, tuple[str, ...]]] = []
        for field, wanted in cast("dict[str, Any]", where).items():
            values = cast("list[Any]", wanted if isinstance(wanted, list) else [wanted])
            found.append((field, tuple(str(value) for value in values)))
        return tuple(found)

    def _group(self, one: Mapping[str, Any]) -> list[LayoutRow]:
        keys = ("name", "backbone", "reference", "rows")
        self._check("a group", one, keys, ("name", "backbone", "rows"))
        name, backbone = self._text("name", one), self._text("backbone", one)
        self._known("backbone", backbone)
        return [
            self._row(row, name, backbone, self._text("reference", one))
            for row in self._tables("rows", one["rows"])
        ]

    def _row(self, one: Mapping[str, Any], group: str, backbone: str, reference: str) -> LayoutRow:
        self._check("a row", one, ("label", "method", "reference"), ("method",))
        method = self._text("method", one)
        self._check_chain(method)
        label = self._text("label", one) or method
        reference = self._text("reference", one) if "reference" in one else reference
        above, slash, below = reference.rpartition(" / ")
        compared = (above if slash else group, below)
        has_reference = bool(reference) and compared != (group, label)
        return LayoutRow(group, label, backbone, method, compared if has_reference else None)

    def _check_chain(self, method: str) -> None:
        """Make sure that a method can run, as far as its names tell."""
        try:
            chain = spec.parse_chain(method)
        except UserError as error:
            raise self._error(error.what, error.why or error.do) from error
        for part in chain:
            self._known("method", str(part))
        roles = [plugins.get("method", part.name).role for part in chain]
        if roles not in (["tuner"], ["decoder"], ["tuner", "decoder"]):
            why = "A chain is one tuner, one decoder, or a tuner then a decoder."
            raise self._error(f"'{method}' is no chain that can run", why)

    def _check_names(self, what: str, names: Sequence[tuple[str, ...]]) -> None:
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise self._error(f"two {what} are called '{' / '.join(double)}'")

    def _check(
        self, what: str, content: Mapping[str, Any], keys: Sequence[str], needed: Sequence[str]
    ) -> None:
        for key in content:
            if key not in keys:
                close = plugins.close(key, keys)
                raise self._error(f"{what} has no '{key}'", close or f"It has: {', '.join(keys)}.")
        for key in needed:
            if key not in content:
                raise self._error(f"{what} lacks '{key}'")

    def _tables(self, key: str, content: Any) -> list[Mapping[str, Any]]:
        is_list = isinstance(content, list) and content
        if not is_list or not all(isinstance(one, dict) for one in content):
            raise self._error(f"'{key}' is no list of tables", f"Write [[{key}]].")
        return cast("list[Mapping[str, Any]]", content)

    def _text(self, key: str, content: Mapping[str, Any]) -> str:
        value = content.get(key, "")
        if not isinstance(value, str):
            raise self._error(f"{key} is no text", f"It is {value!r}.")
        return value

    def _texts(
        self, key: str, content: Mapping[str, Any], default: tuple[str, ...]
    ) -> tuple[str, ...]:
        value = content.get(key, list(default))
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self._error(f"{key} is no list of texts")
        return tuple(cast("list[str]", value))

    def _choice(self, key: str, content: Mapping[str, Any], choices: Sequence[str]) -> str:
        value = self._text(key, content) or choices[0]
        if value not in choices:
            raise self._error(f"{key} cannot be '{value}'", f"Take {' or '.join(choices)}.")
        return value

    def _known(self, kind: Kind, text: str) -> None:
        """Make sure that a plugin exists and takes its values; a typo must not be an empty row."""
        if (kind, text) in self._checked:
            return
        try:
            one = spec.parse(text)
            plugins.values(plugins.get(kind, one.name), one)
        except UserError as error:
            raise self._error(error.what, error.why or error.do) from error
        self._checked.add((kind, text))

    def _error(self, what: str, why: str = "") -> UserError:
        return UserError(f"{self._path.name}: {what}", why, f"Mend {plugins.shown(self._path)}.")
