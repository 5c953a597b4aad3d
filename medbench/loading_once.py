"""Backbones for runs that follow each other: those that share one share its load."""

from __future__ import annotations

from medbench import runner
from medbench.cell import Cell
from medbench.model.llava import Backbone
from medbench.reporting import Report


class LoadOnce:
    """Loads the backbones of cells, and keeps the latest one."""

    def __init__(self) -> None:
        self._kept: dict[str, Backbone] = {}

    def __call__(self, cell: Cell, report: Report) -> Backbone:
        """Return a cell's backbone; the latest one, if weights, settings and device agree."""
        name = f"{cell.identity['backbone']} {cell.device}"
        if name not in self._kept:
            self._kept.clear()  # first, so that two never take memory at once
            self._kept[name] = runner.load(cell, report)
        return self._kept[name]
