"""Keys: a hash over everything that can move an answer, and what of a plugin goes into it."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from medbench import plugins, provenance
from medbench.backbone import Checkpoint
from medbench.method import Method, Tuner
from medbench.plugins import Plugin
from medbench.provider import Provider
from medbench.task import Task

# Raise when the same inputs give other answers: part of every key.
ENGINE = 1
LENGTH = 12


def key(identity: dict[str, Any]) -> str:
    """Return the key of what a run or an adapter is made of."""
    return provenance.digest(identity)[:LENGTH]


def identity(plugin: Plugin, instance: Method | Task | Checkpoint | Provider) -> dict[str, Any]:
    """Return what of a plugin goes into keys: name, values, and its source."""
    return {
        "name": plugin.name,
        "parameters": keyed(instance),
        "source": plugins.source_hash(plugin),
    }


def keyed(instance: Method | Task | Checkpoint | Provider) -> dict[str, Any]:
    """Return the values that move an answer, as they read back from JSON.

    A parameter that names a provider is not among them: the provider's own identity counts.
    """
    named = instance.supervision if isinstance(instance, Tuner) else ()
    values = {
        one.name: getattr(instance, one.name)
        for one in fields(instance)
        if one.name not in instance.unkeyed and one.name not in named
    }
    return json.loads(json.dumps(values))
