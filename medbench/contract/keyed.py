"""Whether a run's key follows every value that can move an answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from medbench import keys, plugins
from medbench.contract.breach import breach
from medbench.contract.values import other_values, text_of
from medbench.errors import UserError
from medbench.plugins import Plugin
from medbench.spec import Spec


def changed_instances(plugin: Plugin) -> Iterator[tuple[str, Any, Any]]:
    """Yield, for each parameter, its name, another value that the class takes, and the instance.

    A parameter of which the class takes no other value that comes to mind is left out.
    """
    for parameter in plugin.parameters:
        for value in other_values(parameter):
            written = Spec(plugin.name, ((parameter.name, text_of(value)),))
            try:
                made = plugins.create(plugin.kind, written)[1]
            except UserError:
                continue
            yield parameter.name, value, made
            break


def check_key(plugin: Plugin) -> None:
    """Fail if a value does not reach the class, or is in no key though it is not `unkeyed`."""
    made = plugins.create(plugin.kind, Spec(plugin.name))[1]
    named = getattr(made, "supervision", {}) if plugin.kind == "method" else {}
    for name, value, other in changed_instances(plugin):
        if getattr(other, name) != value:
            breach(
                f"{plugin.name}[{name}={text_of(value)}] keeps {name}={getattr(other, name)!r}",
                "What a user writes must be what runs, or be refused.",
                "Raise a ValueError in __post_init__ for values that cannot be taken.",
            )
        if name in made.unkeyed or name in named:
            continue
        if keys.keyed(made) == keys.keyed(other):
            breach(
                f"the key of a run does not change with {name}={text_of(value)}",
                "Two runs with other values would take each other's folder.",
                f"Declare '{name}: TYPE = VALUE' in a @dataclass(frozen=True), and nothing else.",
            )
