"""Which plugins are to be checked, and by which of the contract's files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from medbench import plugins
from medbench.errors import UserError
from medbench.plugins import FOLDERS, Plugin
from medbench.spec import normalise

_CHOSEN = pytest.StashKey[list[Plugin]]()


def chosen_by(config: pytest.Config) -> list[Plugin]:
    """Return the plugins that the options of this run of pytest ask for.

    Raises:
        pytest.UsageError: there is none of a name.
    """
    if _CHOSEN not in config.stash:
        names: list[str] = config.getoption("medbench_plugins", None) or []
        shipped = bool(config.getoption("medbench_shipped", None))
        try:
            config.stash[_CHOSEN] = choose(names, shipped=shipped)
        except UserError as error:
            raise pytest.UsageError("\n".join(error.lines())) from None
    return config.stash[_CHOSEN]


def choose(names: Sequence[str], *, shipped: bool) -> list[Plugin]:
    """Return the plugins to be checked: those named, those shipped, or else all others.

    Raises:
        UserError: there is none of a name.
    """
    every = [plugin for kind in FOLDERS for plugin in plugins.find(kind)]
    if not names:
        return [one for one in every if (one.origin == "built-in") == shipped]
    found: list[Plugin] = []
    for name in names:
        matches = [one for one in every if normalise(one.name) == normalise(name)]
        if not matches:
            close = plugins.close(name, [one.name for one in every])
            raise UserError(f"no plugin named '{name}'", close, "See: medbench list")
        found += matches
    return found


def sort(plugin: Plugin) -> str:
    """Return which tests a plugin is for: "decoders", "tuners", "tasks", "metrics" or "others"."""
    if plugin.broken or plugin.kind in ("backbone", "provider"):
        return "others"
    return {"decoder": "decoders", "tuner": "tuners"}.get(plugin.role, FOLDERS[plugin.kind])


def places() -> str:
    """Say where plugins are looked for, with what there is."""
    here = [str(Path(folder).absolute()) for folder in FOLDERS.values()]
    variable = os.environ.get("MEDBENCH_PLUGINS", "")
    return (
        f"Looked in {', '.join(here)}, in the folders of $MEDBENCH_PLUGINS "
        f"({variable or 'not set'}), and among the entry points of installed packages."
    )
