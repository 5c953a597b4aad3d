"""A paper's figures as data: which runs stand beside each other, and how that is labelled.

    title = "..."      source = "..."      task = "slake"      metrics = ["recall/paper"]
    method = "a3tune"  parameter = "R"     values = [0, 16]    paper = 128   reference = "lora"

or, in place of the last line, bars: [[bars]] with label, method and group. docs/figures.md tells
what each key means.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from medbench import plugins, spec
from medbench.errors import UserError
from medbench.shipped import results

METRICS = ("recall/paper", "closed/paper")
# What the papers call their metrics.
NAMES = {"recall/paper": "Open", "closed/paper": "Closed"}
_KEYS = (
    "title", "source", "task", "metrics", "method", "parameter", "values", "paper", "reference",
    "bars",
)  # fmt: skip


@dataclass(frozen=True)
class Bar:
    """A method under a label; bars of one group stand together."""

    label: str
    method: str
    group: str = ""


@dataclass(frozen=True)
class Layout:
    """A figure's content, before there are runs.

    Attributes:
        name: of the figure, "" where only a parameter was named.
        title, source: what stands above it, and where the original is.
        task: of the original; "" for none.
        metrics: full names, one panel each.
        method, parameter: whose values stand along the x axis; "" where there are bars.
        values: those that should have runs, as specs write them.
        paper: the value that the paper takes elsewhere, "" where that is not known.
        reference: method drawn as a line, "" for none.
    """

    name: str
    title: str
    source: str = ""
    task: str = ""
    metrics: tuple[str, ...] = METRICS
    method: str = ""
    parameter: str = ""
    values: tuple[str, ...] = ()
    paper: str = ""
    reference: str = ""
    bars: tuple[Bar, ...] = ()


def read(asked: str, method: str) -> Layout:
    """Return a figure of a paper, or one of a method's parameter.

    Args:
        asked: name of a shipped figure, path of a TOML file, or a parameter.
        method: spec or chain; whose parameter.

    Raises:
        UserError: there is neither such a figure nor such a parameter, or a file is broken.
    """
    path = Path(asked).expanduser()
    if path.suffix == ".toml":
        if not path.is_file():
            raise UserError(f"no file {path}", "", f"Shipped figures: {', '.join(shipped())}.")
        return _read(path)
    name = asked.lower().removeprefix("figure").strip()
    if name in shipped():
        return _read(results("figures") / f"figure{name}.toml")
    known = parameters(method)
    found = next((one for one in known if spec.normalise(one) == spec.normalise(asked)), None)
    if found is None:
        raise UserError(
            f"no figure '{asked}', and no parameter of {method}",
            plugins.close(asked, [*shipped(), *known]),
            f"Figures: {', '.join(shipped())}. Parameters: medbench show {method}",
        )
    reference = "lora" if len(known) and _tuned(method) and _first(method) != "lora" else ""
    return Layout("", f"{found} of {method}", method=method, parameter=found, reference=reference)


def shipped() -> list[str]:
    """Return the names of the figures that ship with medbench, in their order."""
    names = [path.stem.removeprefix("figure") for path in results("figures").glob("figure*.toml")]
    return sorted(names, key=lambda name: (int("".join(filter(str.isdigit, name)) or 0), name))


def parameters(method: str) -> list[str]:
    """Return the names of the parameters of a method or chain.

    Raises:
        UserError: a part of it is not known.
    """
    parts = [plugins.get("method", one.name) for one in spec.parse_chain(method)]
    return list(dict.fromkeys(p.name for part in parts for p in part.parameters))


def _first(method: str) -> str:
    return spec.parse_chain(method)[0].name


def _tuned(method: str) -> bool:
    return plugins.get("method", _first(method)).role == "tuner"


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
        bars = tuple(self._bar(one) for one in self._list("bars", content))
        method, parameter = self._text("method", content), self._text("parameter", content)
        if bool(bars) == bool(parameter):
            raise self._error("it has either bars or a parameter", "Write the one or the other.")
        if parameter:
            self._known(method)
            names = parameters(method)
            if parameter not in names:
                raise self._error(f"{method} has no '{parameter}'", plugins.close(parameter, names))
        reference, task = self._text("reference", content), self._text("task", content)
        for one in filter(None, (reference, *(bar.method for bar in bars))):
            self._known(one)
        if task:
            plugins.get("task", spec.parse(task).name)
        metrics = tuple(str(one) for one in self._list("metrics", content)) or METRICS
        for metric in metrics:
            plugins.get("metric", spec.parse(metric).name)
        return Layout(
            name=self._path.stem.removeprefix("figure"),
            title=self._text("title", content),
            source=self._text("source", content),
            task=task,
            metrics=metrics,
            method=method,
            parameter=parameter,
            values=tuple(as_written(one) for one in self._list("values", content)),
            paper=as_written(content["paper"]) if "paper" in content else "",
            reference=reference,
            bars=bars,
        )

    def _bar(self, one: Any) -> Bar:
        if not isinstance(one, dict):
            raise self._error("'bars' is no list of tables", "Write [[bars]].")
        bar = cast("Mapping[str, Any]", one)
        self._check("a bar", bar, ("label", "method", "group"))
        method = self._text("method", bar)
        if not method:
            raise self._error("a bar lacks 'method'")
        return Bar(self._text("label", bar) or method, method, self._text("group", bar))

    def _check(self, what: str, content: Mapping[str, Any], keys: Sequence[str]) -> None:
        for key in content:
            if key not in keys:
                why = plugins.close(key, keys) or f"It may have: {', '.join(keys)}."
                raise self._error(f"{what} has no '{key}'", why)

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

    def _known(self, method: str) -> None:
        """Make sure that a method exists and takes its values; a typo must not be a gap."""
        try:
            for one in spec.parse_chain(method):
                plugins.values(plugins.get("method", one.name), one)
        except UserError as error:
            raise self._error(error.what, error.why or error.do) from error

    def _error(self, what: str, why: str = "") -> UserError:
        return UserError(f"{self._path.name}: {what}", why, f"Mend {plugins.shown(self._path)}.")


def as_written(value: Any) -> str:
    """Return a parameter's value as specs write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, tuple | list):
        return "/".join(map(as_written, cast("Sequence[Any]", value)))
    return str(value)
