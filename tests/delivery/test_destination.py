"""A destination appears complete or not at all, on a disk and in an object store."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.sdk.io import attach
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from machfive_provider.delivery.destination import Destination
from machfive_provider.exceptions import ConfigurationError


class Upload(AbstractBufferedFile):
    """A multi-part upload: what was sent appears once it is committed."""

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


# --- on a disk and in an object store alike


@pytest.fixture(params=["local", "object store"])
def place(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> str:
    return str(tmp_path / "out.csv") if request.param == "local" else "memory://bucket/out.csv"


def content(place: str) -> bytes | None:
    if place.startswith("memory"):
        return STORE.objects.get(place.removeprefix("memory:/"))
    return Path(place).read_bytes() if Path(place).exists() else None


@pytest.mark.parametrize("before", [None, b"before, and longer"], ids=["absent", "present"])
def test_a_result_appears_at_the_end(place: str, before: bytes | None):
    if before:
        write(Destination(place), before)
    with Destination(place).open() as writer:
        writer.write(b"x" * 9_000_000)  # more than one part of an upload
        writer.write(b"")
        writer.write(b"y")
        assert content(place) == before
    assert content(place) == b"x" * 9_000_000 + b"y"
    assert writer.written == 9_000_001
    assert STORE.discarded == []


@pytest.mark.parametrize("before", [None, b"before"], ids=["absent", "present"])
@pytest.mark.parametrize(
    ("error", "size"), [(ValueError, 1), (ValueError, 9_000_000), (KeyboardInterrupt, 1), (GeneratorExit, 1)]
)
def test_what_ends_badly_leaves_everything_as_it_was(
    place: str, tmp_path: Path, before: bytes | None, error: type[BaseException], size: int
):
    if before:
        write(Destination(place), before)
    with pytest.raises(error):
        break_off(Destination(place), b"x" * size, error())
    gc.collect()  # an upload that is forgotten closes itself: that must not commit it either
    assert content(place) == before
    assert len(names(tmp_path)) + len(STORE.objects) == bool(before)
    assert STORE.discarded == (["/bucket/out.csv"] if place.startswith("memory") else [])


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("must_be_new", [False, True])
def test_checking_leaves_no_trace(place: str, tmp_path: Path, must_be_new: bool, overwrite: bool, exists: bool):
    if exists:
        write(Destination(place), b"there")
    destination = Destination(place, overwrite=overwrite)
    if exists and must_be_new and not overwrite:
        with pytest.raises(ConfigurationError, match="exists and overwrite is False: nothing was bought or fetched"):
            destination.check(must_be_new=must_be_new)
    else:
        destination.check(must_be_new=must_be_new)
    assert content(place) == (b"there" if exists else None)
    assert len(names(tmp_path)) + len(STORE.objects) == exists


@pytest.mark.parametrize(
    ("chunks", "accepted"),
    [
        ([b"same bytes"], True),
        ([b"same", b" ", b"bytes", b""], True),
        ([], False),
        ([b"same"], False),
        ([b"same bytes", b"!"], False),
        ([b"same bytes!"], False),
        ([b"some bytes"], False),
        ([b"same", b" bites"], False),
    ],
    ids=str,
)
def test_overwrite_false_accepts_the_same_bytes_only(place: str, chunks: list[bytes], accepted: bool):
    destination = Destination(place, overwrite=False)
    write(destination, b"same bytes")
    if accepted:
        assert write(destination, *chunks) == 10
    else:
        with pytest.raises(ConfigurationError, match="exists with other content and overwrite is False"):
            write(destination, *chunks)
    assert content(place) == b"same bytes"


def test_the_missing_leads_are_beside_and_may_be_replaced_and_removed(place: str, tmp_path: Path):
    result = Destination(f" {place} ", overwrite=False)
    write(result, b"result")
    beside = result.for_missing_leads()
    assert beside.url == f"{place}.missing.csv"
    for data in (b"old", b"new"):
        write(beside, data)
        assert content(beside.url) == data
    beside.remove()
    beside.remove()
    assert content(place) == b"result"
    assert len(names(tmp_path)) + len(STORE.objects) == 1


# --- on a disk


@pytest.mark.parametrize("form", ["{}", "file://{}", " {} ", Path], ids=["path", "url", "spaces", "path object"])
def test_a_local_file_is_written_with_its_folders(tmp_path: Path, form: str | type[Path]):
    path = tmp_path / "new" / "folder" / "ü emails.csv"
    destination = Destination(form.format(path) if isinstance(form, str) else form(path))
    destination.check(must_be_new=True)
    write(destination, b"all")
    assert path.read_bytes() == b"all"
    assert names(path.parent) == [path.name]


def test_a_relative_path_is_one_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write(Destination("out.csv"), b"all")
    assert (tmp_path / "out.csv").read_bytes() == b"all"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)], ids=oct)
def test_the_mode_follows_the_umask(tmp_path: Path, umask: int, mode: int):
    before = os.umask(umask)
    try:
        write(Destination(str(tmp_path / "a.csv")), b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.csv").stat().st_mode & 0o777 == mode


def test_the_longest_file_names(tmp_path: Path):
    """Missing leads are written to a file whose name is longer by 12, so a name needs that much to spare."""
    write(Destination(str(tmp_path / ("x" * 255))), b"all")
    Destination(str(tmp_path / ("x" * 243))).check(must_be_new=True)
    for length in (244, 256):
        with pytest.raises(ConfigurationError, match=r"cannot be written .*name too long"):
            Destination(str(tmp_path / ("x" * length))).check(must_be_new=True)


# --- what cannot be a destination


@pytest.mark.parametrize("url", [None, "", "  ", 7, b"/tmp/a.csv", ["a.csv"]], ids=repr)
def test_what_is_no_path_is_refused(url):
    with pytest.raises(ConfigurationError, match="export_to must be a path or URL, not"):
        Destination(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("{folder}", "is a folder; name a file in it"),
        ("{folder}/new/", "is a folder; name a file in it"),
        ("memory://bucket/folder", "is a folder; name a file in it"),
        ("{folder}/file/a.csv", r"cannot be written .*Check the path, the permissions"),
        ("{folder}/file/sub/a.csv", r"cannot be written .*Check the path, the permissions"),
        ("{folder}/pipe", "not a regular file"),
        ("nosuchscheme://b/a.csv", r"'nosuchscheme://b/a\.csv' cannot be written"),
    ],
)
def test_where_nothing_can_be_written_is_refused(tmp_path: Path, bucket: Bucket, url: str, reason: str):
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    bucket.objects["/bucket/folder/b.csv"] = b""
    with pytest.raises(ConfigurationError, match=reason):
        Destination(url.format(folder=tmp_path)).check(must_be_new=False)


def test_what_cannot_be_removed_is_named(tmp_path: Path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(ConfigurationError, match=r"a\.csv' was written by an earlier attempt.*Remove it yourself"):
        Destination(str(tmp_path / "a.csv")).remove()


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
    opened = []

    def remove_first(handle: int, operation: int) -> None:
        opened.append(handle)
        if len(opened) == 1:
            (part,) = tmp_path.iterdir()
            part.unlink()

    monkeypatch.setattr(fcntl, "flock", remove_first)
    write(Destination(str(tmp_path / "a.csv")), b"x")
    assert len(opened) == 2
    assert names(tmp_path) == ["a.csv"]


def test_a_file_system_without_locks_keeps_its_leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """There, nobody can tell them from what a living writer writes."""
    path = tmp_path / "a.csv"
    left = kill_while_writing(path)

    def fail(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    write(Destination(str(path)), b"x")
    assert names(tmp_path) == [left, "a.csv"]
