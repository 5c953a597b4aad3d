"""Providers: where the targets of auxiliary losses come from, regions or an expert's view.

A provider is one frozen dataclass in one file, like a method: annotated attributes are parameters,
the others are literals read from the source. Methods name one by its spec:
`a3tune[labels=sam-biomedclip[sam=PATH]]`.

Nothing here imports torch; the hooks' types are only for readers and type checkers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np

    from medbench.model.geometry import Fit
    from medbench.task import Sample, Task


@dataclass(frozen=True)
class Region:
    """A part of an image that a question may be about.

    Attributes:
        mask: bool, any number of rows and columns; it covers the whole image.
        score: how well it fits the question; None where nothing was compared.
        size: height and width of the image in its own pixels, whose aspect the mask may lack.
    """

    mask: np.ndarray
    score: float | None
    size: tuple[int, int]


@dataclass(frozen=True)
class ExpertView:
    """What an expert vision model sees in an image, whatever the question.

    Attributes:
        grid: its rows and columns of patches.
        gram: float32 [n, n], inner products of its patch features, up to a common factor.
        attention: float32 [n], what its class token attends to.
        size: height and width of the image in its own pixels.
    """

    grid: tuple[int, int]
    gram: np.ndarray
    attention: np.ndarray
    size: tuple[int, int]


@dataclass(frozen=True)
class Surroundings:
    """What a provider may need beside the samples.

    Attributes:
        task: of the samples.
        fit: how the backbone places an image on its square: "pad", "crop" or "squash"; None where
            there is no backbone, which is enough for regions.
        device: where models of the provider run, such as "cuda".
        progress: called with images done, all images, and a remark.
    """

    task: Task
    fit: Fit | None = None
    device: str = "cpu"
    progress: Callable[[int, int, str], None] = lambda done, total, remark: None


@dataclass(frozen=True)
class Provider:
    """What providers share: a name, a source, needs, variants, and the files they read.

    Class attributes:
        name, paper, variants, deviates, unkeyed: as for methods (`medbench.method`).
        needs: what the task must offer, e.g. "roi".
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    deviates: ClassVar[str] = ""
    unkeyed: ClassVar[tuple[str, ...]] = ()

    def files(self) -> Iterator[Path]:
        """Yield the files that decide what comes out, such as weights; they are hashed.

        Raises:
            UserError: they are not there.
        """
        yield from ()

    def open(self, samples: Sequence[Sample], around: Surroundings) -> Callable[[Sample], Any]:
        """Compute what is not there yet for these samples, and return what gives their targets."""
        raise NotImplementedError


@dataclass(frozen=True)
class Regions(Provider):
    """Gives the regions that attention is pulled towards, the likeliest first."""

    def open(
        self, samples: Sequence[Sample], around: Surroundings
    ) -> Callable[[Sample], Sequence[Region]]:
        """As above; a sample without any region gets an empty sequence."""
        raise NotImplementedError


@dataclass(frozen=True)
class Expert(Provider):
    """Gives an expert's view of an image, to be distilled."""

    def open(
        self, samples: Sequence[Sample], around: Surroundings
    ) -> Callable[[Sample], ExpertView]:
        """As above; what comes out is the view of a sample's image."""
        raise NotImplementedError
