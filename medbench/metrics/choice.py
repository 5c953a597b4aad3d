"""Scores of multiple choice: the published rule by likeness of letters, and a strict one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, cast

from medbench.errors import UserError
from medbench.metric import Metric
from medbench.metrics.text import words
from medbench.rows import Row

_SPEAKER = re.compile(r"\s*assistant\s*:\s*", re.IGNORECASE)
_LETTER = re.compile(r"([A-Za-z])(?:[.):](?:\s.*)?)?", re.DOTALL)


@dataclass(frozen=True)
class OfOptions(Metric):
    """Base of the metrics that compare an answer with the options in the row's `meta`."""

    def items(self, rows: Sequence[Row]) -> list[float]:
        """Return 1.0 or 0.0 for each row.

        Raises:
            UserError: a row has no options.
        """
        return [self.item(row["output"], row["gold"], _options(row)) for row in rows]

    def item(self, output: str, gold: str, options: Sequence[str]) -> float:
        """Return 1.0 if the answer is right, else 0.0."""
        raise NotImplementedError

    def example(self, output: str, gold: str) -> Row:
        """Make the row of a golden example: "right of first | second | ..."."""
        right, _, options = gold.partition(" of ")
        return {
            "id": "example",
            "group": "example",
            "kind": self.kinds[0],
            "output": output,
            "gold": right,
            "meta": {"options": options.split(" | ")},
        }


@dataclass(frozen=True)
class ChoicePaper(OfOptions):
    """Likeness test of the published evaluation: is the option most like the answer the gold's?

    Answer and gold are each taken to the option of the highest ratio of difflib's SequenceMatcher
    (option first, answer or gold second), the first of several; if all ratios are 0, to none. The
    value is 1 if both are taken to the same option, or both to none, else 0. The gold is put in
    lower case, since the published evaluation does so where it comes from a conversation, while
    options and answer keep theirs: a gold in capitals may be taken to another option than its own,
    and then the right answer counts 0. `n_gold_astray` says how often. A refusal counts as
    whatever option it happens to be most like; of an answer of 200 letters or more difflib passes
    over those that are frequent in it.
    """

    name = "choice/paper"
    paper = "A3Tune, published evaluation of multiple choice; from CARES, arXiv:2406.06007"
    kinds = ("choice",)
    needs = ("meta",)
    golden = (
        ("Fundus", "Fundus photography of CT scan | Fundus photography", 1.0),
        ("no sign of a benign tumour", "benign of benign | malignant", 1.0),
        ("I cannot tell.", "malignant of benign | malignant", 1.0),
        ("MRI", "MRI of CT | MRI | X-ray", 0.0),
        ("X-ray", "MRI of CT | MRI | X-ray", 1.0),
        ("", "MRI of CT | MRI", 1.0),
    )

    def item(self, output: str, gold: str, options: Sequence[str]) -> float:
        """Return 1.0 if answer and gold are most like the same option, else 0.0."""
        return float(_most_like(output, options) == _most_like(gold.lower(), options))

    def notes(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Count the rows whose gold, in lower case, is most like another option than its own."""
        golds = [(row["gold"], _options(row)) for row in rows if self.applies(row)]
        astray = [
            matching(gold, options) not in (None, _most_like(gold.lower(), options))
            for gold, options in golds
        ]
        return {"n_gold_astray": sum(astray)}


@dataclass(frozen=True)
class ChoiceStrict(OfOptions):
    """Text or letter test: the answer must be the right option, and nothing else.

    "Assistant:" in front of the answer is ignored. If the answer is the text of the gold or of an
    option, case and a last full stop aside, the value is 1 for the gold's and 0 for another's. If
    it is a letter, alone or followed by a full stop, colon or bracket and then nothing or a blank
    and any text, the value is 1 for the letter of the gold's option (A is the first) and 0 for
    another. Else it is 1 if the answer has the gold's words (`text.words`) in the same order, and 0
    if not. A gold that is none of the options has no letter; `n_gold_no_option` counts those rows.
    """

    name = "choice/strict"
    kinds = ("choice",)
    needs = ("meta",)
    golden = (
        ("MRI.", "MRI of CT | MRI | X-ray", 1.0),
        ("Assistant: an x ray", "X-ray of CT | MRI | X-ray", 1.0),
        ("B", "MRI of CT | MRI | X-ray", 1.0),
        ("b) MRI", "MRI of CT | MRI | X-ray", 1.0),
        ("A. CT", "MRI of CT | MRI | X-ray", 0.0),
        ("It is an MRI", "MRI of CT | MRI | X-ray", 0.0),
        ("B", "A of B | A", 0.0),
        ("", "MRI of CT | MRI", 0.0),
    )

    def item(self, output: str, gold: str, options: Sequence[str]) -> float:
        """Return 1.0 if the answer is the right option's text or letter, else 0.0."""
        speaker = _SPEAKER.match(output)
        answer = output[speaker.end() :] if speaker else output
        plain, right = _plain(answer), matching(gold, options)
        if plain in map(_plain, (gold, *options)):
            return float(plain == _plain(gold))
        letter = _LETTER.fullmatch(answer.strip())
        if letter is not None:
            return float(right is not None and ord(letter[1].upper()) - ord("A") == right)
        return float(_same(answer, gold))

    def notes(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Count the rows whose gold is none of their options."""
        asked = [row for row in rows if self.applies(row)]
        return {
            "n_gold_no_option": sum(matching(row["gold"], _options(row)) is None for row in asked)
        }


def matching(text: str, options: Sequence[str]) -> int | None:
    """Return which option a text is: the equal one, else the only one of the same words."""
    if text in options:
        return options.index(text)
    found = [at for at, option in enumerate(options) if _same(text, option)]
    return found[0] if len(found) == 1 else None


def _same(text: str, option: str) -> bool:
    """Say whether two texts have the same words; a lone article ("A") is a word here."""
    said = words(text)
    return said == words(option) if said else _plain(text) == _plain(option)


def _plain(text: str) -> str:
    return text.strip().removesuffix(".").lower()


def _most_like(text: str, options: Sequence[str]) -> int | None:
    """Return the option of the highest ratio, the first of several; None if all are 0."""
    matcher = SequenceMatcher(None, "", text)
    ratios: list[float] = []
    for option in options:
        matcher.set_seq1(option)
        ratios.append(matcher.ratio())
    best = max(ratios)
    return ratios.index(best) if best > 0 else None


def has_options(row: Row) -> bool:
    """Say whether a row tells which options there were."""
    options = row.get("meta", {}).get("options")
    return isinstance(options, list) and bool(options)


def _options(row: Row) -> Sequence[str]:
    if not has_options(row):
        raise UserError(
            f"row {row['id']} has no options",
            "A task of multiple choice gives each sample its options in meta.",
            "Score it with another metric, or add them to the task.",
        )
    return cast("list[str]", row.get("meta", {})["options"])
