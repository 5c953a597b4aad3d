"""What was computed once is found again: by another process, on another machine."""

from __future__ import annotations

import shutil
import sqlite3
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from medbench.errors import UserError
from medbench.memo import Memo


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    memo = Memo("things", {"a": 1}, folder=str(tmp_path))
    assert memo.read(["x"]) == {} and memo.has(["x"]) == set()
    arrays = {
        "masks": np.random.default_rng(0).random((3, 5, 7)) > 0.5,
        "none": np.zeros((0, 5, 7), bool),
        "scores": np.array([0.5, -1.25], np.float32),
    }
    memo.write(arrays)
    found = memo.read([*arrays, "absent"])
    assert found.keys() == arrays.keys()
    for name, one in arrays.items():
        assert found[name].dtype == one.dtype and np.array_equal(found[name], one)
    assert memo.has([*arrays, "absent"]) == arrays.keys()


def test_other_ways_to_make_them_are_other_files(tmp_path: Path) -> None:
    one, two = (Memo("things", {"a": a}, folder=str(tmp_path)) for a in (1, 2))
    one.write({"x": np.ones(2)})
    assert two.read(["x"]) == {} and one.path != two.path
    with closing(sqlite3.connect(one.path)) as file:
        assert file.execute("SELECT text FROM about").fetchall() == [('{"a": 1}',)]


def test_a_file_can_be_shipped_and_what_is_new_goes_to_the_users_own(tmp_path: Path) -> None:
    made = Memo("things", {"a": 1}, folder=str(tmp_path / "there"))
    made.write({"x": np.ones(2)})
    before = made.path.read_bytes()
    here = Memo("things", {"a": 1}, folder=str(tmp_path / "here"), shipped=tmp_path / "there")
    assert here.has(["x", "y"]) == {"x"}
    here.write({"y": np.zeros(1)})
    assert here.read(["x", "y"]).keys() == {"x", "y"}
    assert made.path.read_bytes() == before
    # And a copied file is found as well.
    (tmp_path / "copied").mkdir()
    shutil.copy(made.path, tmp_path / "copied")
    assert Memo("things", {"a": 1}, folder=str(tmp_path / "copied")).has(["x"]) == {"x"}


def test_more_keys_than_sqlite_takes_at_once(tmp_path: Path) -> None:
    memo = Memo("things", {}, folder=str(tmp_path))
    memo.write({str(i): np.array([i]) for i in range(1300)})
    found = memo.read([str(i) for i in range(1300)])
    assert [int(found[str(i)][0]) for i in range(1300)] == list(range(1300))


def _add(job: tuple[str, int]) -> None:
    folder, number = job
    memo = Memo("things", {}, folder=folder)
    for i in range(10):
        memo.write({f"{number}-{i}": np.full(100, number), "shared": np.zeros(3)})


def test_two_processes_write_one_file(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(_add, [(str(tmp_path), number) for number in range(4)]))
    memo = Memo("things", {}, folder=str(tmp_path))
    assert len(memo.has([f"{n}-{i}" for n in range(4) for i in range(10)])) == 40


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    memo = Memo("things", {}, folder=str(tmp_path))
    memo.write({"x": np.ones(2)})
    with closing(sqlite3.connect(memo.path)) as file, file:
        file.execute("UPDATE arrays SET value = x'0011'")
    with pytest.raises(UserError, match="cannot read") as error:
        memo.read(["x"])
    assert str(memo.path) in str(error.value)
    memo.path.write_bytes(b"no database at all, but long enough to look like a file" * 20)
    with pytest.raises(UserError, match="cannot read"):
        memo.has(["x"])
    with pytest.raises(UserError, match="cannot write"):
        memo.write({"y": np.ones(1)})
