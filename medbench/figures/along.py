"""A method's parameter: which runs differ from the method in nothing else, and in what order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from medbench import canonical, plugins, spec
from medbench.errors import UserError
from medbench.parameters import Parameter
from medbench.spec import Spec
from medbench.store import RunRecord


@dataclass(frozen=True)
class Along:
    """A parameter of a method or chain.

    Attributes:
        method: with the values that all runs must have.
        at: which part of the chain has the parameter.
    """

    method: str
    at: int
    parameter: Parameter

    def value(self, one: RunRecord) -> str | None:
        """Return the parameter's value in a run as specs write it, None for other methods' runs."""
        try:
            chain = spec.parse_chain(one.method)
            if self.at >= len(chain):
                return None
            value = as_written(_values(chain[self.at], one.task).get(self.parameter.name))
            wanted = canonical.method(self.method_with(value), one.task)
        except UserError:  # an imported answer's method may have any name
            return None
        return value if wanted == canonical.method(one.method, one.task) else None

    def default(self, task: str) -> str:
        """Return the value that the method has on a task where none is written."""
        return as_written(_values(self._bare(), task)[self.parameter.name])

    def method_with(self, value: str) -> str:
        """Return the method with a value of the parameter."""
        bare = self._bare()
        parts = list(spec.parse_chain(self.method))
        parts[self.at] = Spec(bare.name, ((self.parameter.name, value), *bare.values))
        return "+".join(map(str, parts))

    def in_order(self, values: Iterable[str]) -> list[str]:
        """Return values sorted: numbers by size, choices as declared, the rest by the alphabet.

        Raises:
            UserError: one is no value of the parameter.
        """
        return sorted(dict.fromkeys(values), key=self._place)

    def _bare(self) -> Spec:
        """Return the part of the chain without the parameter."""
        one = spec.parse_chain(self.method)[self.at]
        varied = spec.normalise(self.parameter.name)
        return Spec(one.name, tuple(pair for pair in one.values if pair[0] != varied))

    def _place(self, text: str) -> tuple[int, float, str]:
        try:
            value = self.parameter.read(text)
        except ValueError as error:
            raise UserError(
                f"{self.method} cannot take {self.parameter.name}={text}",
                f"{self.parameter.name} {error}.",
            ) from None
        if isinstance(value, int | float):
            return 0, float(value), ""
        choices = self.parameter.choices
        return 1, float(choices.index(value)) if value in choices else len(choices), text


def along(method: str, parameter: str) -> Along:
    """Return a parameter of a method or chain, one part of which has it.

    Raises:
        UserError: a part is not known, or several have a parameter of that name.
    """
    owners = [
        (at, one.name, found)
        for at, one in enumerate(spec.parse_chain(method))
        if (found := plugins.get("method", one.name).parameter(parameter)) is not None
    ]
    if len(owners) != 1:
        raise UserError(
            f"{parameter} of {method} is {'two things' if owners else 'nothing'}",
            f"{' and '.join(name for _, name, _ in owners) or 'No part'} has a parameter "
            "of that name.",
            "Ask for one method's: --method NAME",
        )
    at, _, found = owners[0]
    return Along(method, at, found)


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


def _values(one: Spec, task: str) -> Mapping[str, Any]:
    plugin = plugins.get("method", one.name)
    facts = plugins.get("task", spec.parse(task).name).attributes
    return plugins.values(plugin, one, facts.get("tuning", {}) if plugin.role == "tuner" else {})
