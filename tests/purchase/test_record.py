"""What a try leaves for the next in Airflow's task state store, and what becomes of it when the store does not work."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from machfive_provider import exceptions
from machfive_provider.purchase.record import INTENT, SUBMITTED, Record, TaskMemory
from tests.tasks import StateStore

BASE, TAG = "0123456789-0123456789ab", "[af1:0123456789-0123456789ab]"
LOG = logging.getLogger("tests.memory")


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


def memory(store: StateStore | None) -> TaskMemory:
    return TaskMemory(store, BASE, LOG)


def test_what_one_try_notes_the_next_recalls():
    store, before = StateStore(), time.time()
    first = memory(store)
    assert first.recall() is None
    first.note_intent(TAG, 1)
    record = memory(store).recall()
    assert record is not None
    assert (record.tag, record.generation, record.phase, record.list_id) == (TAG, 1, INTENT, "")
    assert before <= record.time <= time.time()
    first.note_submitted(TAG, 1, "list-1")
    record = memory(store).recall()
    assert record is not None
    assert (record.phase, record.list_id) == (SUBMITTED, "list-1")


def test_of_takes_the_store_of_the_context():
    store = StateStore()
    TaskMemory.of({"task_state_store": store}, BASE, LOG).note_intent(TAG, 1)
    assert list(store.kept) == [f"machfive_{BASE}"]
    assert TaskMemory.of({}, BASE, LOG).works is False


def test_purchases_do_not_share_a_record():
    store = StateStore()
    memory(store).note_intent(TAG, 1)
    other = TaskMemory(store, f"{BASE}c", LOG)
    assert other.recall() is None
    assert other.works


def test_without_a_store_nothing_is_known_and_nothing_fails():
    none = memory(None)
    assert none.recall() is None
    none.note_intent(TAG, 1)
    none.note_submitted(TAG, 1, "list-1")
    none.note_refused()
    assert (none.works, none.record) == (False, None)


def test_a_store_that_works_and_is_empty_says_so():
    empty = memory(StateStore())
    assert empty.recall() is None
    assert empty.works


def test_a_failed_read_is_not_an_empty_store(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    store = Broken("get")
    broken = memory(store)
    assert broken.recall() is None
    assert not broken.works
    assert "could not be read (ConnectionError)" in caplog.text
    assert "secret detail" not in caplog.text
    store.broken = ()
    assert broken.recall() is None
    assert broken.works


def test_a_failed_read_forgets_what_was_recalled_before():
    store = Broken()
    each = memory(store)
    each.note_intent(TAG, 1)
    assert each.recall() is not None
    store.broken = ("get",)
    assert each.recall() is None
    assert each.record is None


def test_what_cannot_be_noted_is_not_sent():
    """An empty store must mean that nothing was sent."""
    with pytest.raises(exceptions.MachFiveTransientError, match=r"written \(ConnectionError\)\. Nothing was sent"):
        memory(Broken("set")).note_intent(TAG, 1)


def test_an_answer_that_cannot_be_noted_is_only_told(caplog: pytest.LogCaptureFixture):
    store = Broken()
    each = memory(store)
    each.note_intent(TAG, 1)
    store.broken = ("set", "delete")
    each.note_submitted(TAG, 1, "list-1")
    each.note_refused()
    assert caplog.text.count("could not be written (ConnectionError)") == 2
    record = memory(store).recall()
    assert record is not None
    assert record.phase == INTENT  # so the next try looks longer, and pays no more


def test_a_refusal_takes_the_intent_back():
    store = StateStore()
    each = memory(store)
    each.recall()
    each.note_intent(TAG, 1)
    each.note_refused()
    assert store.kept == {}


def test_a_refusal_restores_what_was_known_before():
    store = StateStore()
    first = memory(store)
    first.note_submitted(TAG, 1, "list-1")
    before = dict(store.kept)
    second = memory(store)
    second.recall()
    second.note_intent(TAG.replace("]", "#2]"), 2)
    assert store.kept != before
    second.note_refused()
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
