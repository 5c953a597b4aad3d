"""How a test of the contract fails: what is wrong, why it matters, what the author should do."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn

import pytest

from medbench.errors import UnavailableError, UserError


def breach(what: str, why: str = "", do: str = "") -> NoReturn:
    """Fail the test with these lines; what was raised before is printed with them."""
    raise _failure(what, why, do)


@contextmanager
def telling(what: str, do: str = "") -> Generator[None]:
    """Turn a UserError of the block into a failure that tells it, and nothing else.

    Where the machine lacks something, the test is skipped: that is no fault of the plugin.
    """
    try:
        yield
    except UnavailableError as error:
        pytest.skip(" ".join(error.lines()))
    except UserError as error:
        raise _failure(what, *error.lines(), do) from None


def _failure(*lines: str) -> BaseException:
    return pytest.fail.Exception("\n".join(filter(None, lines)), pytrace=False)
