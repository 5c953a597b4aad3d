"""Run folders on disk: append a line a sample, resume, and find what is there.

run.json             what was run and with what; written first
samples.jsonl        one flushed line a sample; the last one may be half-written after a kill
samples.2of8.jsonl   the same of a part of the samples, while the run is answered in parts
scores.json          written last, by rename; its presence means complete, and in one piece
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from medbench.atomic import is_full, remove_leftovers, write_atomically, write_json
from medbench.errors import UserError
from medbench.restricted import make_private
from medbench.rows import Row

SCHEMA = 1
RUN, SAMPLES, SCORES, LOCK = "run.json", "samples.jsonl", "scores.json", ".lock"
# Of a part, "2of8"; without one the names above.
_PART_OF_SAMPLES, _PART_OF_LOCK = "samples.{}.jsonl", ".lock.{}"
# What run.json says that may change between a kill and the next start.
_CIRCUMSTANCES = ("started", "device", "versions", "hardware", "git")


@dataclass(frozen=True)
class RunRecord:
    """A run folder as tables and lists see it.

    Attributes:
        task, backbone, method: display strings of the specs.
        state: "complete", "partial" (complete, but over fewer samples than the split has),
            "unfinished" (some samples answered), or "broken" with `why`.
        limit: as given; missing_images: samples left out for want of an image, or of an answer in
            what was imported.
        scores: metric -> value, low, high, n, groups, notes.
        edition, note: which copy of the data was read, "" for the official one, and what a reader
            must know of it.
        health: counts over the answers; identity, command, versions, hardware: as in run.json.
        restricted: whether the task's data may not be shown around; withheld: whether the run came
            here without their texts.
    """

    folder: Path
    task: str = ""
    backbone: str = ""
    method: str = ""
    key: str = ""
    seed: int = 0
    preset: str = ""
    state: str = "broken"
    limit: int | None = None
    missing_images: int = 0
    done: int = 0
    total: int = 0
    scores: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    edition: str = ""
    note: str = ""
    health: dict[str, Any] = field(default_factory=dict[str, Any])
    identity: dict[str, Any] = field(default_factory=dict[str, Any])
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict[str, str])
    hardware: dict[str, Any] = field(default_factory=dict[str, Any])
    restricted: bool = False
    withheld: bool = False
    why: str = ""


class HeldError(UserError):
    """Another process holds what this one wants to write."""


@contextmanager
def locked(
    folder: Path, *, wait: bool | float, what: str, private: bool = False, part: str = ""
) -> Generator[None]:
    """Hold a folder for this process alone; the lock falls when the process ends, however.

    Args:
        wait: for the other process until it ends, for so many seconds, or not at all.
        what: "run" or "adapter", for the message.
        private: whether a new folder is for its owner alone.
        part: of the run that is held, such as "2of8"; the whole run by default.

    Raises:
        HeldError: another process holds it.
        UserError: the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / (_PART_OF_LOCK.format(part) if part else LOCK))
    try:
        if private:
            make_private(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=-1 if wait is True else float(wait))
    except Timeout as error:
        raise HeldError(
            f"another process is writing this {what}",
            f"It holds {lock.lock_file}.",
            "Wait for it to end, or stop it; then run the same command again.",
        ) from error
    except OSError as error:
        if is_full(error):
            raise
        raise UserError(
            f"cannot write to {folder}",
            f"{error.strerror or error}.",
            "Choose another folder with --out, or change its rights.",
        ) from error
    try:
        if not part:  # what another process is writing is no leftover
            remove_leftovers(folder)
        yield
    finally:
        lock.release()


@contextmanager
def parts_locked(folder: Path) -> Generator[None]:
    """Hold all parts of a run that any process took up, so that none is being answered.

    Of a run that is complete in the end, no trace of parts remains.

    Raises:
        HeldError: another process is answering one.
    """
    with ExitStack() as held:
        for path in _part_locks(folder):
            part = path.name.removeprefix(_PART_OF_LOCK.format(""))
            held.enter_context(locked(folder, wait=False, what=f"run's part {part}", part=part))
        yield
        if (folder / SCORES).exists():
            for path in _part_locks(folder):
                path.unlink()  # who waits for it still finds that the run is complete


def check(folder: Path, key: str) -> None:
    """Make sure that a folder is new, or belongs to the run of this key.

    Raises:
        UserError: its run.json is broken, from a newer medbench, of another run, or of one that was
            imported in part.
    """
    known = read_run(folder) if (folder / RUN).exists() else {"key": key}
    if known.get("key") != key:
        raise UserError(
            f"{folder} holds another run",
            f"Its {RUN} does not have the key {key}; a folder was copied or renamed.",
            "Move it away and run the same command again.",
        )
    if known.get("withheld", False) and not (folder / SCORES).exists():
        raise UserError(
            f"{folder} was not imported to its end",
            "It belongs to a run without texts, to which no answers can be added.",
            "Import its file again, or delete the folder.",
        )


def begin(folder: Path, record: dict[str, Any]) -> None:
    """Write run.json; of a run that goes on, add under what versions and where, if they changed."""
    if not (folder / RUN).exists():
        write_json(folder / RUN, {"schema": SCHEMA, **record})
        return
    known = read_run(folder)
    now = {name: record[name] for name in _CIRCUMSTANCES}
    before = known.get("continued", [])
    latest = before[-1] if before else known
    if any(latest.get(name) != now[name] for name in _CIRCUMSTANCES[1:]):
        write_json(folder / RUN, {**known, "continued": [*before, now]})


def read_run(folder: Path) -> dict[str, Any]:
    """Read run.json.

    Raises:
        UserError: it is broken or from a newer medbench.
    """
    return _read(folder / RUN)


def read_rows(folder: Path) -> list[Row]:
    """Return the answered samples, each once; half-written last lines are left out.

    Raises:
        UserError: a line before the last one is broken.
    """
    rows: dict[str, Row] = {}
    for path in (folder / SAMPLES, *_parts(folder)):
        for row in _complete_rows(path)[0]:
            rows.setdefault(row["id"], row)
    return list(rows.values())


def repair(folder: Path, part: str = "") -> None:
    """Cut a half-written last line off a file of rows: of the whole run, or of a part."""
    path = _rows_file(folder, part)
    _, length = _complete_rows(path)
    if path.exists() and path.stat().st_size > length:
        with path.open("r+b") as file:
            file.truncate(length)


@contextmanager
def appending(folder: Path, part: str = "") -> Generator[Any]:
    """Yield a function that appends rows, all of a batch at once, and flushes them to disk."""
    with _rows_file(folder, part).open("ab") as file:

        def append(rows: Sequence[Row]) -> None:
            text = "".join(_line(row) for row in rows)
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())

        yield append


def _rows_file(folder: Path, part: str) -> Path:
    return folder / (_PART_OF_SAMPLES.format(part) if part else SAMPLES)


def _parts(folder: Path) -> list[Path]:
    """Return the files of the parts that have answers."""
    return sorted(folder.glob(_PART_OF_SAMPLES.format("*of*")))


def _part_locks(folder: Path) -> list[Path]:
    return sorted(folder.glob(_PART_OF_LOCK.format("*of*")))


def finish(folder: Path, rows: Sequence[Row], scores: dict[str, Any]) -> dict[str, Any]:
    """Write the rows with their scores, then scores.json, which makes the run complete.

    Call it with the run and all its parts held.

    Returns:
        The content of scores.json.
    """
    text = "".join(_line(row) for row in rows)
    write_atomically(folder / SAMPLES, lambda path: path.write_text(text, encoding="utf-8"))
    for path in _parts(folder):
        path.unlink()
    content = {"schema": SCHEMA, **scores}
    write_json(folder / SCORES, content)
    return content


def read_scores(folder: Path) -> dict[str, Any] | None:
    """Return scores.json, or None if the run is not complete.

    Raises:
        UserError: the file is broken or from a newer medbench.
    """
    return _read(folder / SCORES) if (folder / SCORES).exists() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema = int(content["schema"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot read {path}",
            f"{type(error).__name__}: {error}",
            "Delete it and run the same command again; the answers beside it are kept.",
        ) from error
    if schema > SCHEMA:
        raise UserError(
            f"{path} is from a newer medbench",
            f"Its schema is {schema}; this version reads up to {SCHEMA}.",
            "Upgrade medbench, or write to another folder with --out.",
        )
    return content


def read_record(folder: Path) -> RunRecord:
    """Return a run folder as tables and lists see it; a broken one says why."""
    try:
        run = read_run(folder)
        scores = read_scores(folder)
        total, shown, partial = run["samples"], run["display"], run["partial"]
        edition = run["data"]["edition"]
        state = "unfinished"
        if scores is not None:
            state = "partial" if partial else "complete"
        return RunRecord(
            folder=folder,
            **shown,
            key=run["key"],
            seed=run["identity"]["seed"],
            preset=run["identity"]["preset"],
            state=state,
            limit=run["identity"]["limit"],
            missing_images=run["missing_images"] + run.get("missing_answers", 0),
            done=total if scores is not None else len(read_rows(folder)),
            total=total,
            scores=scores["scores"] if scores else {},
            health=scores["health"] if scores else {},
            identity=run["identity"],
            command=run.get("command", ""),
            versions=run.get("versions", {}),
            hardware=run.get("hardware", {}),
            restricted=run["data"].get("restricted", False),
            withheld=run.get("withheld", False),
            edition="" if edition == "official" else edition,
            note=run["data"]["note"],
        )
    except (UserError, KeyError, TypeError) as error:
        why = error.what if isinstance(error, UserError) else f"run.json lacks {error}"
        return RunRecord(folder=folder, why=why)


def _complete_rows(path: Path) -> tuple[list[Row], int]:
    """Return the rows of whole lines, and the number of bytes that they take."""
    if not path.exists():
        return [], 0
    rows: list[Row] = []
    length = 0
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("the line is cut off")
            row = json.loads(line)
            if not isinstance(row, dict) or "id" not in row:
                raise ValueError("it is not an answer to a sample")
            rows.append(cast("Row", row))
        except ValueError as error:
            if number == len(lines):
                break
            # A run with scores counts as finished, and would not go on.
            scored = f" and {SCORES}" if path.with_name(SCORES).exists() else ""
            raise UserError(
                f"line {number} of {path} is broken",
                f"{type(error).__name__}: {error}.",
                f"Delete that line{scored}; the same command then answers the sample again.",
            ) from error
        length += len(line)
    return rows, length


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n"
