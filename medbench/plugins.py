"""Plugins: finds methods, tasks, backbones, metrics and providers by reading; runs one by name.

Finding executes nothing. A plugin is built in, named by an entry point of an installed package,
or a file in `methods/`, `tasks/`, `backbones/`, `metrics/` or `providers/` below a folder of
`$MEDBENCH_PLUGINS` or below the working folder.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from medbench.errors import UserError
from medbench.parameters import Parameter
from medbench.source import PACKAGE, Kind, Plugin, imported_plugins, module_file, read_file
from medbench.spec import Spec, normalise

__all__ = [
    "FOLDERS", "Kind", "Parameter", "Plugin",
    "close", "create", "find", "get", "load", "shown", "source_hash", "values",
]  # fmt: skip

# Where the plugins of a kind are, below each folder searched; also the kind's plural.
FOLDERS: dict[Kind, str] = {
    "method": "methods",
    "task": "tasks",
    "backbone": "backbones",
    "metric": "metrics",
    "provider": "providers",
}
_VARIABLE = "MEDBENCH_PLUGINS"


@dataclass(frozen=True)
class _Place:
    """Where plugins may be: a file, and how it was come by.

    `only` is the one class meant, `module` the import name, `entry` the entry point's name; the
    path is None where an entry point leads nowhere.
    """

    path: Path | None
    origin: str
    module: str = ""
    only: str = ""
    entry: str = ""


def find(kind: Kind) -> list[Plugin]:
    """Return the plugins of a kind, sorted by name, broken and doubled ones marked as such.

    The same file found twice, or a byte-identical copy of it, counts once.
    """
    places = [
        (place, place.path.read_bytes() if place.path else b"") for place in _everywhere(kind)
    ]
    return list(_read(kind, tuple(places)))


def get(kind: Kind, name: str) -> Plugin:
    """Return the plugin of a name.

    Raises:
        UserError: there is none, it is broken, or there are two.
    """
    found = find(kind)
    matches = [plugin for plugin in found if normalise(plugin.name) == normalise(name)]
    if not matches:
        raise UserError(
            f"no {kind} named '{name}'",
            close(name, [plugin.name for plugin in found]),
            f"See: medbench list {FOLDERS[kind]}",
        )
    plugin = matches[0]
    if len(matches) > 1:
        raise UserError(
            f"there are {len(matches)} {FOLDERS[kind]} named '{plugin.name}'",
            f"They are in {' and '.join(shown(match.path) for match in matches)}.",
            "Rename or remove all but one.",
        )
    if plugin.broken:
        raise UserError(
            f"{kind} '{plugin.name}' is broken", f"{plugin.broken}.", f"Mend {shown(plugin.path)}."
        )
    return plugin


def values(plugin: Plugin, spec: Spec, defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return every parameter's value: written, else the variant's, else the default.

    Args:
        plugin: whose parameters.
        spec: what the user wrote; `variant=NAME` picks a named set of values.
        defaults: values that stand before the class's own defaults, such as a task's for a
            tuner; names that the plugin does not declare are passed over.

    Raises:
        UserError: an unknown parameter or variant, or a value that is not of the type.
    """
    result = {p.name: p.default for p in plugin.parameters if not p.required}
    result |= _accepted(plugin, defaults or {})
    written = dict(spec.values)
    result |= _accepted(plugin, _variant(plugin, written.pop("variant", "paper")))
    for key, text in written.items():
        parameter = plugin.parameter(key)
        if parameter is None:
            names = [p.name for p in plugin.parameters]
            raise UserError(
                f"{plugin.name} has no parameter '{key}'",
                close(key, names),
                f"It has: {', '.join(names)}." if names else "It has none.",
            )
        try:
            result[parameter.name] = parameter.read(text)
        except ValueError as error:
            raise UserError(
                f"{plugin.name} cannot take {parameter.name}={text}",
                f"{parameter.name} {error}.",
                f"See: medbench show {plugin.name}",
            ) from None
    for parameter in plugin.parameters:
        if parameter.name not in result:
            raise UserError(
                f"{plugin.name} needs a value for '{parameter.name}'",
                parameter.help,
                f'Write "{plugin.name}[{parameter.name}=...]".',
            )
    return {p.name: result[p.name] for p in plugin.parameters}


def load(plugin: Plugin) -> type[Any]:
    """Run the plugin's file and return its class.

    Raises:
        UserError: the file fails, in one line.
    """
    try:
        return getattr(_import(plugin), plugin.class_name)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename) == plugin.path
        ]
        where = f"{shown(plugin.path)}, line {lines[-1]}" if lines else shown(plugin.path)
        do = f"Mend {where}."
        if isinstance(error, ModuleNotFoundError) and error.name:
            do = f"Install the package that has the module '{error.name}', then run this again."
        raise UserError(f"{plugin.kind} '{plugin.name}' cannot be loaded", why, do) from error


def create(kind: Kind, spec: Spec, defaults: Mapping[str, Any] | None = None) -> tuple[Plugin, Any]:
    """Return the plugin that a spec names and an instance with the spec's values.

    Raises:
        UserError: as `get`, `values` and `load`, or the class refuses the values.
    """
    plugin = get(kind, spec.name)
    filled = values(plugin, spec, defaults)
    try:
        return plugin, load(plugin)(**filled)
    except ValueError as error:
        raise UserError(
            f"{plugin.name} refuses these values", f"{error}.", f"See: medbench show {plugin.name}"
        ) from error


def source_hash(plugin: Plugin) -> str:
    """Return the sha256 of the plugin's file and of the plugin files it imports.

    Line ends do not count, so that a checkout on Windows has the same hashes.
    """
    digest = hashlib.sha256()
    pending, done = [plugin.path], set[Path]()
    while pending:
        path = pending.pop(0)
        if path not in done:
            done.add(path)
            digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
            pending.extend(imported_plugins(path))
    return digest.hexdigest()


def close(name: str, names: Iterable[str]) -> str:
    """Return "Did you mean ...?" for a mistyped name, or an empty string."""
    by_key = {normalise(candidate): candidate for candidate in names}
    matches = difflib.get_close_matches(normalise(name), by_key, n=2, cutoff=0.6)
    return f"Did you mean {' or '.join(by_key[match] for match in matches)}?" if matches else ""


def shown(path: Path) -> str:
    """Return a path as short as it can be read from the working folder."""
    try:
        return os.fspath(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return os.fspath(path)


def _everywhere(kind: Kind) -> Iterator[_Place]:
    folder = FOLDERS[kind]
    inside = PACKAGE / folder
    # An installed package holds methods/ and tasks/; in a checkout they lie beside it.
    for path in _files(inside if inside.is_dir() else PACKAGE.parent / folder):
        yield _Place(path, "built-in", f"medbench.{folder}.{path.stem}")
    for group, name, value in _entry_points(tuple(sys.path)):
        if group != f"medbench.{folder}":
            continue
        module, _, class_name = value.partition(":")
        yield _Place(module_file(module), f"entry point {name}", module, class_name, name)
    for place in filter(None, os.environ.get(_VARIABLE, "").split(os.pathsep)):
        for path in _files(Path(place).expanduser().absolute() / folder):
            yield _Place(path, _VARIABLE)
    for path in _files(Path(folder).absolute()):
        # Many projects have a folder `tasks` of their own; only files about medbench count.
        if b"medbench" in path.read_bytes():
            yield _Place(path, "working folder")


# Tables ask for hundreds of specs; files that say the same are read once.
@functools.lru_cache(maxsize=32)
def _read(kind: Kind, places: tuple[tuple[_Place, bytes], ...]) -> tuple[Plugin, ...]:
    """Return the plugins of files, sorted by name, for their contents."""
    seen: set[tuple[object, str]] = set()
    found: list[Plugin] = []
    for place, content in places:
        if place.path is None:
            why = f"the module '{place.module}' of its entry point is not found"
            path = Path(place.module)
            found.append(Plugin(kind, place.entry, path, place.origin, broken=why))
            continue
        marks = {(place.path.resolve(), place.only), (content, place.only)}
        if not marks & seen:
            plugins = read_file(kind, place.path, only=place.only)
            found += (replace(p, origin=place.origin, module=place.module) for p in plugins)
        seen |= marks
    found.sort(key=lambda plugin: normalise(plugin.name))
    return tuple(_mark_doubled(plugin, found) for plugin in found)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob("*.py") if not path.name.startswith(("_", ".")))


@functools.lru_cache(maxsize=8)
def _entry_points(search_path: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Return (group, name, value) of medbench's groups over the installed distributions.

    Read by hand, since importlib.metadata costs more than all else that listing does.
    """
    found: list[tuple[str, str, str]] = []
    for folder in dict.fromkeys(search_path):
        for info in _distributions(folder or "."):
            try:
                text = Path(info, "entry_points.txt").read_text(encoding="utf-8")
            except (OSError, ValueError):
                continue
            section = ""
            for line in map(str.strip, text.splitlines()):
                if line.startswith("["):
                    section = line.strip("[] ")
                elif section.startswith("medbench.") and "=" in line and line[0] not in "#;":
                    name, _, value = line.partition("=")
                    found.append((section, name.strip(), value.partition("[")[0].strip()))
    return found


def _distributions(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            found = [e.path for e in entries if e.name.endswith((".dist-info", ".egg-info"))]
    except OSError:  # a zip file, or nothing
        return []
    return sorted(found)


def _mark_doubled(plugin: Plugin, found: list[Plugin]) -> Plugin:
    others = [
        shown(other.path)
        for other in found
        if other is not plugin and normalise(other.name) == normalise(plugin.name)
    ]
    if not others or plugin.broken:
        return plugin
    return replace(plugin, broken=f"{' and '.join(others)} has the same name")


def _accepted(plugin: Plugin, given: Mapping[str, Any]) -> dict[str, Any]:
    accepted: dict[str, Any] = {}
    for key, value in given.items():
        parameter = plugin.parameter(key)
        if parameter is None:
            continue
        try:
            accepted[parameter.name] = parameter.accept(value)
        except ValueError as error:
            raise UserError(
                f"{plugin.name} cannot take {parameter.name}={value!r} as a default",
                f"{parameter.name} {error}.",
            ) from None
    return accepted


def _variant(plugin: Plugin, name: str) -> Mapping[str, Any]:
    variants = {normalise(key): setting for key, setting in plugin.variants.items()}
    if normalise(name) not in variants:
        raise UserError(
            f"{plugin.name} has no variant '{name}'",
            close(name, list(plugin.variants)),
            f"It has: {', '.join(plugin.variants)}.",
        )
    return variants[normalise(name)]


def _import(plugin: Plugin) -> ModuleType:
    """Import a plugin's file; files that belong to no package get a name of their own."""
    if plugin.module:
        return importlib.import_module(plugin.module)
    content = os.fsencode(plugin.path) + plugin.path.read_bytes()
    name = f"medbench_plugin_{plugin.path.stem}_{hashlib.sha256(content).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    loader = _Uncached(name, os.fspath(plugin.path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None, "a loader of files gives a spec"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while the class is made
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class _Uncached(SourceFileLoader):
    """Runs a file as it is now.

    Python takes compiled code for current by the source's length and the second it was written
    in; a file that was changed twice in one second would run as it was and be hashed as it is.
    """

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)
