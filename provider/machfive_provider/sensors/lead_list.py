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

from machfive_provider import exceptions
from machfive_provider.formatting import counted
from machfive_provider.operators.waiting import DEFERRAL_MARGIN, needs_a_worker

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.api.models import LeadList
    from machfive_provider.waiting.decision import Progress

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
    :param start_from_trigger: start in the triggerer too (it implies ``deferrable``): a success costs no worker at
        all. Needs Airflow 3.3; ``list_id`` and ``machfive_conn_id`` may be plain values and templates of the run's
        facts (``params``, ``run_id``, ``dag_run``, dates) and of ``xcom_pull(…, map_indexes=-1)``. A mapped task goes
        by way of a worker with a warning

    ``timeout``, ``mode``, ``soft_fail`` and ``never_fail`` are those of every Airflow sensor.

    :raises ConfigurationError: while the DAG is parsed, if ``start_from_trigger`` would not be safe
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
        start_from_trigger: bool | None = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.list_id = list_id
        self.machfive_conn_id = machfive_conn_id
        # On a worker the mapped task is a sensor of its own, with its values in place.
        from_mapped = getattr(self, "_BaseOperator__from_mapped", False)
        asked = bool(start_from_trigger) or (start_from_trigger is None and from_mapped)
        self.deferrable = deferrable or asked
        self._mapped_start = asked and bool(from_mapped or self.get_closest_mapped_task_group())
        if asked and not self._mapped_start:
            self._start_in_the_triggerer()
        self._progress: dict[str, Progress] = {}
        self._completed: set[str] = set()
        self._started_at: float | None = None
        self._quiet = False

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Begin a mapped task; Airflow cannot start one in the triggerer, so ``start_from_trigger`` is kept from it."""
        partial = super().partial(**kwargs)
        if partial.kwargs.get("start_from_trigger"):
            # None still tells the sensor that it was asked for.
            partial.kwargs["start_from_trigger"] = None
        return partial

    def execute(self, context: Context) -> Any:
        """Wait on this worker, or in the triggerer."""
        if not self.deferrable:
            return self._wait_here(context)
        if self._mapped_start:
            self.log.warning(
                "start_from_trigger is left aside: Airflow cannot start a mapped task in the triggerer. It costs one "
                "worker start, as with deferrable=True."
            )
        started_at = time.time()
        deadline = started_at + self._patience()
        try:
            if self._look_at_all(started_at, deadline):
                return None
        except exceptions.MachFiveError as error:
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
        except exceptions.MachFiveError as error:
            self._fail(_final(error))
        self.log.info("All lists have completed.")

    def on_kill(self) -> None:
        """Say what becomes of the lists: the API has no cancel."""
        self.log.warning("The sensor was ended. The lists it watched go on all the same.")

    def _wait_here(self, context: Context) -> Any:
        try:
            return super().execute(context)
        except AirflowSensorTimeout as error:
            if isinstance(error, exceptions.SensorTimeoutError):
                raise
            self._fail(
                exceptions.SensorTimeoutError(
                    f"list {', '.join(self._waiting())} had not completed when the sensor's timeout "
                    f"({self.timeout:g} s) passed. MachFive keeps working on it; clear the task to wait on, or raise "
                    "timeout."
                )
            )

    def _waiting(self) -> list[str]:
        from machfive_provider.api.protocol import check_uuids

        return [each for each in check_uuids("list_id", self.list_id) if each not in self._completed]

    def _look_at_all(self, started_at: float, deadline: float) -> bool:
        from machfive_provider.hooks.machfive import MachFiveHook
        from machfive_provider.waiting.decision import Done, GiveUp, Progress, Wait, Watch, decide_poll, poll_list

        with MachFiveHook(self.machfive_conn_id) as hook:
            for list_id in self._waiting():
                watch = Watch(list_id, self._interval(), started_at, deadline)
                look: LeadList | exceptions.MachFiveError
                try:
                    look = poll_list(hook, list_id)
                except exceptions.MachFiveError as error:
                    look = error
                match decide_poll(watch, self._progress.get(list_id, Progress()), look, time.time()):
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
                ends_task=not needs_a_worker(self),
            ),
            method_name="resume",
            timeout=timedelta(seconds=deadline - time.time() + DEFERRAL_MARGIN),
        )

    def _start_in_the_triggerer(self) -> None:
        from airflow.triggers.base import StartTriggerArgs

        from machfive_provider.sensors.triggerer_start import refusal

        if reason := refusal(self):
            raise exceptions.ConfigurationError(
                f"task {self.task_id!r} cannot take start_from_trigger=True: {reason}. Or leave it out: with "
                "deferrable=True the task costs one worker start."
            )
        wait_seconds = self._patience()
        deferral = timedelta(seconds=wait_seconds + DEFERRAL_MARGIN)
        # On the instance alone: what is on the class, a mapped task would get.
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls="machfive_provider.triggers.list_start.MachFiveListStartTrigger",
            trigger_kwargs={
                "list_id": self.list_id if isinstance(self.list_id, str) else list(self.list_id),
                "machfive_conn_id": self.machfive_conn_id,
                "poll_interval": self._interval(),
                "wait_seconds": wait_seconds,
                "deferral_seconds": min(deferral, self.execution_timeout or deferral).total_seconds(),
                "ends_task": not needs_a_worker(self),
            },
            next_method="resume",
            next_kwargs=None,
            timeout=deferral,
        )
        self.start_from_trigger = True

    def _patience(self) -> float:
        """Return the seconds after which this attempt stops waiting."""
        from machfive_provider.waiting.decision import effective_deadline

        limit = self.execution_timeout.total_seconds() if self.execution_timeout else None
        return effective_deadline(0.0, self.timeout, limit)

    def _interval(self) -> float:
        from machfive_provider.waiting.decision import SHORTEST_INTERVAL

        return max(SHORTEST_INTERVAL, self.poke_interval)

    def _fail(self, error: exceptions.MachFiveError) -> NoReturn:
        """Raise, or skip as ``soft_fail`` and ``never_fail`` ask: alike in both modes."""
        if (self.soft_fail and isinstance(error, AirflowException)) or self.never_fail:
            which = "soft_fail" if self.soft_fail else "never_fail"
            raise AirflowSkipException(f"Skipping due to {which}: {error}") from error
        raise error


def _check(lead_list: LeadList) -> None:
    if lead_list.is_failed:
        raise exceptions.ListFailedError(f"list {lead_list.id} ended failed on MachFive's side")


def _final(error: exceptions.MachFiveError) -> exceptions.MachFiveError:
    """Make a passed deadline the sensor's timeout, which no retry follows; leave other errors as they are."""
    if isinstance(error, exceptions.WaitTimeoutError):
        return exceptions.SensorTimeoutError(error.message, occurred_at=error.occurred_at)
    return error
