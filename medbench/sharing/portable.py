"""What a run's files say of the machine they were written on, and is left out of an export."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from medbench import spec
from medbench.errors import UserError
from medbench.spec import Spec

_FOLDER, _FILE = "DIR", "FILE"
_SIGNS = "/\\~"
# In a sentence: what stands at its beginning, or behind a space, a bracket or a quote.
_PATH = re.compile(r"(?<![\w./:\\~])(?:~[\w-]*|[A-Za-z]:)?[\\/]\S*")


def portable_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run.json whose command names no folder and no file."""
    return {**run, "command": portable_command(run.get("command", ""))}


def portable_scores(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scores.json whose reasons for what has no score name no path."""
    unscored: Mapping[str, list[str]] = scores.get("unscored", {})
    told = {name: [_without_path(line) for line in lines] for name, lines in unscored.items()}
    return {**scores, "unscored": told}


def portable_command(command: str) -> str:
    """Return a command with DIR and FILE for what lies on the machine, without --out."""
    try:
        words = shlex.split(command)
    except ValueError:  # nothing that medbench wrote
        return ""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--out":
            next(rest, "")
        elif word == "--data":
            kept += [word, _FOLDER]
            next(rest, "")
        else:
            kept.append(_without_folders(word))
    if kept[:2] == ["medbench", "import"] and len(kept) > 2:
        kept[2] = _FILE
    return shlex.join(kept)


def _without_folders(word: str) -> str:
    """Return a word of a command, usually a spec, with DIR for what may be a folder or a file."""
    if not any(sign in word for sign in _SIGNS):
        return word
    try:
        chain = spec.parse_chain(word)
    except UserError:
        return _FOLDER
    if any("/" in one.name for one in chain):
        return _FOLDER
    return "+".join(
        str(Spec(one.name, tuple((name, _without_folders(text)) for name, text in one.values)))
        for one in chain
    )


def _without_path(line: str) -> str:
    """Cut a line off where it names a path: what follows may belong to it."""
    found = _PATH.search(line)
    return line if found is None else f"{line[: found.start()]}..."
