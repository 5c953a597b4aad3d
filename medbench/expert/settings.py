"""What the providers of expert views share: parameters, files, and where views are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medbench.errors import UserError
from medbench.memo import Memo
from medbench.phantom import LABELS
from medbench.provenance import hash_files
from medbench.provider import Expert, ExpertView, Surroundings
from medbench.task import Sample

if TYPE_CHECKING:
    from medbench.expert.tower import Tower
    from medbench.model.geometry import Fit

# Raise when the same settings give other views.
_VIEWS = 1


@dataclass(frozen=True)
class ClipExpert(Expert):
    """A CLIP's vision tower as an expert; its views are computed once for each picture.

    Args:
        feature: of the patches: as the last block leaves them, after the final norm, or projected
            into the space shared with text.
        prenorm: bring patches to length 1 before they are resampled to another grid.
        divide_by_max: divide the class token's attention by its maximum, which only
            attn_norm=softmax can tell.
        geometry: "match_student" places images as the student does, so that patches show the same
            parts; "as_published" as the expert's own preprocessing does.
        batch_size: images that go through the tower together.
        cache: folder of what was computed; "" takes the user's cache.
    """

    unkeyed = ("weights", "batch_size", "cache")
    variants = {"official": {"geometry": "as_published"}}

    weights: str = ""
    feature: Literal["block_out", "post_ln", "projected"] = "block_out"
    prenorm: bool = True
    divide_by_max: bool = False
    geometry: Literal["match_student", "as_published"] = "match_student"
    batch_size: int = 16
    cache: str = ""

    def load(self, device: str) -> Tower:
        """Load the tower.

        Raises:
            UserError: the extra is not installed, or the files cannot be used.
        """
        raise NotImplementedError

    def fit(self, around: Surroundings) -> Fit | None:
        """Return how images are placed; None for the expert's own way.

        Raises:
            UserError: the student's way is asked for where there is no student.
        """
        if self.geometry == "as_published":
            return None
        if around.fit is None:
            raise UserError(
                f"{self.name} does not know how the student places images",
                "There is no backbone here.",
                f'Say it with --fit, or write "{self.name}[geometry=as_published]".',
            )
        return around.fit

    def memo(self, around: Surroundings) -> Memo:
        """Return where views are kept."""
        made_with: dict[str, Any] = {
            "views": _VIEWS,
            "weights": hash_files(self.files()),
            "tower": self.name,
            "feature": self.feature,
            "prenorm": self.prenorm,
            "fit": self.fit(around) or "own",
        }
        return Memo("expert", made_with, folder=self.cache, shipped=LABELS)

    def open(
        self, samples: Sequence[Sample], around: Surroundings
    ) -> Callable[[Sample], ExpertView]:
        """Compute what is not kept yet, and return what gives the view of a sample's image."""
        from medbench.expert.views import Views

        views = Views(self, around)
        views.compute(samples)
        return views


def hub_file(weights: str, name: str) -> Path:
    """Return the checkpoint that `weights` means: a file, or the only .pt of a hub's download.

    Raises:
        UserError: it is not there; nothing is ever downloaded here.
    """
    from medbench.clip import clip_folder

    if not weights.startswith("hf-hub:"):
        path = Path(weights).expanduser()
        if not path.is_file():
            raise UserError(
                f"no weights of {name} in '{weights}'", "", f'Write "{name}[weights=PATH]".'
            )
        return path
    found = sorted(clip_folder(weights).glob("*.pt"))
    if len(found) != 1:
        raise UserError(
            f"{weights} holds {len(found)} checkpoints",
            ", ".join(path.name for path in found),
            f'Write "{name}[weights=PATH]".',
        )
    return found[0]
