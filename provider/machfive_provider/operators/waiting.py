"""What all tasks that wait for a list share: where they wait, how long, and how they come back.

Operators import what does the work where they do it: a DAG file that is only parsed pays for none of it.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import BaseOperator

from machfive_provider import exceptions

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.api.models import LeadList
    from machfive_provider.hooks.machfive import MachFiveHook
    from machfive_provider.waiting.decision import Watch

__all__ = ["DEFERRAL_MARGIN", "ListWaitingOperator", "needs_a_worker", "seconds"]

# Our own deadline is to win over the deferral's, because its message says what becomes of the list.
DEFERRAL_MARGIN = 300.0


def seconds(parameter: str, value: Any) -> float:
    """Return a duration as seconds; raises ``ConfigurationError`` for anything but a positive number or timedelta."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise exceptions.ConfigurationError(f"{parameter} must be a positive number of seconds, not {value!r}.")
    return float(value)


def needs_a_worker(task: BaseOperator) -> bool:
    """Whether a task's success has effects that only a worker gives it: asset events, and what follows execution.

    ``on_success_callback`` is among them: Airflow asks the DAG processor to run it, and that runs callbacks of failures
    alone.
    """
    own_post_execute = type(task).post_execute is not BaseOperator.post_execute
    hook = getattr(task, "_post_execute_hook", None)
    return bool(task.outlets or own_post_execute or hook or task.on_success_callback)


class ListWaitingOperator(BaseOperator):
    """Base of the operators that wait for a list, on the worker or in the triggerer.

    Subclasses say in ``on_list_ended`` what to do with a list that has completed or failed.

    :param machfive_conn_id: the Airflow connection
    :param deferrable: wait in the triggerer and hold no worker
    :param poll_interval: seconds between looks; MachFive asks for 10-30
    :param timeout: seconds after which this attempt stops waiting; MachFive keeps working, a retry re-attaches
    """

    machfive_conn_id: str
    deferrable: bool
    poll_interval: float
    timeout: float | timedelta

    def on_list_ended(self, context: Context, lead_list: LeadList) -> Any:
        """Finish the task with a list that has completed or failed.

        :raises NotReadyError: to have it waited for again, until the deadline
        """
        raise NotImplementedError

    def has_work_left(self) -> bool:
        """Whether something is left to do on a worker once the list has completed; if not, the task ends without."""
        return True

    def hook(self) -> MachFiveHook:
        """Return a hook for this task's connection."""
        from machfive_provider.hooks.machfive import MachFiveHook

        return MachFiveHook(self.machfive_conn_id)

    def wait_for(
        self, context: Context, list_id: str, *, submitted_at: float | None = None, seen: LeadList | None = None
    ) -> Any:
        """Wait for a list and finish the task with it.

        :param submitted_at: epoch seconds of our own submission, None for somebody else's list
        :param seen: the list as just seen, which saves a look
        """
        from machfive_provider.waiting.decision import Watch

        started_at = time.time()
        watch = Watch(list_id, self._interval(), started_at, self._deadline(started_at), submitted_at)
        return self._finish(context, watch, self._wait(watch, seen))

    def resume(self, context: Context, event: Any = None) -> Any:
        """Come back from the triggerer: raise what it found wrong, or finish with the list that ended."""
        from machfive_provider.api.models import LeadList
        from machfive_provider.triggers import events
        from machfive_provider.waiting.decision import Watch

        # dag.test() resumes here even where the triggerer would have ended the task: with its state.
        if event == "success" and self._ends_in_the_triggerer():
            return None
        found = events.read(event, "ended")
        ended = LeadList.from_json(found["lists"][0])
        watch = Watch(ended.id, self._interval(), float(found["started_at"]), float(found["deadline"]))
        return self._finish(context, watch, ended)

    def on_kill(self) -> None:
        """Say what becomes of the list: the API has no cancel."""
        self.log.warning(
            "The task was ended. MachFive has no cancel: a submitted list keeps running and its credits are spent. "
            "Clearing the task picks it up again without paying again."
        )

    def _finish(self, context: Context, watch: Watch, ended: LeadList) -> Any:
        while True:
            try:
                return self.on_list_ended(context, ended)
            except exceptions.NotReadyError:
                if time.time() + watch.interval >= watch.deadline:
                    raise
                self.log.info("List %s has completed but cannot be exported yet; waiting for it.", watch.list_id)
            ended = self._wait(watch, pause=watch.interval)

    def _wait(self, watch: Watch, seen: LeadList | None = None, pause: float = 0.0) -> LeadList:
        """Return the list when it has ended, or leave for the triggerer; ``pause`` seconds before the first look."""
        from machfive_provider.waiting.decision import poll_list, wait_for_list

        with self.hook() as hook:
            if not self.deferrable:
                if pause:
                    time.sleep(pause)
                return wait_for_list(watch, lambda list_id: poll_list(hook, list_id), self.log, time.sleep, time.time)
            ended = None if pause else self._ended_already(watch, hook, seen)
        return ended or self._defer(watch)

    def _ended_already(self, watch: Watch, hook: MachFiveHook, seen: LeadList | None) -> LeadList | None:
        """Take one look before deferring: there may be nothing to wait for, or no hope."""
        from machfive_provider.waiting.decision import Done, GiveUp, Progress, Wait, decide_poll, poll_list

        look: LeadList | exceptions.MachFiveError
        try:
            look = seen or poll_list(hook, watch.list_id)
        except exceptions.MachFiveError as error:
            look = error
        match decide_poll(watch, Progress(), look, time.time()):
            case Done(lead_list):
                return lead_list
            case GiveUp(reason):
                raise reason
            case Wait(notice=notice):
                self.log.info("%s", notice)
        return None

    def _defer(self, watch: Watch) -> NoReturn:
        from machfive_provider.triggers.lead_list import MachFiveListTrigger

        self.log.info("Waiting for list %s in the triggerer; this worker is free.", watch.list_id)
        self.defer(
            trigger=MachFiveListTrigger(
                list_ids=[watch.list_id],
                machfive_conn_id=self.machfive_conn_id,
                poll_interval=watch.interval,
                started_at=watch.started_at,
                deadline=watch.deadline,
                submitted_at=watch.submitted_at,
                first_look_at=time.time() + watch.interval,
                ends_task=self._ends_in_the_triggerer(),
            ),
            method_name="resume",
            timeout=timedelta(seconds=watch.deadline - time.time() + DEFERRAL_MARGIN),
        )

    def _ends_in_the_triggerer(self) -> bool:
        return not (self.has_work_left() or needs_a_worker(self))

    def _interval(self) -> float:
        from machfive_provider.waiting.decision import SHORTEST_INTERVAL

        return max(SHORTEST_INTERVAL, seconds("poll_interval", self.poll_interval))

    def _deadline(self, started_at: float) -> float:
        from machfive_provider.waiting.decision import effective_deadline

        limit = self.execution_timeout.total_seconds() if self.execution_timeout else None
        return effective_deadline(started_at, seconds("timeout", self.timeout), limit)
