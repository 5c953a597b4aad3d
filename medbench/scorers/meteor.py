"""METEOR 1.5, the authors' program in Java, as captions are scored with it (pycocoevalcap)."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from threading import Timer
from typing import Any

from medbench.errors import UserError
from medbench.provenance import hash_files
from medbench.scorers import coco, java
from medbench.scorers.engine import Engine

_FILES = ("meteor/meteor-1.5.jar", "meteor/data/paraphrase-en.gz")
# 512 times the same word on both sides take ten. What takes longer ends without memory.
_SECONDS = 60.0


def meteor() -> Engine:
    """Return the engine of METEOR 1.5; its loading, which reads 62 MB of paraphrases, is slow."""
    # The time limit is Java's, a text; this one is for what else may hang.
    return Engine(__name__, {"seconds": _SECONDS}, batch=64, seconds=2 * _SECONDS)


def describe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the words depend on, and a hash of the program and its paraphrases.

    Raises:
        UnavailableError: the package or Java is not there.
    """
    found = coco.describe(settings)  # first: there may be no such folder
    return {**found, "meteor": hash_files([coco.folder() / name for name in _FILES])}


def load(settings: Mapping[str, Any], device: str) -> Judge:
    """Return what gives (output, gold) pairs their values; its `close` ends Java.

    A value is the pair's METEOR followed by the numbers that the program finds in a pair
    (`medbench.metrics.coco`), or None if Java did not survive it, or not in time.
    """
    return Judge(settings["seconds"])


class Judge:
    """A METEOR at work, in a Java that is started anew when it had to be ended.

    Args:
        seconds: that it may take for a pair.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._program = _Program()

    def __call__(self, pairs: Sequence[tuple[str, ...]]) -> list[list[float] | None]:
        """Return a value for each (output, gold)."""
        return [self._value(output, gold) for output, gold in coco.words_of(pairs)]

    def close(self) -> None:
        """End Java."""
        self._program.close()

    def _value(self, output: str, gold: str) -> list[float] | None:
        limit = Timer(self._seconds, self._program.kill)
        limit.start()
        try:
            return self._program.value(output, gold)
        except EOFError:
            self._program.close()
            self._program = _Program()
            return None
        finally:
            limit.cancel()


class _Program:
    """The program, asked line by line.

    Raises:
        UserError: it does not start.
    """

    def __init__(self) -> None:
        options = ("-", "-", "-stdio", "-l", "en", "-norm")
        jar = str(coco.folder() / _FILES[0])
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            java.find().command("-Xmx2G", "-jar", jar, *options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            encoding="utf-8",
        )
        try:
            self.value("started", "started")
        except EOFError as error:
            self._said.seek(0)
            why = java.complaint(self._said.read())
            self.close()
            raise UserError(
                "METEOR does not start",
                why,
                "It takes up to 2 GB of memory. See: medbench doctor",
            ) from error

    def value(self, output: str, gold: str) -> list[float]:
        """Return the value of two texts, and the numbers it follows from.

        Raises:
            EOFError: the program has ended.
        """
        # The separator of its lines; no tokenizer leaves it in a text.
        output, gold = output.replace("|||", ""), gold.replace("|||", "")
        (found,) = self._ask(f"SCORE ||| {gold} ||| {output}", lines=1)
        # A value for each text, and one of all.
        value, _ = self._ask(f"EVAL ||| {found}", lines=2)
        return [float(value), *map(float, found.split())]

    def kill(self) -> None:
        """End it at once; who waits for an answer gets none."""
        self._process.kill()

    def close(self) -> None:
        """End it, and wait until it is gone."""
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def _ask(self, line: str, *, lines: int) -> list[str]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except OSError as error:  # nobody reads any more
            raise EOFError from error
        answers = [self._process.stdout.readline() for _ in range(lines)]
        if not all(answer.endswith("\n") for answer in answers):
            raise EOFError
        return [answer.strip() for answer in answers]
