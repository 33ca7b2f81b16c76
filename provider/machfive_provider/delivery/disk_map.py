"""A mapping that costs disk instead of memory, for counting exports of any size."""

from __future__ import annotations

import sqlite3
from collections.abc import ItemsView, Iterator, Mapping
from types import TracebackType
from typing import cast

from machfive_provider.exceptions import MachFiveTransientError

__all__ = ["DiskMap"]

_CACHE_KIB = 2048  # SQLite's default, unless somebody built it otherwise


class DiskMap(Mapping[str, int | None]):
    """Keeps a number, or None, for each text, in a temporary file of SQLite's; entries are added or replaced.

    The file lies where ``SQLITE_TMPDIR`` or ``TMPDIR`` says, else in ``/var/tmp`` or ``/tmp``. It has no name there:
    it is gone when the block ends, and when the process is killed. What is not much is never written to it.

    :raises MachFiveTransientError: from the ``with`` block, if the file cannot be written
    """

    def __init__(self) -> None:
        self._count = 0
        self._database = sqlite3.connect("", isolation_level=None)
        # Nothing is ever rolled back or has to outlive a crash.
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
            self._database.execute(f"PRAGMA {setting}")
        # Bytes, not text: a parser may hand on half a surrogate pair.
        self._database.execute("CREATE TABLE entry (key BLOB PRIMARY KEY, value INTEGER) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def __enter__(self) -> DiskMap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        if isinstance(error, sqlite3.Error):
            raise MachFiveTransientError(
                f"leads cannot be counted in temporary storage ({error}): there may be no room, or no folder that can "
                "be written. SQLITE_TMPDIR names another"
            ) from error

    def __getitem__(self, key: str) -> int | None:
        row = self._database.execute("SELECT value FROM entry WHERE key = ?", (_bytes(key),)).fetchone()
        if row is None:
            raise KeyError(key)
        return cast("int | None", row[0])

    def __setitem__(self, key: str, value: int | None) -> None:
        entry = (_bytes(key), value)
        if self._database.execute("INSERT OR IGNORE INTO entry VALUES (?, ?)", entry).rowcount:
            self._count += 1
        else:
            self._database.execute("REPLACE INTO entry VALUES (?, ?)", entry)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self.items())

    def items(self) -> ItemsView[str, int | None]:
        """Return the entries, read from the file as they are iterated over."""
        return _Entries(self, self._database)


class _Entries(ItemsView[str, int | None]):
    """Goes through the table once; the inherited way looks up each key."""

    def __init__(self, mapping: DiskMap, database: sqlite3.Connection) -> None:
        super().__init__(mapping)
        self._database = database

    def __iter__(self) -> Iterator[tuple[str, int | None]]:
        for key, value in self._database.execute("SELECT key, value FROM entry"):
            yield key.decode("utf-8", "surrogatepass"), value


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")
