"""A metric whose package is nowhere, for tests of what a missing one leaves unscored."""

LACKING = '''"""Lacks a package."""

from dataclasses import dataclass

from medbench.errors import UnavailableError
from medbench.metric import Metric


@dataclass(frozen=True)
class Lacking(Metric):
    """Lacks a package."""

    name = "lacking"
    kinds = ("closed", "open")
    extra = "report"
    golden = (("abc", "", 0.3),)

    def measure(self, rows, setting):
        raise UnavailableError("a package is missing", "It is nowhere.", "Install it.")
'''
