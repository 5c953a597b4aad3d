"""The adapter that a run needs: trained before, to be trained, or given by the user."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medbench import keys, provenance
from medbench.errors import UserError
from medbench.method import Tuner
from medbench.plugins import Plugin
from medbench.store import SCHEMA
from medbench.task import Sample

RECORD = "adapter.json"


@dataclass(frozen=True)
class AdapterPlan:
    """The adapter a run needs: where it is or will be, and what its key is made of.

    Attributes:
        train: the samples to train it on, in the order of runs; empty where it is given.
        given: whether the user named the folder.
    """

    key: str
    folder: Path
    identity: dict[str, Any]
    train: tuple[Sample, ...]
    given: bool = False

    @property
    def ready(self) -> bool:
        """Whether it has been trained; its record is written last."""
        return (self.folder / RECORD).exists()


def to_train(
    tuner: Tuner,
    plugin: Plugin,
    *,
    train: tuple[Sample, ...],
    task: dict[str, Any],
    backbone: dict[str, Any],
    supervision: dict[str, Any],
    seed: int,
    root: Path,
) -> AdapterPlan:
    """Return the adapter that a tuner makes of training samples.

    Args:
        task, backbone, supervision: their identities, that of the task with its samples.
        root: folder of the adapters.
    """
    identity = {
        "engine": keys.ENGINE,
        "tuner": keys.identity(plugin, tuner),
        "task": task,
        "backbone": backbone,
        "supervision": supervision,
        "seed": seed,
    }
    key = keys.key(identity)
    folder = root / task["name"] / backbone["name"] / plugin.name / key
    return AdapterPlan(key, folder, identity, train)


def given(tuner: Tuner, plugin: Plugin, *, backbone: dict[str, Any]) -> AdapterPlan:
    """Check an adapter that the user names, and take it as it is.

    Raises:
        UserError: there is none, it was made otherwise, or its files are not those trained.
    """
    folder = Path(tuner.adapter).expanduser()
    record = _read(folder)
    identity = record["identity"]
    made_by, trained = identity["tuner"]["name"], identity["backbone"]
    if made_by != plugin.name:
        raise UserError(
            f"the adapter in {folder} was made by {made_by}, not {plugin.name}",
            "",
            f'Write "{made_by}[adapter=...]".',
        )
    odd = [part for part in ("name", "weights", "parameters") if trained[part] != backbone[part]]
    if odd:
        theirs, mine = (_shown(one, odd[0]) for one in (trained, backbone))
        raise UserError(
            f"the adapter in {folder} belongs to another backbone",
            f"It was trained on {theirs}, this is {mine}.",
            "Take the backbone it was trained on, or train a new one.",
        )
    mine, theirs = keys.keyed(tuner), identity["tuner"]["parameters"]
    other = [name for name in mine if mine[name] != theirs.get(name)]
    if other:
        raise UserError(
            f"the adapter in {folder} was trained with other settings",
            f"They differ in {', '.join(other)}.",
            f"Beside adapter= write {_settings(theirs, other)}.",
        )
    if record["files"] != hash_weights(folder):
        raise UserError(
            f"the adapter in {folder} is not the one that was trained",
            f"Its files have changed since {RECORD} was written.",
            "Take an unchanged copy, or train it again.",
        )
    return AdapterPlan(record["key"], folder, identity, (), given=True)


def hash_weights(folder: Path) -> str:
    """Return one sha256 over an adapter's weights and their configuration."""
    named = [*folder.glob("*.safetensors"), *folder.glob("adapter_config.json")]
    return provenance.hash_files(sorted(named))


def _read(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        schema, identity = int(record["schema"]), record["identity"]
        sound = all(record[name] for name in ("key", "files")) and identity["tuner"]["name"]
        if not sound:
            raise ValueError("something is empty in it")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"no adapter in {folder}",
            f"{path} cannot be read ({type(error).__name__}).",
            f"Give a folder that medbench trained, the one that holds {RECORD}.",
        ) from error
    if schema > SCHEMA:
        raise UserError(
            f"{path} is from a newer medbench",
            f"Its schema is {schema}; this version reads up to {SCHEMA}.",
            "Upgrade medbench, or train the adapter again.",
        )
    return record


def _shown(backbone: dict[str, Any], part: str) -> str:
    """Return a backbone's name, and the part that tells it from another of that name."""
    if part == "name":
        return backbone["name"]
    if part == "weights":
        return f"{backbone['name']} with weights {backbone['weights'][: keys.LENGTH] or 'drawn'}"
    values = ",".join(f"{name}={value}" for name, value in backbone["parameters"].items())
    return f"{backbone['name']}[{values}]"


def _settings(values: dict[str, Any], names: Sequence[str]) -> str:
    written = [f"{name}={values[name]}" for name in names if name in values]
    return ",".join(written) or "the settings it was trained with"
