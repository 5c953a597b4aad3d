"""What every plugin keeps to: it can be read, named, shown, and made with its values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import pytest

from medbench import plugins
from medbench.contract.breach import breach, telling
from medbench.contract.values import other_values, text_of
from medbench.errors import UserError
from medbench.plugins import FOLDERS, Kind, Plugin
from medbench.spec import Spec, normalise

_NAME = re.compile(r"[a-z][a-z0-9_.-]*")
# Metrics of one family say their rule behind a slash.
_METRIC = re.compile(rf"{_NAME.pattern}(/[a-z0-9_.-]+)?", re.IGNORECASE)


class ReadingContract:
    """What a plugin of any kind keeps to; a subclass names the plugin.

    Class attributes:
        kind, name: of the plugin. `pytest --pyargs medbench.contract` puts many in their place.
    """

    kind: ClassVar[Kind] = "method"
    name: ClassVar[str] = ""

    @pytest.fixture
    def plugin(self) -> Plugin:
        """The plugin as its source describes it, broken or not."""
        return look_up(self.kind, self.name)

    @pytest.fixture
    def sound(self, plugin: Plugin) -> Plugin:
        """The same, where it can be read."""
        if plugin.broken:
            pytest.skip(f"{plugin.name} is broken, as test_it_can_be_read says")
        return plugin

    @pytest.fixture
    def spec(self, sound: Plugin) -> Spec:
        """The spec that the plugin is made from: its name, where a kind needs no more."""
        return Spec(sound.name)

    @pytest.fixture
    def made(self, sound: Plugin, spec: Spec) -> Any:
        """The plugin with its default values."""
        with telling(f"{sound.name} cannot be made with its defaults"):
            return plugins.create(sound.kind, spec)[1]

    def test_it_can_be_read(self, plugin: Plugin) -> None:
        """Its file is read without running it: attributes are literals, parameters are typed."""
        if plugin.broken:
            where = plugins.shown(plugin.path)
            breach(f"{plugin.kind} {plugin.name} is broken", f"{plugin.broken}.", f"Mend {where}.")

    def test_its_first_line_tells_what_it_does(self, sound: Plugin) -> None:
        """`medbench list` prints the first line of its docstring."""
        if not sound.summary.strip():
            breach(
                f"{sound.name} has no docstring",
                "medbench list prints its first line.",
                f"Write one sentence under class {sound.class_name}.",
            )

    def test_its_name_can_be_typed(self, sound: Plugin) -> None:
        """A name is lower case and begins with a letter."""
        form = _METRIC if sound.kind == "metric" else _NAME
        if not form.fullmatch(sound.name):
            breach(
                f"'{sound.name}' is no good name",
                "Users type it in specs, and folders of runs are called after it.",
                "Take lower case letters, digits, '-' and '_', a letter first.",
            )

    def test_its_attributes_are_known(self, sound: Plugin) -> None:
        """An attribute that medbench does not know is a typing error, or a parameter untyped."""
        for name in unknown_attributes(sound):
            value = sound.attributes[name]
            breach(
                f"'{name} = {value!r}' is neither a parameter nor something medbench asks for",
                "It is in no run's key, and no spec can set it.",
                f"Write '{name}: {type(value).__name__} = {value!r}' for a parameter; for a "
                f"constant, put it before the class, or call it _{name}.",
            )

    def test_it_is_made_with_its_defaults(self, sound: Plugin) -> None:
        """Its name alone is enough to run it."""
        for parameter in sound.parameters:
            if parameter.required:
                breach(
                    f"{sound.name} has no default for '{parameter.name}'",
                    "Its name alone should be enough to run it.",
                    "Give it a default; None is one.",
                )
        with telling(f"{sound.name} cannot be made with its defaults"):
            plugins.create(sound.kind, Spec(sound.name))

    def test_its_values_can_be_written(self, sound: Plugin) -> None:
        """A value written in a spec, as runs show it, is read as the same value."""
        for parameter in sound.parameters:
            for value in (parameter.default, *other_values(parameter)):
                text = text_of(value)
                if parameter.read(text) != value:
                    breach(
                        f"{parameter.name}={text} is read as {parameter.read(text)!r}",
                        f"It was written for {value!r}; the type is {parameter.annotation}.",
                        "Take a type of which every value can be told from its text.",
                    )

    def test_its_variants_are_accepted(self, sound: Plugin, spec: Spec) -> None:
        """Every named set of values makes one."""
        for variant in sound.variants:
            with telling(f"variant={variant} of {sound.name} is refused"):
                written = (*spec.values, ("variant", variant))
                plugins.create(sound.kind, Spec(spec.name, written))

    def test_show_prints_its_parameters(
        self, sound: Plugin, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """`medbench show` tells its first line and every parameter."""
        from medbench.cli import main

        capsys.readouterr()
        code = main(["show", sound.name, "--kind", sound.kind])
        shown, errors = capsys.readouterr()
        if code:
            breach(f"medbench show {sound.name} fails", errors.strip())
        words = set(re.findall(r"[\w./-]+", shown))
        missing = [one.name for one in sound.parameters if one.name not in words]
        if missing:
            breach(f"medbench show {sound.name} does not tell {', '.join(missing)}")


def look_up(kind: Kind, name: str) -> Plugin:
    """Return the plugin of a name, broken or not; fail where there is none."""
    found = [one for one in plugins.find(kind) if normalise(one.name) == normalise(name)]
    # Of two that share a name, the one that was not shipped is the one to mend.
    found.sort(key=lambda one: one.origin == "built-in")
    if not found:
        names = [one.name for one in plugins.find(kind)]
        breach(
            f"no {kind} named '{name}'",
            plugins.close(name, names) or f"Looked in {Path.cwd() / FOLDERS[kind]} and elsewhere.",
            f"Run pytest in the folder that holds {FOLDERS[kind]}/.",
        )
    return found[0]


def unknown_attributes(plugin: Plugin) -> list[str]:
    """Return the literal class attributes that no base class declares."""
    try:
        lines = plugins.load(plugin).__mro__
    except UserError as error:
        breach(f"{plugin.name} cannot be loaded", "\n".join(error.lines()))
    known = {"name", "variants"}
    for line in lines:
        notes: dict[str, Any] = vars(line).get("__annotations__", {})
        known |= {name for name, note in notes.items() if "ClassVar" in str(note)}
    return [name for name in plugin.attributes if name not in known]
