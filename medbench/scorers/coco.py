"""BLEU and ROUGE-L as captions are scored (pycocoevalcap), on words of Stanford's tokenizer."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medbench.errors import UserError
from medbench.extras import importing
from medbench.provenance import hash_files
from medbench.scorers import java
from medbench.scorers.engine import Engine
from medbench.scorers.packages import versions

PACKAGE = "pycocoevalcap"
_JAR = "tokenizer/stanford-corenlp-3.4.1.jar"
# A line after each text. If lines follow each other, as in the package, the words at the end of one
# depend on the next: "No." keeps its period before a digit, and "A." loses it before a capital.
_BETWEEN = "end"
# Starting Java on a busy machine takes seconds, a text a thousandth.
_START_SECONDS, _TEXT_SECONDS = 120.0, 0.1


def bleu4() -> Engine:
    """Return the engine of a pair's BLEU-4 and of the counts that the score of all follows from."""
    return _engine("bleu4")


def rouge_l() -> Engine:
    """Return the engine of a pair's ROUGE-L."""
    return _engine("rouge_l")


def describe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the versions of the package and of Java, and a hash of the tokenizer.

    Raises:
        UnavailableError: the package or Java is not there.
    """
    found: dict[str, Any] = versions([PACKAGE], extra="report")
    return {**found, "java": java.find().version, "tokenizer": hash_files([folder() / _JAR])}


def load(settings: Mapping[str, Any], device: str) -> Callable[[Sequence[tuple[str, ...]]], Any]:
    """Return a function from (output, gold) pairs to their values.

    Of BLEU these are the pair's value, its matches and its output's n-grams for n from 1 to 4, and
    the numbers of words of both texts.
    """
    value = {"bleu4": _bleu4, "rouge_l": _rouge_l}[settings["of"]]
    # Before the first text is asked about.
    with importing("report"):
        from pycocoevalcap.bleu import bleu_scorer  # noqa: F401 # pyright: ignore
        from pycocoevalcap.rouge import rouge  # noqa: F401 # pyright: ignore

    def values(pairs: Sequence[tuple[str, ...]]) -> list[Any]:
        return value(words_of(pairs))

    return values


def folder() -> Path:
    """Return the package's folder, which its programs in Java lie in."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None and spec.submodule_search_locations, "`versions` has found it"
    return Path(next(iter(spec.submodule_search_locations)))


def words_of(pairs: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the words of each pair's texts, with a blank between two words.

    These are the words of the package's PTBTokenizer: lowered, without punctuation. But a text's
    words do not depend on the next text here, and nothing is written to the package's folder.

    Args:
        pairs: tuples of single lines.

    Raises:
        UnavailableError: there is no Java.
        UserError: it fails, or does not answer.
    """
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    words = dict(zip(texts, _split(texts), strict=True))
    return [tuple(words[text] for text in pair) for pair in pairs]


def _engine(of: str) -> Engine:
    # Java is a process of its own as it is; started once for many texts, it costs little.
    return Engine(__name__, {"of": of}, batch=4096, apart=False, kept=False)


def _split(texts: Sequence[str]) -> list[str]:
    with importing("report"):
        from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS  # pyright: ignore
    dropped = frozenset(PUNCTUATIONS)
    lines = _run("".join(f"{text}\n{_BETWEEN}\n" for text in texts)).split("\n")[:-1]
    if len(lines) != 2 * len(texts) or {*lines[1::2]} != {_BETWEEN}:
        raise ValueError(f"{len(lines)} lines of words for {2 * len(texts)} lines of text")
    # By blanks alone: "2 1/2" is one word with a blank of another kind in it.
    words = [line.rstrip().split(" ") for line in lines[::2]]
    return [" ".join(word for word in of_one if word not in dropped) for of_one in words]


def _run(text: str) -> str:
    """Return what the tokenizer writes when it reads a text."""
    command = java.find().command(
        *("-cp", str(folder() / _JAR), "edu.stanford.nlp.process.PTBTokenizer"),
        *("-preserveLines", "-lowerCase"),
    )
    seconds = _START_SECONDS + _TEXT_SECONDS * text.count("\n")
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise UserError(
            "the tokenizer in Java does not answer",
            f"It was given {seconds:.0f} seconds.",
            "See how busy this machine is, and run this again.",
        ) from error
    if done.returncode:
        raise UserError(
            "the tokenizer in Java fails",
            java.complaint(done.stderr),
            "Run this again with another Java.",
        )
    return done.stdout.decode("utf-8")


def _bleu4(pairs: Sequence[tuple[str, ...]]) -> list[list[float]]:
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer  # pyright: ignore

    scorer = BleuScorer(n=4)
    for output, gold in pairs:
        scorer += (output, [gold])
    _, items = scorer.compute_score(option="closest", verbose=0)
    return [
        [item, *counts["correct"], *counts["guess"], counts["testlen"], counts["reflen"][0]]
        for item, counts in zip(items[3], scorer.ctest, strict=True)
    ]


def _rouge_l(pairs: Sequence[tuple[str, ...]]) -> list[float]:
    from pycocoevalcap.rouge.rouge import Rouge  # pyright: ignore

    scorer = Rouge()
    # Two texts without a word are equal to the package.
    return [
        float(scorer.calc_score([output], [gold])) if output and gold else 0.0
        for output, gold in pairs
    ]
