"""What checkpoints in the original LLaVA layout have in common, before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from medbench.backbone import Depth, LargeCheckpoint
from medbench.errors import UserError
from medbench.hub import locate

# Files beside the weights that decide what comes out.
_SMALL = (
    "config.json", "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "vocab.json",
    "merges.txt", "added_tokens.json", "special_tokens_map.json",
)  # fmt: skip
_TOWER = ("config.json", "preprocessor_config.json")


@dataclass(frozen=True)
class OriginalCheckpoint(LargeCheckpoint):
    """A checkpoint in the format of its authors, with a vision tower that may lie elsewhere.

    Args:
        weights: folder or hub id of the checkpoint.
        vision: folder or hub id of the vision tower; "" takes what config.json names.
    """

    offers = (
        "pixels", "image_span", "attention", "hidden_states", "class_attention", "training",
    )  # fmt: skip
    unkeyed: ClassVar[tuple[str, ...]] = ("weights", "base", "vision", "device_map")

    weights: str = ""
    vision: str = ""

    @property
    def stored_tower(self) -> bool:
        """Whether the vision tower's weights are those stored with the model."""
        return False

    def files(self) -> Iterator[Path]:
        """Yield the configs, tokenizer files and weights that are read, of the tower as well."""
        from medbench.model.weights import weight_files

        directory = self.directory()
        if not (directory / "config.json").is_file():
            raise UserError(
                f"no checkpoint in {directory}",
                "There is no config.json in it.",
                "Give the folder that holds config.json and the weights.",
            )
        yield from (directory / name for name in _SMALL if (directory / name).is_file())
        yield from weight_files(directory)
        tower = self.tower(required=not self.stored_tower)
        if tower is not None:
            yield from (tower / name for name in _TOWER if (tower / name).is_file())
            if not self.stored_tower:
                yield from weight_files(tower)

    def depth(self) -> Depth | None:
        """Return the depth that the two config.json state, if they do."""
        try:
            language = int(_stated(self.directory(), "num_hidden_layers"))
            tower = self.tower(required=False)
            if tower is None:
                return None
            config = json.loads((tower / "config.json").read_text(encoding="utf-8"))
            return Depth(language, int(config.get("vision_config", config)["num_hidden_layers"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def directory(self) -> Path:
        """Return the checkpoint's folder.

        Raises:
            UserError: there is none.
        """
        if not self.weights:
            raise UserError(
                f"{self.name} needs weights",
                "It has no default: a folder or a hub id must be named.",
                f'--backbone "{self.name}[weights=DIR]", or a hub id.',
            )
        return locate(self.weights, what=self.name)

    def tower_name(self) -> str:
        """Return what names the vision tower: a folder or hub id, given or stated by config.json.

        Raises:
            UserError: none is given, and config.json states none.
        """
        return self.vision or _stated(self.directory(), "mm_vision_tower")

    def tower(self, *, required: bool) -> Path | None:
        """Return the vision tower's folder; None if it is not required and not there.

        Raises:
            UserError: it is required and not there.
        """
        directory = self.directory()
        what = f"{self.name}'s vision tower"
        try:
            return locate(self.tower_name(), what=what, beside=None if self.vision else directory)
        except UserError as error:
            if not required and not self.vision:
                return None
            do = f"{error.do} Another place is vision=DIR."
            raise UserError(error.what, error.why, do) from error


def _stated(directory: Path, name: str) -> str:
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        if config[name] in ("", None):
            raise ValueError(f"{name} is empty")
        return str(config[name])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{directory / 'config.json'} does not say '{name}'",
            "It is missing, damaged, or of another kind of checkpoint.",
            "medbench list backbones tells which backbone reads what.",
        ) from error
