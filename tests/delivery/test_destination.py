"""A destination appears complete or not at all, on a disk and in an object store."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.io import attach
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from machfive_provider.delivery.destination import Destination
from machfive_provider.exceptions import ConfigurationError


class Upload(AbstractBufferedFile):
    """A multi-part upload: what was sent is to be seen once it is committed."""

    def _initiate_upload(self) -> None:
        self.parts = []

    def _upload_chunk(self, final: bool = False) -> bool:
        self.parts.append(self.buffer.getvalue())
        if final and self.autocommit:
            self.commit()
        return True

    def commit(self) -> None:
        self.fs.objects[self.path] = b"".join(self.parts)

    def discard(self) -> None:
        self.fs.discarded.append(self.path)

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self.fs.objects[self.path][start:end]


class Bucket(AbstractFileSystem):
    """An object store as fsspec's cloud file systems are: no folders of its own, no rename."""

    protocol = "memory"
    root_marker = "/"
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, bytes] = {}
        self.discarded: list[str] = []

    def info(self, path: str, **kwargs) -> dict:
        if path in self.objects:
            return {"name": path, "size": len(self.objects[path]), "type": "file"}
        if any(each.startswith(f"{path}/") for each in self.objects):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def _rm(self, path: str) -> None:
        del self.objects[path]

    def _open(self, path: str, mode: str = "rb", block_size=None, autocommit: bool = True, **kwargs) -> Upload:
        return Upload(self, path, mode, block_size or "default", autocommit, **kwargs)


STORE = Bucket()


@pytest.fixture
def bucket() -> Bucket:
    attach(protocol="memory", fs=STORE)
    STORE.objects.clear()
    STORE.discarded.clear()
    return STORE


def write(destination: Destination, *chunks: bytes) -> int:
    with destination.open() as writer:
        for chunk in chunks:
            writer.write(chunk)
    return writer.written


def break_off(destination: Destination, data: bytes, error: BaseException) -> None:
    with destination.open() as writer:
        writer.write(data)
        raise error


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


# --- local files


@pytest.mark.parametrize("form", ["{}", "file://{}", " {} "], ids=["path", "url", "spaces"])
def test_a_local_file_is_written_with_its_folders(tmp_path: Path, form: str):
    path = tmp_path / "new" / "folder" / "ü emails.csv"
    destination = Destination(form.format(path))
    destination.check(must_be_new=True)
    assert write(destination, b"one", b"", b"two") == 6
    assert path.read_bytes() == b"onetwo"
    assert names(path.parent) == [path.name]


def test_a_path_object_will_do(tmp_path: Path):
    write(Destination(tmp_path / "a.csv"), b"x")
    assert (tmp_path / "a.csv").read_bytes() == b"x"


@pytest.mark.parametrize("before", [None, b"before"], ids=["absent", "present"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_what_ends_badly_leaves_everything_as_it_was(tmp_path: Path, before: bytes | None, error: type[BaseException]):
    path = tmp_path / "a.csv"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(error):
        break_off(Destination(str(path)), b"half", error())
    assert names(tmp_path) == ([] if before is None else ["a.csv"])
    assert before is None or path.read_bytes() == before


def test_nothing_is_to_be_seen_until_the_end(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"before")
    with Destination(str(path)).open() as writer:
        writer.write(b"after")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664), (0o027, 0o640)], ids=oct)
def test_the_mode_follows_the_umask(tmp_path: Path, umask: int, mode: int):
    before = os.umask(umask)
    try:
        write(Destination(str(tmp_path / "a.csv")), b"x")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert (tmp_path / "a.csv").stat().st_mode & 0o777 == mode


def test_a_folder_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="is a folder; name a file in it"):
        Destination(str(tmp_path)).check(must_be_new=False)


@pytest.mark.parametrize("below", ["a.csv", "sub/a.csv"])
def test_an_unwritable_place_is_refused(tmp_path: Path, below: str):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"cannot be written .*Check the path, the permissions"):
        Destination(str(tmp_path / "file" / below)).check(must_be_new=False)


@pytest.mark.parametrize("url", [None, "", "  ", 7, b"/tmp/a.csv", ["a.csv"]], ids=repr)
def test_what_is_no_path_is_refused(url):
    with pytest.raises(ConfigurationError, match="export_to must be a path or URL, not"):
        Destination(url)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ConfigurationError, match=r"'nosuchscheme://b/a\.csv' cannot be written"):
        Destination("nosuchscheme://b/a.csv")


# --- what a killed export leaves behind

KILLED = """
import os, signal, sys
from machfive_provider.delivery.destination import Destination
with Destination(sys.argv[1]).open() as writer:
    writer.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_while_writing(path: Path) -> str:
    """Have another process killed while it writes; return the name of what it leaves."""
    before = names(path.parent)
    process = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert process.returncode == -9
    (left,) = set(names(path.parent)) - set(before)
    return left


def test_the_next_export_removes_what_a_killed_one_left(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"before")
    left = kill_while_writing(path)
    assert left.startswith(".machfive-")
    assert path.read_bytes() == b"before"
    write(Destination(str(tmp_path / "b.csv")), b"another")
    assert names(tmp_path) == [left, "a.csv", "b.csv"]
    write(Destination(str(path)), b"after")
    assert names(tmp_path) == ["a.csv", "b.csv"]
    assert path.read_bytes() == b"after"


def test_what_a_living_export_writes_stays(tmp_path: Path):
    path = tmp_path / "a.csv"
    with Destination(str(path)).open() as slow:
        slow.write(b"slow")
        write(Destination(str(path)), b"fast")
        assert len(names(tmp_path)) == 2
        assert path.read_bytes() == b"fast"
    assert names(tmp_path) == ["a.csv"]
    assert path.read_bytes() == b"slow"


def test_a_file_taken_for_a_leftover_before_it_was_locked_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    original, made = tempfile.mkstemp, []

    def mkstemp(*args: Any, **kwargs: Any) -> tuple[int, str]:
        handle, name = original(*args, **kwargs)
        if not made:
            Path(name).unlink()
        made.append(name)
        return handle, name

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)
    write(Destination(str(tmp_path / "a.csv")), b"x")
    assert len(made) == 2
    assert names(tmp_path) == ["a.csv"]


def test_a_file_system_without_locks_keeps_its_leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """There, nobody can tell them from what a living writer writes."""
    path = tmp_path / "a.csv"
    left = kill_while_writing(path)

    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    write(Destination(str(path)), b"x")
    assert names(tmp_path) == [left, "a.csv"]


# --- overwrite=False, the same everywhere


@pytest.fixture(params=["local", "object store"])
def place(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> str:
    return str(tmp_path / "out.csv") if request.param == "local" else "memory://bucket/out.csv"


def content(place: str) -> bytes:
    return STORE.objects["/bucket/out.csv"] if place.startswith("memory") else Path(place).read_bytes()


def test_checking_leaves_no_trace(place: str, tmp_path: Path):
    Destination(place).check(must_be_new=True)
    assert (names(tmp_path), STORE.objects) == ([], {})


@pytest.mark.parametrize(
    ("overwrite", "must_be_new", "refused"),
    [(True, True, False), (True, False, False), (False, False, False), (False, True, True)],
)
def test_an_existing_destination(place: str, overwrite: bool, must_be_new: bool, refused: bool):
    write(Destination(place), b"there")
    destination = Destination(place, overwrite=overwrite)
    if refused:
        with pytest.raises(ConfigurationError, match="exists and overwrite is False: nothing was bought or fetched"):
            destination.check(must_be_new=must_be_new)
    else:
        destination.check(must_be_new=must_be_new)
    assert content(place) == b"there"


def test_overwrite_false_writes_what_is_not_there(place: str):
    destination = Destination(place, overwrite=False)
    destination.check(must_be_new=True)
    write(destination, b"new")
    assert content(place) == b"new"


@pytest.mark.parametrize(
    "chunks", [[b"same bytes"], [b"same", b" ", b"bytes"], [b"same bytes", b""]], ids=["one", "three", "empty last"]
)
def test_overwrite_false_accepts_the_very_same_bytes(place: str, chunks: list[bytes]):
    write(Destination(place), b"same bytes")
    assert write(Destination(place, overwrite=False), *chunks) == 10
    assert content(place) == b"same bytes"


@pytest.mark.parametrize(
    "chunks",
    [[b"same"], [], [b"same bytes", b"!"], [b"same bytes!"], [b"some bytes"], [b"same", b" bites"]],
    ids=["shorter", "empty", "longer", "longer at once", "different", "different later"],
)
def test_overwrite_false_refuses_other_bytes(place: str, chunks: list[bytes]):
    write(Destination(place), b"same bytes")
    with pytest.raises(ConfigurationError, match="exists with other content and overwrite is False"):
        write(Destination(place, overwrite=False), *chunks)
    assert content(place) == b"same bytes"


def test_overwrite_true_replaces(place: str):
    write(Destination(place), b"before, and longer")
    write(Destination(place), b"after")
    assert content(place) == b"after"


def test_beside(place: str):
    write(Destination(place, overwrite=False), b"result")
    beside = Destination(f" {place} ", overwrite=False).beside(".missing.csv")
    assert beside.url == f"{place}.missing.csv"
    write(beside, b"old")
    write(beside, b"new")  # it is ours to replace, whatever holds for the result
    assert content(place) == b"result"
    written = STORE.objects.get("/bucket/out.csv.missing.csv") or Path(f"{place}.missing.csv").read_bytes()
    assert written == b"new"


def test_remove(place: str, tmp_path: Path):
    destination = Destination(place)
    destination.remove()
    write(destination, b"there")
    destination.remove()
    assert (names(tmp_path), STORE.objects) == ([], {})


def test_what_cannot_be_removed_is_named(tmp_path: Path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(ConfigurationError, match=r"a\.csv' was written by an earlier attempt.*Remove it yourself"):
        Destination(str(tmp_path / "a.csv")).remove()


# --- object stores


def test_an_object_is_committed_at_the_end(bucket: Bucket):
    with Destination("memory://bucket/deep/a.csv").open() as writer:
        writer.write(b"x" * 9_000_000)
        writer.write(b"y")
        assert bucket.objects == {}
    assert bucket.objects == {"/bucket/deep/a.csv": b"x" * 9_000_000 + b"y"}
    assert writer.written == 9_000_001
    assert bucket.discarded == []


@pytest.mark.parametrize("size", [1, 9_000_000])
def test_an_upload_that_ends_badly_is_discarded(bucket: Bucket, size: int):
    bucket.objects["/bucket/a.csv"] = b"before"
    with pytest.raises(ValueError, match="half"):
        break_off(Destination("memory://bucket/a.csv"), b"x" * size, ValueError("half"))
    gc.collect()  # a file that is forgotten closes itself: that must not commit it either
    assert bucket.objects == {"/bucket/a.csv": b"before"}
    assert bucket.discarded == ["/bucket/a.csv"]


def test_a_folder_of_objects_is_refused(bucket: Bucket):
    bucket.objects["/bucket/a/b.csv"] = b""
    with pytest.raises(ConfigurationError, match="is a folder"):
        Destination("memory://bucket/a").check(must_be_new=False)


def test_a_relative_path_is_one_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with Destination("out.csv").open() as writer:
        writer.write(b"all")
    assert (tmp_path / "out.csv").read_bytes() == b"all"


def test_the_longest_file_name_can_be_written(tmp_path: Path):
    path = tmp_path / ("x" * 255)
    with Destination(str(path)).open() as writer:
        writer.write(b"all")
    assert path.read_bytes() == b"all"


@pytest.mark.parametrize("length", [256, 244])
def test_a_name_too_long_is_refused_before_anything_is_spent(tmp_path: Path, length: int):
    """The file of the missing leads has a name of its own, longer by 12."""
    with pytest.raises(ConfigurationError, match=r"cannot be written .*name too long"):
        Destination(str(tmp_path / ("x" * length))).check(must_be_new=True)


def test_the_longest_file_name_that_leaves_room_passes(tmp_path: Path):
    Destination(str(tmp_path / ("x" * 243))).check(must_be_new=True)


def test_what_is_no_regular_file_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        Destination(str(tmp_path / "pipe")).check(must_be_new=False)


def test_a_folder_that_does_not_exist_yet_is_refused_as_well(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="is a folder"):
        Destination(f"{tmp_path}/new/")
