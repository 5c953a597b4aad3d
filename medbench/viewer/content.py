"""All that the page shows, as plain data: what the list needs at once, and the rest in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from medbench.errors import UserError
from medbench.figures.placement import Fit
from medbench.metrics.attention import decode_mask
from medbench.restricted import check_texts
from medbench.rows import Row
from medbench.verdict import RULES
from medbench.viewer import maps, pictures
from medbench.viewer.chosen import Chosen
from medbench.viewer.head import head
from medbench.viewer.joined import (
    TROUBLES,
    VERDICTS,
    Joined,
    column,
    fields,
    join,
    number,
    written,
    yardsticks,
)
from medbench.viewer.outline import outline
from medbench.viewer.pictures import Found, box, other_image

# Pictures, and samples, that the page reads together when one of them is shown. A page of the list
# sorted anyhow needs pictures from everywhere.
_PICTURES, _DETAILS = 8, 20


@dataclass(frozen=True)
class Content:
    """What stands in the page.

    Attributes:
        title: of the page.
        index: what the list shows, filters and sorts by, ready for `json.dumps`.
        samples, found, withheld: what the parts are made of.
        private: whether texts and images of a restricted task are in it.
        told: what is left out, in lines.
    """

    title: str
    index: dict[str, Any]
    samples: Sequence[Joined]
    found: Found
    withheld: bool
    private: bool
    told: tuple[str, ...]

    def parts(self) -> Iterator[tuple[str, list[Any]]]:
        """Yield the names of parts and what is in them: pictures, and details of samples."""
        for at in range(0, len(self.found.pictures), _PICTURES):
            shown = self.found.pictures[at : at + _PICTURES]
            yield (
                f"pictures-{at // _PICTURES}",
                [[one.width, one.height, one.kind, one.data] for one in shown],
            )
        for at in range(0, len(self.samples), _DETAILS):
            details = [self._detail(one) for one in self.samples[at : at + _DETAILS]]
            yield f"details-{at // _DETAILS}", details

    def _detail(self, sample: Joined) -> dict[str, Any]:
        """Return what is shown of a sample when it is opened."""
        answers = [
            None if row is None else self._answer(sample, row, at)
            for at, row in enumerate(sample.answers)
        ]
        if self.withheld:
            return {"answers": answers}
        row = sample.any
        return {
            "meta": [["image", row["group"]], *written(row.get("meta", {}))],
            "region": self._region(sample),
            "answers": answers,
        }

    def _answer(self, sample: Joined, row: Row, at: int) -> dict[str, Any]:
        """Return what is shown of an answer; `at` is the run's place."""
        scores = row.get("scores", {})
        known: dict[str, Any] = {
            "stop": row.get("stop"),
            "tokens": len(row["tokens"]) if "tokens" in row else None,
            "seconds": row.get("seconds"),
            "forwards": row.get("forwards"),
            "peak_bytes": row.get("peak_bytes"),
            "scores": [[name, number(value)] for name, value in scores.items()],
        }
        if self.withheld:
            return known
        known |= {"prompt": row.get("prompt"), "attention": maps.attention(row)}
        if "steps" in row:
            known["pieces"] = row["steps"]["pieces"]
        if sample.id in self.found.of:
            picture = self.found.pictures[self.found.of[sample.id]]
            fit = self.found.fits[at]
            if other_image(row, picture):
                known["unplaced"] = "This run saw another image."
            elif isinstance(fit, str):
                known["box"] = box(fit, picture.whole)
            elif picture.whole[0] != picture.whole[1]:
                known["unplaced"] = " ".join(fit.lines())
        return known

    def _region(self, sample: Joined) -> dict[str, Any] | None:
        """Return a sample's region as a path in some width and height, and who placed it.

        From the data it lies on the picture; else it is that of a run's patches, placed as those.
        """
        if sample.id in self.found.regions:
            picture = self.found.pictures[self.found.of[sample.id]]
            path = self.found.regions[sample.id]
            return {"path": path, "width": picture.width, "height": picture.height, "run": None}
        for at, row in enumerate(sample.answers):
            if row is not None and "roi" in row:
                mask = decode_mask(row["roi"])
                rows, columns = mask.shape
                return {"path": outline(mask), "width": columns, "height": rows, "run": at}
        return None


def gather(
    chosen: Sequence[Chosen],
    *,
    data: str = "",
    fit: Fit | None = None,
    size: int = 256,
    show_restricted: bool = False,
    step: Callable[[int, int], None] = lambda done, total: None,
) -> Content:
    """Return what a page of runs shows.

    Args:
        data, fit, size, step: see `medbench.viewer.pictures.look`.
        show_restricted: whether a restricted task's texts and images are in it.

    Raises:
        UserError: no run has an answer, or one was exported without its texts.
    """
    for one in chosen:
        check_texts(one.run.folder, withheld=one.run.withheld, what="view")
    samples = join(chosen)
    if not samples:
        raise UserError(
            "there are no samples to show",
            f"{chosen[0].run.folder} holds no answer yet.",
            "Run it first: medbench run ...",
        )
    restricted = any(one.run.restricted for one in chosen)
    withheld = restricted and not show_restricted
    found = Found()
    if not withheld:
        found = pictures.look(chosen, samples, data=data, fit=fit, size=size, step=step)
    task = chosen[0].run.task
    title = f"{', '.join(one.name for one in chosen)} on {task}"
    told = _told(chosen, found, withheld=withheld)
    by = yardsticks(samples)
    index = {
        "title": title,
        "task": task,
        "told": told,
        "verdicts": VERDICTS,
        "troubles": TROUBLES,
        "rules": RULES,
        "by": by,
        "parts": {"pictures": _PICTURES, "details": _DETAILS},
        **head(chosen),
        "samples": _list(samples, found, withheld=withheld),
        "answers": [
            column([sample.answers[at] for sample in samples], by, withheld=withheld)
            for at in range(len(chosen))
        ],
    }
    private = restricted and show_restricted
    return Content(title, index, samples, found, withheld, private, tuple(told))


def _told(chosen: Sequence[Chosen], found: Found, *, withheld: bool) -> list[str]:
    if withheld:
        return [
            f"{chosen[0].run.task} is restricted: texts, ids, images, regions and attention are "
            "left out. With --show-restricted they are in the page."
        ]
    unplaced = {error for error in found.fits if isinstance(error, UserError)}
    return [*pictures.told(found.missing), *(" ".join(error.lines()) for error in unplaced)]


def _list(samples: Sequence[Joined], found: Found, *, withheld: bool) -> dict[str, Any]:
    """Return what the list knows of samples, a value a sample in each entry."""
    rows = [sample.any for sample in samples]
    known: dict[str, Any] = {"kind": [row["kind"] for row in rows]}
    if withheld:
        return {**known, "fields": {}}
    return {
        **known,
        "id": [row["id"] for row in rows],
        "question": [row.get("question", "") for row in rows],
        "gold": [row["gold"] for row in rows],
        "picture": [found.of.get(sample.id) for sample in samples],
        "fields": _places(fields(samples)),
    }


def _places(values: dict[str, list[str]]) -> dict[str, Any]:
    """Return fields with each value once, and the place of every sample's value among them."""
    found: dict[str, Any] = {}
    for name, of in values.items():
        every = sorted(set(of))
        places = {value: place for place, value in enumerate(every)}
        found[name] = {"values": every, "of": [places[value] for value in of]}
    return found
