"""Any CLIP of open_clip as an expert."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medbench.clip import clip_files, clip_folder
from medbench.errors import UserError
from medbench.expert.settings import ClipExpert
from medbench.phantom import LABELS

if TYPE_CHECKING:
    from medbench.expert.tower import Tower


@dataclass(frozen=True)
class OpenClip(ClipExpert):
    """The vision tower of a CLIP in a folder as open_clip writes it.

    Args:
        weights: the folder, or hf-hub:ORG/NAME once it is downloaded; "phantom" is the one that
            comes with the phantom.
    """

    name = "open_clip"

    def files(self) -> Iterator[Path]:
        """Yield the description and the weights; the text tower's files play no part."""
        folder = self._folder()
        listed = clip_files(folder)
        weights = [path for path in listed if path.suffix in (".safetensors", ".bin")]
        if not weights:
            raise UserError(f"no weights in {folder}", "", "Give a folder as open_clip writes it.")
        yield from (listed[0], weights[0])

    def load(self, device: str) -> Tower:
        """Load the tower."""
        from medbench.expert.tower import load_folder

        config, weights = self.files()
        return load_folder(config.parent, weights, device)

    def _folder(self) -> Path:
        if not self.weights:
            raise UserError(
                f"{self.name} needs a folder",
                "No path was given.",
                f'Write "{self.name}[weights=PATH]".',
            )
        return clip_folder(str(LABELS / "clip") if self.weights == "phantom" else self.weights)
