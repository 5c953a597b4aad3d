"""What finished run folders say, remembered: tables over thousands of runs must not wait for JSON.

A folder is read again when one of its files was written since. What is remembered is what
`run.json` and `scores.json` held, and no answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from medbench import digests
from medbench.store import RUN, SCORES, RunRecord, read_record

# Records of other fields are not read.
_FORMAT = f"run 1 {','.join(one.name for one in fields(RunRecord))}"
_FINISHED = ("complete", "partial")


def find_runs(root: Path | str = "results/runs") -> list[RunRecord]:
    """Return every run folder under `root`, sorted by path; broken ones say why."""
    return records([path.parent for path in sorted(Path(root).glob(f"*/*/*/*/{RUN}"))])


def records(folders: Sequence[Path]) -> list[RunRecord]:
    """Return the records of run folders, in the order given."""
    known = digests.recall((folder / RUN for folder in folders), _FORMAT)
    found: list[RunRecord] = []
    fresh: dict[Path, bytes] = {}
    for folder in folders:
        # Taken before reading: what is written meanwhile makes another state.
        state = _state(folder / SCORES)
        record = _unpack(folder, state, known.get(folder / RUN))
        if record is None:
            record = read_record(folder)
            if record.state in _FINISHED:
                fresh[folder / RUN] = _pack(record, state)
        found.append(record)
    if fresh:
        digests.remember(fresh, _FORMAT)
    return found


def _state(path: Path) -> list[int]:
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def _pack(record: RunRecord, state: list[int]) -> bytes:
    values = {name: value for name, value in vars(record).items() if name != "folder"}
    return json.dumps([state, values]).encode()


def _unpack(folder: Path, state: list[int], content: bytes | None) -> RunRecord | None:
    """Return a remembered record, None if there is none or the scores were written since."""
    if content is None:
        return None
    before, values = json.loads(content)
    return RunRecord(folder=folder, **values) if before == state else None
