"""Many runs at once: names and seeds written as lists, and their product."""

from __future__ import annotations

from collections.abc import Sequence

from medbench import plugins, spec, supervise
from medbench.errors import UserError
from medbench.plugins import Kind


def check_names(backbones: Sequence[str], tasks: Sequence[str], methods: Sequence[str]) -> None:
    """Make sure that all plugins exist and take their values, from their source alone.

    Raises:
        UserError: a name is unknown, or a value makes no sense.
    """
    named: list[tuple[Kind, Sequence[str]]] = [
        ("backbone", backbones),
        ("task", tasks),
        ("method", methods),
    ]
    for kind, texts in named:
        for text in texts:
            for one in spec.parse_chain(text):
                plugin = plugins.get(kind, one.name)
                supervise.check_names(plugin, plugins.values(plugin, one), {})


def seeds_in(text: str) -> list[int]:
    """Read seeds such as "0", "1,2,5" or "0-4".

    Raises:
        UserError: the text is not of that form.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UserError(f"cannot read the seeds '{text}'", "", "Write 0, 1,2,5 or 0-4.")
        if dash and int(last) < int(first):
            raise UserError(f"the seeds '{part.strip()}' run backwards", "", "Write 0-4.")
        found += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(found))
