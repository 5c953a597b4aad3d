"""Values of a config.json that cannot be used, said so that a user can act on it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from medbench.errors import UserError


@contextmanager
def using(directory: Path) -> Generator[None]:
    """Turn what goes wrong with values of a config.json into an error that names the file."""
    try:
        yield
    # The config classes check themselves, each with exceptions of its own.
    except UserError:
        raise
    except Exception as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"{directory / 'config.json'} cannot be used",
            f"{type(error).__name__}: {why}.",
            "The file was changed or belongs to other weights; download it again.",
        ) from error
