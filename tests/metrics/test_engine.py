"""Engines: each text once, nothing lost or shifted, whatever a package does to its process."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medbench.errors import UnavailableError, UserError
from medbench.metric import Setting
from medbench.scorers.engine import Engine, values_of
from medbench.scorers.worker import Worker, find_python

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))  # where processes find the engine
    monkeypatch.syspath_prepend(str(FOLDER))


def engine(tmp_path: Path, **changes: object) -> Engine:
    settings = {"log": str(tmp_path / "log"), **changes.pop("settings", {})}  # pyright: ignore
    return Engine("misbehaving", settings, **{"seconds": 3.0, **changes})  # pyright: ignore


def lengths(engine: Engine, *texts: str, setting: Setting | None = None) -> list[int | None]:
    found = values_of(engine, [(text,) for text in texts], setting or Setting()).found
    return [None if one is None else one["length"] for one in found]


def asked(tmp_path: Path) -> list[list[str]]:
    lines = (tmp_path / "log").read_text().splitlines() if (tmp_path / "log").exists() else []
    return [line.split("\t")[1:] for line in lines if line.startswith("asked")]


@pytest.mark.parametrize("apart", [True, False])
def test_values_come_in_the_order_of_the_texts_and_equal_ones_are_computed_once(
    apart: bool, tmp_path: Path
) -> None:
    one = engine(tmp_path, apart=apart, batch=2)
    assert lengths(one, "aaa", "b", "aaa", "cc", "b") == [3, 1, 3, 2, 1]
    # Shortest first, two at a time.
    assert asked(tmp_path) == [["b", "cc"], ["aaa"]]


def test_nothing_asked_starts_nothing(tmp_path: Path) -> None:
    assert lengths(engine(tmp_path)) == []
    assert not (tmp_path / "log").exists()


def test_what_is_known_is_not_computed_again(tmp_path: Path) -> None:
    assert lengths(engine(tmp_path), "a", "bb") == [1, 2]
    assert lengths(engine(tmp_path), "bb", "ccc", "a") == [2, 3, 1]
    assert asked(tmp_path) == [["a", "bb"], ["ccc"]]


def test_another_version_is_another_value(tmp_path: Path) -> None:
    lengths(engine(tmp_path), "a")
    lengths(engine(tmp_path, settings={"version": 2}), "a")
    assert asked(tmp_path) == [["a"], ["a"]]


def test_cheap_values_are_not_kept(tmp_path: Path) -> None:
    for _ in range(2):
        lengths(engine(tmp_path, apart=False, kept=False), "a")
    assert asked(tmp_path) == [["a"], ["a"]]
    assert not (tmp_path / "cache").exists()


def test_the_cache_is_its_owners_alone(tmp_path: Path) -> None:
    lengths(engine(tmp_path), "patient")
    (file,) = (tmp_path / "cache" / "medbench" / "scores").glob("*.sqlite")
    assert file.parent.stat().st_mode & 0o077 == 0
    assert b"patient" not in file.read_bytes()


def test_a_cache_that_cannot_be_used_is_done_without(tmp_path: Path) -> None:
    lengths(engine(tmp_path), "a")
    (file,) = (tmp_path / "cache" / "medbench" / "scores").glob("*.sqlite")
    file.write_bytes(b"no database")
    assert lengths(engine(tmp_path), "a") == [1]


@pytest.mark.parametrize("bad", ["sleep", "die"])
def test_a_text_that_hangs_or_kills_is_given_up_and_no_other(bad: str, tmp_path: Path) -> None:
    texts = ["a", "bb", bad, "dddd", "eeeee", "ffffff", "ggggggg"]
    one = engine(tmp_path, seconds=1.0, batch=4)
    begin = time.monotonic()
    found = lengths(one, *texts)
    assert found == [None if text == bad else len(text) for text in texts]
    assert time.monotonic() - begin < 30
    # What was given up is tried again the next time, the others are known.
    before = len(asked(tmp_path))
    assert lengths(one, *texts) == found
    assert {text for batch in asked(tmp_path)[before:] for text in batch} == {bad}


@pytest.mark.parametrize("apart", [True, False])
def test_an_error_of_the_package_is_told(apart: bool, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        lengths(engine(tmp_path, apart=apart, batch=1), "a", "raise")
    assert raised.value.what == "misbehaving failed"
    assert raised.value.why == "ValueError: no such thing"
    # What was computed before is kept.
    assert lengths(engine(tmp_path), "a") == [1]
    assert asked(tmp_path).count(["a"]) == 1


@pytest.mark.parametrize("apart", [True, False])
def test_a_refusal_keeps_its_words(apart: bool, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        lengths(engine(tmp_path, apart=apart), "refuse")
    assert raised.value.lines() == ["this text is refused", "It is so.", "Take another."]
    with pytest.raises(UnavailableError, match="it lacks something"):
        lengths(engine(tmp_path, apart=apart, settings={"lacks": True}), "a")


def test_a_lost_value_is_never_taken_for_the_next_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 values for 3 texts"):
        lengths(engine(tmp_path), "a", "forget", "bb")


def test_a_model_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="misbehaving does not load"):
        lengths(engine(tmp_path, settings={"dies_loading": True}), "a")


def test_what_packages_print_is_not_seen(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert lengths(engine(tmp_path), "print") == [5]
    assert capfd.readouterr() == ("", "")


def test_progress_counts_what_is_known(tmp_path: Path) -> None:
    lengths(engine(tmp_path), "a")
    told: list[tuple[int, int, str]] = []
    setting = Setting(progress=lambda *step: told.append(step))
    lengths(engine(tmp_path, batch=1), "a", "bb", "ccc", setting=setting)
    assert told == [(1, 3, "misbehaving"), (2, 3, "misbehaving"), (3, 3, "misbehaving")]


def test_another_python_computes_the_values(tmp_path: Path) -> None:
    other = tmp_path / "other python"
    other.symlink_to(sys.executable)
    setting = Setting(python=str(other))
    one = engine(tmp_path, apart=False)
    (found,) = values_of(one, [("a",)], setting).found
    assert found["python"] == str(other)


def test_a_python_that_is_none(tmp_path: Path) -> None:
    for bad in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match="no Python at"):
            find_python(str(bad))
    for bad in ("false", "true", "echo"):
        with pytest.raises(UserError, match=f"/{bad} does not start as a Python"):
            find_python(bad)


def test_an_old_python_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\necho 3 9 18\n")
    old.chmod(0o755)
    with pytest.raises(UserError) as raised:
        Worker(str(old))
    assert raised.value.what == f"{old} is a Python 3.9.18"


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # execnet waits for no process that fails
def test_a_python_that_ends_at_once_is_told(tmp_path: Path) -> None:
    odd = tmp_path / "python"
    odd.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} "$@"\nexit 3\n')
    odd.chmod(0o755)
    with pytest.raises(UserError, match="does not start as a Python"):
        Worker(str(odd))
    gc.collect()


def test_an_interrupt_leaves_no_process_behind(tmp_path: Path) -> None:
    def interrupt(done: int, total: int, remark: str) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lengths(engine(tmp_path, batch=1), "a", "bb", setting=Setting(progress=interrupt))
    _wait_until_gone(int((tmp_path / "log").read_text().split()[1]))


def test_a_kill_leaves_no_process_behind(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = (
        "from medbench.metric import Setting\n"
        "from medbench.scorers.engine import Engine, values_of\n"
        f"values_of(Engine('misbehaving', {{'log': {str(log)!r}}}), [('start',)], Setting())"
    )
    around = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), str(ROOT)])}
    asking = subprocess.Popen([sys.executable, "-c", code], env=around)
    deadline = time.monotonic() + 60
    while not log.exists() or "started" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    asking.kill()
    asking.wait()
    words = dict(line.split()[:2] for line in log.read_text().splitlines())
    for process in (words["loaded"], words["started"]):
        _wait_until_gone(int(process))


def _wait_until_gone(process: int) -> None:
    deadline = time.monotonic() + 15
    while _alive(process):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
