"""What one try of a task leaves for the next in Airflow's task state store (Airflow 3.3 and later).

The tag in the list's name is the main protection against buying twice. The record adds to it: it finds a list whose
name has lost the tag, stops a process that Airflow has replaced, and saves the wait for a list to show up. Airflow
keeps one store for each task instance. A user, ``clear_on_success`` or an upgrade can empty it, so a later try takes no
record as "not known".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from machfive_provider import exceptions
from machfive_provider.purchase.tag import Tag

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

__all__ = ["INTENT", "NOTHING_SENT", "SUBMITTED", "Record", "RecordStore"]

NOTHING_SENT, INTENT, SUBMITTED = "nothing sent", "intent", "submitted"
_KEY = "machfive_purchase"


@dataclass(frozen=True, slots=True)
class Record:
    """How far the tries before have come.

    :param phase: ``nothing sent``, written before the first search; ``intent``, written before a POST; ``submitted``,
        written once the list's id is known
    :param tag: of the list in the last POST; empty if nothing was sent
    :param call: the paid call of that POST
    :param time: of writing, epoch seconds
    :param lists: all lists that this task instance has bought: tag → list id
    """

    phase: str
    tag: str = ""
    call: str = ""
    time: float = 0.0
    lists: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Any) -> Record | None:
        """Return the record; None for anything else, such as what another release wrote."""
        try:
            record = cls(**value)
        except TypeError:
            return None
        is_valid = record.phase == NOTHING_SENT or (record.phase in (INTENT, SUBMITTED) and Tag.all_in(str(record.tag)))
        return record if is_valid and isinstance(record.lists, Mapping) else None

    @property
    def parsed_tag(self) -> Tag | None:
        """The tag as an object, None if nothing was sent."""
        return next(iter(Tag.all_in(self.tag)), None)


class RecordStore:
    """Reads and writes the record of one task instance.

    :param store: ``context["task_state_store"]``, None where Airflow has none
    """

    def __init__(self, store: Any, log: Any) -> None:
        self._store = store
        self._log = log
        self.record: Record | None = None

    @classmethod
    def of(cls, context: Context, log: Any) -> RecordStore:
        """Return the record store of the task that runs in this context."""
        return cls(context.get("task_state_store"), log)

    def begin(self, try_number: int) -> None:
        """Read the record. The first try writes one before anything can be sent, so that later none means "not known".

        A later try that finds none writes none. If it did and died, the next would read "nothing sent" although a POST
        may be unanswered.
        """
        if self._store is None:
            return
        try:
            self.record = Record.from_json(self._store.get(_KEY))
            if self.record is None and try_number == 1:
                self._write(begun := Record(NOTHING_SENT, time=time.time()))
                self.record = begun
        except Exception as error:  # noqa: BLE001 - without a record a later try only takes longer
            self._log.info(
                "Airflow's task state store could not be read or written (%s); going on without it.",
                type(error).__name__,
            )

    def write_intent(self, tag: Tag, call: str) -> None:
        """Write that a POST is about to be sent.

        It also stops a process that Airflow has replaced: the store refuses its writes.

        :raises MachFiveTransientError: if that fails, so that the caller sends nothing
        """
        if self._store is None:
            return
        try:
            self._write(Record(INTENT, str(tag), call, time.time(), self._lists))
        except Exception as error:
            raise exceptions.MachFiveTransientError(
                f"Airflow's task state store could not be written ({type(error).__name__}). Nothing was sent or spent; "
                "the next try does it again"
            ) from error

    def write_submitted(self, tag: Tag, call: str, list_id: str) -> None:
        """Write which list was bought."""
        lists = {**self._lists, str(tag): list_id}
        self._write_or_warn(lambda: self._write(Record(SUBMITTED, str(tag), call, time.time(), lists)))

    def restore(self) -> None:
        """Write back what was there before the intent: the POST bought nothing."""
        before = self.record
        self._write_or_warn(lambda: self._write(before) if before else self._store.delete(_KEY))

    @property
    def _lists(self) -> Mapping[str, str]:
        return self.record.lists if self.record else {}

    def _write(self, record: Record) -> None:
        self._store.set(_KEY, asdict(record))

    def _write_or_warn(self, write: Callable[[], Any]) -> None:
        if self._store is None:
            return
        try:
            write()
        except Exception as error:  # noqa: BLE001 - the intent stays, so the next try only waits longer
            self._log.warning("Airflow's task state store could not be written (%s).", type(error).__name__)
