"""RaTEScore: the entities of two reports, each with the likest of the other's, weighed by kinds."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from medbench.errors import UnavailableError, UserError
from medbench.extras import importing
from medbench.scorers.batches import by_length, filled
from medbench.scorers.engine import Engine
from medbench.scorers.packages import versions
from medbench.scorers.weights import check_filled, hashes, of_folder, of_hub

RELEASE = "0.6.0"
Part = Literal["ner", "encoder"]
HUB_IDS: dict[Part, str] = {
    "ner": "Angelakeke/RaTE-NER-Deberta",
    "encoder": "FremyCompany/BioLORD-2023-C",
}
FILES: dict[Part, tuple[str, ...]] = {
    "ner": ("config.json", "model.safetensors", "tokenizer.json"),
    "encoder": ("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"),
}
# What transformers makes a tokenizer of as well, where it is there.
_MAYBE = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json")
# A text without entities on either side; the package's number.
NO_ENTITY = 0.5
# What a match of a finding with its absence counts: release 0.6.0 took it from the search that gave
# the other weights for long reports, release 0.5.0 had that of another search here.
_NEGATED = {"0.6.0": 0.8716553966489615, "0.5.0": 0.3612}
# Tokens of a sentence that are read, as in the package, and tokens that are computed together.
_TOKENS, _BATCH_TOKENS = 512, 4096
# Texts whose sentences and vectors are kept for other decoders' answers to the same question.
_LATELY = 2048

Entity = tuple[str, str]  # words, and their kind, such as "ANATOMY"
Embedded = tuple[Any, list[str]]  # float32 [entities, width] on the CPU, and their kinds


def ratescore(ner: str, encoder: str) -> Engine:
    """Return the engine of RaTEScore with the weights for long reports.

    Args:
        ner, encoder: folders of the two models; "" for the published ones in the hub's cache.
    """
    return Engine(__name__, {"ner": ner, "encoder": encoder})


def describe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the versions of packages and the hashes of both models' files.

    Raises:
        UnavailableError: a package or a model is not on this machine, or this Python has packages
            that do not work together.
        UserError: a file of a model is missing or damaged.
    """
    check_packages()
    names = ["RaTEScore", "medspacy", "PyRuSH", "PyFastNER", "spacy", "transformers", "tokenizers"]
    found: dict[str, Any] = versions([*names, "torch"], extra="clinical")
    for part in ("ner", "encoder"):
        files = _files(settings, part)
        folder = files["config.json"].parent
        files |= {name: folder / name for name in _MAYBE if (folder / name).is_file()}
        found |= {f"{part}/{name}": value for name, value in hashes(files).items()}
    return found


def check_packages() -> None:
    """Find out, without importing anything, whether the package can run in this Python.

    Raises:
        UnavailableError: it is not here or of another release, or spaCy does not fit numpy.
    """
    try:
        spacy, numpy, *_ = map(_version, ("spacy", "numpy", "medspacy", "RaTEScore"))
    except importlib.metadata.PackageNotFoundError as error:
        if sys.version_info < (3, 12):
            raise UnavailableError(
                "RaTEScore is not installed in this Python",
                f"Missing here: {error.name}; below Python 3.12 medbench[clinical] leaves it out.",
                "Name a Python that has it, --python /path/to/python3.12; or see docs/metrics.md.",
            ) from error
        return
    if (release := importlib.metadata.version("RaTEScore")) != RELEASE:
        raise UnavailableError(
            f"RaTEScore is {release} in this Python",
            f"medbench takes {RELEASE} apart; what earlier releases say is computed by it as well.",
            f'pip install "RaTEScore=={RELEASE}"',
        )
    if spacy < (3, 8) and numpy >= (2,):
        raise UnavailableError(
            "RaTEScore cannot run in this Python",
            f"Its spaCy is a {'.'.join(map(str, spacy))}, which does not work with numpy 2.",
            'pip install "spacy>=3.8,<3.9", whatever pip says of medspacy then; '
            "or --python /path/to/python3.12",
        )


def load(settings: Mapping[str, Any], device: str) -> Callable[[Sequence[tuple[str, ...]]], Any]:
    """Return a function from (output, gold) pairs to what was found of each.

    That is the value by each release, such as "0.6.0", and "entities", how many there are in the
    output and the gold.

    Raises:
        UserError: a checkpoint does not fill its model, or tags other kinds of words.
    """
    with importing("clinical"):
        from loguru import logger  # pyright: ignore[reportMissingImports]

        logger.disable("PyRuSH")  # several lines for each sentence
        from RaTEScore import (  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
            score,
            scorer,
            utils,
        )
    weights = {
        tuple(name.upper().split("_")): value for name, value in scorer.DEFAULT_MATRIX_LONG.items()
    }
    tag = _tagger(settings, device, {kind for kind, other in weights if other != "WEIGHT"}, utils)
    tokenizer, encoder = _encoder(settings, device)

    # One by one: of several it does not say which have no sentence.
    @lru_cache(_LATELY)
    def split(text: str) -> list[str]:
        return utils.sentence_split([text])[0]

    # As the package does it, a report at a time: its entities may be alike to the last digit, and
    # of what kind the likest is then follows from how they were computed.
    @lru_cache(_LATELY)
    def embed(entities: tuple[Entity, ...]) -> Embedded:
        return score.process_embedding(entities, tokenizer, encoder, device)

    def values(pairs: Sequence[tuple[str, ...]]) -> list[dict[str, Any]]:
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        tagged = tag({sentence for text in texts for sentence in split(text)})
        found = {
            text: embed(tuple(entity for sentence in split(text) for entity in tagged[sentence]))
            for text in texts
        }
        return [judge(found[output], found[gold]) for output, gold in pairs]

    def judge(output: Embedded, gold: Embedded) -> dict[str, Any]:
        by_release = {release: value(output, gold, release) for release in _NEGATED}
        return {**by_release, "entities": [len(output[1]), len(gold[1])]}

    def value(output: Embedded, gold: Embedded, release: str) -> float:
        if not output[1] or not gold[1]:
            return NO_ENTITY
        weighed = {**weights, ("NEG", "WEIGHT"): _NEGATED[release]}
        there = utils.compute(gold[0], output[0], gold[1], output[1], weighed)
        back = utils.compute(output[0], gold[0], output[1], gold[1], weighed)
        return float(2 * there * back / (there + back)) if there + back else 0.0

    return values


def _tagger(
    settings: Mapping[str, Any], device: str, kinds: set[str], utils: Any
) -> Callable[[Iterable[str]], Mapping[str, Sequence[Entity]]]:
    """Return a function from sentences to the entities of each, computed once."""
    import torch
    from transformers import AutoModelForTokenClassification, PreTrainedTokenizerFast

    # As the file says: transformers 5 makes a tokenizer of its own of it, which does not know that
    # a raised 2 is a 2.
    file = _files(settings, "ner")["tokenizer.json"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file))
    model = _model(AutoModelForTokenClassification, settings, "ner").to(device)
    labels: dict[int, str] = model.config.id2label
    found = {label[2:] for label in labels.values() if label != "O"}
    if not found or found - kinds:
        raise UserError(
            f"ratescore: {settings['ner'] or HUB_IDS['ner']} finds other kinds of entities",
            f"It has {', '.join(sorted(found))}; known are {', '.join(sorted(kinds))}.",
            "Name a model that was made for RaTEScore.",
        )
    known: dict[str, Sequence[Entity]] = {}

    def tag(sentences: Iterable[str]) -> Mapping[str, Sequence[Entity]]:
        fresh = sorted(set(sentences) - known.keys())
        rows = tokenizer(fresh, truncation=True, max_length=_TOKENS)["input_ids"] if fresh else []
        for batch in by_length(rows, tokens=_BATCH_TOKENS):
            ids, mask = filled([rows[at] for at in batch], model.config.pad_token_id)
            with torch.inference_mode():
                logits = model(
                    input_ids=torch.tensor(ids, device=device),
                    attention_mask=torch.tensor(mask, device=device),
                ).logits
            for at, said in zip(batch, logits.argmax(-1).tolist(), strict=True):
                tokens = tokenizer.convert_ids_to_tokens(rows[at])
                spoken = [labels[label] for label in said[: len(tokens)]]
                known[fresh[at]] = utils.post_process(tokens, spoken, tokenizer)
        return known

    return tag


def _encoder(settings: Mapping[str, Any], device: str) -> tuple[Any, Any]:
    """Return the tokenizer and the model that give entities their vectors."""
    from transformers import AutoModel, AutoTokenizer

    folder = _files(settings, "encoder")["config.json"].parent
    return AutoTokenizer.from_pretrained(folder), _model(AutoModel, settings, "encoder").to(device)


def _model(kind: Any, settings: Mapping[str, Any], part: Part) -> Any:
    """Return a model, every parameter of which that is used is in its checkpoint."""
    import torch

    model, loaded = kind.from_pretrained(
        _files(settings, part)["config.json"].parent,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    names = [name for name in model.state_dict() if not name.startswith("pooler.")]
    given = set(names) - set(loaded["missing_keys"])
    check_filled(settings[part] or HUB_IDS[part], names, given)
    return model.eval()


def _files(settings: Mapping[str, Any], part: Part) -> dict[str, Path]:
    """Return the paths of a model's files by their names."""
    if settings[part]:
        return of_folder(settings[part], FILES[part], needed_by="ratescore")
    return of_hub(HUB_IDS[part], FILES[part], needed_by="ratescore")


def _version(package: str) -> tuple[int, ...]:
    """Return the first two numbers of an installed version."""
    numbers = importlib.metadata.version(package).split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdigit())
