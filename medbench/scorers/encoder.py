"""What describes an encoder whose weights lie elsewhere: its config.json and its tokenizer."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from medbench.digests import cache_folder
from medbench.errors import UnavailableError, UserError
from medbench.scorers.weights import of_folder, of_hub

# One of the first two holds the vocabulary; the others are read where they are there.
_VOCABULARY = ("tokenizer.json", "vocab.txt")
_MAYBE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def description(name: str, *, needed_by: str) -> dict[str, Path]:
    """Return the paths of an encoder's config.json and of its tokenizer's files, all in one folder.

    Args:
        name: a folder, or an id of the hub as packages spell it.
        needed_by: the metric, for the message.

    Raises:
        UnavailableError: it was not downloaded.
        UserError: the folder lacks one of them.
    """
    is_folder = Path(name).expanduser().is_dir()
    look = of_folder if is_folder else of_hub
    found = look(name, ["config.json"], needed_by=needed_by)
    folder = found["config.json"].parent
    there = {one: folder / one for one in (*_VOCABULARY, *_MAYBE) if (folder / one).is_file()}
    if not any(one in there for one in _VOCABULARY):
        what = f"{needed_by}: {name} has no tokenizer"
        why = f"None of {', '.join(_VOCABULARY)} is beside its config.json."
        if is_folder:
            raise UserError(what, why, "Put one of them there.")
        raise UnavailableError(what, why, f"medbench doctor --metric {needed_by} --fetch")
    return {**found, **there}


def package_cache(package: str) -> Path:
    """Return where a package that asks appdirs for it keeps what it has downloaded."""
    with suppress(ImportError):
        from appdirs import (  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
            user_cache_dir,
        )

        return Path(user_cache_dir(package))
    return cache_folder().parent / package
