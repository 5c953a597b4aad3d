"""Gives each test of this package the plugins that it is to check."""

from __future__ import annotations

from pathlib import Path

import pytest

from medbench.contract.chosen import chosen_by, sort
from medbench.plugins import Plugin


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the tests of kinds that nothing is to be checked of."""
    kind = _kind(collection_path)
    if kind and not any(sort(plugin) == kind for plugin in chosen_by(config)):
        return True
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat each test for each plugin of its file."""
    kind = _kind(metafunc.definition.path)
    if kind and "plugin" in metafunc.fixturenames:
        found = [plugin for plugin in chosen_by(metafunc.config) if sort(plugin) == kind]
        # All tests of one plugin together, as a reader expects.
        metafunc.parametrize("plugin", found, ids=[one.name for one in found], scope="class")


@pytest.fixture
def chosen(request: pytest.FixtureRequest) -> list[Plugin]:
    """All plugins that are to be checked."""
    return chosen_by(request.config)


def _kind(path: Path) -> str:
    """Return what a file checks: "decoders" for test_decoders.py; "" for another file."""
    kind = path.stem.removeprefix("test_")
    return kind if kind in ("decoders", "tuners", "tasks", "metrics", "others") else ""
