"""What one attempt of a task leaves for the next in Airflow's task state store, where there is one (3.3 and later).

It saves time, never money: with a record the next attempt need not wait to see whether a list turns up. Safety
rests on the list's name alone.
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
    """How far the last purchase of a tag came.

    :param tag: with its generation
    :param phase: ``intent``, written before the POST, or ``submitted``, written after its answer
    :param list_id: empty before the answer
    :param time: of writing, epoch seconds
    """

    tag: str
    generation: int
    phase: str
    list_id: str
    time: float

    @classmethod
    def from_json(cls, value: Any) -> Record | None:
        """Read a record; None for anything else."""
        try:
            record = cls(**value)
        except TypeError:
            return None
        return record if isinstance(record.generation, int) and record.phase in (INTENT, SUBMITTED) else None


class RecordStore:
    """The record of one purchase.

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
        """Return the records of the task that runs in this context."""
        return cls(context.get("task_state_store"), base, log)

    def read(self) -> Record | None:
        """Read what the last attempt left; ``works`` tells whether "nothing" can be believed."""
        if self._store is None:
            return None
        try:
            self.record = Record.from_json(self._store.get(self._key))
            self.readable = True
        except Exception as error:  # noqa: BLE001 - whatever it is, doing without costs only time
            self._log.info("Airflow's task state store could not be read (%s); doing without.", type(error).__name__)
            self.record, self.readable = None, False
        return self.record

    def write_intent(self, tag: str, generation: int) -> None:
        """Write that a POST is about to be sent.

        :raises MachFiveTransientError: if that fails: a store that is empty must mean that nothing was sent
        """
        if self._store is None:
            return
        try:
            self._write(Record(tag, generation, INTENT, "", time.time()))
        except Exception as error:
            raise exceptions.MachFiveTransientError(
                f"Airflow's task state store could not be written ({type(error).__name__}). Nothing was sent"
            ) from error

    def write_submitted(self, tag: str, generation: int, list_id: str) -> None:
        """Write that the POST was answered, and with which list."""
        self._try(lambda: self._write(Record(tag, generation, SUBMITTED, list_id, time.time())))

    def restore(self) -> None:
        """Go back to what was recalled: the POST surely bought nothing."""
        before = self.record
        self._try(lambda: self._write(before) if before else self._store.delete(self._key))

    def _write(self, record: Record) -> None:
        self._store.set(self._key, asdict(record))

    def _try(self, write: Any) -> None:
        if self._store is None:
            return
        try:
            write()
        except Exception as error:  # noqa: BLE001 - the intent stands, so the next attempt looks longer: no harm
            self._log.warning("Airflow's task state store could not be written (%s).", type(error).__name__)
