"""What a doctor is asked about: names and values, read from source alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medbench import cell
from medbench.cell import Request
from medbench.model.load import check_words
from medbench.plugins import Plugin, get, values
from medbench.spec import Spec, parse


@dataclass(frozen=True)
class Asked:
    """A request of which method, task and backbone may each be left out.

    Attributes:
        request: the options of a run, "" for what is left out.
        backbone, task: plugins with their specs; None where left out.
        methods: of the chain, likewise; empty where left out.
        tuning: what the task sets for tuners.
        metrics: specs of those asked about; python: the interpreter that computes them.
    """

    request: Request
    backbone: tuple[Plugin, Spec] | None
    task: tuple[Plugin, Spec] | None
    methods: tuple[tuple[Plugin, Spec], ...]
    tuning: Mapping[str, Any]
    metrics: tuple[str, ...] = ()
    python: str = ""

    @property
    def offers(self) -> list[str]:
        """What backbone and task have for methods, as far as they are given."""
        given = [one[0] for one in (self.backbone, self.task) if one is not None]
        return [offer for plugin in given for offer in plugin.attributes.get("offers", ())]


def look_up(request: Request, *, metrics: Sequence[str] = (), python: str = "") -> Asked:
    """Find all names of a request and read all values.

    Args:
        metrics: specs; python: the interpreter that computes them, "" for this one.

    Raises:
        UserError: a name is unknown, or a value makes no sense.
    """
    for name in metrics:
        one = parse(name)
        values(get("metric", one.name), one)
    check_words(request.device, request.dtype)
    # What is left out is stood in for by what needs nothing.
    whole = replace(
        request,
        method=request.method or "greedy",
        task=request.task or "phantom",
        backbone=request.backbone or "phantom",
    )
    named = cell.look_up(whole)
    cell.check_options(whole)
    return Asked(
        request,
        (named.backbone, named.backbone_spec) if request.backbone else None,
        (named.task, named.task_spec) if request.task else None,
        tuple(zip(named.methods, named.chain, strict=True)) if request.method else (),
        named.tuning if request.task else {},
        tuple(metrics),
        python,
    )
