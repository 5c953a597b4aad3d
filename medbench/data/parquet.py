"""Parquet files, as mirrors on Hugging Face have them: a split in one or several files (shards).

Nothing is held that is not asked for: texts come in batches without the images beside them, the
images of a split a few at a time, and an image of its own is read when it is opened.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbench.errors import UserError
from medbench.extras import importing
from medbench.task import Task

if TYPE_CHECKING:
    from PIL.Image import Image

_SHARD = re.compile(r"([a-z]+)(?:-(\d{5})-of-(\d{5}))?(?:-[0-9a-f]+)?\.parquet")
_CONVERTED = re.compile(r"(\d{4})\.parquet")
_TEXTS, _IMAGES = 1024, 16
# Without it, the images of a whole row group are read at once: hundreds of MB.
_BUFFER_BYTES = 2**16


@dataclass(frozen=True)
class StoredCell:
    """An image in a table's cell: its bytes, or a struct that has them as `bytes`.

    Attributes:
        path: of the shard.
        row_group: in the shard; row: in the row group.
        column: the cell's.
    """

    path: Path
    row_group: int
    row: int
    column: str

    def __call__(self) -> Image:
        """Decode the image, as RGB.

        Raises:
            UserError: the shard cannot be read, or the cell's bytes are no image.
        """
        from medbench.data.pictures import as_rgb, reading

        with reading(io.BytesIO(self.content()), self.place) as opened:
            return as_rgb(opened)

    def content(self) -> bytes:
        """Return the image file's bytes as they are stored.

        Raises:
            UserError: the shard cannot be read, or the cell is empty.
        """
        for _, first, cells in _cells(self.path, self.column, [self.row_group]):
            if self.row < first + len(cells):
                return _filled(cells[self.row - first], self.place).to_pybytes()
        raise _damaged(self.path, "It is shorter than it was when its questions were read.")

    @property
    def place(self) -> str:
        """Where the image is, for messages."""
        return f"{self.path}, row {self.row} of row group {self.row_group}"


@dataclass(frozen=True)
class Table:
    """The shards of a split, read as one table.

    Attributes:
        files: the shards, in order.
        rows: of all shards together.
        columns: names of those that every shard has.
    """

    files: tuple[Path, ...]
    rows: int
    columns: tuple[str, ...]

    def texts(
        self, columns: Sequence[str], optional: Sequence[str] = ()
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows: column -> value, of these columns alone.

        Args:
            columns: must be there, and have a value in every row.
            optional: taken where they are there.

        Raises:
            UserError: a shard cannot be read, or lacks a column or a value.
        """
        missing = [name for name in columns if name not in self.columns]
        if missing:
            raise UserError(
                f"{self.files[0]} is another table",
                f"It has no column '{missing[0]}'; it has {', '.join(self.columns)}.",
                "Other data sets and conversions use the same file names; download the right one.",
            )
        wanted = [*columns, *(name for name in optional if name in self.columns)]
        for path in self.files:
            number = 0
            with _opened(path) as file:
                for batch in file.iter_batches(_TEXTS, columns=wanted, use_threads=False):
                    for row in batch.to_pylist():
                        for name in columns:
                            if row[name] is None:
                                raise _damaged(path, f"Row {number} has no {name}.")
                        yield row
                        number += 1

    def images(self, column: str) -> Iterator[tuple[StoredCell, str]]:
        """Yield the images in order, each with the sha256 of its bytes.

        Raises:
            UserError: a shard cannot be read, has no such column of images, or an empty cell.
        """
        for path in self.files:
            for group, first, cells in _cells(path, column):
                for row, cell in enumerate(cells, first):
                    image = StoredCell(path, group, row, column)
                    yield image, hashlib.sha256(_filled(cell, image.place)).hexdigest()


def find_table(task: Task, split: str, folders: Sequence[str]) -> Table | None:
    """Return the table of a split in a task's data folder; None if there is none.

    Shards are called `test-00000-of-00002.parquet`, with or without a hash behind it, and lie in
    the data folder or in its `data`; or `0000.parquet` in `default/test`, as in the conversions
    that Hugging Face makes by itself; or it is one file, `test.parquet`.

    Args:
        folders: names of sub-folders to look into as well; case does not matter.

    Raises:
        UserError: shards are missing, of two downloads, or cannot be read.
    """
    root = Path(task.data).expanduser()
    if not task.data or not root.is_dir():
        return None
    named = {name.lower() for name in folders}
    inner = sorted(path for path in root.iterdir() if path.is_dir() and path.name.lower() in named)
    own = root.resolve().name.lower() in named
    # As with other files: a folder of many data sets may have another one's shards of its own.
    for home in [root, *inner] if own else [*inner, root]:
        for place in (home, home / "data", home / "default" / split, home / split):
            files = _shards(place, split)
            if files:
                return read_table(files)
    return None


def read_table(files: Sequence[Path]) -> Table:
    """Return the table that shards hold together; only their ends are read.

    Raises:
        UserError: one cannot be read.
    """
    rows = 0
    columns: list[str] | None = None
    for path in files:
        with _opened(path) as file:
            rows += file.metadata.num_rows
            names = file.schema_arrow.names
            columns = names if columns is None else [one for one in columns if one in names]
    return Table(tuple(files), rows, tuple(columns or ()))


def _shards(folder: Path, split: str) -> list[Path]:
    """Return a split's shards in a folder, in order, all of them or none."""
    if not folder.is_dir():
        return []
    names = (split, "val") if split == "validation" else (split,)
    numbered: list[tuple[int, int, Path]] = []
    converted: list[tuple[int, Path]] = []
    for path in sorted(folder.glob("*.parquet")):
        if (match := _SHARD.fullmatch(path.name)) and match[1] in names:
            numbered.append((int(match[2] or 0), int(match[3] or 1), path))
        elif (match := _CONVERTED.fullmatch(path.name)) and folder.name in names:
            converted.append((int(match[1]), path))
    if not numbered:
        numbered = [(number, converted[-1][0] + 1, path) for number, path in converted]
    if not numbered:
        return []
    total = numbered[0][1]
    numbers = [number for number, _, _ in numbered]
    if len(set(numbers)) < len(numbers) or {count for _, count, _ in numbered} != {total}:
        raise UserError(
            f"{folder} holds the {split} split more than once",
            f"{numbered[0][2].name} and {numbered[-1][2].name} are not of one download.",
            "Keep the files of one and move the others away.",
        )
    gaps = sorted(set(range(total)) - set(numbers))
    if gaps:
        raise UserError(
            f"{len(numbers)} of {total} files of the {split} split are in {folder}",
            f"Number {gaps[0]} is missing.",
            "Download the missing ones as well.",
        )
    return [path for _, _, path in sorted(numbered)]


def _cells(
    path: Path, column: str, row_groups: Sequence[int] | None = None
) -> Iterator[tuple[int, int, Any]]:
    """Yield the images' bytes as arrays of a few rows, with the row group and the first row."""
    with _opened(path) as file:
        leaf = _leaf(path, file, column)
        for group in range(file.num_row_groups) if row_groups is None else row_groups:
            first = 0
            for batch in file.iter_batches(
                _IMAGES, row_groups=[group], columns=[leaf], use_threads=False
            ):
                cells = batch.column(0)
                yield group, first, cells if leaf == column else cells.field("bytes")
                first += len(cells)


def _leaf(path: Path, file: Any, column: str) -> str:
    """Return the name of the column that holds the bytes."""
    leaves = [file.schema.column(number) for number in range(len(file.schema))]
    for leaf in leaves:
        holds_bytes = leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type == "NONE"
        if leaf.path in (column, f"{column}.bytes") and holds_bytes:
            return leaf.path
    raise UserError(
        f"{path} holds no images",
        f"Its column '{column}' is missing, or is neither bytes nor a struct with bytes.",
        "Download the copy that has the images inside.",
    )


def _filled(cell: Any, place: str) -> Any:
    """Return a cell's bytes as a buffer."""
    buffer = cell.as_buffer()
    if buffer is None:
        raise UserError(
            f"no image in {place}",
            "The cell is empty; it may name a file outside.",
            "Download the copy that has the images inside.",
        )
    return buffer


@contextmanager
def _opened(path: Path) -> Generator[Any]:
    with importing("parquet"):
        import pyarrow.parquet  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    """Say what a file is that is not a whole Parquet file."""
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip()
    except OSError as reason:
        return UserError(
            f"cannot read {path}", f"{reason.strerror or reason}.", "Check the path and its rights."
        )
    if start.startswith(b"version https://git-lfs"):
        why = "It is a git-lfs pointer; the content itself was not fetched."
        return UserError(f"{path} is not Parquet", why, "Run 'git lfs pull' where it came from.")
    if start.startswith(b"<"):
        return _damaged(path, "It is a web page: the download most likely answered with a login.")
    return _damaged(path, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is damaged, or not Parquet", why, "Download it again.")
