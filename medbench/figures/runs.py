"""Which runs may stand in one figure: finished, over the same data, in the same setting."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import medbench
from medbench import canonical, plugins, spec
from medbench.differences import differences
from medbench.errors import UserError
from medbench.store import RunRecord

_FINISHED = ("complete", "partial")


@dataclass(frozen=True)
class Where:
    """Where runs are looked for, and which of them count.

    Attributes:
        root: folder of the runs.
        task, backbone, preset: only those; "" for any.
        seeds: only those; empty for all.
    """

    root: Path
    task: str = ""
    backbone: str = ""
    preset: str = ""
    seeds: tuple[int, ...] = ()


def finished(where: Where) -> list[RunRecord]:
    """Return the finished runs that count.

    Raises:
        UserError: a task or backbone is not known, or the folder has no runs at all.
    """
    if where.task:
        plugins.get("task", spec.parse(where.task).name)
    if where.backbone:
        plugins.get("backbone", spec.parse(where.backbone).name)
    records = medbench.runs(where.root)
    if not records:
        raise UserError(
            f"no runs in {where.root}", "", "Name the folder that holds them: --out DIR"
        )
    return [one for one in records if one.state in _FINISHED and _counts(one, where)]


def _counts(one: RunRecord, where: Where) -> bool:
    return (
        (not where.task or canonical.task(one.task) == canonical.task(where.task))
        and (
            not where.backbone
            or canonical.backbone(one.backbone) == canonical.backbone(where.backbone)
        )
        and where.preset in ("", one.preset)
        and (not where.seeds or one.seed in where.seeds)
    )


def check_alike(records: Sequence[RunRecord]) -> None:
    """Make sure that runs answered the same questions, and differ by their methods only.

    Raises:
        UserError: they may not be compared.
    """
    facts = differences([_setting(one) for one in records])
    if not facts:
        return
    path, values = next(iter(facts.items()))
    at = next(at for at, value in enumerate(values) if value != values[0])
    told = "; ".join(f"{name}: {' or '.join(dict.fromkeys(all_))}" for name, all_ in facts.items())
    raise UserError(
        "these runs may not stand in one figure",
        f"They differ in {told}; see {records[0].folder} and {records[at].folder}.",
        "Take some: --task, --backbone, --preset or --seeds; or keep others in a folder of "
        f"their own (--out){', such as runs over part of the samples' if path == 'limit' else ''}.",
    )


def by_seed(records: Sequence[RunRecord], name: str) -> list[RunRecord]:
    """Return runs of one method sorted by seed, one a seed.

    Raises:
        UserError: they differ in more than the seed, or two have the same seed.
    """
    facts = differences([one.identity for one in records])
    seeds: dict[int, list[RunRecord]] = defaultdict(list)
    for one in records:
        seeds[one.seed].append(one)
    double = next((same for same in seeds.values() if len(same) > 1), None)
    if facts or double:
        pair = double or [
            records[0],
            next(one for one in records if differences([records[0].identity, one.identity])),
        ]
        what = "; ".join(f"{k}: {' or '.join(dict.fromkeys(v))}" for k, v in facts.items())
        raise UserError(
            f"there are two kinds of runs of {name}",
            f"They differ in {what or 'their adapters'}: {pair[0].folder} and {pair[1].folder}.",
            "Move one of them away, or name a folder that has only the other: --out DIR",
        )
    return sorted(records, key=lambda one: one.seed)


def about(records: Sequence[RunRecord]) -> str:
    """Return what runs share, in a sentence: task, backbone and preset."""
    one = records[0]
    task = min((record.task for record in records), key=lambda name: (len(name), name))
    backbone = min((record.backbone for record in records), key=lambda name: (len(name), name))
    left = [f"first {one.limit}" if one.limit else ""]
    left.append(f"{one.missing_images} left out" if one.missing_images else "")
    part = f" (PARTIAL: {', '.join(filter(None, left))})" if one.state == "partial" else ""
    return f"Task {task}{part}; backbone {backbone}; preset {one.preset}."


def seeds_told(seeds: Mapping[str, Sequence[int]]) -> str:
    """Return the seeds of what stands in a figure, in a sentence; exceptions by name.

    Args:
        seeds: name -> its seeds, sorted.
    """
    every = [tuple(one) for one in seeds.values()]
    common = max(every, key=every.count)
    others = [f"{name}: {ranges(of)}" for name, of in seeds.items() if tuple(of) != common]
    # A blank that does not break: the number stays beside its word.
    told = f"{'Seeds' if len(common) > 1 else 'Seed'}\N{NO-BREAK SPACE}{ranges(common)}"
    return f"{told} ({'; '.join(others)})." if others else f"{told}."


def numbers(text: str) -> tuple[int, ...]:
    """Read seeds such as "0", "1,2,5" or "0-4"; none from an empty text.

    Raises:
        UserError: it is not of that form.
    """
    found: list[int] = []
    for part in filter(None, map(str.strip, text.split(","))):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal() or part.endswith("-"):
            raise UserError(f"cannot read the seeds '{text}'", "", "Write 0, 1,2,5 or 0-4.")
        found += range(int(first), int(last or first) + 1)
    return tuple(dict.fromkeys(found))


def ranges(numbers: Iterable[int]) -> str:
    """Return numbers as `0-4` or `0,2`."""
    listed = sorted(set(numbers))
    if len(listed) > 2 and listed == list(range(listed[0], listed[-1] + 1)):
        return f"{listed[0]}-{listed[-1]}"
    return ",".join(map(str, listed))


def command(
    methods: Sequence[str], *, like: RunRecord | None, seeds: Iterable[int], where: Where
) -> str:
    """Return the command that would make runs of methods.

    Args:
        methods: specs or chains, which may hold grids.
        like: a run of the same setting, whose options are taken over.
        seeds: of the runs.
        where: what is known without such a run.
    """
    options = _options(like.command) if like else {}
    if not options:
        given = {"--task": where.task, "--backbone": where.backbone, "--preset": where.preset}
        options = {name: value for name, value in given.items() if value}
        options.setdefault("--task", "TASK")
        if where.root != Path("results/runs"):
            options["--out"] = str(where.root)
    options = {k: v for k, v in options.items() if k not in ("--method", "--seed", "--seeds")}
    words = ["medbench", "run", "--method", ",".join(methods)]
    words += [word for pair in options.items() for word in pair]
    if set(seeds) - {0}:
        words += ["--seeds", ranges(seeds)]
    return shlex.join(words)


def method_asked(one: RunRecord) -> str:
    """Return a run's method as it was asked for, with the paths that tables leave out."""
    return _options(one.command).get("--method", one.method)


def _options(asked: str) -> dict[str, str]:
    words = shlex.split(asked)
    if words[:2] != ["medbench", "run"]:
        return {}
    # Flags stand without a value; none of them says what to run.
    pairs = zip(words, [*words[1:], ""], strict=True)
    return {name: value for name, value in pairs if name.startswith("--") and value[:2] != "--"}


def _setting(one: RunRecord) -> dict[str, Any]:
    """Return what makes runs comparable: all but the methods, and the texts of plugins' files."""
    identity = one.identity
    kept: dict[str, Any] = {
        "engine": identity.get("engine"),
        "task": _without_source(identity.get("task")),
        "backbone": _without_source(identity.get("backbone")),
        "preset": one.preset,
        "limit": one.limit,
        "samples_left_out": one.missing_images,
        "data": one.edition or "official",
    }
    return kept


def _without_source(part: Any) -> Any:
    if not isinstance(part, Mapping):
        return part
    return {k: v for k, v in cast("Mapping[str, Any]", part).items() if k != "source"}
