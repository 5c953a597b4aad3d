"""Content hashes are remembered while a file stays as it is, and are never wrong."""

import hashlib
import os
import sqlite3
import time

import pytest

from medbench import digests
from medbench.errors import UserError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "medbench" / "digests.sqlite"


@pytest.fixture
def read(monkeypatch):
    """Return the list of hashings of whole files so far."""
    seen, real = [], hashlib.file_digest
    monkeypatch.setattr(
        "medbench.digests.hashlib.file_digest",
        lambda file, name: seen.append(file.name) or real(file, name),
    )
    return seen


def write(path, content, seconds_ago):
    path.write_bytes(content)
    moment = time.time() - seconds_ago
    os.utime(path, (moment, moment))
    return path


def expected(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_that_stays_is_read_once(cache, read, tmp_path):
    path = write(tmp_path / "weights", b"1" * 100, 60)
    assert digests.sha256_of([path, path]) == {path: expected(path)}
    assert digests.sha256_of([path]) == {path: expected(path)}
    assert len(read) == 1


@pytest.mark.parametrize("change", ["size", "time", "inode"])
def test_a_file_that_changed_is_read_again(cache, read, tmp_path, change):
    path = write(tmp_path / "weights", b"1" * 100, 60)
    digests.sha256_of([path])
    state = path.stat()
    if change == "inode":
        other = write(tmp_path / "other", b"2" * 100, 60)
        os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
        other.replace(path)
    else:
        path.write_bytes(b"2" * (101 if change == "size" else 100))
        moment = state.st_mtime_ns + (change == "time")
        os.utime(path, ns=(state.st_atime_ns, moment))
    assert digests.sha256_of([path]) == {path: expected(path)}
    assert len(read) == 2


def test_a_file_written_just_now_is_not_remembered(cache, read, tmp_path):
    path = write(tmp_path / "weights", b"1", 0)
    digests.sha256_of([path])
    digests.sha256_of([path])
    assert len(read) == 2


@pytest.mark.parametrize("broken", ["folder", "content", "locked", "read-only"])
def test_a_book_that_cannot_be_used_is_done_without(cache, tmp_path, broken, monkeypatch):
    path = write(tmp_path / "weights", b"1", 60)
    if broken == "folder":
        (tmp_path / "cache").write_text("a file stands in the way")
    else:
        digests.sha256_of([path])
    holder = None
    if broken == "content":
        cache.write_bytes(b"not a database" * 100)
    elif broken == "locked":
        real = sqlite3.connect
        monkeypatch.setattr("sqlite3.connect", lambda at, timeout=5: real(at, timeout=0.05))
        holder = real(cache)
        holder.execute("BEGIN EXCLUSIVE")
    elif broken == "read-only":
        cache.chmod(0o400)
    other = write(tmp_path / "other", b"2", 60)
    assert digests.sha256_of([path, other]) == {path: expected(path), other: expected(other)}
    if holder is not None:
        holder.close()


def test_a_missing_file_is_an_error_that_names_it(cache, tmp_path):
    with pytest.raises(UserError) as error:
        digests.sha256_of([tmp_path / "none"])
    assert error.value.what == f"cannot read {tmp_path / 'none'}"


def test_others_can_write_while_a_file_is_hashed(cache, tmp_path, monkeypatch):
    """A second process must not wait for the weights that the first one hashes."""
    small, large = write(tmp_path / "small", b"1", 60), write(tmp_path / "large", b"2", 60)
    real, written = hashlib.file_digest, []

    def slow(file, name):
        if file.name == str(large):
            other = sqlite3.connect(cache, timeout=0)
            other.execute("INSERT INTO good_images VALUES ('other')")
            other.commit()
            other.close()
            written.append(True)
        return real(file, name)

    monkeypatch.setattr("medbench.digests.hashlib.file_digest", slow)
    digests.sha256_of([small, large])
    assert written


def test_what_opens_is_remembered_by_content(cache):
    assert digests.found_good(["a", "b"]) == set()
    digests.remember_good(["a", "c"])
    digests.remember_good(["a"])
    assert digests.found_good(["a", "b"]) == {"a"}
    cache.write_bytes(b"not a database" * 100)
    digests.remember_good(["b"])
    assert digests.found_good(["a", "b"]) == set()
