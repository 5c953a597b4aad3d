"""Commands written as a sweep's file, so that what a table lacks can be run as one sweep."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence

from medbench import spec

_AXES = {"--method": "methods", "--task": "tasks", "--backbone": "backbones"}
_FLAGS = ("--allow-missing-images", "--record-steps")
_COUNTS = ("--limit", "--batch-size")
# A sweep is told on its own command line where runs go.
_LEFT_OUT = ("--out",)


def as_file(commands: Sequence[str]) -> str:
    """Return a sweep's file with a grid for each command of `medbench run`.

    Other commands are kept as comments, since they come after the runs.
    """
    runs = [one for one in commands if one.startswith("medbench run ")]
    grids = ["\n".join(["[[grid]]", *_keys(shlex.split(one)[2:])]) for one in runs]
    after = [f"# afterwards: {one}" for one in commands if one not in runs]
    return "\n\n".join([*grids, *after]) + "\n"


def _keys(words: Sequence[str]) -> Iterator[str]:
    """Yield the keys of a grid, for the options of a command."""
    left = iter(words)
    for option in left:
        name = option.removeprefix("--").replace("-", "_")
        if option in _FLAGS:
            yield f"{name} = true"
            continue
        value = next(left)
        if option in _AXES:
            items = ", ".join(map(_text, spec.split(value, ",")))
            yield f"{_AXES[option]} = [{items}]"
        elif option in ("--seed", "--seeds"):
            yield f"seeds = {_text(value)}"
        elif option in _COUNTS:
            yield f"{name} = {value}"
        elif option not in _LEFT_OUT:
            yield f"{name} = {_text(value)}"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # which TOML reads as well
