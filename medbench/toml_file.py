"""Tables and figures that users describe: a TOML file, read key by key, whose errors name it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from medbench import chains, plugins, spec
from medbench.errors import UserError
from medbench.plugins import Kind


class TomlFile:
    """One file.

    Args:
        path: of the file; what: it should be, such as "A layout".

    Attributes:
        content: what it holds.

    Raises:
        UserError: from here and from all methods, if something is not as it should be.
    """

    def __init__(self, path: Path, what: str) -> None:
        self._path = path
        self._checked: set[tuple[Kind, str]] = set()
        try:
            self.content: Mapping[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            why = f"{error.strerror if isinstance(error, OSError) else error}."
            raise UserError(f"cannot read {path}", why, f"{what} is a TOML file.") from error

    def check(
        self, what: str, part: Mapping[str, Any], keys: Sequence[str], needed: Sequence[str] = ()
    ) -> None:
        """Make sure that a part has no other keys, and those that it needs."""
        for key in part:
            if key not in keys:
                close = plugins.close(key, keys)
                raise self.error(f"{what} has no '{key}'", close or f"It has: {', '.join(keys)}.")
        for key in needed:
            if key not in part:
                raise self.error(f"{what} lacks '{key}'")

    def check_names(self, what: str, names: Sequence[tuple[str, ...]]) -> None:
        """Make sure that no two of them are the same."""
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise self.error(f"two {what} are called '{' / '.join(filter(None, double))}'")

    def text(self, key: str, part: Mapping[str, Any]) -> str:
        """Return a text, "" if it is not there."""
        value = part.get(key, "")
        if not isinstance(value, str):
            raise self.error(f"{key} is no text", f"It is {value!r}.")
        return value

    def choice(self, key: str, part: Mapping[str, Any], choices: Sequence[str]) -> str:
        """Return one of some texts, the first if it is not there."""
        value = self.text(key, part) or choices[0]
        if value not in choices:
            raise self.error(f"{key} cannot be '{value}'", f"Take {' or '.join(choices)}.")
        return value

    def values(self, key: str, part: Mapping[str, Any]) -> list[Any]:
        """Return a list, empty if it is not there."""
        value = part.get(key, [])
        if not isinstance(value, list):
            raise self.error(f"{key} is no list", f"It is {value!r}.")
        return cast("list[Any]", value)

    def texts(self, key: str, part: Mapping[str, Any], default: tuple[str, ...]) -> tuple[str, ...]:
        """Return texts, the default if they are not there."""
        value = part.get(key, list(default))
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.error(f"{key} is no list of texts")
        return tuple(cast("list[str]", value))

    def tables(self, key: str, part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Return the tables of a list, which may be left out."""
        value = part.get(key, [])
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.error(f"'{key}' is no list of tables", f"Write [[{key}]].")
        return cast("list[Mapping[str, Any]]", value)

    def check_spec(self, kind: Kind, text: str) -> None:
        """Make sure that a plugin exists and takes its values; a typo must not be a gap."""
        if (kind, text) in self._checked:
            return
        try:
            one = spec.parse(text)
            plugins.values(plugins.get(kind, one.name), one)
        except UserError as error:
            raise self._within(error) from error
        self._checked.add((kind, text))

    def check_chain(self, text: str) -> None:
        """Make sure that a method or chain can run, as far as its names tell."""
        try:
            parts = spec.parse_chain(text)
        except UserError as error:
            raise self._within(error) from error
        for one in parts:
            self.check_spec("method", str(one))
        try:
            chains.check(text, [plugins.get("method", one.name) for one in parts])
        except UserError as error:
            raise self._within(error) from error

    def error(self, what: str, why: str = "") -> UserError:
        """Return an error that names the file."""
        return UserError(f"{self._path.name}: {what}", why, f"Mend {plugins.shown(self._path)}.")

    def _within(self, error: UserError) -> UserError:
        return self.error(error.what, error.why or error.do)
