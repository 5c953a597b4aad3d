"""Other values of a parameter than its default, and how a spec writes a value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from medbench.parameters import Parameter


def other_values(parameter: Parameter) -> list[Any]:
    """Return a few values of a parameter's type beside its default, the nearest first."""
    found: list[Any] = []
    for candidate in _candidates(parameter):
        try:
            value = parameter.accept(candidate)
        except ValueError:
            continue
        same = [one for one in (parameter.default, *found) if type(one) is type(value)]
        if value not in same:
            found.append(value)
    return found


def _candidates(parameter: Parameter) -> Iterator[Any]:
    yield from parameter.choices
    default = parameter.default
    if isinstance(default, bool):
        yield not default
        return
    if isinstance(default, int | float):
        yield from (default + 1, default - 1, default * 2, default / 2)
    if isinstance(default, tuple) and default:
        first = default[0]
        if isinstance(first, int | float):
            yield (first + 1, *default[1:])
    yield from (1, 2, 0.5, 0, True, None, "other", (1,), (1, 2), (0.5,), ("other",))


def text_of(value: Any) -> str:
    """Write a parameter's value as a spec does."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return "/".join(map(text_of, value))
    return "none" if value is None else str(value)
