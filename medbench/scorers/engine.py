"""Values of texts: computed once, in batches, in the process that suits it, and kept by content."""

from __future__ import annotations

import hashlib
import importlib
import json
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from medbench import memo_file
from medbench.digests import cache_folder
from medbench.errors import UserError
from medbench.metric import Setting
from medbench.provenance import digest
from medbench.scorers.worker import LOAD_SECONDS, FailedError, GaveUpError, Worker

Texts = tuple[str, ...]


@dataclass(frozen=True)
class Engine:
    """One way to give values to texts.

    Attributes:
        module: import name of its file; outside medbench, one that the process that runs it finds.
        settings: what that file's functions are called with.
        batch: texts handed over together.
        seconds: how long one text may take; a batch that takes longer is taken apart, and a text
            that does so alone is given up.
        apart: whether it runs in a process of its own, because its package is slow to import,
            prints, changes other packages, may hang or may take all memory.
        kept: whether its values cost enough to be kept on disk.
    """

    module: str
    settings: Mapping[str, Any]
    batch: int = 64
    seconds: float = 120.0
    apart: bool = True
    kept: bool = True

    @property
    def name(self) -> str:
        """The last part of the module's name, for messages and files."""
        return self.module.rpartition(".")[2]


@dataclass(frozen=True)
class Values:
    """What an engine found.

    Attributes:
        found: a value for each text asked about, in order; None where it was given up.
        made_with: versions and hashes that the values depend on.
    """

    found: list[Any]
    made_with: Mapping[str, Any]


class _Asked(Protocol):
    """Where an engine runs."""

    def ask(self, request: str, *arguments: Any, seconds: float) -> Any: ...


def values_of(engine: Engine, texts: Sequence[Texts], setting: Setting) -> Values:
    """Return an engine's values of texts; equal ones are computed once, known ones not at all.

    Raises:
        UnavailableError: the engine lacks something on this machine.
        UserError: it failed; what it has computed until then is kept.
    """
    with _Process(engine, setting) as process:
        made_with = process.describe()
        keys = {text: _key(text) for text in dict.fromkeys(texts)}
        book = _Book(engine, made_with) if engine.kept else _Book(None, {})
        found = book.read(keys.values())
        # By length, so that a batch is filled up little; and so the first minutes foretell the rest
        # of the texts too low rather than too high.
        left = sorted((text for text, key in keys.items() if key not in found), key=_length)
        known = len(keys) - len(left)
        setting.progress(known, len(keys), engine.name)
        done = 0
        for start in range(0, len(left), engine.batch):
            batch = left[start : start + engine.batch]
            fresh = {keys[text]: value for text, value in process.values(batch)}
            # What was given up may come out on a machine with more time.
            book.write({key: value for key, value in fresh.items() if value is not None})
            found |= fresh
            done += len(batch)
            setting.progress(known + done, len(keys), engine.name)
    return Values([found[keys[text]] for text in texts], made_with)


class _Process:
    """An engine at work: here, or in a process that is started anew when it had to be ended."""

    def __init__(self, engine: Engine, setting: Setting) -> None:
        self._engine = engine
        self._setting = setting
        self._asked: _Asked | None = None
        self._loaded = False

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *error: object) -> None:
        if isinstance(self._asked, Worker):
            self._asked.close()

    def describe(self) -> dict[str, Any]:
        """Return what the values depend on; costs no process unless another Python is meant."""
        where = None if self._setting.python else _Here()
        settings = dict(self._engine.settings)
        arguments = (self._engine.module, settings)
        return self.ask("describe", *arguments, where=where, seconds=LOAD_SECONDS)

    def values(self, texts: list[Texts]) -> Iterator[tuple[Texts, Any]]:
        """Yield each text with its value, None for one that had to be given up."""
        try:
            if not self._loaded:
                settings = dict(self._engine.settings)
                arguments = (self._engine.module, settings, self._setting.device)
                self.ask("load", *arguments, seconds=LOAD_SECONDS)
                self._loaded = True
        except GaveUpError as error:
            raise UserError(
                f"{self._engine.name} does not load",
                f"The process that loads it {error}.",
                "It may lack memory. See: medbench doctor",
            ) from error
        try:
            found = self.ask("values", texts, seconds=self._engine.seconds * len(texts))
        except GaveUpError:
            self._asked, self._loaded = None, False
            if len(texts) == 1:
                yield texts[0], None
                return
            middle = len(texts) // 2
            yield from self.values(texts[:middle])
            yield from self.values(texts[middle:])
            return
        if len(found) != len(texts):
            raise ValueError(f"{self._engine.name}: {len(found)} values for {len(texts)} texts")
        yield from zip(texts, found, strict=True)

    def ask(
        self, request: str, *arguments: Any, seconds: float, where: _Asked | None = None
    ) -> Any:
        """Ask where the engine is to run, which is made when it is first asked, or elsewhere."""
        if where is None:
            if self._asked is None:
                apart = self._engine.apart or self._setting.python
                self._asked = Worker(self._setting.python) if apart else _Here()
            where = self._asked
        try:
            return where.ask(request, *arguments, seconds=seconds)
        except FailedError as error:
            raise UserError(
                f"{self._engine.name} failed",
                f"{error.kind}: {error}".splitlines()[0],
                "Please report it, with the versions that 'medbench doctor' prints.",
            ) from error


class _Here:
    """An engine in this process."""

    def __init__(self) -> None:
        self._loaded: Any = None

    def ask(self, request: str, *arguments: Any, seconds: float) -> Any:
        try:
            if request == "values":
                return self._loaded(*arguments)
            module = importlib.import_module(arguments[0])
            answer = getattr(module, request)(*arguments[1:])
        except UserError:
            raise
        except Exception as error:
            raise FailedError(type(error).__name__, str(error), traceback.format_exc()) from error
        if request == "load":
            self._loaded, answer = answer, None
        return answer


class _Book:
    """Values by texts in a file whose name says how they were made; a convenience, and private."""

    def __init__(self, engine: Engine | None, made_with: Mapping[str, Any]) -> None:
        about = {"engine": engine.module, "made_with": made_with} if engine else {}
        name = f"{engine.name}-{digest(about)[:16]}.sqlite" if engine else ""
        self._path = cache_folder() / "scores" / name if name else None
        self._about = json.dumps(about, sort_keys=True)

    def read(self, keys: Iterable[str]) -> dict[str, Any]:
        if self._path is None or not self._path.exists():
            return {}
        with suppress(UserError, ValueError):
            stored = memo_file.read(self._path, list(keys))
            return {key: json.loads(value) for key, value in stored.items()}
        return {}

    def write(self, values: Mapping[str, Any]) -> None:
        if self._path is None:
            return
        # ASCII, compressed: numbers are nearly all of it.
        content = {key: json.dumps(value).encode("ascii") for key, value in values.items()}
        with suppress(UserError):
            # Texts of restricted tasks are not in it, but what they contain can be guessed at.
            memo_file.write(self._path, self._about, content, private=True)


def _key(text: Texts) -> str:
    return hashlib.sha256(json.dumps(text).encode("ascii")).hexdigest()


def _length(text: Texts) -> int:
    return max(map(len, text))
