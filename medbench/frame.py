"""The samples of runs as one table for pandas: a row a sample, each column of one type."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from medbench import store
from medbench.atomic import explaining_full_disks, write_atomically
from medbench.errors import UserError
from medbench.extras import importing
from medbench.restricted import check_texts
from medbench.rows import Row
from medbench.sharing.withholding import rows_without_texts

Format = Literal["parquet", "csv"]
# Columns that are always there, in this order, with the types that pandas calls so.
_OF_RUNS = {
    "task": "string",
    "backbone": "string",
    "method": "string",
    "seed": "Int64",
    "preset": "string",
    "key": "string",
}
_OF_ROWS = {
    "id": "string",
    "group": "string",
    "kind": "string",
    "question": "string",
    "gold": "string",
    "prompt": "string",
    "output": "string",
    "stop": "string",
    "n_tokens": "Int64",
    "forwards": "Int64",
    "seconds": "float64",
    "peak_bytes": "Int64",
}
_META, _SCORE = "meta.", "score."


def write_frame(
    folders: Sequence[Path], path: Path, *, written_as: Format, show_restricted: bool = False
) -> tuple[int, bool]:
    """Write the samples of finished runs into one file.

    Args:
        folders: of the runs.
        path: of the file; what is there is replaced.
        written_as: its format.
        show_restricted: whether texts and ids of restricted tasks go into it.

    Returns:
        The number of samples, and whether texts and ids of some were left out.

    Raises:
        UserError: pandas or pyarrow is not installed, a run cannot be read or came without its
            texts, or the file cannot be written.
    """
    found, withheld = frame(folders, show_restricted=show_restricted)
    private = show_restricted and any(map(_is_restricted, map(store.read_run, folders)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with explaining_full_disks(path):
            write_atomically(
                path, lambda target: _write(found, target, written_as), private=private
            )
    except OSError as error:
        raise UserError(
            f"cannot write {path}",
            f"{error.strerror or error}.",
            "Choose another place with --output, or change its rights.",
        ) from error
    return len(found), withheld


def frame(folders: Sequence[Path], *, show_restricted: bool = False) -> tuple[Any, bool]:
    """Return the samples of finished runs as a pandas.DataFrame, and whether texts were left out.

    Columns are those of runs and rows, then `meta.<field>` and `score.<metric>` of all that the
    runs have, by name. Fields of `meta` are texts; what is none there is written as JSON. Where a
    run does not tell, or a metric does not apply, nothing stands.

    Raises:
        UserError: pandas or pyarrow is not installed, or a run cannot be read or came without its
            texts.
    """
    with importing("frame"):
        import pandas as pd  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
        import pyarrow  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]

    del pyarrow  # which pandas writes with
    lines: list[dict[str, Any]] = []
    withheld = False
    for folder in folders:
        run = store.read_run(folder)
        if show_restricted:
            check_texts(folder, withheld=run.get("withheld", False), what="--show-restricted")
        rows = store.read_rows(folder)
        if _is_restricted(run) and not show_restricted:
            rows, withheld = rows_without_texts(rows), True
        lines += _lines(run, rows)
    names = dict.fromkeys(name for line in lines for name in line)
    types = {
        **_OF_RUNS,
        **_OF_ROWS,
        **dict.fromkeys(sorted(name for name in names if name.startswith(_META)), "string"),
        **dict.fromkeys(sorted(name for name in names if name.startswith(_SCORE)), "float64"),
    }
    as_array: Any = pd.array  # whose types name no type by its word
    columns = {
        name: as_array([line.get(name) for line in lines], dtype=kind)
        for name, kind in types.items()
    }
    return pd.DataFrame(columns), withheld


def _write(found: Any, path: Path, written_as: Format) -> None:
    if written_as == "parquet":
        found.to_parquet(path, engine="pyarrow", index=False)
        return
    # Quoted throughout, or a lone carriage return would end a line.
    found.to_csv(path, index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")


def _is_restricted(run: Mapping[str, Any]) -> bool:
    return run["data"].get("restricted", False)


def _lines(run: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Yield one line a sample: column -> value; what is not told is not there."""
    identity = run["identity"]
    about = {**run["display"], **{name: identity[name] for name in ("seed", "preset")}}
    about["key"] = run["key"]
    for row in rows:
        line = {**about, **{name: row[name] for name in _OF_ROWS if name in row}}
        if "tokens" in row:
            line["n_tokens"] = len(row["tokens"])
        for name, value in row.get("meta", {}).items():
            line[f"{_META}{name}"] = _text(value)
        for name, value in row.get("scores", {}).items():
            line[f"{_SCORE}{name}"] = value
        yield line


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
