"""What a try leaves for the next in Airflow's task state store, and what happens when the store fails."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from machfive_provider import exceptions
from machfive_provider.purchase.record import INTENT, NOTHING_SENT, SUBMITTED, Record, RecordStore
from machfive_provider.purchase.tag import Tag
from tests.tasks import StateStore

TAG = Tag("0" * 10, "1" * 12, 2, None, "2" * 6)
AGAIN = Tag("0" * 10, "1" * 12, 2, None, "2" * 6, generation=2)
LOG = logging.getLogger("tests.records")


class Broken(StateStore):
    """A store whose named methods fail, as when the API server is away."""

    def __init__(self, *broken: str) -> None:
        super().__init__()
        self.broken = broken

    def get(self, key: str, default: Any = None) -> Any:
        self._check("get")
        return super().get(key, default)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self._check("set")
        super().set(key, value, retention=retention)

    def delete(self, key: str) -> None:
        self._check("delete")
        super().delete(key)

    def _check(self, method: str) -> None:
        if method in self.broken:
            raise ConnectionError("secret detail")


def begun(store: StateStore | None, try_number: int = 2) -> RecordStore:
    """Return the records as a try has read them."""
    records = RecordStore.of({} if store is None else {"task_state_store": store}, LOG)
    records.begin(try_number)
    return records


def test_what_one_try_writes_the_next_reads():
    store, before = StateStore(), time.time()
    first = begun(store, 1)
    assert first.record is not None
    assert first.record.phase == NOTHING_SENT
    assert begun(store).record == first.record
    first.write_intent(TAG, "generate")
    record = begun(store).record
    assert record is not None
    assert (record.phase, record.parsed_tag, record.call, record.lists) == (INTENT, TAG, "generate", {})
    assert before <= record.time <= time.time()
    first.write_submitted(TAG, "generate", "list-1")
    second = begun(store)
    assert second.record is not None
    assert (second.record.phase, second.record.lists) == (SUBMITTED, {str(TAG): "list-1"})
    second.write_intent(AGAIN, "generate")
    second.write_submitted(AGAIN, "generate", "list-2")
    third = begun(store).record
    assert third is not None
    assert third.lists == {str(TAG): "list-1", str(AGAIN): "list-2"}


def test_a_later_try_does_not_take_an_emptied_store_for_nothing_sent():
    store = StateStore()
    assert begun(store).record is None
    assert begun(store).record is None


@pytest.mark.parametrize("store", [None, Broken("get"), Broken("set")], ids=["none", "unreadable", "unwritable"])
def test_without_a_store_nothing_is_known_and_nothing_fails(store: Any, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    each = begun(store, 1)
    assert each.record is None
    each.write_submitted(TAG, "generate", "list-1")
    each.restore()
    assert ("(ConnectionError)" in caplog.text) is (store is not None)
    assert "secret detail" not in caplog.text


def test_an_intent_that_cannot_be_written_stops_the_purchase():
    begun(None).write_intent(TAG, "generate")
    with pytest.raises(exceptions.MachFiveTransientError, match=r"written \(ConnectionError\)\. Nothing was sent"):
        begun(Broken("set")).write_intent(TAG, "generate")


def test_a_list_id_that_cannot_be_written_is_only_logged(caplog: pytest.LogCaptureFixture):
    store = Broken()
    each = begun(store)
    each.write_intent(TAG, "generate")
    store.broken = ("set", "delete")
    each.write_submitted(TAG, "generate", "list-1")
    each.restore()
    assert caplog.text.count("could not be written (ConnectionError)") == 2
    record = begun(store).record
    assert record is not None
    assert record.phase == INTENT  # so the next try waits, and pays no more


@pytest.mark.parametrize("try_number", [1, 2], ids=["nothing sent", "no record"])
def test_restore_writes_back_what_was_read(try_number: int):
    store = StateStore()
    each = begun(store, try_number)
    before = dict(store.kept)
    each.write_intent(AGAIN, "generate")
    assert store.kept != before
    each.restore()
    assert store.kept == before


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [],
        "submitted",
        {"phase": "adopted", "tag": str(TAG)},
        {"phase": INTENT},
        {"phase": INTENT, "tag": 5},
        {"phase": INTENT, "tag": str(TAG), "more": 1},
        {"phase": SUBMITTED, "tag": str(TAG), "lists": "list-1"},
    ],
    ids=["none", "empty", "array", "text", "phase", "no tag", "odd tag", "more", "lists"],
)
def test_a_record_of_another_shape_is_none(value: Any):
    assert Record.from_json(value) is None
