"""The deferrable sensor that waits for lists."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    conf,
)

from machfive_provider import errors
from machfive_provider.operators.waiting import DEFERRAL_MARGIN
from machfive_provider.texts import counted, kind_of

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.api.models import LeadList
    from machfive_provider.polling import Progress

__all__ = ["MachFiveListSensor"]


class MachFiveListSensor(BaseSensorOperator):
    """Waits until one list, or each of several, has completed.

    Deferrable, a success ends in the triggerer: it costs one worker start in all. With ``outlets``, a
    ``post_execute`` or an ``on_success_callback`` it resumes on a worker, because only a worker's success emits asset
    events and calls them.

    :param list_id: the list's UUID, or several
    :param deferrable: wait in the triggerer and hold no worker; ``mode`` is then of no importance
    :param poke_interval: seconds between looks; MachFive asks for 10-30
    :param machfive_conn_id: the Airflow connection

    ``timeout``, ``mode``, ``soft_fail`` and ``never_fail`` are those of every Airflow sensor.

    :raises ListFailedError: if a list ended failed
    :raises SensorTimeoutError: after ``timeout`` seconds; final, as for every sensor
    """

    template_fields: Sequence[str] = ("list_id", "machfive_conn_id")
    ui_color = "#e3edf9"

    def __init__(
        self,
        *,
        list_id: str | Sequence[str],
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: float | timedelta = 20,
        machfive_conn_id: str = "machfive_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.list_id = list_id
        self.deferrable = deferrable
        self.machfive_conn_id = machfive_conn_id
        self._progress: dict[str, Progress] = {}
        self._completed: set[str] = set()
        self._started_at: float | None = None
        self._quiet = False

    def execute(self, context: Context) -> Any:
        """Wait on this worker, or in the triggerer."""
        from machfive_provider.polling import effective_deadline

        if not self.deferrable:
            return self._wait_here(context)
        started_at = time.time()
        limit = self.execution_timeout.total_seconds() if self.execution_timeout else None
        deadline = effective_deadline(started_at, self.timeout, limit)
        try:
            if self._look_at_all(started_at, deadline):
                return None
        except errors.MachFiveError as error:
            self._fail(error)
        return self._defer(started_at, deadline)

    def poke(self, context: Context) -> bool:
        """Look once at each list that has not completed yet."""
        started_at = self._first_poke(context) or time.time()
        return self._look_at_all(started_at, started_at + self.timeout)

    def _first_poke(self, context: Context) -> float | None:
        """Return when this attempt began, epoch seconds; rescheduled, Airflow remembers it and not this object."""
        if self.reschedule:
            first = context["ti"].get_first_reschedule_date(context)
            # Each look is a process of its own and knows no earlier status: only the first has news to tell.
            self._quiet = first is not None
            return first.timestamp() if first else None
        self._started_at = self._started_at or time.time()
        return self._started_at

    def resume(self, context: Context, event: Any = None) -> None:  # noqa: ARG002 - Airflow's signature
        """Come back from the triggerer: raise what it found wrong."""
        from machfive_provider.api.models import LeadList
        from machfive_provider.triggers import events

        # dag.test() resumes here even where the triggerer would have ended the task: with its state.
        if event == "success":
            return
        try:
            for each in events.read(event, "ended")["lists"]:
                _check(LeadList.from_json(each))
        except errors.MachFiveError as error:
            self._fail(_final(error))
        self.log.info("All lists have completed.")

    def on_kill(self) -> None:
        """Say what becomes of the lists: the API has no cancel."""
        self.log.warning("The sensor was ended. The lists it watched go on all the same.")

    def _wait_here(self, context: Context) -> Any:
        try:
            return super().execute(context)
        except AirflowSensorTimeout as error:
            if isinstance(error, errors.SensorTimeoutError):
                raise
            self._fail(
                errors.SensorTimeoutError(
                    f"list {', '.join(self._waiting())} had not completed when the sensor's timeout "
                    f"({self.timeout:g} s) passed. MachFive keeps working on it; clear the task to wait on, or raise "
                    "timeout."
                )
            )

    def _ids(self) -> list[str]:
        from machfive_provider.api.protocol import check_uuid

        ids = [self.list_id] if isinstance(self.list_id, str) else self.list_id
        if not isinstance(ids, Sequence) or not ids:
            raise errors.ConfigurationError(f"list_id must be a list's id or several, not {kind_of(ids)}.")
        return list(dict.fromkeys(check_uuid("list_id", each) for each in ids))

    def _waiting(self) -> list[str]:
        return [each for each in self._ids() if each not in self._completed]

    def _look_at_all(self, started_at: float, deadline: float) -> bool:
        from machfive_provider.hooks.machfive import MachFiveHook
        from machfive_provider.polling import Done, GiveUp, Progress, Wait, Watch, decide, look_at

        with MachFiveHook(self.machfive_conn_id) as hook:
            for list_id in self._waiting():
                watch = Watch(list_id, self._interval(), started_at, deadline)
                look: LeadList | errors.MachFiveError
                try:
                    look = look_at(hook, list_id)
                except errors.MachFiveError as error:
                    look = error
                match decide(watch, self._progress.get(list_id, Progress()), look, time.time()):
                    case Done(lead_list):
                        _check(lead_list)
                        self._completed.add(list_id)
                    case GiveUp(reason):
                        raise _final(reason)
                    case Wait(_, progress, notice):
                        self._progress[list_id] = progress
                        if notice and not self._quiet:
                            self.log.info("%s", notice)
        return not self._waiting()

    def _defer(self, started_at: float, deadline: float) -> NoReturn:
        from machfive_provider.triggers.lead_list import MachFiveListTrigger

        waiting = self._waiting()
        self.log.info("Waiting for %s in the triggerer; this worker is free.", counted(len(waiting), "list"))
        self.defer(
            trigger=MachFiveListTrigger(
                list_ids=waiting,
                machfive_conn_id=self.machfive_conn_id,
                poll_interval=self._interval(),
                started_at=started_at,
                deadline=deadline,
                first_look_at=time.time() + self.poke_interval,
                ends_task=not self._needs_a_worker_to_succeed(),
            ),
            method_name="resume",
            timeout=timedelta(seconds=deadline - time.time() + DEFERRAL_MARGIN),
        )

    def _interval(self) -> float:
        from machfive_provider.polling import SHORTEST_INTERVAL

        return max(SHORTEST_INTERVAL, self.poke_interval)

    def _needs_a_worker_to_succeed(self) -> bool:
        own_post_execute = type(self).post_execute is not BaseSensorOperator.post_execute
        hook = getattr(self, "_post_execute_hook", None)
        # Airflow asks the DAG processor to run on_success_callback, and that runs callbacks of failures alone.
        return bool(self.outlets or own_post_execute or hook or self.on_success_callback)

    def _fail(self, error: errors.MachFiveError) -> NoReturn:
        """Raise, or skip as ``soft_fail`` and ``never_fail`` ask: alike in both modes."""
        if (self.soft_fail and isinstance(error, AirflowException)) or self.never_fail:
            which = "soft_fail" if self.soft_fail else "never_fail"
            raise AirflowSkipException(f"Skipping due to {which}: {error}") from error
        raise error


def _check(lead_list: LeadList) -> None:
    if lead_list.is_failed:
        raise errors.ListFailedError(f"list {lead_list.id} ended failed on MachFive's side")


def _final(error: errors.MachFiveError) -> errors.MachFiveError:
    """Make a passed deadline the sensor's timeout, which no retry follows; leave other errors as they are."""
    if isinstance(error, errors.WaitTimeoutError):
        return errors.SensorTimeoutError(error.message, occurred_at=error.occurred_at)
    return error
