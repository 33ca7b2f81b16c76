"""Where an export goes: a file or object that appears complete or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from machfive_provider.exceptions import ConfigurationError
from machfive_provider.formatting import absolute

__all__ = ["MISSING_LEADS", "Destination", "Writer"]

MISSING_LEADS = ".missing.csv"
# Bytes that are sent to an object store at once. By default s3fs and adlfs gather 50 MiB, several times in memory. S3
# takes parts from 5 MiB on, 10,000 of them.
_PART = 8 * 2**20


class Writer:
    """Hands bytes on to ``put``, and counts them."""

    def __init__(self, put: Callable[[bytes], Any]) -> None:
        self._put = put
        self.written = 0

    def write(self, data: bytes) -> None:
        """Hand on the next bytes."""
        self._put(data)
        self.written += len(data)


class Destination:
    """A path or URL that ObjectStoragePath reaches, e.g. ``s3://aws_default@bucket/emails.jsonl``.

    :param url: where to write
    :param overwrite: False refuses to replace other content; the same bytes are accepted
    :raises ConfigurationError: if ``url`` is no path, or its file system is not installed or configured
    """

    def __init__(self, url: Any, *, overwrite: bool = True) -> None:
        if not isinstance(url, (str, os.PathLike)) or not str(url).strip():
            raise ConfigurationError(f"export_to must be a path or URL, not {type(url).__name__} {url!r}.")
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        self.url = str(url).strip()
        if self.url.endswith("/"):
            raise ConfigurationError(f"export_to {self.url!r} is a folder; name a file in it.")
        self.overwrite = overwrite
        try:
            self._path = ObjectStoragePath(absolute(self.url))
            self._fs = self._path.fs
        except Exception as error:
            raise self._unusable(error) from error
        self._local = Path(self._path.path) if self._path.protocol in ("file", "local", "") else None

    def check(self, *, must_be_new: bool) -> None:
        """Check whether writing can work, before any credit is spent.

        :param must_be_new: refuse an existing destination unless ``overwrite``
        :raises ConfigurationError: naming the destination, the reason and the fix
        """
        try:
            exists = self._exists()
            if exists and self._fs.isdir(self._path.path):
                raise ConfigurationError(f"export_to {self.url!r} is a folder; name a file in it.")
            if self._local:
                self._check_local(self._local)
        except ConfigurationError:
            raise
        except Exception as error:
            raise self._unusable(error) from error
        if exists and must_be_new and not self.overwrite:
            raise ConfigurationError(
                f"export_to {self.url!r} exists and overwrite is False: nothing was bought or fetched. Name another "
                "destination, remove it, or set overwrite=True."
            )

    def _check_local(self, path: Path) -> None:
        if path.exists() and not path.is_file():
            raise ConfigurationError(
                f"export_to {self.url!r} is not a regular file and would be replaced; name another."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        with suppress(FileNotFoundError):  # a name that is too long raises another OSError
            path.with_name(f"{path.name}{MISSING_LEADS}").lstat()

    def for_missing_leads(self) -> Destination:
        """Return where this result's missing leads are written: beside it, and always replaced."""
        return Destination(f"{self.url}{MISSING_LEADS}")

    def remove(self) -> None:
        """Remove what is there, if anything.

        :raises ConfigurationError: if it cannot be removed
        """
        try:
            if self._exists():
                self._fs.rm_file(self._path.path)
        except FileNotFoundError:
            return
        except Exception as error:
            raise ConfigurationError(
                f"{self.url!r} was written by an earlier attempt, does not apply any more and cannot be removed "
                f"({type(error).__name__}: {error}). Remove it yourself, and do not submit it."
            ) from error

    @contextmanager
    def open(self) -> Iterator[Writer]:
        """Open for writing; the file appears whole when the block ends without an error, else not at all.

        Where ``overwrite`` is False and there is a file, the bytes are compared with it instead.

        :raises ConfigurationError: if they differ
        """
        if not self.overwrite and self._exists():
            with self._fs.open(self._path.path, "rb") as existing:
                yield Writer(lambda data: self._compare(existing.read(len(data)), data))
                self._compare(existing.read(1), b"")
        elif self._local:
            self._local.parent.mkdir(parents=True, exist_ok=True)
            with _local_file(self._local) as file:
                yield Writer(file.write)
        else:
            with _remote_object(self._fs, self._path.path) as file:
                yield Writer(file.write)

    def _exists(self) -> bool:
        # File systems of object stores keep listings and answer from them. A task may have listed the folder for
        # skip_already_written hours before it writes.
        self._fs.invalidate_cache()
        return bool(self._fs.exists(self._path.path))

    def _compare(self, existing: bytes, data: bytes) -> None:
        if existing != data:
            raise ConfigurationError(
                f"export_to {self.url!r} exists with other content and overwrite is False: it was left as it is. Name "
                "another destination, remove it, or set overwrite=True."
            )

    def _unusable(self, error: Exception) -> ConfigurationError:
        """Return the error for whatever a file system raises: s3fs, gcsfs and adlfs have no class in common."""
        return ConfigurationError(
            f"export_to {self.url!r} cannot be written ({type(error).__name__}: {error}). Check the path, the "
            "permissions, the connection it names and that its file system's package is installed."
        )


@contextmanager
def _local_file(path: Path) -> Iterator[Any]:
    prefix = f".machfive-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}-"
    for leftover in path.parent.glob(f"{prefix}*.part"):
        _remove_unless_locked(leftover)
    handle, part = _locked_part(path.parent, prefix)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _locked_part(folder: Path, prefix: str) -> tuple[int, Path]:
    """Open a new file beside a destination, since only a rename within one file system is atomic.

    A held lock means that its writer still runs: the kernel releases it when the process ends, however it ends.
    """
    while True:
        part = folder / f"{prefix}{secrets.token_hex(8)}.part"
        # Not by tempfile: its files are private, and the umask, which the result's mode follows, would have to be set
        # for the whole process to be read.
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):  # no locks on this file system: then nobody removes the file either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, part
        os.close(handle)  # another export removed it before it was locked


def _remove_unless_locked(part: Path) -> None:
    # A leftover that cannot be removed does not stop the export.
    with suppress(OSError):
        handle = os.open(part, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()
        finally:
            os.close(handle)


@contextmanager
def _remote_object(fs: Any, path: str) -> Iterator[Any]:
    # Object stores show an upload once it is committed; a discarded upload leaves nothing.
    file = fs.open(path, "wb", autocommit=False, block_size=_PART)
    try:
        yield file
        file.close()
    except BaseException:
        with suppress(Exception):
            file.discard()
        # A forgotten file is closed at the end of the process, and closing commits (or hangs) where discard() does
        # nothing, as in adlfs (Azure).
        with suppress(Exception):
            file.closed = True
        raise
    file.commit()
