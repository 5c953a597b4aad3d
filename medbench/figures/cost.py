"""Score against cost, for all methods of one task and backbone: the numbers, then the drawing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medbench import canonical, plugins, spec, store
from medbench.errors import UserError
from medbench.figures import runs, style
from medbench.figures.labels import Box, place
from medbench.figures.layout import NAMES
from medbench.items import Items, read_items
from medbench.store import RunRecord
from medbench.tables.cells import pool
from medbench.tables.model import Cell

Kind = Literal["seconds", "forwards", "memory"]
KINDS: tuple[Kind, ...] = ("seconds", "forwards", "memory")
# Methods that do not see the image of the question: their scores are lines to be above.
_CONTROLS = ("blind", "shuffled")
_FAMILIES = ("model as it is", "LoRA, then …", "tuned otherwise")
_LOOKS: dict[str, dict[str, Any]] = {
    _FAMILIES[0]: {"marker": "o", "markersize": 5, "color": style.BLUE},
    _FAMILIES[1]: {"marker": "s", "markersize": 4.5, "color": style.VERMILLION},
    _FAMILIES[2]: {"marker": "^", "markersize": 5.5, "color": style.INK},
}
_INTERVAL: dict[str, Any] = {"linewidth": 0.6, "alpha": 0.55, "zorder": 2}
_FRONT: dict[str, Any] = {"color": style.GREEN, "linewidth": 1.3, "linestyle": "-", "zorder": 1.5}
_LEADER = {"arrowstyle": "-", "linewidth": 0.4, "color": style.GREY, "shrinkA": 0, "shrinkB": 2}
_LONGEST = 18  # letters of a name beside its dot
_NARROW = 3.0  # a log axis whose ends are closer than that gets the ticks of a plain one
_SHORT = 0.8  # a leader is drawn to names further away than that share of their height


@dataclass(frozen=True)
class Dot:
    """A method.

    Attributes:
        label: its name; family: one of the three that have a marker of their own.
        cost: as on the axis; cell: its score.
        best: whether no other method is both cheaper and better.
    """

    label: str
    family: str
    cost: float
    cell: Cell
    best: bool = False


@dataclass(frozen=True)
class Control:
    """A method without the question's image, drawn as a line."""

    label: str
    cell: Cell


@dataclass(frozen=True)
class Cost:
    """What stands in the figure.

    Attributes:
        dots: the cheapest first.
        left_out: a line for each method that has runs and is not drawn.
    """

    title: str
    x_label: str
    y_label: str
    dots: tuple[Dot, ...]
    controls: tuple[Control, ...]
    note: str
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Costs:
    """What answering cost a method, over all its seeds; None where rows do not tell."""

    seconds: float | None
    forwards: float | None
    memory: float | None


def arrange(
    records: Sequence[RunRecord],
    metric: str,
    kind: Kind = "seconds",
    read: Callable[[RunRecord], Items] | None = None,
) -> Cost:
    """Return what stands in the figure.

    Args:
        records: finished runs of the task, backbone and preset asked for.
        metric: full name.
        kind: of the cost.
        read: gives a run's answers as numbers.

    Raises:
        UserError: the runs may not stand beside each other, were made on different machines, or
            none has the metric.
    """
    methods = _by_method(records)
    scored = {name: same for name, same in methods.items() if _has(same, metric)}
    if not scored:
        raise _unscored(records, metric)
    runs.check_alike([one for same in scored.values() for one in same])
    scored = {name: runs.by_seed(same, name) for name, same in scored.items()}
    controls = {name: same for name, same in scored.items() if _ends_in(name, _CONTROLS)}
    drawn = {name: same for name, same in scored.items() if name not in controls}
    left_out = [f"Left out, no {metric}: {name}" for name in methods if name not in scored]
    reading = read or _read
    costs = {name: _cost([reading(one) for one in same]) for name, same in drawn.items()}
    values = {name: getattr(one, kind) for name, one in costs.items()}
    unknown = [name for name, value in values.items() if value is None or value <= 0]
    left_out += [f"Left out, its lines do not tell its {kind}: {name}" for name in unknown]
    known = {name: value for name, value in values.items() if name not in unknown}
    if not known:
        raise UserError(
            f"no run tells its {kind}",
            "Answers of other programs, and old runs, have none.",
            f"Take another cost: --cost {' or '.join(one for one in KINDS if one != kind)}",
        )
    if kind != "forwards":
        _check_machine({name: drawn[name] for name in known}, kind)
    base = known.get(_greedy(known), 0.0)
    unit = base or (2**30 if kind == "memory" else 1.0)
    dots = [
        Dot(_label(name), _family(name), value / unit, pool(drawn[name], metric))
        for name, value in known.items()
    ]
    lines = [Control(name, pool(same, metric)) for name, same in controls.items()]
    used = [one for name in known for one in drawn[name]]
    short = _shortened([_label(name) for name in known])
    return Cost(
        title=f"{NAMES.get(metric, metric)} against cost",
        x_label=_x_label(kind, relative=bool(base)),
        y_label=f"{metric}, percent (n = {dots[0].cell.n}, {dots[0].cell.groups} images)",
        dots=tuple(_with_front([replace(dot, label=short[dot.label]) for dot in dots])),
        controls=tuple(sorted(lines, key=lambda one: -one.cell.value)),
        note=_note({name: drawn[name] for name in known}, used, kind, short),
        left_out=tuple(left_out),
    )


def _by_method(records: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Return the runs of each method, by the shortest of the names it goes by."""
    found: defaultdict[str, list[RunRecord]] = defaultdict(list)
    for one in records:
        found[canonical.method(one.method, one.task)].append(one)
    named = {min((one.method for one in same), key=_length): same for same in found.values()}
    return dict(sorted(named.items()))


def _length(name: str) -> tuple[int, str]:
    return len(name), name


def _has(same: Sequence[RunRecord], metric: str) -> bool:
    return all(one.scores.get(metric, {}).get("value") is not None for one in same)


def _unscored(records: Sequence[RunRecord], metric: str) -> UserError:
    known = list(dict.fromkeys(name for one in records for name in one.scores))
    if not known:
        return UserError(
            "no finished runs to draw",
            "There are none of this task, backbone and preset that have scores.",
            "See: medbench list runs",
        )
    return UserError(
        f"no run has a score named '{metric}'",
        plugins.close(metric, known),
        f"There are: {', '.join(known)}.",
    )


def _read(one: RunRecord) -> Items:
    return read_items(one.folder, restricted=one.restricted)


def _cost(answers: Sequence[Items]) -> _Costs:
    """Return the cost of a question, of a new token, and the most memory, as tables tell them."""
    seconds, forwards, tokens, peaks = (
        np.concatenate([items.costs[name] for items in answers])
        for name in ("seconds", "forwards", "tokens", "peak_bytes")
    )
    each = forwards.sum() / tokens.sum() if tokens.sum() > 0 else np.nan
    return _Costs(_known(seconds.mean()), _known(each), _known(peaks.max(initial=0)))


def _known(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def _check_machine(methods: Mapping[str, Sequence[RunRecord]], kind: Kind) -> None:
    """Make sure that all runs were made on machines that tell the same of themselves.

    Raises:
        UserError: they were not; their seconds and bytes would compare machines.
    """
    first: tuple[str, RunRecord, dict[str, Any]] | None = None
    for name, same in methods.items():
        for one in same:
            for made in _machines(one):
                if first is None:
                    first = name, one, made
                told = [
                    f"{key}: {first[2].get(key)} or {made.get(key)}"
                    for key in dict.fromkeys((*first[2], *made))
                    if first[2].get(key) != made.get(key)
                ]
                if told:
                    raise UserError(
                        f"the {kind} of {first[0]} and {name} are of different machines",
                        f"{'; '.join(told)}; see {first[1].folder} and {one.folder}.",
                        "Take --cost forwards, which no machine moves, or runs of one machine.",
                    )


def _machines(one: RunRecord) -> list[dict[str, Any]]:
    """Return what a run says of each machine that it was made on, and how it used it."""
    continued = store.read_run(one.folder).get("continued", []) if one.folder.is_dir() else []
    parts = [one.hardware, *(part["hardware"] for part in continued if part.get("hardware"))]
    return [
        {
            # A newer kernel is no other machine.
            **{key: str(value) for key, value in part.items() if key != "system"},
            "batch size": str(one.identity.get("batch_size")),
        }
        for part in parts
    ]


def _greedy(names: Mapping[str, Any]) -> str:
    return next((name for name in names if name == "greedy"), "")


def _ends_in(name: str, decoders: Sequence[str]) -> bool:
    return spec.parse_chain(name)[-1].name in decoders


def _family(name: str) -> str:
    first = spec.parse_chain(name)[0].name
    if first == "lora":
        return _FAMILIES[1]
    try:
        tuned = plugins.get("method", first).role == "tuner"
    except UserError:  # an imported answer's method may have any name
        tuned = False
    return _FAMILIES[2] if tuned else _FAMILIES[0]


def _label(name: str) -> str:
    """Return a name without the tuner that its marker tells."""
    first, *rest = spec.parse_chain(name)
    return "+".join(map(str, rest)) if rest and str(first) == "lora" else name


def _with_front(dots: Sequence[Dot]) -> list[Dot]:
    """Return dots from the cheapest on; those are best than which none is cheaper and better."""
    found: list[Dot] = []
    highest = -np.inf
    for dot in sorted(dots, key=lambda one: (one.cost, -one.cell.value, one.label)):
        best = dot.cell.value > highest
        highest = max(highest, dot.cell.value)
        found.append(replace(dot, best=best))
    return found


def _x_label(kind: Kind, *, relative: bool) -> str:
    words = {
        "seconds": "seconds a question",
        "forwards": "tokens through the model for each new one",
        "memory": "most memory held",
    }[kind]
    absolute = {"seconds": ", seconds", "forwards": "", "memory": ", GiB"}[kind]
    return f"{words}, as multiples of greedy's" if relative else f"{words}{absolute}"


def _shortened(labels: Sequence[str]) -> dict[str, str]:
    """Return labels with long brackets numbered; what they hold stands below the figure."""
    marks: dict[str, str] = {}
    found: dict[str, str] = {}
    for label in labels:
        head, bracket, inside = label.partition("[")
        if bracket and len(label) > _LONGEST:
            found[label] = f"{head}[{marks.setdefault(inside, str(len(marks) + 1))}]"
        else:
            found[label] = label
    return found


def _note(
    methods: Mapping[str, Sequence[RunRecord]],
    used: Sequence[RunRecord],
    kind: Kind,
    short: Mapping[str, str],
) -> str:
    seeds = {name: [one.seed for one in same] for name, same in methods.items()}
    lines = [runs.about(used), runs.seeds_told(seeds), "Bars: 95 % interval over images."]
    if kind != "forwards":
        made = {key: value for key, value in used[0].hardware.items() if key != "system"}
        told = ", ".join(f"{key} {value}" for key, value in made.items())
        lines.append(f"Measured on one machine ({told}), batch size {_batch(used)}.")
    lines += [f"{mark}: {label}." for label, mark in short.items() if mark != label]
    return " ".join(lines)


def _batch(used: Sequence[RunRecord]) -> str:
    return str(used[0].identity.get("batch_size", "unknown"))


def draw(figure: Cost, path: Path) -> None:
    """Draw a figure to a file.

    Raises:
        UserError: matplotlib is not installed.
    """
    with style.styled():
        canvas = style.new_figure(style.PAGE, 4.4)
        ax, strip = _axes(canvas, figure)
        front = [dot for dot in figure.dots if dot.best]
        ax.plot([dot.cost for dot in front], [100 * dot.cell.value for dot in front], **_FRONT)
        for dot in figure.dots:
            _draw_dot(ax, dot)
        for number, control in enumerate(figure.controls):
            _draw_control(strip, control, number)
        style.head(canvas, figure.title, _legend(figure))
        style.below(canvas, figure.note)
        _draw_names(canvas, ax, figure, controls_here=strip is ax)
        style.save(canvas, path)


def _axes(canvas: Any, figure: Cost) -> tuple[Any, Any]:
    """Return the axes of the methods and those of the controls, which may be the same.

    Controls far below would press all methods into a line; they get a strip of their own.
    """
    ends = [
        100 * end
        for dot in figure.dots
        for end in (dot.cell.low, dot.cell.high, dot.cell.value)
        if end is not None
    ]
    low, high = min(ends), max(ends)
    room = 0.06 * (high - low) or 1.0
    controls = [100 * control.cell.value for control in figure.controls]
    if not controls or min(controls) > low - (high - low) / 2:
        ax = canvas.subplots()
        _scale_x(ax, figure)
        ax.set_xlabel(figure.x_label)
        ax.set_ylabel(figure.y_label)
        ax.set_ylim(min([low, *controls]) - room, max([high, *controls]) + room)
        return ax, ax
    ax, strip = canvas.subplots(2, 1, sharex=True, height_ratios=(8, 1))
    _scale_x(strip, figure)
    strip.set_xlabel(figure.x_label)
    ax.set_ylabel(figure.y_label)
    ax.set_ylim(low - room, high + room)
    ax.spines["bottom"].set_visible(False)
    ax.tick_params(axis="x", length=0)
    around = max(2.0, max(controls) - min(controls))
    strip.set_ylim(min(controls) - around, max(controls) + around)
    strip.set_yticks([])  # their names tell their values
    # Slashes where the axis is broken.
    slash = {
        "marker": [(-1, -0.6), (1, 0.6)],
        "markersize": 5,
        "color": style.INK,
        "clip_on": False,
    }
    ax.plot([0], [0], transform=ax.transAxes, **slash)
    strip.plot([0], [1], transform=strip.transAxes, **slash)
    return ax, strip


def _scale_x(ax: Any, figure: Cost) -> None:
    from matplotlib.ticker import (  # pyright: ignore[reportMissingImports]
        FuncFormatter,
        LogLocator,
        MaxNLocator,
        NullLocator,
    )

    ax.set_xscale("log")
    ends = figure.dots[0].cost, figure.dots[-1].cost
    # Room for names on both sides, and a decade's worth of it where all cost the same.
    wide = max(ends[1] / ends[0], 2.0) ** 0.08
    ax.set_xlim(ends[0] / wide, ends[1] * wide)
    plain = MaxNLocator(7, steps=[1, 2, 5, 10])
    few = ends[1] / ends[0] < _NARROW
    ax.xaxis.set_major_locator(plain if few else LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(_tick))


def _tick(value: float, _: int | None = None) -> str:
    return f"{value:g}"


def _draw_dot(ax: Any, dot: Dot) -> None:
    cell, look = dot.cell, _LOOKS[dot.family]
    if cell.low is not None and cell.high is not None:
        ends = [[100 * (cell.value - cell.low)], [100 * (cell.high - cell.value)]]
        ax.errorbar(dot.cost, 100 * cell.value, ends, color=look["color"], **_INTERVAL)
    ax.plot(dot.cost, 100 * cell.value, linestyle="none", zorder=4, **look)


def _draw_control(ax: Any, control: Control, number: int) -> None:
    value = 100 * control.cell.value
    pattern = ((0, (6, 3)), (0, (2, 2)), (0, (6, 2, 1, 2)))[number % 3]
    ax.axhline(value, color=style.GREY, linewidth=1, linestyle=pattern, zorder=1)
    # The highest has its name above it, the others below, since two may be close.
    above = number == 0
    ax.annotate(
        f"{control.label} {value:.1f}",
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(0, 2 if above else -2),
        textcoords="offset points",
        ha="right",
        va="bottom" if above else "top",
        fontsize=style.SMALL,
        color=style.GREY,
    )


def _draw_names(canvas: Any, ax: Any, figure: Cost, *, controls_here: bool) -> None:
    """Write names beside their dots; a thin line leads to those that had to move away."""
    canvas.draw_without_rendering()  # places the axes
    renderer, pixels = canvas.canvas.get_renderer(), canvas.dpi / 72
    points = [tuple(ax.transData.transform((d.cost, 100 * d.cell.value))) for d in figure.dots]
    names = [ax.text(0, 0, dot.label, fontsize=style.SMALL) for dot in figure.dots]
    sizes: list[tuple[float, float]] = []
    for name in names:
        box = name.get_window_extent(renderer)
        sizes.append((box.width, box.height))
        name.remove()
    frame = ax.get_window_extent(renderer)
    inside = Box(frame.x0 + 2, frame.y0 + 2, frame.x1, frame.y1)
    taken = _taken(ax, figure, points, pixels)
    if controls_here:
        taken += _names_of_controls(ax, figure, pixels)
    chosen = place(points, sizes, inside=inside, taken=taken)
    for dot, (x, y), box, (_, height) in zip(figure.dots, points, chosen, sizes, strict=True):
        away = max(box.left - x, x - box.right, box.bottom - y, y - box.top) > _SHORT * height
        written = ax.annotate(
            dot.label,
            (dot.cost, 100 * dot.cell.value),
            xytext=((box.left - x) / pixels, (box.bottom - y) / pixels),
            textcoords="offset points",
            fontsize=style.SMALL,
            color=_LOOKS[dot.family]["color"],
            bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.3},
            arrowprops={**_LEADER, "relpos": _nearest(box, x, y)} if away else None,
            zorder=3,  # below the markers: a name's ground hides intervals, and no marker
        )
        written.set_in_layout(False)  # the axes stay where the names were measured


def _nearest(box: Box, x: float, y: float) -> tuple[float, float]:
    """Return the point of a box that is nearest to another point, as shares of its sides."""
    across = (x - box.left) / (box.right - box.left)
    up = (y - box.bottom) / (box.top - box.bottom)
    return min(max(across, 0.0), 1.0), min(max(up, 0.0), 1.0)


def _taken(
    ax: Any, figure: Cost, points: Sequence[tuple[float, float]], pixels: float
) -> list[Box]:
    """Return what names must leave free: markers, intervals, and the controls' names."""
    found: list[Box] = []
    for (x, y), dot in zip(points, figure.dots, strict=True):
        found.append(Box(x - 3 * pixels, y - 3 * pixels, x + 3 * pixels, y + 3 * pixels))
        if dot.cell.low is not None and dot.cell.high is not None:
            low, high = (
                ax.transData.transform((dot.cost, 100 * end))[1]
                for end in (dot.cell.low, dot.cell.high)
            )
            found.append(Box(x - 0.25 * pixels, low, x + 0.25 * pixels, high))
    return found


def _names_of_controls(ax: Any, figure: Cost, pixels: float) -> list[Box]:
    found: list[Box] = []
    right = ax.get_window_extent().x1
    for control in figure.controls:
        y = ax.transData.transform((figure.dots[0].cost, 100 * control.cell.value))[1]
        found.append(Box(right - 45 * pixels, y, right, y + 10 * pixels))
    return found


def _legend(figure: Cost) -> list[tuple[Any, str]]:
    from matplotlib.lines import Line2D  # pyright: ignore[reportMissingImports]

    families = {dot.family for dot in figure.dots}
    entries = [
        (Line2D([], [], linestyle="none", **_LOOKS[family]), family)
        for family in _FAMILIES
        if family in families
    ]
    entries.append((Line2D([], [], **_FRONT), "none is cheaper and better"))
    return entries
