"""NLTK's BLEU and METEOR of one sentence, on the words of its English tokenizer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medbench.errors import UnavailableError
from medbench.extras import importing
from medbench.provenance import hash_files
from medbench.scorers.engine import Engine
from medbench.scorers.packages import versions

# What of NLTK's data each takes: name for its downloader -> where it lies in a data folder.
_DATA = {
    "bleu4": {"punkt_tab": "tokenizers/punkt_tab/english"},
    "meteor": {"punkt_tab": "tokenizers/punkt_tab/english", "wordnet": "corpora/wordnet"},
}


def bleu4() -> Engine:
    """Return the engine of sentence BLEU-4 with smoothing method 4."""
    return Engine(__name__, {"of": "bleu4"}, batch=512, apart=False, kept=False)


def meteor() -> Engine:
    """Return the engine of NLTK's METEOR, which reads the whole of WordNet first."""
    return Engine(__name__, {"of": "meteor"})


def describe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return NLTK's version and a hash of each of its data sets that is used.

    Raises:
        UnavailableError: NLTK, or data of it, is not there.
    """
    found: dict[str, Any] = versions(["nltk"], extra="report")
    for name, path in _DATA[settings["of"]].items():
        found[name] = hash_files(_files(name, path))
    return found


def load(settings: Mapping[str, Any], device: str) -> Callable[[Sequence[tuple[str, ...]]], Any]:
    """Return a function from (output, gold) pairs to their values."""
    with importing("report"):
        import nltk  # pyright: ignore
        from nltk.translate import bleu_score, meteor_score  # pyright: ignore
    smoothing = bleu_score.SmoothingFunction().method4

    def bleu(output: str, gold: str) -> float:
        reference, words = nltk.word_tokenize(gold), nltk.word_tokenize(output)
        found: Any = bleu_score.sentence_bleu([reference], words, smoothing_function=smoothing)
        return float(found)

    def meteor(output: str, gold: str) -> float:
        reference, words = nltk.word_tokenize(gold), nltk.word_tokenize(output)
        return float(meteor_score.meteor_score([reference], words))

    value = {"bleu4": bleu, "meteor": meteor}[settings["of"]]

    def values(pairs: Sequence[tuple[str, ...]]) -> list[float]:
        with warnings.catch_warnings():
            # It warns of texts without a common n-gram, which is what a low score says.
            warnings.simplefilter("ignore")
            return [value(output, gold) for output, gold in pairs]

    return values


def _files(name: str, path: str) -> list[Path]:
    """Return the files of one of NLTK's data sets: unpacked, or the archive that it left packed."""
    from nltk import data  # pyright: ignore

    try:
        with warnings.catch_warnings():
            # Of folders that it passes over; the error says so.
            warnings.simplefilter("ignore")
            found = data.find(f"{path}/")
    except LookupError as error:
        raise UnavailableError(
            f"NLTK's data '{name}' are not on this machine",
            f"It looks for {path} in {', '.join(data.path[:3])}, ..., and passes over folders that "
            "others may write to.",
            f"python -m nltk.downloader {name}",
        ) from error
    archive = getattr(found, "zipfile", None)
    if archive is not None:
        return [Path(archive.filename)]
    return sorted(file for file in Path(str(found)).iterdir() if file.is_file())
