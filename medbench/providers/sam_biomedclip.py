"""Weak labels: SAM's segments of the image, the likeliest for the question first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbench.clip import clip_files, clip_folder
from medbench.errors import UserError
from medbench.labels.settings import SAM_CONFIG, SAM_WEIGHTS, Ranking, Segmentation
from medbench.memo import Memo
from medbench.phantom import LABELS
from medbench.provenance import hash_files
from medbench.provider import Region, Regions, Surroundings
from medbench.task import Sample

if TYPE_CHECKING:
    from medbench.labels.weak import WeakLabels

# Raise when the same settings give other segments, or other scores.
_SEGMENTS, _SCORES = 2, 1


@dataclass(frozen=True)
class SamBiomedclip(Segmentation, Ranking, Regions):
    """Segments by Segment Anything, ranked by how well BiomedCLIP thinks they fit the question.

    Segments are made once for each picture and scored once for each text; both are kept on disk
    by content, and are found again whatever the method, the seed, K, or the machine.

    Args:
        cache: folder of what was computed; "" takes the user's cache.
    """

    name = "sam-biomedclip"
    paper = "A3Tune, Section 4.1 (Eq. 3) and its published notebooks"
    unkeyed = ("sam", "clip", "cache")
    variants = {
        "official": {
            "fit": "squash",
            "channel_order": "bgr",
            "text": "published",
        }
    }
    deviates = (
        "the published notebooks can leave masks and crops out of step where a mask is empty; "
        "here empty masks are dropped before anything is ranked. Images are resized with PIL's "
        "bilinear filter, there with OpenCV's. K and the threshold are parameters of the method"
    )

    cache: str = ""

    def files(self) -> Iterator[Path]:
        """Yield the weights of SAM and CLIP."""
        yield from self._sam_files()
        yield from clip_files(self.clip_path())

    def sam_path(self) -> Path:
        """Return where SAM is.

        Raises:
            UserError: no path was given, or there is nothing.
        """
        if not self.sam:
            raise UserError(
                f"{self.name} needs the weights of a SAM",
                "No path was given.",
                'Write "sam-biomedclip[sam=PATH]", such as one to sam_vit_h_4b8939.pth.',
            )
        path = LABELS / "sam" if self.sam == "phantom" else Path(self.sam).expanduser()
        if not path.exists():
            raise UserError(f"no SAM in {path}", "", "Check the path.")
        return path

    def clip_path(self) -> Path:
        """Return the folder of the CLIP."""
        return LABELS / "clip" if self.clip == "phantom" else clip_folder(self.clip)

    def memos(self) -> tuple[Memo, Memo]:
        """Return where segments and scores are kept."""
        segments: dict[str, Any] = {
            "segments": _SEGMENTS,
            "weights": hash_files(self._sam_files()),
            **_settings(self, Segmentation, without=("sam",)),
        }
        scores = {
            "scores": _SCORES,
            "of": segments,
            "weights": hash_files(clip_files(self.clip_path())),
            **_settings(self, Ranking, without=("clip", "text")),
        }
        return (
            Memo("segments", segments, folder=self.cache, shipped=LABELS),
            Memo("scores", scores, folder=self.cache, shipped=LABELS),
        )

    def weak_labels(self, around: Surroundings) -> WeakLabels:
        """Return what computes and remembers segments and scores under these settings."""
        from medbench.labels.weak import WeakLabels

        return WeakLabels(self, around)

    def open(
        self, samples: Sequence[Sample], around: Surroundings
    ) -> Callable[[Sample], Sequence[Region]]:
        """Compute what is not kept yet, and return what gives a sample's segments, best first."""
        labels = self.weak_labels(around)
        labels.compute(samples)
        return labels.regions

    def _sam_files(self) -> list[Path]:
        path = self.sam_path()
        return [path / SAM_CONFIG, path / SAM_WEIGHTS] if path.is_dir() else [path]


def _settings(provider: SamBiomedclip, part: type, *, without: tuple[str, ...]) -> dict[str, Any]:
    names = {one.name for one in fields(part)} - set(without)
    return {name: value for name, value in asdict(provider).items() if name in names}
