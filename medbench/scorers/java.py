"""Java, which some packages bring their programs for: where it is, and how one is started."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

from medbench.errors import UnavailableError

_OLDEST = 8
_DO = f"Install a Java of version {_OLDEST} or newer, such as Debian's default-jre-headless."
_LOCALE = ("-Dfile.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US")
_SAYS = re.compile(r'version "((?:1\.)?(\d+)[^"]*)"')


@dataclass(frozen=True)
class Java:
    """A Java that programs can be run with.

    Attributes:
        program: its path.
        version: as it calls itself, such as "17.0.15" or "1.8.0_292".
    """

    program: str
    version: str

    def command(self, *arguments: str) -> list[str]:
        """Return a command whose program reads texts and numbers the same way for every user.

        METEOR fails where the user's country writes a comma in its decimal numbers.
        """
        return [self.program, *_LOCALE, *arguments]


def find() -> Java:
    """Return the Java that the PATH leads to.

    Raises:
        UnavailableError: there is none, it does not start, or it is too old.
    """
    program = shutil.which("java")
    # macOS has a program of this name that only says that there is no Java.
    found = _SAYS.search(_ask_version(program)) if program else None
    if program is None or found is None:
        why = "The PATH leads to none." if program is None else f"{program} tells no version."
        raise UnavailableError("no Java: report metrics written in Java cannot run", why, _DO)
    if int(found[2]) < _OLDEST:
        raise UnavailableError(
            f"Java {found[1]} is too old for the report metrics written in Java",
            f"{program} is what the PATH leads to.",
            _DO,
        )
    return Java(program, found[1])


def complaint(said: bytes) -> str:
    """Return in one line what a program that failed has written."""
    lines = said.decode(errors="replace").splitlines()
    # Java tells of options in the environment before all else.
    told = [line.strip() for line in lines if line.strip() and not line.startswith("Picked up ")]
    return " ".join(told[:2]) or "It ended without a word."


def _ask_version(program: str) -> str:
    """Return what a Java says of itself, "" if it fails."""
    try:
        done = subprocess.run(
            [program, "-version"], capture_output=True, text=True, errors="replace", timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stderr + done.stdout
