"""A mapping on disk: the same as a dictionary, of bounded memory, and gone when it is not needed any more."""

from __future__ import annotations

import sqlite3
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machfive_provider.delivery.disk_map import DiskMap
from machfive_provider.exceptions import MachFiveTransientError
from tests.tasks import temporary_databases

MUCH = [f"{number:06}{'x' * 1000}@example.com" for number in range(4000)]  # more than is kept in memory

keys = st.text(max_size=3) | st.text(st.characters(categories=["Cs"]), max_size=1)


@given(st.lists(st.tuples(keys, st.none() | st.integers(0, 9))), keys)
def test_it_is_as_a_dictionary(entries: list, stranger: str):
    model: dict[str, int | None] = {}
    with DiskMap() as on_disk:
        for key, value in entries:
            assert (key in on_disk) == (key in model)
            on_disk[key] = model[key] = value
            assert on_disk[key] == value
        assert on_disk == model
        assert len(on_disk) == len(model)
        assert sorted(on_disk) == sorted(model)
        assert on_disk.get(stranger, "nothing") == model.get(stranger, "nothing")


def test_two_share_nothing():
    with DiskMap() as one, DiskMap() as other:
        one["a"] = 1
        assert dict(other) == {}


def fill(on_disk: DiskMap) -> None:
    for key in MUCH:
        on_disk[key] = 3


@pytest.mark.parametrize("ending", [None, ValueError, KeyboardInterrupt])
def test_what_is_much_lies_in_a_file_without_a_name_until_the_end(ending: type[BaseException] | None):
    """Without a name there is nothing to be left, whatever kills the process."""
    before = temporary_databases()
    with pytest.raises(ending) if ending else nullcontext(), DiskMap() as on_disk:
        fill(on_disk)
        (file,) = temporary_databases() - before
        assert file.endswith("(deleted)")
        if ending:
            raise ending
    assert temporary_databases() == before
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        list(on_disk)


def test_storage_that_is_full_is_worth_another_try():
    on_disk = DiskMap()
    on_disk._database.execute("PRAGMA max_page_count = 100")
    with pytest.raises(MachFiveTransientError, match=r"disk is full.*SQLITE_TMPDIR"), on_disk:
        fill(on_disk)
