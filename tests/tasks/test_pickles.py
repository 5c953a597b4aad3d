"""Pickles: plain data comes back as it was, and nothing in a file is ever run."""

from __future__ import annotations

import collections
import datetime
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medbench.data.pickles import read_pickle, read_pickled_records
from medbench.errors import UserError

PLAIN = {
    "rows": [{"image": "train_0422", "answer": "yes ", "number": 3}, ("é肺", b"\x00", 1.5)],
    "set": {1, 2},
    "frozen": frozenset(("a",)),
    "others": [True, False, None, 2**70, -1, ""],
}
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


# Protocols 0 to 2 have bytes only as a call, which is no container.
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data_come_back(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "a.pkl"
    content = {key: value for key, value in PLAIN.items() if key != "rows" or protocol > 2}
    path.write_bytes(pickle.dumps(content, protocol))
    assert read_pickle(path) == content


def test_texts_of_python_two(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x02]U\x05\xe8\x82\xba ?a.")
    assert read_pickle(path) == ["肺 ?"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_malicious_file_is_refused_and_nothing_runs(tmp_path: Path, protocol: int) -> None:
    path, mark = tmp_path / "a.pkl", tmp_path / "ran"
    content = [{"image": "a", "question": "b", "answer": Calls(os.mkdir, str(mark))}]
    path.write_bytes(pickle.dumps(content, protocol))
    error = fails(path)
    assert error.what == f"{path} holds more than texts and numbers"
    assert f"{os.mkdir.__module__}.mkdir" in error.why
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists()  # the file would have run


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (np.float64(1.5), "numpy"),
        (np.zeros(2), "numpy"),
        (datetime.date(2020, 1, 1), "datetime.date"),
        (collections.OrderedDict(a=1), "collections.OrderedDict"),
        (Path("a"), "pathlib"),
        (len, ".len"),
        (Calls(eval, "1"), ".eval"),
        (Calls(getattr, "a", "upper"), ".getattr"),
        (bytearray(b"a"), ".bytearray"),
        (dict, ".dict"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_other_objects_are_refused_by_name(
    tmp_path: Path, content: object, named: str, protocol: int
) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps([content], protocol))
    assert named in fails(path).why


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),  # a call written by hand
        (b"(S'true'\nios\nsystem\n.", "os.system"),  # the same as an instance
        (b"P1\n.", "outside the file"),
        (b"\x80\x02\x82\x01.", ""),  # an extension that nobody registered
    ],
)
def test_other_ways_to_ask_for_objects(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    assert named in fails(path).why


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "EOFError"),
        (pickle.dumps(PLAIN)[:60], "cut off"),
        (b"<!DOCTYPE html><html>Sign in</html>", "web page"),
        (b"hello", "not a pickle"),
        (b"\x80\x02]q\x00(h\x09.", "damaged"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.", "damaged"),
        (b"\x80\x02]U\x01\xffa.", "UnicodeDecodeError"),
    ],
)
def test_broken_files(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    error = fails(path)
    assert error.what == f"{path} is not a readable pickle"
    assert said in error.why


def test_no_file(tmp_path: Path) -> None:
    assert fails(tmp_path / "a.pkl").why == "No such file or directory."


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"a": 1}, "It is not a list of questions."),
        ([], "It is not a list of questions."),
        ([{"a": 1}, "b"], "Entry 2 is not a dict."),
        ([{"a": 1}, {"b": 1}], "Entry 2 has no 'a'."),
    ],
)
def test_records_of_another_form(tmp_path: Path, content: object, why: str) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="not the official file") as raised:
        read_pickled_records(path, ("a",))
    assert raised.value.why == why


def test_records(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps([{"a": 1, "b": 2}]))
    assert read_pickled_records(path, ("a",)) == [{"a": 1, "b": 2}]


def fails(path: Path) -> UserError:
    with pytest.raises(UserError) as raised:
        read_pickle(path)
    assert len(raised.value.lines()) == 3
    return raised.value
