"""Figures as data: which runs stand beside each other, and how that is labelled.

    title = "..."      source = "..."      task = "slake"      metrics = ["recall/paper"]
    method = "a3tune"  parameter = "R"     values = [0, 16]    reference = "lora"

or, in place of the last line, [[points]] with label, method and group. docs/figures.md tells what
each key means.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from medbench import plugins, spec
from medbench.errors import UserError
from medbench.figures.along import as_written
from medbench.shipped import results

METRICS = ("recall/paper", "closed/paper")
_KEYS = (
    "title", "source", "task", "metrics", "method", "parameter", "values", "reference", "points",
)  # fmt: skip


@dataclass(frozen=True)
class Named:
    """A method under a label; points of one group stand together."""

    label: str
    method: str
    group: str = ""


@dataclass(frozen=True)
class Layout:
    """A figure's content, before there are runs.

    Attributes:
        title, source: what stands above it, and where the original is.
        task: of the original; "" for none.
        metrics: full names, one panel each.
        method, parameter: whose values stand along the x axis; "" where there are points.
        values: those that should have runs, as specs write them.
        reference: method drawn as a line, "" for none.
    """

    title: str
    source: str = ""
    task: str = ""
    metrics: tuple[str, ...] = METRICS
    method: str = ""
    parameter: str = ""
    values: tuple[str, ...] = ()
    reference: str = ""
    points: tuple[Named, ...] = ()


def read(asked: str, method: str = "") -> Layout:
    """Return a figure of a paper, or one of a method's parameter.

    Args:
        asked: name of a shipped figure, path of a TOML file, or a parameter.
        method: spec or chain; whose parameter, "" for a3tune's.

    Raises:
        UserError: there is neither such a figure nor such a parameter, or a file is broken.
    """
    path = _path(asked)
    if path is None:
        return _of_parameter(asked, method or "a3tune")
    if method:
        raise UserError(
            f"the figure {asked} says itself which methods it shows",
            "",
            "Leave --method out, or name a parameter in place of the figure.",
        )
    return _read(path)


def _path(asked: str) -> Path | None:
    """Return the file that describes a figure, None where it may be a parameter that is asked."""
    path = Path(asked).expanduser()
    if path.suffix == ".toml":
        if not path.is_file():
            raise UserError(f"no file {path}", "", f"Shipped figures: {', '.join(shipped())}.")
        return path
    name = asked.lower().removeprefix("figure").strip()
    return results("figures") / f"figure{name}.toml" if name in shipped() else None


def _of_parameter(asked: str, method: str) -> Layout:
    known = _parameters(method)
    found = next((one for one in known if spec.normalise(one) == spec.normalise(asked)), None)
    if found is None:
        raise UserError(
            f"no figure '{asked}'",
            plugins.close(asked, known) or f"Nor has {method} a parameter of that name.",
            f"Figures: {', '.join(shipped())}. Parameters: medbench show {method}",
        )
    return Layout(f"{found} of {method}", method=method, parameter=found)


def shipped() -> list[str]:
    """Return the names of the figures that ship with medbench, in their order."""
    names = (path.stem.removeprefix("figure") for path in results("figures").glob("figure*.toml"))
    return sorted(names, key=lambda name: (int("".join(filter(str.isdigit, name)) or 0), name))


def _parameters(method: str) -> list[str]:
    parts = [plugins.get("method", one.name) for one in spec.parse_chain(method)]
    return list(dict.fromkeys(p.name for part in parts for p in part.parameters))


def _read(path: Path) -> Layout:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = f"{error.strerror if isinstance(error, OSError) else error}."
        raise UserError(f"cannot read {path}", why, "A figure is a TOML file.") from error
    return _Reader(path).layout(content)


class _Reader:
    """Reads one file; its errors name it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def layout(self, content: Mapping[str, Any]) -> Layout:
        self._check("the file", content, _KEYS)
        layout = Layout(
            title=self._text("title", content),
            source=self._text("source", content),
            task=self._text("task", content),
            metrics=tuple(map(str, self._list("metrics", content))) or METRICS,
            method=self._text("method", content),
            parameter=self._text("parameter", content),
            values=tuple(map(as_written, self._list("values", content))),
            reference=self._text("reference", content),
            points=tuple(map(self._point, self._list("points", content))),
        )
        if bool(layout.points) == bool(layout.parameter):
            raise self._error("it has either points or a parameter", "Write the one or the other.")
        places = [(one.group, one.label) for one in layout.points]
        double = next((place for place in places if places.count(place) > 1), None)
        if double:
            raise self._error(f"two points are called '{double[1]}'")
        self._check_names(layout)
        return layout

    def _point(self, one: Any) -> Named:
        if not isinstance(one, dict):
            raise self._error("'points' is no list of tables", "Write [[points]].")
        point = cast("Mapping[str, Any]", one)
        self._check("a point", point, ("label", "method", "group"))
        method = self._text("method", point)
        if not method:
            raise self._error("a point lacks 'method'")
        return Named(self._text("label", point) or method, method, self._text("group", point))

    def _check(self, what: str, content: Mapping[str, Any], keys: Sequence[str]) -> None:
        for key in content:
            if key not in keys:
                why = plugins.close(key, keys) or f"It may have: {', '.join(keys)}."
                raise self._error(f"{what} has no '{key}'", why)

    def _check_names(self, layout: Layout) -> None:
        """Make sure that what is named exists and takes its values; a typo must not be a gap."""
        methods = [layout.method, layout.reference, *(one.method for one in layout.points)]
        try:
            for method in filter(None, methods):
                for one in spec.parse_chain(method):
                    plugins.values(plugins.get("method", one.name), one)
            if layout.task:
                plugins.get("task", spec.parse(layout.task).name)
            for metric in layout.metrics:
                plugins.get("metric", spec.parse(metric).name)
        except UserError as error:
            raise self._error(error.what, error.why or error.do) from error
        known = _parameters(layout.method) if layout.parameter else []
        if layout.parameter and layout.parameter not in known:
            close = plugins.close(layout.parameter, known)
            raise self._error(f"{layout.method} has no '{layout.parameter}'", close)

    def _list(self, key: str, content: Mapping[str, Any]) -> list[Any]:
        value = content.get(key, [])
        if not isinstance(value, list):
            raise self._error(f"{key} is no list", f"It is {value!r}.")
        return cast("list[Any]", value)

    def _text(self, key: str, content: Mapping[str, Any]) -> str:
        value = content.get(key, "")
        if not isinstance(value, str):
            raise self._error(f"{key} is no text", f"It is {value!r}.")
        return value

    def _error(self, what: str, why: str = "") -> UserError:
        return UserError(f"{self._path.name}: {what}", why, f"Mend {plugins.shown(self._path)}.")
