"""Score against cost, for all methods of one task and backbone: what stands in the figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from medbench import canonical, plugins, spec, store
from medbench.differences import differences
from medbench.errors import UserError
from medbench.figures import gather
from medbench.figures.gather import Asked
from medbench.figures.layout import Named
from medbench.figures.notes import note
from medbench.store import RunRecord
from medbench.tables.contrasts import answers_of
from medbench.tables.costs import costs
from medbench.tables.model import Cell, Row, Table

Kind = Literal["seconds", "forwards"]
Family = Literal["model as it is", "LoRA, then …", "tuned otherwise"]
# They do not see the image of the question, and are no rivals.
_CONTROLS = ("blind", "shuffled")
# Letters of a bracket that is written out beside its dot.
_LONGEST = 12


@dataclass(frozen=True)
class Dot:
    """A method: what it is called, how it was tuned, its cost in the axis's unit, its score."""

    label: str
    family: Family
    cost: float
    cell: Cell


@dataclass(frozen=True)
class Cost:
    """What stands in the figure.

    Attributes:
        kind: of the cost.
        dots: the cheapest first.
        note: below it.
        told: lines for the user on what is not in it.
    """

    kind: Kind
    metric: str
    dots: tuple[Dot, ...]
    note: str
    told: tuple[str, ...]


def arrange(
    records: Sequence[RunRecord], asked: Asked, *, metric: str, kind: Kind = "seconds"
) -> Cost:
    """Return what stands in the figure.

    Args:
        records: finished runs.
        asked: which of them.
        metric: full name.
        kind: of the cost.

    Raises:
        UserError: there are no runs, or some that may not stand beside each other, were made on
            different machines, or do not tell the score or the cost.
    """
    kept, asked = gather.alike(gather.narrowed(records, asked), asked)
    (metric,) = gather.metrics_of(kept, [metric], each=True)
    methods, numbered = _methods(kept)
    table = gather.table(methods, [metric], kept, asked)
    spent = _spent(table, kind)
    dots = [
        Dot(_label(row), _family(row.method), spent[row], cell)
        for (row, _), cell in table.cells.items()
        if row in spent
    ]
    if not dots:
        raise UserError(
            f"no run tells its {kind}",
            "Answers of other programs have none, nor do those of a system that does not tell.",
            f"Take the other: --cost {'forwards' if kind == 'seconds' else 'seconds'}",
        )
    used = [run for (row, _), same in table.runs.items() if row in spent for run in same]
    machine = _machine(used) if kind == "seconds" else ""
    lost = [row.label for row in table.rows if row not in spent and not _is_control(row.method)]
    return Cost(
        kind=kind,
        metric=metric,
        dots=tuple(sorted(dots, key=lambda dot: (dot.cost, dot.label))),
        note=" ".join(filter(None, [_controls(table), note(table), machine, numbered])),
        told=(
            *gather.left_out(table, kept),
            *([f"Left out, no {metric} or no {kind}: {', '.join(lost)}."] if lost else []),
        ),
    )


def _methods(records: Sequence[RunRecord]) -> tuple[list[Named], str]:
    """Return the methods of runs, and what their labels have left out, in a sentence.

    A method goes by the shortest of its names; long brackets are numbered, so that names have
    room beside their dots.
    """
    names: dict[str, list[str]] = {}
    for one in records:
        names.setdefault(canonical.method(one.method, one.task), []).append(one.method)
    numbers: dict[str, int] = {}
    found: list[Named] = []
    for method in sorted(min(same, key=lambda name: (len(name), name)) for same in names.values()):
        name, _, inside = method.partition("[")
        label = method
        if len(inside) > _LONGEST:
            label = f"{name}[{numbers.setdefault(inside, len(numbers) + 1)}]"
        found.append(Named(label, method))
    return found, " ".join(f"[{number}]: [{inside}." for inside, number in numbers.items())


def _spent(table: Table, kind: Kind) -> dict[Row, float]:
    """Return the cost of each method that is drawn."""
    found: dict[Row, float] = {}
    for (row, _), cost in costs(table, answers_of(table)).items():
        amount = cost.seconds if kind == "seconds" else cost.forwards
        if amount and not _is_control(row.method):
            found[row] = amount
    return found


def _machine(runs: Sequence[RunRecord]) -> str:
    """Return on what all runs were made, in a sentence.

    Raises:
        UserError: the machines say different things of themselves, or were used differently; then
            seconds compare machines.
    """
    made = [(run, facts) for run in runs for facts in _machines(run)]
    facts = differences([one for _, one in made])
    if facts:
        values = next(iter(facts.values()))
        other = next(at for at, value in enumerate(values) if value != values[0])
        told = "; ".join(
            f"{key}: {' or '.join(dict.fromkeys(all_))}" for key, all_ in facts.items()
        )
        folders = (plugins.shown(made[at][0].folder) for at in (0, other))
        raise UserError(
            "seconds of different machines may not stand in one figure",
            f"{told}; see {' and '.join(folders)}.",
            "Take --cost forwards, which no machine moves, or runs of one machine.",
        )
    return f"Measured on {', '.join(f'{key} {value}' for key, value in made[0][1].items())}."


def _machines(run: RunRecord) -> list[dict[str, Any]]:
    """Return what a run tells of each machine that it was made on, and how it used it."""
    continued: list[dict[str, Any]] = store.read_run(run.folder).get("continued", [])
    parts = [run.hardware, *(part["hardware"] for part in continued)]
    batch = {"batch size": run.identity.get("batch_size")}
    # A newer kernel is no other machine.
    return [{k: v for k, v in part.items() if k != "system"} | batch for part in parts]


def _controls(table: Table) -> str:
    """Return the scores of methods without the image, in a sentence."""
    told = [
        f"{row.label} {table.written(cell.value)}"
        for (row, _), cell in table.cells.items()
        if _is_control(row.method)
    ]
    return f"Without the question's image: {', '.join(told)}." if told else ""


def _is_control(method: str) -> bool:
    return spec.parse_chain(method)[-1].name in _CONTROLS


def _family(method: str) -> Family:
    first = spec.parse_chain(method)[0].name
    if first == "lora":
        return "LoRA, then …"
    try:
        tuned = plugins.get("method", first).role == "tuner"
    except UserError:  # an imported answer's method may have any name
        tuned = False
    return "tuned otherwise" if tuned else "model as it is"


def _label(row: Row) -> str:
    """Return a row's label without the tuner that its marker tells."""
    return row.label.removeprefix("lora+")
