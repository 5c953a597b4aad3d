"""What the contracts of methods share: a toy of its own for each test, and nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from medbench.contract import toys
from medbench.contract.reading import ReadingContract
from medbench.contract.traces import undisturbed
from medbench.model.llava import Backbone


class OnToyContract(ReadingContract):
    """What a method keeps to, tried on the backbone `toy`."""

    kind = "method"

    @pytest.fixture(autouse=True)
    def alone(self) -> Iterator[None]:
        """Keep sums in one order, and the shared generators as they were."""
        with undisturbed():
            yield

    @pytest.fixture
    def backbone(self) -> Backbone:
        """A toy of its own for each test."""
        return toys.toy()
