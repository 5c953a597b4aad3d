"""A comparison as lines of text, none longer than 100 letters."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from medbench import few_images
from medbench.counting import counted

if TYPE_CHECKING:
    from medbench.comparing.compare import Compared, Comparison, SideFacts
    from medbench.comparing.flips import Count, Flipped, Flips

_WIDTH = 100
_MISSING = "–"
_INDENT = " " * 6
_TESTS = {"mcnemar": "McNemar", "bootstrap": "bootstrap"}
# Of gaps seed by seed that stand beside each other, and letters of a text that is cut.
_SEEDS_A_LINE = 10
_LONGEST = 500


def as_text(found: Comparison) -> Iterator[str]:
    """Yield the lines of a comparison."""
    yield from _head(found)
    yield ""
    yield from _aligned(_score_lines(found.metrics))
    if any(one.test for one in found.metrics):
        yield ""
        yield from _aligned(_test_lines(found.metrics), left=2)
    yield from _seed_tables(found.metrics)
    yield ""
    yield from _legend(found)
    for flips in found.flips:
        yield ""
        yield from _flips(flips, found)


def _head(found: Comparison) -> Iterator[str]:
    yield (
        f"{found.task}, preset {found.preset}: "
        f"{counted(found.samples, 'question')} on {counted(found.images, 'image')}"
    )
    if found.partial:
        limit = f" of --limit {found.limit}" if found.limit else ""
        yield f"PARTIAL: both are over the same part{limit} of the samples only."
    if found.about:
        yield from _wrapped(f"{found.edition}: {found.about}")
    width = max(len(side.name) for side in (found.a, found.b))
    for label, side in (("A", found.a), ("B", found.b)):
        yield from _wrapped(f"{label}  {side.name:<{width}}  on {_made_of(side)}", "   ")
    for path, (one, other) in found.differs.items():
        yield from _wrapped(f"also differs: {path}: {one} or {other}")
    for why in dict.fromkeys(found.left_out.values()):
        names = ", ".join(name for name, reason in found.left_out.items() if reason == why)
        yield from _wrapped(f"not compared, {why}: {names}")


def _made_of(side: SideFacts) -> str:
    seeds = ", ".join(map(str, side.seeds))
    word = "seed" if len(side.seeds) == 1 else "seeds"
    return f"{side.backbone}, {word} {seeds}: {', '.join(side.keys)}"


def _score_lines(metrics: Sequence[Compared]) -> Iterator[list[str]]:
    yield ["", "A", "B", "B - A", "95 % interval", "in questions"]
    for one in metrics:
        test = one.test
        interval = _MISSING
        if test is not None and test.low is not None and test.high is not None:
            interval = f"[{_points(test.low)}, {_points(test.high)}]"
        yield [
            one.metric,
            _mean(one.a, one.a_spread),
            _mean(one.b, one.b_spread),
            _points(one.gap),
            interval,
            f"{_questions(one)} of {one.n}" if one.questions is not None else _MISSING,
        ]


def _test_lines(metrics: Sequence[Compared]) -> Iterator[list[str]]:
    tests = [(one, one.test) for one in metrics if one.test is not None]
    several = any(test.holm is not None for _, test in tests)
    single = any(test.independent is not None for _, test in tests)
    heads = [*(["Holm"] if several else []), *(["independent"] if single else [])]
    yield ["", "test", "p", *heads, "smallest gap", ""]
    for one, test in tests:
        line = [one.metric, _TESTS[test.name], _chance(test.p)]
        line += [_chance(test.holm)] if several else []
        line += [_chance(test.independent)] if single else []
        line.append(_MISSING if test.smallest is None else f"{100 * test.smallest:.2f}")
        questions = test.smallest_questions
        line.append("" if questions is None else f"{questions:.1f} of {one.n}")
        yield line


def _seed_tables(metrics: Sequence[Compared]) -> Iterator[str]:
    """Yield the gaps seed by seed, some seeds beside each other."""
    seeds = metrics[0].seeds
    # One run stands against each of the others, and theirs are the seeds that tell them apart.
    told = [one.a_seed for one in seeds]
    if len({*told}) < len(told):
        told = [one.b_seed for one in seeds]
    for start in range(0, len(seeds), _SEEDS_A_LINE):
        end = start + _SEEDS_A_LINE
        lines = [["B - A by seed", *map(str, told[start:end]), "same sign"]]
        for one in metrics:
            agree = _MISSING if one.same_sign is None else f"{one.same_sign} of {len(seeds)}"
            gaps = (_points(seed.gap) for seed in one.seeds[start:end])
            lines.append([one.metric, *gaps, agree])
        yield ""
        yield from _aligned(lines)


def _legend(found: Comparison) -> Iterator[str]:
    tests = [one.test for one in found.metrics if one.test is not None]
    several = any(one.a_spread is not None or one.b_spread is not None for one in found.metrics)
    spread = ", ± standard deviation between seeds" if several else ""
    yield f"A and B in percent{spread}; B - A in points, interval over images."
    intervals = (one for one in found.metrics if one.test and one.test.low is not None)
    yield from few_images.warnings(one.groups for one in intervals)
    if tests:
        yield "p: chance of a gap at least as wide if the methods were alike, by images."
    if any(test.name == "mcnemar" for test in tests):
        yield "McNemar: exact; what flipped on an image could as well have flipped the other way."
    if any(test.name == "bootstrap" for test in tests):
        yield "bootstrap: images are drawn again; for values that are not only 0 and 1."
    if tests and several:
        yield "Both are of these seeds' answers; what other seeds would add is told by the ± alone."
    tested = sum(test.holm is not None for test in tests)
    if tested:
        yield f"Holm: p corrected for {tested} metrics."
    if any(test.independent is not None for test in tests):
        yield "independent: p of McNemar's test if no two questions shared an image."
    if any(test.smallest is not None for test in tests):
        yield "smallest gap: in points; about 3 of 4 such comparisons would find it (p < 0.05)."
    for one in found.metrics:
        if one.note:
            yield from _wrapped(f"{one.metric} {one.note}.")


def _flips(flips: Flips, found: Comparison) -> Iterator[str]:
    over = ""
    if found.pairs > 1:
        how = "of one seed" if found.paired_by == "seed" else "of runs"
        over = f" (means over {found.pairs} pairs {how})"
    number = _Numbers(found.pairs)
    total = flips.total
    yield from _wrapped(
        f"{flips.metric}: {number(total.lost)} lost (A right, B wrong), "
        f"{number(total.won)} won, of {total.n}{over}"
    )
    lines = [["", "n", "A right", "B right", "lost", "won"]]
    for field, counts in flips.by.items():
        lines.append([field.replace("_", " "), *[""] * 5])
        lines += [_count_line(count, number) for count in counts]
    yield from _aligned(lines)
    if not flips.samples:
        return
    yield ""
    shown = len(flips.samples)
    first = ", the most certain first" if found.pairs > 1 else ""
    rest = f", {shown} of {flips.flipped} (--samples)" if shown < flips.flipped else ""
    yield f"Flipped{first}{rest}:"
    if found.withheld:
        yield "(by their line in samples.jsonl; the task is restricted, see --show-restricted)"
    for one in flips.samples:
        yield from _flipped(one, found.pairs)


def _count_line(count: Count, number: Callable[[float], str]) -> list[str]:
    value = textwrap.shorten(_plain(count.value), 40, placeholder="…") or "(none)"
    numbers = map(number, (count.a_right, count.b_right, count.lost, count.won))
    return [f"  {value}", str(count.n), *numbers]


def _flipped(one: Flipped, pairs: int) -> Iterator[str]:
    often = f" {one.pairs}/{pairs}" if pairs > 1 else ""
    if one.id is None:
        yield f"{one.change}{often}  sample {one.place}"
        return
    yield f"{one.change}{often}  {_plain(one.id)}"
    yield from _wrapped(_INDENT + _shortened(one.question or ""), _INDENT)
    texts = {"gold": one.gold, "A": one.a, "B": one.b}
    said = [f"{who}: {_shortened(text or '') or '(nothing)'}" for who, text in texts.items()]
    together = _INDENT + "   ".join(said)
    if len(together) <= _WIDTH:
        yield together
        return
    for line in said:
        yield from _wrapped(_INDENT + line, _INDENT + "  ")


class _Numbers:
    """Writes counts: whole ones, or means with one decimal where they are means over pairs."""

    def __init__(self, pairs: int) -> None:
        self._decimals = 1 if pairs > 1 else 0

    def __call__(self, count: float) -> str:
        return f"{count:.{self._decimals}f}"


def _aligned(lines: Iterator[list[str]] | Sequence[list[str]], left: int = 1) -> Iterator[str]:
    """Yield lines of cells in columns, the first ones from the left and the others to the right."""
    table = list(lines)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = [
            cell.ljust(width) if at < left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells)


def _mean(value: float, spread: float | None) -> str:
    return f"{100 * value:.2f}" + (f" ± {100 * spread:.2f}" if spread is not None else "")


def _points(fraction: float) -> str:
    return _signed(100 * fraction, 2)


def _questions(one: Compared) -> str:
    assert one.questions is not None
    single = one.a_spread is None and one.b_spread is None
    return _signed(one.questions, 0 if single else 1)


def _signed(number: float, decimals: int) -> str:
    """Write a number with its sign; one that rounds to zero has none."""
    text = f"{number:+.{decimals}f}"
    return text if float(text) else text[1:]


def _chance(p: float | None) -> str:
    if p is None:
        return _MISSING
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"


def _shortened(text: str) -> str:
    plain = _plain(text)
    return plain if len(plain) <= _LONGEST else f"{plain[:_LONGEST]}…"


def _plain(text: str) -> str:
    """Return a text in one line, without what would move a terminal's cursor."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent=indent, break_on_hyphens=False)
