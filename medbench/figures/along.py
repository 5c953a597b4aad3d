"""A method's parameter: which runs differ from the method in nothing else, and in what order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medbench import canonical, plugins, spec
from medbench.errors import UserError
from medbench.figures.layout import as_written
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
            wanted = self.method_with(value)
            same = canonical.method(wanted, one.task) == canonical.method(one.method, one.task)
        except UserError:  # an imported answer's method may have any name
            return None
        return value if same else None

    def default(self, task: str) -> str:
        """Return the value that the method has on a task where none is written."""
        one = spec.parse_chain(self.method)[self.at]
        bare = Spec(one.name, tuple(pair for pair in one.values if not self._named(pair[0])))
        return as_written(_values(bare, task)[self.parameter.name])

    def method_with(self, value: str, method: str = "") -> str:
        """Return the method with a value of the parameter, or with a grid of them (`1|2`).

        Args:
            method: in place of the method's own text, one that means the same.
        """
        chain = spec.parse_chain(method or self.method)
        parts, one = list(map(str, chain)), chain[self.at]
        kept = Spec(one.name, tuple(pair for pair in one.values if not self._named(pair[0])))
        inside = str(kept).removeprefix(kept.name).strip("[]") if kept.values else ""
        written = ",".join(filter(None, (f"{self.parameter.name}={value}", inside)))
        parts[self.at] = f"{one.name}[{written}]"
        return "+".join(parts)

    def in_order(self, values: Sequence[str]) -> list[str]:
        """Return values sorted: numbers by size, choices as declared, the rest by the alphabet.

        Raises:
            UserError: one is no value of the parameter.
        """
        return sorted(dict.fromkeys(values), key=self._place)

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

    def _named(self, written: str) -> bool:
        return spec.normalise(written) == spec.normalise(self.parameter.name)


def along(method: str, parameter: str) -> Along:
    """Return a parameter of a method or chain, one part of which has it.

    Raises:
        UserError: a part is not known, or several have a parameter of that name.
    """
    chain = spec.parse_chain(method)
    owners = [
        (at, found)
        for at, one in enumerate(chain)
        if (found := plugins.get("method", one.name).parameter(parameter)) is not None
    ]
    if len(owners) != 1:
        names = " and ".join(chain[at].name for at, _ in owners) or "No part"
        raise UserError(
            f"{parameter} of {method} is {'two things' if owners else 'nothing'}",
            f"{names} has a parameter of that name.",
            "Ask for one method's: --method NAME",
        )
    at, found = owners[0]
    return Along(method, at, found)


def _values(one: Spec, task: str) -> Mapping[str, Any]:
    plugin = plugins.get("method", one.name)
    facts = plugins.get("task", spec.parse(task).name).attributes
    return plugins.values(plugin, one, facts.get("tuning", {}) if plugin.role == "tuner" else {})
