"""What an audit found out, as one page for readers: problems first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from medbench.counting import counted
from medbench.data.audit import Audit, Shared, SplitAudit
from medbench.data.audit_finding import Finding


def page(audit: Audit) -> Iterator[str]:
    """Yield the lines of the page."""
    verdict = counted(len(audit.problems), "problem") if audit.problems else "good"
    if audit.warnings:
        verdict += f", {counted(len(audit.warnings), 'warning')}"
    yield f"{audit.task}: {verdict}"
    if audit.data:
        yield f"  {audit.data}"
    yield from _findings("problems", audit.problems)
    yield from _findings("warnings", audit.warnings)
    yield from _splits(audit.splits)
    yield from _images(audit)
    lines = [line for shared in audit.shared for line in _shared(shared)]
    if audit.shared:
        yield from _section("in two splits", lines or ["nothing"])


def _findings(heading: str, findings: Sequence[Finding]) -> Iterator[str]:
    lines: list[str] = []
    for finding in findings:
        first = f"First: {finding.first}" if finding.first else ""
        lines.append(finding.what)
        lines += [f"  {line}" for line in (finding.why, first, finding.do) if line]
    if lines:
        yield from _section(heading, lines)


def _splits(splits: Sequence[SplitAudit]) -> Iterator[str]:
    if not splits:
        return
    kinds = list(dict.fromkeys(kind for split in splits for kind in split.kinds))
    rows = [("split", "edition", "questions", *kinds, "ids", "texts", "images")]
    for split in splits:
        count = str(split.rows)
        if split.expected_rows is not None:
            count += f" of {split.expected_rows}"
        rows.append(
            (
                split.name,
                split.edition,
                count,
                *(str(split.kinds.get(kind, 0)) for kind in kinds),
                split.ids.verdict,
                split.questions.verdict,
                split.images.verdict,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    for note in dict.fromkeys(split.note for split in splits if split.note):
        lines.append(f"{', '.join(one.name for one in splits if one.note == note)}: {note}")
    lines += [
        f"{split.name}: the task's parameters leave questions out."
        for split in splits
        if not split.whole and split.expected_rows not in (None, split.rows)
    ]
    lines += [
        f"{split.name}: {counted(split.empty_answers, 'empty answer')}."
        for split in splits
        if split.empty_answers
    ]
    yield from _section("splits", lines)


def _images(audit: Audit) -> Iterator[str]:
    lines: list[str] = []
    if audit.images:
        lines.append(f"{sum(audit.modes.values())} of {audit.images} open")
    if audit.modes:
        lines.append(f"formats: {_listed(audit.formats)}")
        lines.append(f"modes: {_listed(audit.modes)}")
    if audit.drawn:
        lines.append(f"{counted(audit.drawn, 'question')} about images that the task draws")
    if audit.with_region:
        different = f", {audit.regions} different ones computed" if audit.regions else ""
        lines.append(f"{counted(audit.with_region, 'question')} with a region{different}")
    if lines:
        yield from _section("images", lines)


def _shared(shared: Shared) -> Iterator[str]:
    for what, how, (both, total) in (
        ("images", "by id", shared.groups),
        ("images", "by content, of those that open", shared.contents),
        ("questions", "with the same answer", shared.questions),
    ):
        if both:
            yield f"{both} of {total} {what} of {shared.later} are in {shared.earlier} too ({how})"


def _section(heading: str, lines: Sequence[str]) -> Iterator[str]:
    yield ""
    yield heading
    yield from (f"  {line}" for line in lines)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in counts.items())
