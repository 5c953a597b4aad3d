"""Metrics: whether what they compute with is here, and whether they give their known values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from medbench.doctor.fetch import SECTION as FETCHING
from medbench.doctor.fetch import fetch
from medbench.doctor.finding import Finding, one_line, refused
from medbench.errors import UnavailableError, UserError
from medbench.metric import Setting
from medbench.scoring import check_golden, load_metric

HEADING = "metrics"


def check_metrics(
    names: Iterable[str], setting: Setting, *, heading: str = HEADING, wanted: bool = True
) -> Iterator[Finding]:
    """Let each metric answer its golden examples: what it needs must not be missed at the end.

    Args:
        names: specs of metrics.
        setting: where they compute.
        wanted: whether one that lacks something stands in the way; else the others do without.
    """
    good: list[str] = []
    lacking: dict[tuple[str, str], list[str]] = {}
    for name in names:
        try:
            metric = load_metric(name)
            check_golden(metric, setting)
            good.append(metric.full_name)
        except UnavailableError as error:
            lacking.setdefault((error.what, error.do), []).append(name)
        except UserError as error:
            yield refused(heading, error)
    if good:
        yield Finding(heading, "good", f"metrics that gave their known values: {', '.join(good)}")
    for (what, do), without in lacking.items():
        told = f"{', '.join(without)} cannot be computed: {what}"
        yield Finding(heading, "problem" if wanted else "note", told, do)


def fetch_metrics(names: Iterable[str]) -> Iterator[Finding]:
    """Fetch what metrics compute with and is not here: files of the hub, data of NLTK."""
    wanted: dict[str, set[str]] = {}
    for name in names:
        metric = load_metric(name)
        if metric.published:
            for source, files, _ in metric.downloads:
                wanted.setdefault(source, set()).update(files.split())
    for source, files in wanted.items():
        if source == "nltk":
            yield _fetch_nltk(sorted(files))
        else:
            yield from fetch(source, only=tuple(sorted(files)))


def _fetch_nltk(names: list[str]) -> Finding:
    try:
        import nltk  # pyright: ignore[reportMissingImports]
    except ImportError:
        what = "NLTK's data could not be fetched: NLTK is not installed"
        return Finding(FETCHING, "problem", what, 'pip install "medbench[report]"')
    try:
        for name in names:
            nltk.download(name, quiet=True, raise_on_error=True)
    except Exception as error:  # of the network, of the disk, of its own
        what = f"NLTK's data {', '.join(names)} could not be fetched. {one_line(error)}"
        return Finding(FETCHING, "problem", what, "Run this again.")
    return Finding(FETCHING, "good", f"NLTK's data: {', '.join(names)}")
