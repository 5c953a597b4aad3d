"""Figures as data: which runs stand beside each other, and how that is labelled.

    title = "..."      source = "..."      task = "slake"      metrics = ["recall/paper"]
    method = "a3tune"  parameter = "R"     values = [0, 16]    reference = "lora"

or, in place of the last line, [[points]] with label, method and group. docs/figures.md tells what
each key means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medbench import plugins, spec
from medbench.errors import UserError
from medbench.figures.along import as_written
from medbench.shipped import results
from medbench.toml_file import TomlFile

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
    return _layout(TomlFile(path, "A figure"))


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


def _layout(file: TomlFile) -> Layout:
    content = file.content
    file.check("the file", content, _KEYS)
    layout = Layout(
        title=file.text("title", content),
        source=file.text("source", content),
        task=file.text("task", content),
        metrics=tuple(map(str, file.values("metrics", content))) or METRICS,
        method=file.text("method", content),
        parameter=file.text("parameter", content),
        values=tuple(map(as_written, file.values("values", content))),
        reference=file.text("reference", content),
        points=tuple(_point(file, one) for one in file.tables("points", content)),
    )
    if bool(layout.points) == bool(layout.parameter):
        raise file.error("it has either points or a parameter", "Write the one or the other.")
    file.check_names("points", [(one.group, one.label) for one in layout.points])
    for method in filter(None, (layout.method, layout.reference)):
        file.check_chain(method)
    if layout.task:
        file.check_spec("task", layout.task)
    for metric in layout.metrics:
        file.check_spec("metric", metric)
    known = _parameters(layout.method) if layout.parameter else []
    if layout.parameter and layout.parameter not in known:
        close = plugins.close(layout.parameter, known)
        raise file.error(f"{layout.method} has no '{layout.parameter}'", close)
    return layout


def _point(file: TomlFile, one: Mapping[str, Any]) -> Named:
    file.check("a point", one, ("label", "method", "group"), ("method",))
    method = file.text("method", one)
    file.check_chain(method)
    return Named(file.text("label", one) or method, method, file.text("group", one))
