"""Which chains of methods can run."""

from __future__ import annotations

from collections.abc import Sequence

from medbench.errors import UserError
from medbench.source import Plugin


def check(text: str, methods: Sequence[Plugin]) -> None:
    """Make sure that methods can run one after the other.

    Args:
        text: the chain as the user wrote it; methods: its parts.

    Raises:
        UserError: they cannot.
    """
    roles = [plugin.role for plugin in methods]
    if roles not in (["tuner"], ["decoder"], ["tuner", "decoder"]):
        raise UserError(
            f"'{text}' is not a chain that can run",
            f"It reads {' then '.join(roles)}.",
            "A chain is one tuner, one decoder, or a tuner then a decoder.",
        )
