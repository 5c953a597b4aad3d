"""What an examination found: a line each, and what to do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medbench.errors import UserError

State = Literal["good", "note", "problem"]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class Finding:
    """Something that was looked at.

    Attributes:
        section: the heading it stands under.
        state: "problem" where it stands in the way of a run, "note" where it is worth knowing.
        what: what was found, in a sentence; do: what to do about it, "" where nothing is to be
            done. Neither names the user's home folder, so that both can be shown to others.
    """

    section: str
    state: State
    what: str
    do: str = ""

    def __post_init__(self) -> None:
        for name in ("section", "what", "do"):
            object.__setattr__(self, name, shortened(getattr(self, name)))


def refused(section: str, error: UserError, do: str = "") -> Finding:
    """Return the problem that an error tells of.

    Args:
        do: what else can be done about it.
    """
    what = ". ".join(part.rstrip(".") for part in (error.what, error.why) if part)
    return Finding(section, "problem", what, " ".join(filter(None, (error.do, do))))


def one_line(error: BaseException) -> str:
    """Return an exception's type and the first line of what it says."""
    words = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def shortened(text: str) -> str:
    """Return a text with `~` for the home folder: its name is mostly its owner's."""
    try:
        homes = {str(Path.home()), str(Path.home().resolve())}
    except (OSError, RuntimeError):  # there is none
        return text
    for home in sorted(homes, key=len, reverse=True):
        if len(home) > 1:
            text = re.sub(rf"(?<![\w.~-]){re.escape(home)}(?![\w-]|\.\w)", "~", text)
    return text


def size(count: float) -> str:
    """Return a number of bytes in words."""
    unit = 0
    while count >= 1000 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} {_UNITS[unit]}" if unit < 2 else f"{count:.1f} {_UNITS[unit]}"
