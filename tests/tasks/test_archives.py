"""Archives: unpacked where they lie and never outside, also after a kill; and broken ones."""

from __future__ import annotations

import errno
import gzip
import io
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from filelock import FileLock

from medbench.data.archives import Unpacked, find_archives, unpack
from medbench.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("a.zip", "a.tgz", "a.tar.gz", "a.tar")
FILES = {f"imgs/xmlab{n}/source.jpg": random.Random(n).randbytes(700 * n + 1) for n in range(8)} | {
    "imgs/mask.txt": b"70:Liver\n",
    "read me.txt": b"",
}


def pack(path: Path, files: Mapping[str, bytes] = FILES) -> Path:
    """Write an archive of the kind that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.mkdir("imgs")
            for name, content in files.items():
                # As a string, ZipInfo would mend names that lead out.
                entry = zipfile.ZipInfo("x")
                entry.filename, entry.compress_type = name, zipfile.ZIP_DEFLATED
                archive.writestr(entry, content)
        return path
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def tar_with(path: Path, *entries: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO(b"x" * entry.size))
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    made.size = 1 if kind == tarfile.REGTYPE else 0
    return made


def zip_link(archive: zipfile.ZipFile, name: str, target: str) -> None:
    made = zipfile.ZipInfo(name)
    made.create_system = 3
    made.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(made, target)


def there(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder, the archive excepted."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("a.")
    }


def refused(archive: Path) -> UserError:
    with pytest.raises(UserError) as raised:
        unpack(archive)
    assert len(raised.value.lines()) == 3
    assert str(archive) in raised.value.what
    return raised.value


class TestUnpack:
    @pytest.mark.parametrize("name", KINDS)
    def test_beside_the_archive(self, tmp_path: Path, name: str) -> None:
        archive = pack(tmp_path / "Slake1.0" / name)
        assert unpack(archive) == Unpacked(archive, len(FILES), 0, ())
        assert there(tmp_path / "Slake1.0") == FILES
        assert [path.name for path in tmp_path.iterdir()] == ["Slake1.0"]

    @pytest.mark.parametrize("name", KINDS)
    def test_again_writes_nothing(self, tmp_path: Path, name: str) -> None:
        archive = pack(tmp_path / name)
        unpack(archive)
        path = tmp_path / "imgs" / "mask.txt"
        path.write_bytes(b"71:Liver\n")  # of the same size
        assert unpack(archive) == Unpacked(archive, 0, len(FILES), ())
        assert path.read_bytes() == b"71:Liver\n"

    @pytest.mark.parametrize("name", KINDS)
    def test_what_differs_stays(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "imgs").mkdir()
        own = tmp_path / "imgs" / "mask.txt"
        own.write_bytes(b"mine")
        (tmp_path / "imgs" / "xmlab0").write_bytes(b"a file in the way of a folder")
        (tmp_path / "imgs" / "xmlab1" / "source.jpg").mkdir(parents=True)
        done = unpack(pack(tmp_path / name))
        assert done.written == len(FILES) - 3
        assert [path.relative_to(tmp_path).as_posix() for path in done.differing] == [
            "imgs/mask.txt", "imgs/xmlab0", "imgs/xmlab1/source.jpg",
        ]  # fmt: skip
        assert own.read_bytes() == b"mine"
        assert (tmp_path / "imgs" / "xmlab0").is_file()

    def test_names_of_windows(self, tmp_path: Path) -> None:
        unpack(pack(tmp_path / "a.zip", {"imgs\\x\\source.jpg": b"1"}))
        assert there(tmp_path) == {"imgs/x/source.jpg": b"1"}

    def test_a_tar_that_ends_in_a_zip_is_a_tar(self, tmp_path: Path) -> None:
        inner = pack(tmp_path / "inner" / "b.zip", {"x": b"1"}).read_bytes()
        unpack(pack(tmp_path / "a.tar", {"y": b"2", "b.zip": inner}))
        assert (tmp_path / "y").read_bytes() == b"2"
        assert (tmp_path / "b.zip").read_bytes() == inner

    def test_what_it_is_counts_and_not_its_name(self, tmp_path: Path) -> None:
        archive = pack(tmp_path / "a.zip").rename(tmp_path / "a.download")
        assert unpack(archive).written == len(FILES)
        pack(tmp_path / "x.tar").rename(tmp_path / "a.zip")
        assert unpack(tmp_path / "a.zip").there == len(FILES)

    @pytest.mark.parametrize("name", KINDS)
    def test_progress_rises(self, tmp_path: Path, name: str) -> None:
        told: list[tuple[int, int]] = []
        unpack(pack(tmp_path / name), lambda done, total: told.append((done, total)))
        assert told == sorted(told)
        assert all(0 <= done <= total for done, total in told)


class TestNothingOutside:
    @pytest.mark.parametrize(
        "name",
        [
            "/out.txt", "../out.txt", "a/../../out.txt", "C:\\out.txt", "c:out.txt", "..\\out.txt",
            "\\out.txt", "\\\\server\\share\\out.txt", "imgs/../..", "..",
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
    def test_names_that_lead_out(self, tmp_path: Path, kind: str, name: str) -> None:
        home = tmp_path / "home"
        error = refused(pack(home / kind, {"good.txt": b"1", name: b"2"}))
        assert "leads out of" in error.why or "outside" in error.why
        assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]
        assert set(there(home)) <= {"good.txt"}
        assert not Path("/out.txt").exists()

    @pytest.mark.parametrize("target", ["/etc/passwd", "../secret", "x/../../secret", "C:\\secret"])
    def test_links_that_lead_out(self, tmp_path: Path, target: str) -> None:
        home = tmp_path / "home"
        home.mkdir()
        (tmp_path / "secret").write_bytes(b"secret")
        symbolic = tar_with(home / "a.tar", entry("link", tarfile.SYMTYPE, target))
        hard = tar_with(home / "a.tgz", entry("link", tarfile.LNKTYPE, target))
        with zipfile.ZipFile(home / "a.zip", "w") as archive:
            zip_link(archive, "link", target)
        for path in (symbolic, hard, home / "a.zip"):
            refused(path)
        assert there(home) == {}

    def test_no_way_through_a_link_of_the_archive(self, tmp_path: Path) -> None:
        home = tmp_path / "home"
        home.mkdir()
        inward = entry("link", tarfile.SYMTYPE, "folder")
        folder = entry("folder", tarfile.DIRTYPE)
        through = entry("link/../../out.txt")
        refused(tar_with(home / "a.tar", folder, inward, through))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]

    @pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
    def test_no_way_through_a_link_of_the_folder(self, tmp_path: Path, kind: str) -> None:
        home, outside = tmp_path / "home", tmp_path / "outside"
        home.mkdir()
        outside.mkdir()
        (home / "imgs").symlink_to(outside, target_is_directory=True)
        refused(pack(home / kind, {"imgs/x.jpg": b"1"}))
        assert list(outside.iterdir()) == []

    @pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.FIFOTYPE])
    def test_devices(self, tmp_path: Path, kind: bytes) -> None:
        refused(tar_with(tmp_path / "a.tar", entry("device", kind)))
        assert there(tmp_path) == {}


class TestLinks:
    def test_become_copies(self, tmp_path: Path) -> None:
        tar_with(
            tmp_path / "a.tar",
            entry("b/second", tarfile.SYMTYPE, "first"),
            entry("b/first", tarfile.SYMTYPE, "../c/file"),
            entry("c/file"),
            entry("d", tarfile.LNKTYPE, "c/file"),
        )
        assert unpack(tmp_path / "a.tar").written == 4
        assert there(tmp_path) == dict.fromkeys(("b/second", "b/first", "c/file", "d"), b"x")
        assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
        assert unpack(tmp_path / "a.tar").there == 4

    def test_of_a_zip(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            zip_link(archive, "b/link", "../c")
            archive.writestr("c", "content")
        unpack(tmp_path / "a.zip")
        assert there(tmp_path) == {"b/link": b"content", "c": b"content"}
        assert not (tmp_path / "b" / "link").is_symlink()

    def test_to_nothing(self, tmp_path: Path) -> None:
        tar_with(tmp_path / "a.tar", entry("link", tarfile.SYMTYPE, "nothing"), entry("file"))
        assert "links to files that are not in it" in refused(tmp_path / "a.tar").what
        assert there(tmp_path) == {"file": b"x"}


class TestKilled:
    CODE = """
import os, shutil, signal, sys
from pathlib import Path
from medbench.data import archives
copied = []
def copy(source, target, length):
    copied.append(1)
    if len(copied) == 4:
        target.write(source.read(10)); target.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    target.write(source.read())
shutil.copyfileobj = copy
archives.unpack(Path(sys.argv[1]))
"""

    @pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
    @pytest.mark.parametrize("name", KINDS)
    def test_in_the_middle_of_a_file(self, tmp_path: Path, name: str) -> None:
        archive = pack(tmp_path / name)
        done = subprocess.run(
            [sys.executable, "-c", self.CODE, str(archive)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == -signal.SIGKILL
        before = {name: content for name, content in there(tmp_path).items() if name in FILES}
        assert len(before) == 3
        assert before.items() <= FILES.items()
        again = unpack(archive)
        assert (again.written, again.there) == (len(FILES) - 3, 3)
        assert there(tmp_path) == FILES


class TestBroken:
    @pytest.mark.parametrize("name", KINDS)
    @pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.8])
    def test_cut_off(self, tmp_path: Path, name: str, share: float) -> None:
        archive = pack(tmp_path / name)
        whole = archive.read_bytes()
        archive.write_bytes(whole[: int(share * len(whole))])
        error = refused(archive)
        assert "cut off" in error.what
        assert "Download it again" in error.do
        assert there(tmp_path).items() <= FILES.items()
        archive.write_bytes(whole)
        unpack(archive)
        assert there(tmp_path) == FILES

    def test_a_tar_cut_off_between_two_files(self, tmp_path: Path) -> None:
        archive = pack(tmp_path / "a.tar", {"a": b"1" * 512, "b": b"2" * 512})
        archive.write_bytes(archive.read_bytes()[:1024])
        assert "the end is missing" in refused(archive).why
        assert there(tmp_path) == {"a": b"1" * 512}

    def test_a_changed_byte_in_a_zip(self, tmp_path: Path) -> None:
        archive = tmp_path / "a.zip"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("x.jpg", b"content " * 40)
        data = bytearray(archive.read_bytes())
        data[100] ^= 1
        archive.write_bytes(data)
        assert "cut off or damaged" in refused(archive).what
        assert there(tmp_path) == {}

    def test_a_changed_byte_in_a_tgz_may_have_passed(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "x.tar", "w") as file:
            made = tarfile.TarInfo("x.jpg")
            made.size = 4000
            file.addfile(made, io.BytesIO(bytes(4000)))
        data = bytearray((tmp_path / "x.tar").read_bytes())
        whole = gzip.compress(bytes(data), 0)
        at = whole.index(bytes(2000)) + 1500  # within the stored content
        (tmp_path / "a.tgz").write_bytes(whole[:at] + b"\x01" + whole[at + 1 :])
        error = refused(tmp_path / "a.tgz")
        assert "CRC" in error.why
        assert error.do.startswith("Delete what was unpacked from it")

    def test_locked_with_a_password(self, tmp_path: Path) -> None:
        self.patch(pack(tmp_path / "a.zip"), flag=1)
        assert "password" in refused(tmp_path / "a.zip").why
        assert there(tmp_path) == {}

    def test_a_compression_that_python_lacks(self, tmp_path: Path) -> None:
        self.patch(pack(tmp_path / "a.zip"), method=98)
        assert "cannot read" in refused(tmp_path / "a.zip").why

    def test_less_than_its_entry_says(self, tmp_path: Path) -> None:
        self.patch(pack(tmp_path / "a.zip", {"x.jpg": b"1234"}), size=9)
        assert "shorter than the archive says" in refused(tmp_path / "a.zip").why
        assert there(tmp_path) == {}

    def patch(self, path: Path, *, flag: int = 0, method: int | None = None, size: int = 0) -> None:
        """Change flags, method or the size without compression in all headers of a zip."""
        data = bytearray(path.read_bytes())
        for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            at = data.find(mark)
            while at >= 0:
                data[at + offset] |= flag
                if method is not None:
                    data[at + offset + 2] = method
                if size and data[at + offset + 16]:
                    data[at + offset + 16] = size
                at = data.find(mark, at + 4)
        path.write_bytes(data)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"<!DOCTYPE html><html>Sign in</html>", "web page"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs"),
            (b"", "EOFError"),
        ],
    )
    def test_no_archive(self, tmp_path: Path, content: bytes, said: str) -> None:
        (tmp_path / "a.zip").write_bytes(content)
        assert said in refused(tmp_path / "a.zip").why

    def test_a_table_is_no_archive(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n" * 100))
        assert "tables (.csv.gz) are read as they are" in refused(tmp_path / "a.csv.gz").why

    def test_no_space_left(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        archive = pack(tmp_path / "a.zip")
        copy: Callable[..., None] = shutil.copyfileobj
        count = 0

        def full(*arguments: object) -> None:
            nonlocal count
            count += 1
            if count == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
            copy(*arguments)

        monkeypatch.setattr(shutil, "copyfileobj", full)
        with pytest.raises(UserError, match="no space left"):
            unpack(archive)
        assert len(there(tmp_path)) == 2
        monkeypatch.undo()
        assert unpack(archive).there == 2
        assert there(tmp_path) == FILES

    @pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="may write anywhere")
    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        archive = pack(tmp_path / "a.zip")
        tmp_path.chmod(0o500)
        try:
            assert "rights" in refused(archive).do
        finally:
            tmp_path.chmod(0o700)

    def test_two_at_once(self, tmp_path: Path) -> None:
        archive = pack(tmp_path / "a.zip")
        with FileLock(tmp_path / ".a.zip.lock"):
            assert "another process" in refused(archive).what
        assert unpack(archive).written == len(FILES)
        assert not (tmp_path / ".a.zip.lock").exists()

    @pytest.mark.parametrize("name", ["a.zip", "a.tgz", "a.tar"])
    def test_whatever_is_changed_nothing_escapes(self, tmp_path: Path, name: str) -> None:
        whole = pack(tmp_path / name).read_bytes()
        draw = random.Random(7)
        for number in range(60):
            data = bytearray(whole)
            for _ in range(draw.choice((1, 3, 20))):
                data[draw.randrange(len(data))] = draw.randrange(256)
            archive = tmp_path / str(number) / "home" / name
            archive.parent.mkdir(parents=True)
            archive.write_bytes(data)
            try:
                unpack(archive)
            except UserError as error:
                assert len(error.lines()) == 3
            assert [path.name for path in archive.parents[1].iterdir()] == ["home"]
            assert not list(archive.parent.rglob("*.part"))


class TestFind:
    def test_in_a_folder_and_one_level_below(self, tmp_path: Path) -> None:
        for name in ("b.zip", "sub/a.TGZ", "sub/c.tar.gz", "a.tar", "sub/sub/d.zip"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        for name in ("t.csv.gz", "x.json", ".b.zip.lock", ".hidden.zip", "sub/y.gz"):
            (tmp_path / name).touch()
        (tmp_path / "folder.zip").mkdir()
        found = [path.relative_to(tmp_path).as_posix() for path in find_archives(tmp_path)]
        assert found == ["a.tar", "b.zip", "sub/a.TGZ", "sub/c.tar.gz"]
        assert find_archives(tmp_path / "t.csv.gz") == [tmp_path / "t.csv.gz"]

    def test_none(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no archives in"):
            find_archives(tmp_path)
        with pytest.raises(UserError, match="nothing is at"):
            find_archives(tmp_path / "missing.zip")


class TestVerb:
    def test_a_folder(self, tmp_path: Path, medbench) -> None:
        pack(tmp_path / "imgs.zip")
        pack(tmp_path / "sub" / "b.tgz", {"x": b"1"})
        code, out, err = medbench("data", "unpack", tmp_path)
        assert (code, err) == (0, "")
        assert out.splitlines() == [
            f"{tmp_path / 'imgs.zip'}: {len(FILES)} files unpacked, 0 were there",
            f"{tmp_path / 'sub' / 'b.tgz'}: 1 file unpacked, 0 were there",
        ]
        _, out, _ = medbench("data", "unpack", tmp_path / "imgs.zip", tmp_path)
        assert out.count("imgs.zip") == 1
        assert f"0 files unpacked, {len(FILES)} were there" in out

    def test_something_in_the_way(self, tmp_path: Path, medbench) -> None:
        (tmp_path / "x").write_bytes(b"mine")
        pack(tmp_path / "a.zip", {"x": b"theirs", "y": b"1"})
        code, out, _ = medbench("data", "unpack", tmp_path)
        assert code == 1
        assert "1 file unpacked" in out
        assert str(tmp_path / "x") in out
        assert (tmp_path / "x").read_bytes() == b"mine"

    @pytest.mark.parametrize("name", ["missing", "broken.zip", "."])
    def test_mistakes_are_short(self, tmp_path: Path, medbench, name: str) -> None:
        place = tmp_path / name
        if name == "broken.zip":
            place.write_bytes(b"PK\x03\x04")
        code, out, err = medbench("data", "unpack", place)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) in (2, 3)

    def test_nothing_asked(self, medbench) -> None:
        code, _, err = medbench("data", "unpack")
        assert code == 2
        assert err.endswith("See: medbench data unpack --help\n")
