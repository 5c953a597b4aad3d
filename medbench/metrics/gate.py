"""The gate in front of every metric of reports: what a text must be before a package sees it.

Packages drop items, shift them, or never return on texts that models do write: empty ones, line
ends of other alphabets, the same word two thousand times. Here a text becomes one line of words,
and what is unusual is counted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from medbench.errors import UserError
from medbench.rows import Row

Strip = Literal["prefix", "characters", "none"]
Pair = tuple[str, str]

# Reports of the data sets have up to some 350 words; METEOR and RadGraph take minutes beyond.
WORDS, LETTERS = 512, 5120
_SPEAKER = re.compile(r"\s*assistant\s*:", re.IGNORECASE)
# The published code calls strip() with the whole prefix, which takes it for a set of letters.
_STRIPPED = "Assistant:"
_SHORT, _NO_REPORT = 10, "No report generated."


@dataclass(frozen=True)
class Pairs:
    """The texts of rows, ready to be compared.

    Attributes:
        pairs: (output, gold), one a row, in their order.
        empty, empty_gold, capped: for each row, whether its output or its gold was empty, and
            whether one of them was cut.
    """

    pairs: list[Pair]
    empty: list[bool]
    empty_gold: list[bool]
    capped: list[bool]

    @property
    def notes(self) -> dict[str, int]:
        """Counts to print beside a score."""
        return {
            "n_empty": sum(self.empty),
            "n_empty_gold": sum(self.empty_gold),
            "n_capped": sum(self.capped),
        }


def let_in(rows: Sequence[Row], *, strip: Strip = "prefix", replace_short: bool = False) -> Pairs:
    """Return the texts of rows as metrics take them.

    Every run of white space and control characters becomes one blank, and marks that cannot be seen
    (soft hyphens, zero-width blanks) go. Of each text the first 512 words, and of these the first
    5120 letters, are kept.

    Args:
        rows: with output and gold.
        strip: what is taken off an output first: "prefix", the word Assistant and a colon in front;
            "characters", as in the published code, all of the letters A, s, i, t, a, n and the
            colon at both ends; "none".
        replace_short: put "No report generated." in place of texts of fewer than ten letters, as
            the published code does.

    Raises:
        UserError: an output or gold is no text.
    """
    made = Pairs([], [], [], [])
    for row in rows:
        output, gold = _text(row, "output"), _text(row, "gold")
        if strip == "prefix":
            output = _SPEAKER.sub("", output, count=1) if _SPEAKER.match(output) else output
        elif strip == "characters":
            output = output.strip(_STRIPPED)
        texts = [one_line(output), one_line(gold)]
        made.empty.append(not texts[0])
        made.empty_gold.append(not texts[1])
        if replace_short:
            texts = [text if len(text) >= _SHORT else _NO_REPORT for text in texts]
        capped = [cap(text) for text in texts]
        made.capped.append(capped != texts)
        made.pairs.append((capped[0], capped[1]))
    return made


def one_line(text: str) -> str:
    """Return a text with one blank for each run of white space, and without invisible letters."""
    if not text.isprintable():
        text = "".join(map(_visible, text))
    return " ".join(text.split())


def cap(text: str) -> str:
    """Return the first words and letters of a line, as many as every package can take."""
    return " ".join(text.split(" ", WORDS)[:WORDS])[:LETTERS].rstrip()


def _visible(letter: str) -> str:
    """Return a letter, "" for a mark of format such as a soft hyphen, a blank for what else."""
    if letter.isprintable():
        return letter
    return "" if unicodedata.category(letter) == "Cf" else " "


def _text(row: Row, field: Literal["output", "gold"]) -> str:
    text = row.get(field)
    if not isinstance(text, str):
        raise UserError(
            f"row {row['id']} has no {field}",
            f"It is {'missing' if text is None else f'a {type(text).__name__}'}, and no text.",
            "Put a text there; an empty one is allowed.",
        )
    return text
