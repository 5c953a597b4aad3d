"""Whether a score is better for being high, as its metric says."""

from __future__ import annotations

import functools
from typing import Literal

from medbench import plugins, spec
from medbench.errors import UserError

Direction = Literal["higher", "lower", "neither"]


@functools.cache
def better(metric: str) -> Direction:
    """Return which values of a metric are better; "higher" of one that is no longer there.

    Args:
        metric: full name.

    Raises:
        UserError: the metric says something else.
    """
    try:
        plugin = plugins.get("metric", spec.parse(metric).name)
    except UserError:
        return "higher"
    said = plugin.attributes["better"]
    if said not in ("higher", "lower", "neither"):
        raise UserError(
            f"metric '{plugin.name}' says that {said!r} is better",
            "It can say higher, lower or neither.",
            f"Mend {plugins.shown(plugin.path)}.",
        )
    return said
