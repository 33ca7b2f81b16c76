"""What a try leaves for the next in Airflow's task state store, and what happens when the store fails."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from machfive_provider import exceptions
from machfive_provider.purchase.record import INTENT, SUBMITTED, Record, RecordStore
from tests.tasks import StateStore

BASE, TAG = "0123456789-0123456789ab", "[af1:0123456789-0123456789ab]"
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


def records(store: StateStore | None) -> RecordStore:
    return RecordStore(store, BASE, LOG)


def test_what_one_try_writes_the_next_reads():
    store, before = StateStore(), time.time()
    first = records(store)
    assert first.read() is None
    first.write_intent(TAG, 1)
    record = records(store).read()
    assert record is not None
    assert (record.tag, record.generation, record.phase, record.list_id) == (TAG, 1, INTENT, "")
    assert before <= record.time <= time.time()
    first.write_submitted(TAG, 1, "list-1")
    record = records(store).read()
    assert record is not None
    assert (record.phase, record.list_id) == (SUBMITTED, "list-1")


def test_of_takes_the_store_of_the_context():
    store = StateStore()
    RecordStore.of({"task_state_store": store}, BASE, LOG).write_intent(TAG, 1)
    assert list(store.kept) == [f"machfive_{BASE}"]
    assert RecordStore.of({}, BASE, LOG).readable is False


def test_purchases_do_not_share_a_record():
    store = StateStore()
    records(store).write_intent(TAG, 1)
    other = RecordStore(store, f"{BASE}c", LOG)
    assert other.read() is None
    assert other.readable


def test_without_a_store_nothing_is_known_and_nothing_fails():
    none = records(None)
    assert none.read() is None
    none.write_intent(TAG, 1)
    none.write_submitted(TAG, 1, "list-1")
    none.restore()
    assert (none.readable, none.record) == (False, None)


def test_a_failed_read_is_not_an_empty_store(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    store = Broken()
    each = records(store)
    each.read()
    assert each.readable
    each.write_intent(TAG, 1)
    assert each.read() is not None
    store.broken = ("get",)
    assert each.read() is None
    assert (each.record, each.readable) == (None, False)
    assert "could not be read (ConnectionError)" in caplog.text
    assert "secret detail" not in caplog.text
    store.broken = ()
    assert each.read() is not None
    assert each.readable


def test_an_intent_that_cannot_be_written_stops_the_purchase():
    """An empty store must mean that nothing was sent."""
    with pytest.raises(exceptions.MachFiveTransientError, match=r"written \(ConnectionError\)\. Nothing was sent"):
        records(Broken("set")).write_intent(TAG, 1)


def test_a_list_id_that_cannot_be_written_is_only_logged(caplog: pytest.LogCaptureFixture):
    store = Broken()
    each = records(store)
    each.write_intent(TAG, 1)
    store.broken = ("set", "delete")
    each.write_submitted(TAG, 1, "list-1")
    each.restore()
    assert caplog.text.count("could not be written (ConnectionError)") == 2
    record = records(store).read()
    assert record is not None
    assert record.phase == INTENT  # so the next try waits, and pays no more


@pytest.mark.parametrize("earlier", [False, True], ids=["nothing", "a record"])
def test_restore_writes_back_what_was_read(earlier: bool):
    store = StateStore()
    if earlier:
        records(store).write_submitted(TAG, 1, "list-1")
    before = dict(store.kept)
    each = records(store)
    each.read()
    each.write_intent(TAG.replace("]", "#2]"), 2)
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
        {"tag": TAG},
        {"tag": TAG, "generation": "1", "phase": INTENT, "list_id": "", "time": 0.0},
        {"tag": TAG, "generation": 1, "phase": "adopted", "list_id": "", "time": 0.0},
        {"tag": TAG, "generation": 1, "phase": INTENT, "list_id": "", "time": 0.0, "more": 1},
    ],
    ids=["none", "empty", "array", "text", "incomplete", "generation", "phase", "more"],
)
def test_a_record_of_another_shape_is_none(value: Any):
    assert Record.from_json(value) is None
