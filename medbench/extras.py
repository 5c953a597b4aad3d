"""Packages that only some jobs need: imported late, and named when they are missing."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from medbench.errors import UserError


@contextmanager
def importing(extra: str) -> Generator[None]:
    """Turn a failed import inside the block into an error that names the extra to install.

    Raises:
        UserError: a package is missing, or does not fit the torch that is installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"the package '{error.name}' is not installed",
            "Only some jobs need it.",
            f'Install it: pip install "medbench[{extra}]"',
        ) from error
    except (ImportError, RuntimeError, AttributeError) as error:
        # torchvision from another index than torch fails like this, deep inside itself.
        raise UserError(
            f"a package of medbench[{extra}] cannot be imported",
            f"{type(error).__name__}: {error}".splitlines()[0],
            "Often torch and torchvision do not match: install both from the same index.",
        ) from error
