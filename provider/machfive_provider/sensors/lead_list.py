"""The deferrable sensor that waits for lists."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    conf,
)

from machfive_provider import exceptions, telemetry
from machfive_provider.formatting import duration
from machfive_provider.status import end_of, tell, telling_errors, told
from machfive_provider.waiting.deferral import DEFERRAL_MARGIN, check_seconds, needs_a_worker

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.api.models import LeadList
    from machfive_provider.status import Phase
    from machfive_provider.waiting.decision import Progress

__all__ = ["MachFiveListSensor"]


class MachFiveListSensor(BaseSensorOperator):
    """Waits until one list, or each of several, has completed.

    Spends nothing. Deferrable, a success ends in the triggerer: it costs one worker start in all. With ``outlets``, a
    ``post_execute`` or an ``on_success_callback`` it resumes on a worker, because only a worker's success emits asset
    events and calls them.

    :param list_id: the list's UUID, or several
    :param deferrable: wait in the triggerer and hold no worker; ``mode`` has no effect then. Default: Airflow's
        ``[operators] default_deferrable``
    :param poke_interval: seconds between two polls of a list, 1 at least. Default: 20; MachFive asks for 10-30
    :param timeout: seconds after which the sensor fails for good; 0 polls once. Default: Airflow's
        ``[sensors] default_timeout``, 7 days
    :param mode: ``poke`` (default) holds a worker, ``reschedule`` starts one for each poll; for ``deferrable=False``
    :param soft_fail: skip the task instead of failing it, where Airflow's sensors do. Default: False
    :param never_fail: skip the task instead of failing it, whatever the error. Default: False
    :param machfive_conn_id: the Airflow connection. Default: ``machfive_default``
    :param start_from_trigger: start in the triggerer too (it implies ``deferrable``): a success costs no worker at
        all. Needs Airflow 3.3. The triggerer renders the templates of ``list_id`` and ``machfive_conn_id``; an
        ``xcom_pull`` there needs ``map_indexes=-1``. A mapped task starts on a worker all the same, with a warning.
        Default: False
    :raises ConfigurationError: when the DAG is parsed, if a time is out of range or ``start_from_trigger`` would hang
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
        timeout: float | timedelta | None = None,
        mode: Literal["poke", "reschedule"] = "poke",
        soft_fail: bool = False,
        never_fail: bool = False,
        machfive_conn_id: str = "machfive_default",
        start_from_trigger: bool | None = False,
        **kwargs: Any,
    ) -> None:
        if timeout is None:
            timeout = conf.getfloat("sensors", "default_timeout")
        check_seconds("poke_interval", poke_interval, allow_zero=True)
        check_seconds("timeout", timeout, allow_zero=True)
        super().__init__(
            poke_interval=poke_interval,
            timeout=timeout,
            mode=mode,
            soft_fail=soft_fail,
            never_fail=never_fail,
            **kwargs,
        )
        self.list_id = list_id
        self.machfive_conn_id = machfive_conn_id
        # True on the worker that runs a mapped task: Airflow has made this sensor of it, with all values.
        from_mapped = getattr(self, "_BaseOperator__from_mapped", False)
        asked = bool(start_from_trigger) or (start_from_trigger is None and from_mapped)
        self.deferrable = deferrable or asked
        self._mapped_start = asked and bool(from_mapped or self.get_closest_mapped_task_group())
        if asked and not self._mapped_start:
            self._start_in_the_triggerer()
        self._progress: dict[str, Progress] = {}
        self._completed: dict[str, LeadList] = {}
        self._told: set[str] | None = None
        self._started_at: float | None = None
        self._quiet = False

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Begin a mapped task without ``start_from_trigger``: Airflow cannot start one in the triggerer."""
        partial = super().partial(**kwargs)
        if partial.kwargs.get("start_from_trigger"):
            # None tells the sensor on the worker that it was asked for.
            partial.kwargs["start_from_trigger"] = None
        return partial

    def execute(self, context: Context) -> Any:
        """Wait on this worker, or in the triggerer."""
        with telling_errors(context, self.log, {"conn_id": self.machfive_conn_id}):
            return self._wait_in_triggerer(context) if self.deferrable else self._wait_here(context)

    def _wait_in_triggerer(self, context: Context) -> Any:
        if self._mapped_start:
            self.log.warning(
                "start_from_trigger has no effect: Airflow cannot start a mapped task in the triggerer. It costs one "
                "worker start, as with deferrable=True."
            )
        started_at = time.time()
        deadline = started_at + self._patience()
        try:
            if self._poll_all(context, started_at, deadline):
                return None
        except exceptions.MachFiveError as error:
            self._fail(error)
        return self._defer(started_at, deadline)

    def poke(self, context: Context) -> bool:
        """Poll each list once that has not completed yet."""
        started_at = self._first_poke(context) or time.time()
        return self._poll_all(context, started_at, started_at + self.timeout)

    def _first_poke(self, context: Context) -> float | None:
        """Return when this attempt began, epoch seconds; rescheduled, Airflow remembers it and not this object."""
        if self.reschedule:
            first = context["ti"].get_first_reschedule_date(context)
            # Each poke is a process of its own that knows no earlier status: only the first logs the status.
            self._quiet = first is not None
            return first.timestamp() if first else None
        self._started_at = self._started_at or time.time()
        return self._started_at

    def resume(self, context: Context, event: Any = None) -> None:
        """Continue after the triggerer: raise the error it found."""
        from machfive_provider.api.models import LeadList
        from machfive_provider.triggers import events

        # dag.test() resumes the task where a triggerer would have ended it, with the state as the event.
        if event == "success":
            return
        with telling_errors(context, self.log, {"conn_id": self.machfive_conn_id}):
            try:
                lists = [LeadList.from_json(each) for each in events.read(event, "ended")["lists"]]
                for each in lists:
                    _check(each)
            except exceptions.MachFiveError as error:
                self._fail(_final(error))
        self._completed.update((each.id, each) for each in lists)
        self._tell(context)
        self.log.info("%s", _completed(each.id for each in lists))

    def on_kill(self) -> None:
        """Log what happens to the lists: the API has no cancel."""
        self.log.warning("The sensor was ended. MachFive goes on with the lists that it waited for.")

    def _wait_here(self, context: Context) -> Any:
        try:
            return super().execute(context)
        except AirflowSensorTimeout as error:
            if isinstance(error, exceptions.SensorTimeoutError):
                raise
            self._fail(
                exceptions.SensorTimeoutError(
                    f"List {', '.join(self._waiting())} had not completed when the sensor's timeout "
                    f"({duration(self.timeout)}) passed."
                )
            )

    def _waiting(self) -> list[str]:
        from machfive_provider.api.protocol import check_uuids

        return [each for each in check_uuids("list_id", self.list_id) if each not in self._completed]

    def _poll_all(self, context: Context, started_at: float, deadline: float) -> bool:
        from machfive_provider.api.retries import ONCE
        from machfive_provider.hooks.machfive import MachFiveHook
        from machfive_provider.waiting.decision import Done, GiveUp, Progress, Wait, Watch, decide_poll, poll_list

        with MachFiveHook(self.machfive_conn_id, ONCE) as hook:
            for list_id in self._waiting():
                watch = Watch(list_id, self._interval(), started_at, deadline)
                poll: LeadList | exceptions.MachFiveError
                try:
                    poll = poll_list(hook, list_id)
                except exceptions.MachFiveError as error:
                    poll = error
                match decide_poll(watch, self._progress.get(list_id, Progress()), poll, time.time()):
                    case Done(lead_list):
                        _check(lead_list)
                        self._completed[list_id] = lead_list
                    case GiveUp(reason):
                        raise _final(reason)
                    case Wait(_, progress) as wait:
                        self._progress[list_id] = progress
                        if wait.is_trouble or not self._quiet:
                            wait.tell(self.log)
        self._tell(context)
        if self._waiting():
            return False
        telemetry.waited("completion", self.machfive_conn_id, started_at)
        self.log.info("%s", _completed(self._completed))
        return True

    def _tell(self, context: Context) -> None:
        """Tell which lists have completed. A sensor that ends in the triggerer tells only what it knew before."""
        from machfive_provider.api.protocol import check_uuids

        if self._told == set(self._completed):
            return
        self._told = set(self._completed)
        # What this try told before it was deferred is not in this object.
        before = {each["list_id"]: each for each in told(context).get("lists", ())}
        lists = []
        for list_id in check_uuids("list_id", self.list_id):
            if ended := self._completed.get(list_id):
                lists.append({"list_id": list_id, "phase": "completed", **end_of(ended)})
            else:
                lists.append(before.get(list_id, {"list_id": list_id, "phase": "submitted"}))
        phase: Phase = "completed" if all(each["phase"] == "completed" for each in lists) else "submitted"
        tell(context, phase, conn_id=self.machfive_conn_id, lists=lists)

    def _defer(self, started_at: float, deadline: float) -> NoReturn:
        from machfive_provider.triggers.lead_list import MachFiveListTrigger

        waiting = self._waiting()
        what = f"list {waiting[0]}" if len(waiting) == 1 else f"{len(waiting)} lists ({', '.join(waiting)})"
        self.log.info("Waiting for %s in the triggerer; this worker is free.", what)
        self.defer(
            trigger=MachFiveListTrigger(
                list_ids=waiting,
                machfive_conn_id=self.machfive_conn_id,
                poll_interval=self._interval(),
                started_at=started_at,
                deadline=deadline,
                first_poll_at=time.time() + self.poke_interval,
                ends_task=not needs_a_worker(self),
            ),
            method_name="resume",
            timeout=timedelta(seconds=deadline - time.time() + DEFERRAL_MARGIN),
        )

    def _start_in_the_triggerer(self) -> None:
        from airflow.triggers.base import StartTriggerArgs

        if reason := _would_hang(list_id=self.list_id, machfive_conn_id=self.machfive_conn_id):
            raise exceptions.ConfigurationError(
                f"task {self.task_id!r} cannot take start_from_trigger=True: {reason}. Or leave it out: with "
                "deferrable=True the task costs one worker start."
            )
        wait_seconds = self._patience()
        deferral = timedelta(seconds=wait_seconds + DEFERRAL_MARGIN)
        # Set on the instance only: Airflow gives a mapped task the class's arguments, unrendered.
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls="machfive_provider.triggers.lead_list.MachFiveListStartTrigger",
            trigger_kwargs={
                "list_id": list(self.list_id) if isinstance(self.list_id, tuple) else self.list_id,
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
        raise exceptions.ListFailedError(f"List {lead_list.id} failed on MachFive's side.")


def _completed(list_ids: Iterable[str]) -> str:
    ids = sorted(list_ids)
    return (
        f"List {ids[0]} has completed." if len(ids) == 1 else f"All {len(ids)} lists have completed: {', '.join(ids)}."
    )


def _final(error: exceptions.MachFiveError) -> exceptions.MachFiveError:
    """Make a passed deadline the sensor's timeout, which no retry follows; leave other errors as they are."""
    if isinstance(error, exceptions.WaitTimeoutError):
        return exceptions.SensorTimeoutError(
            error.message,
            occurred_at=error.occurred_at,
            status_code=error.status_code,
            code=error.code,
            endpoint=error.endpoint,
            request_id=error.request_id,
        )
    return error


def _would_hang(**parameters: Any) -> str | None:
    """Return why these values would never come back from the triggerer, with what to do; None if that is not known.

    Found by running Airflow 3.3.2: an XComArg arrives there unresolved, and an ``xcom_pull`` without ``map_indexes``
    waits for ever. Before 3.3 the triggerer renders no template.
    """
    from airflow import __version__
    from packaging.version import Version

    if Version(__version__).release[:2] < (3, 3):
        return f"it takes Airflow 3.3 or later, and this is {__version__}: older ones render no template there"
    for parameter, value in parameters.items():
        for each in value if isinstance(value, (list, tuple)) else (value,):
            if hasattr(each, "iter_references"):
                problem = "an XComArg"
            elif isinstance(each, str) and "xcom_pull" in each and "map_indexes" not in each:
                problem = "an xcom_pull without map_indexes"
            else:
                continue
            return (
                f"{parameter} is {problem}, which never returns in the triggerer. Write {parameter}="
                "\"{{ ti.xcom_pull(task_ids='…', map_indexes=-1) }}\" and put this task after that one with >>"
            )
    return None
