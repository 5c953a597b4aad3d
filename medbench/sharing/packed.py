"""A run folder in one file: the same run makes the same bytes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medbench import spec, store
from medbench.atomic import explaining_full_disks, write_atomically
from medbench.errors import UserError
from medbench.restricted import check_texts
from medbench.sharing.agreement import Agreement
from medbench.sharing.manifest import MANIFEST, MEMBERS, Manifest
from medbench.sharing.portable import portable_run, portable_scores
from medbench.sharing.withholding import (
    rows_without_texts,
    run_without_texts,
    scores_without_texts,
)

# The earliest that a zip can tell, for no file is to differ by when it was written.
_TIME = (1980, 1, 1, 0, 0, 0)
_UNIX, _RIGHTS = 3, 0o600


@dataclass(frozen=True)
class Exported:
    """A run in a file.

    Attributes:
        path: of the file; size: in bytes.
        samples: how many it holds.
        display: task, backbone and method as tables show them.
        restricted: whether the task is; withheld: whether texts and ids were left out.
    """

    path: Path
    size: int
    samples: int
    display: Mapping[str, str]
    restricted: bool
    withheld: bool


def export_run(folder: Path, path: Path, *, show_restricted: bool = False) -> Exported:
    """Write a finished run into one file, without what tells of this machine.

    Args:
        folder: of the run.
        path: of the file; what is there is replaced.
        show_restricted: whether texts, ids and attention of a restricted task go with it.

    Raises:
        UserError: the run is not whole, its texts are not there, or the file cannot be written.
    """
    run = store.read_run(folder)
    restricted = run["data"].get("restricted", False)
    if show_restricted:
        check_texts(folder, withheld=run.get("withheld", False), what="--show-restricted")
    withheld = restricted and not show_restricted
    found = contents(folder, withheld=withheld)
    _check(folder, found)
    manifest = Manifest.of(found, withheld=withheld)
    packed = {MANIFEST: manifest.to_bytes(), **found}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with explaining_full_disks(path):
            private = restricted and not withheld
            write_atomically(path, lambda target: _write(target, packed), private=private)
    except OSError as error:
        raise UserError(
            f"cannot write {path}",
            f"{error.strerror or error}.",
            "Choose another place with --output, or change its rights.",
        ) from error
    return Exported(path, path.stat().st_size, run["samples"], run["display"], restricted, withheld)


def contents(folder: Path, *, withheld: bool) -> dict[str, bytes]:
    """Return what an export of a finished run holds: name -> content.

    Args:
        withheld: whether texts, ids and attention are left out.

    Raises:
        UserError: a file is broken.
    """
    run, scores = store.read_run(folder), store.read_scores(folder)
    assert scores is not None, "only finished runs are exported"
    run, scores = portable_run(run), portable_scores(scores)
    rows = (folder / store.SAMPLES).read_bytes()
    if withheld and not run.get("withheld", False):
        run, scores = run_without_texts(run), scores_without_texts(scores)
        rows = "".join(
            f"{json.dumps(row, ensure_ascii=False, sort_keys=True)}\n"
            for row in rows_without_texts(store.read_rows(folder))
        ).encode()
    found = {store.RUN: _json(run), store.SAMPLES: rows, store.SCORES: _json(scores)}
    assert tuple(found) == MEMBERS
    return found


def file_name(run: Mapping[str, Any]) -> str:
    """Return what a run's file is called by default.

    Args:
        run: content of its run.json.
    """
    shown = run["display"]
    method = "+".join(one.name for one in spec.parse_chain(shown["method"]))
    return f"{spec.parse(shown['task']).name}-{method}-{run['key']}.zip"


def _check(folder: Path, found: Mapping[str, bytes]) -> None:
    """Make sure that what is given away can be taken in.

    Raises:
        UserError: the run's files do not fit together.
    """
    agreement = Agreement(str(folder), "Run it again in another folder, with --out DIR.")
    run = agreement.parsed(found[store.RUN], store.RUN)
    scores = agreement.parsed(found[store.SCORES], store.SCORES)
    agreement.check_run(run)
    agreement.check_rows(map(json.loads, found[store.SAMPLES].splitlines()), run, scores)


def _write(path: Path, packed: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in packed.items():
            info = zipfile.ZipInfo(name, _TIME)
            info.create_system, info.external_attr = _UNIX, _RIGHTS << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, content)


def _json(content: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(content, indent=2, ensure_ascii=False)}\n".encode()
