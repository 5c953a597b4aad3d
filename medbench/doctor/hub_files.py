"""What of the hub a spec names: checkpoints, vision towers, CLIPs, and a CLIP's text tower."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from medbench.backbone import Checkpoint
from medbench.backbones.llava_hf import LlavaHF
from medbench.errors import UserError
from medbench.hub import is_hub_id
from medbench.original_checkpoint import OriginalCheckpoint
from medbench.provider import Provider

_HUB = "hf-hub:"


def of_checkpoint(checkpoint: Checkpoint) -> list[str]:
    """Return the hub ids that a checkpoint's parameters, or its config.json, name.

    Which vision tower is wanted is known only when the checkpoint is there.
    """
    if isinstance(checkpoint, LlavaHF):
        named = [checkpoint.weights]
    elif isinstance(checkpoint, OriginalCheckpoint):
        named = _of_original(checkpoint)
    else:
        return []  # plugins say themselves what they take
    return [name for name in named if is_hub_id(name) and not Path(name).expanduser().is_dir()]


def _of_original(checkpoint: OriginalCheckpoint) -> list[str]:
    named = [checkpoint.weights, getattr(checkpoint, "base", ""), checkpoint.vision]
    if not checkpoint.vision and not checkpoint.stored_tower:
        with suppress(UserError):
            tower = checkpoint.tower_name()
            if not (checkpoint.directory() / tower).is_dir():
                named.append(tower)
    return named


def of_provider(provider: Provider) -> list[str]:
    """Return the hub ids that a provider's parameters name, as `hf-hub:ORG/NAME`."""
    values = [getattr(provider, one.name) for one in fields(provider)]
    return [
        value.removeprefix(_HUB)
        for value in values
        if isinstance(value, str) and value.startswith(_HUB)
    ]


def text_tower_of(provider: Provider) -> str:
    """Return the hub id that describes the text tower of a provider's CLIP; "" for none.

    open_clip asks the hub for that description alone; the weights are in the CLIP's own files.
    """
    named = str(text_settings_of(provider).get("hf_model_name") or "")
    return named if is_hub_id(named) and not Path(named).is_dir() else ""


def text_settings_of(provider: Provider) -> dict[str, Any]:
    """Return what the description of a provider's CLIP says of its text tower.

    Nothing where the provider takes no text: experts look at images only.
    """
    from medbench.clip import CONFIG
    from medbench.providers.sam_biomedclip import SamBiomedclip

    if not isinstance(provider, SamBiomedclip):
        return {}
    with suppress(UserError, OSError, ValueError, LookupError, TypeError):
        about = json.loads((provider.clip_path() / CONFIG).read_text(encoding="utf-8"))
        return dict(about["model_cfg"]["text_cfg"])
    return {}


def has_config(hub_id: str) -> bool:
    """Say whether config.json of a hub id is on this machine."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(hub_id, "config.json"), str)
