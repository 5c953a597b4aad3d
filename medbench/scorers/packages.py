"""What an engine's values depend on: packages and their versions, files and their hashes."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable

from medbench.errors import UnavailableError


def versions(packages: Iterable[str], *, extra: str) -> dict[str, str]:
    """Return the installed versions of distributions.

    Args:
        packages: names of distributions.
        extra: the extra of medbench that installs them.

    Raises:
        UnavailableError: one is not installed.
    """
    found: dict[str, str] = {}
    missing: list[str] = []
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        raise UnavailableError(
            f"medbench[{extra}] is not installed",
            f"Missing here: {', '.join(missing)}.",
            f'pip install "medbench[{extra}]"',
        )
    return found
