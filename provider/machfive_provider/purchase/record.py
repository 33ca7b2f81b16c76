"""What one attempt of a task leaves for the next in Airflow's task state store (Airflow 3.3 and later).

The record saves time: with it the next attempt knows whether a POST may be unanswered, and need not wait for a list
to show up. That nothing is bought twice rests on the tag in the list's name alone.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from machfive_provider import exceptions

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

__all__ = ["INTENT", "SUBMITTED", "Record", "RecordStore"]

INTENT, SUBMITTED = "intent", "submitted"


@dataclass(frozen=True, slots=True)
class Record:
    """How far the last attempt came.

    :param tag: of the list's name
    :param phase: ``intent``, written before the POST, or ``submitted``, written once the list's id is known
    :param list_id: empty in an intent
    :param time: of writing, epoch seconds
    """

    tag: str
    generation: int
    phase: str
    list_id: str
    time: float

    @classmethod
    def from_json(cls, value: Any) -> Record | None:
        """Return the record; None for anything else, such as what another release wrote."""
        try:
            record = cls(**value)
        except TypeError:
            return None
        return record if isinstance(record.generation, int) and record.phase in (INTENT, SUBMITTED) else None


class RecordStore:
    """Reads and writes the record of one purchase.

    ``record`` is what :meth:`read` found. ``readable`` tells whether a missing record means that there is none.

    :param store: ``context["task_state_store"]``, None where Airflow has none
    :param base: the purchase's ``<who>-<what>``
    """

    def __init__(self, store: Any, base: str, log: Any) -> None:
        self._store = store
        self._key = f"machfive_{base}"
        self._log = log
        self.record: Record | None = None
        self.readable = store is not None

    @classmethod
    def of(cls, context: Context, base: str, log: Any) -> RecordStore:
        """Return the record store of the task that runs in this context."""
        return cls(context.get("task_state_store"), base, log)

    def read(self) -> Record | None:
        """Return what the last attempt left, None if it left nothing or the store cannot be read."""
        if self._store is None:
            return None
        try:
            self.record = Record.from_json(self._store.get(self._key))
            self.readable = True
        except Exception as error:  # noqa: BLE001 - without a record the attempt only takes longer
            self._log.info(
                "Airflow's task state store could not be read (%s); going on without it.", type(error).__name__
            )
            self.record, self.readable = None, False
        return self.record

    def write_intent(self, tag: str, generation: int) -> None:
        """Write that a POST is about to be sent.

        :raises MachFiveTransientError: if that fails, so that the caller sends nothing: the next attempt takes an
            empty store as proof that nothing was sent
        """
        if self._store is None:
            return
        try:
            self._write(Record(tag, generation, INTENT, "", time.time()))
        except Exception as error:
            raise exceptions.MachFiveTransientError(
                f"Airflow's task state store could not be written ({type(error).__name__}). Nothing was sent or spent; "
                "the next try does it again"
            ) from error

    def write_submitted(self, tag: str, generation: int, list_id: str) -> None:
        """Write which list was bought."""
        self._try(lambda: self._write(Record(tag, generation, SUBMITTED, list_id, time.time())))

    def restore(self) -> None:
        """Write back what was read before the intent: the POST bought nothing."""
        before = self.record
        self._try(lambda: self._write(before) if before else self._store.delete(self._key))

    def _write(self, record: Record) -> None:
        self._store.set(self._key, asdict(record))

    def _try(self, write: Any) -> None:
        if self._store is None:
            return
        try:
            write()
        except Exception as error:  # noqa: BLE001 - the intent stays, so the next attempt only waits longer
            self._log.warning("Airflow's task state store could not be written (%s).", type(error).__name__)
