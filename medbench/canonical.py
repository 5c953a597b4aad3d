"""Specs written out in full, so that two which mean the same compare equal.

`vcd` and `VCD[alpha=1]` are one method, `slake` and `slake[closed_rule=paper]` one task. Paths and
whatever else moves no answer are left out, as they are in what runs display.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from medbench import plugins, spec, supervise
from medbench.errors import UserError
from medbench.plugins import Kind, Plugin
from medbench.spec import Spec


@functools.cache
def method(text: str, task: str = "") -> str:
    """Return a method or chain with all its values; `lora` is `lora+greedy`.

    Args:
        text: spec or chain.
        task: spec of the task that it runs on, which sets defaults of tuners.
    """
    chain = spec.parse_chain(text)
    on = _plugin("task", spec.parse(task).name) if task else None
    tuning = on.attributes.get("tuning", {}) if on else {}
    parts = [_written("method", one, tuning) for one in chain]
    last = _plugin("method", chain[-1].name)
    if len(chain) == 1 and last and last.role == "tuner":
        parts.append(_written("method", Spec("greedy"), {}))
    return "+".join(parts)


@functools.cache
def task(text: str) -> str:
    """Return a task with all its values."""
    return _written("task", spec.parse(text), {})


@functools.cache
def backbone(text: str) -> str:
    """Return a backbone with all its values."""
    return _written("backbone", spec.parse(text), {})


def _written(kind: Kind, one: Spec, tuning: dict[str, Any]) -> str:
    plugin = _plugin(kind, one.name)
    if plugin is None:
        return str(one)
    try:
        values = plugins.values(plugin, one, tuning if plugin.role == "tuner" else {})
    except UserError:
        return str(one)
    hidden = plugin.attributes.get("unkeyed", ())
    kept = {name: value for name, value in values.items() if name not in hidden}
    # A task's attribute of that name is another thing.
    for name in plugin.attributes.get("supervision", {}) if kind == "method" else ():
        kept[name] = supervise.shown_provider(kept[name])
    return f"{one.name}{json.dumps(kept, sort_keys=True)}"


@functools.cache
def _plugin(kind: Kind, name: str) -> Plugin | None:
    """Return a plugin; None for imported answers' method or backbone, or a plugin that is gone."""
    try:
        return plugins.get(kind, name)
    except UserError:
        return None
