"""Tokenizers that split and join texts as the originals did.

Version 5 of transformers rebuilds a Llama tokenizer's pipeline and loses the blank in front of a
text and behind an added token; its AutoTokenizer returns a generic one for LLaVA-Med 1.0. Here the
pipeline is put back to what the original does: a blank in front of every piece of text, and added
tokens found in the text as it was given.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from medbench.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

_SENTENCEPIECE = (
    "tokenizer.model", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json",
)  # fmt: skip
_BLANK = "▁"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_WRONG = "\N{REPLACEMENT CHARACTER}"


def load_llama_tokenizer(directory: Path, *, slow: bool) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a Llama or Mistral checkpoint, splitting as the original does.

    `tokenizer.model` comes first, since conversions of it that circulate differ; a folder that has
    `tokenizer.json` only is read from that file as it stands.

    Args:
        directory: of the checkpoint.
        slow: whether the original's loader takes the slow tokenizer, which splits as the fast one
            does but joins bytes to letters one by one; the fast one gives up a whole run of bytes
            if one of them is no letter.

    Raises:
        UserError: neither file is there, or one is broken.
    """
    from transformers import LlamaTokenizer, PreTrainedTokenizerFast

    if (directory / "tokenizer.model").is_file():
        # In a folder of their own: transformers would look into tokenizer.json first.
        with TemporaryDirectory() as alone:
            for name in _SENTENCEPIECE:
                if (directory / name).is_file():
                    shutil.copyfile(directory / name, Path(alone) / name)
            return _as_original(_load(Path(alone), LlamaTokenizer, directory), slow)
    _require(directory, ["tokenizer.json"], "tokenizer.model")
    return _load(directory, PreTrainedTokenizerFast)


def load_qwen_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a Qwen2 checkpoint.

    Raises:
        UserError: its files are not there, or one is broken.
    """
    from transformers import Qwen2Tokenizer

    if not (directory / "tokenizer.json").is_file():
        _require(directory, ["vocab.json", "merges.txt"], "tokenizer.json")
        if len((directory / "merges.txt").read_bytes().splitlines()) < 2:
            raise _unreadable(directory, "merges.txt is empty.")
    return _load(directory, Qwen2Tokenizer)


def check_vocabulary(directory: Path, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Make sure that a tokenizer is the model's: it knows no token without an embedding.

    A sentencepiece model has as many tokens as there are rows; others may have fewer.

    Raises:
        UserError: it has more tokens, or the model's file was cut off.
    """
    known = len(tokenizer)
    whole = known == rows if (directory / "tokenizer.model").is_file() else known <= rows
    if not whole:
        why = f"It has {known} tokens; the model has embeddings of {rows}."
        raise _unreadable(directory, why)


def _as_original(tokenizer: PreTrainedTokenizerFast, slow: bool) -> PreTrainedTokenizerFast:
    """Put a tokenizer's pipeline back to that of the original."""
    from tokenizers import Tokenizer, decoders

    pipeline = json.loads(tokenizer.backend_tokenizer.to_str())
    pipeline["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": _BLANK},
            {"type": "Replace", "pattern": {"String": " "}, "content": _BLANK},
        ],
    }
    pipeline["pre_tokenizer"] = None
    for token in pipeline["added_tokens"]:
        token["normalized"] = False
    rebuilt = Tokenizer.from_str(json.dumps(pipeline))
    if slow:
        rebuilt.decoder = decoders.Decoder.custom(Joining())
    # There is no public way to set it.
    tokenizer._tokenizer = rebuilt  # pyright: ignore[reportPrivateUsage]
    return tokenizer


def written_pipeline(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """Return a copy of a tokenizer's pipeline that can be written to a file.

    It splits as the tokenizer does; joining bytes one by one cannot be written.
    """
    from tokenizers import Tokenizer, decoders

    pipeline = tokenizer.backend_tokenizer
    own = pipeline.decoder
    if type(own) is decoders.Decoder:  # one of ours
        pipeline.decoder = decoders.Sequence(
            [
                decoders.Replace(_BLANK, " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
    try:
        return Tokenizer.from_str(pipeline.to_str())
    finally:
        pipeline.decoder = own


class Joining:
    """Joins tokens to a text as sentencepiece does: bytes that are no letter are one mark each."""

    def decode_chain(self, tokens: Sequence[str]) -> list[str]:
        """Return the text of tokens as a list of one, for the tokenizers library."""
        text, run = "", b""
        for token in tokens:
            byte = _BYTE.fullmatch(token)
            if byte:
                run += bytes([int(byte[1], 16)])
            else:
                text, run = text + _letters(run) + token.replace(_BLANK, " "), b""
        # The blank in front of every text is not the text's own.
        return [(text + _letters(run)).removeprefix(" ")]


def _letters(run: bytes) -> str:
    text, start = "", 0
    while start < len(run):
        for length in (1, 2, 3, 4):
            try:
                text += run[start : start + length].decode("utf-8")
            except UnicodeDecodeError:
                continue
            break
        else:
            text, length = text + _WRONG, 1
        start += length
    return text


def _require(directory: Path, names: Sequence[str], other: str) -> None:
    if not all((directory / name).is_file() for name in names):
        raise UserError(
            f"no tokenizer in {directory}",
            f"There is neither {other} nor {' with '.join(names)} in it.",
            "Download the checkpoint again, all of its files.",
        )


def _load(directory: Path, kind: Any, named: Path | None = None) -> PreTrainedTokenizerFast:
    try:
        return kind.from_pretrained(directory)
    # The readers of these formats have no exception in common, and some raise bare ones.
    except Exception as error:
        why = next(iter(str(error).splitlines()), "")
        raise _unreadable(named or directory, f"{type(error).__name__}: {why}") from error


def _unreadable(directory: Path, why: str) -> UserError:
    return UserError(
        f"cannot read the tokenizer in {directory}",
        why,
        "A file is cut off, damaged, or another model's; download it again.",
    )
