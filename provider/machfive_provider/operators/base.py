"""The base class of this provider's operators: it waits for a list, on the worker or in the triggerer.

Operators import what does the work inside their methods, so that a DAG file that is only parsed does not load it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import BaseOperator

from machfive_provider import exceptions, telemetry
from machfive_provider.formatting import counted
from machfive_provider.lineage import HasLineage
from machfive_provider.status import telling_errors
from machfive_provider.waiting.deferral import DEFERRAL_MARGIN, check_seconds, needs_a_worker

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.api.models import LeadList
    from machfive_provider.api.retries import RetryPolicy
    from machfive_provider.hooks.machfive import MachFiveHook
    from machfive_provider.waiting.decision import Watch

__all__ = ["ListWaitingOperator", "bought_list_failed"]

# Airflow renders it when a mapped task begins, and shows it in place of the map index.
_LABEL = "{{ task.label | default(ti.map_index, true) }}"


class ListWaitingOperator(BaseOperator, HasLineage):
    """Base of the operators that wait for a list, on the worker or in the triggerer.

    Subclasses say in ``on_list_ended`` what to do with a list that has completed or failed.

    :param machfive_conn_id: the Airflow connection
    :param deferrable: wait in the triggerer and hold no worker
    :param poll_interval: seconds between two polls of a list
    :param timeout: seconds after which this attempt stops waiting
    """

    machfive_conn_id: str
    deferrable: bool
    poll_interval: float
    timeout: float | timedelta

    # For lineage: what the task has told in XCom, and the number of rows and bytes that it has written.
    batch: Mapping[str, Any] = MappingProxyType({})
    written: tuple[int | None, int | None] = (None, None)

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Begin a mapped task, whose instances show their ``label`` unless ``map_index_template`` is set."""
        return super().partial(**{"map_index_template": _LABEL, **kwargs})

    @property
    def label(self) -> str:
        """What to call a mapped task instance: its list's name, or the file that it reads or writes, or empty."""
        texts = (str(getattr(self, name, None) or "") for name in ("list_name", "leads_path", "export_to"))
        return next((text.rpartition("/")[2] for text in texts if text), "")

    def on_list_ended(self, context: Context, lead_list: LeadList) -> Any:
        """Finish the task with a list that has completed or failed.

        :raises NotReadyError: to have it waited for again, until the deadline
        """
        raise NotImplementedError

    def has_work_left(self) -> bool:
        """Whether a worker has something to do once the list has completed; if not, the task ends in the triggerer."""
        return True

    def telling_errors(self, context: Context) -> AbstractContextManager[None]:
        """Tell in XCom with which error the task fails."""
        return telling_errors(context, self.log, {"conn_id": self.machfive_conn_id})

    def hook(self, policy: RetryPolicy | None = None) -> MachFiveHook:
        """Return a hook for this task's connection.

        :param policy: how it repeats reads, the hook's own by default. ``ONCE`` for polls: the loop around them has its
            own backoff and a deadline to keep
        """
        from machfive_provider.hooks.machfive import MachFiveHook

        return MachFiveHook(self.machfive_conn_id, policy)

    def wait_for(
        self,
        context: Context,
        list_id: str,
        *,
        began_at: float | None = None,
        submitted_at: float | None = None,
        seen: LeadList | None = None,
    ) -> Any:
        """Wait for a list and finish the task with it.

        :param began_at: epoch seconds at which this try of the task began; now, unless given
        :param submitted_at: epoch seconds of our own submission, None for somebody else's list
        :param seen: the list as just read, which saves the first poll
        """
        from machfive_provider.waiting.decision import Watch

        started_at = time.time()
        deadline = self.deadline(started_at, check_seconds("timeout", self.timeout), began_at or started_at)
        watch = Watch(list_id, self.interval(), started_at, deadline, submitted_at)
        return self._finish(context, watch, self._wait(watch, seen))

    def resume(self, context: Context, event: Any = None) -> Any:
        """Continue after the triggerer: raise the error it found, or finish with the list that ended."""
        from machfive_provider.api.models import LeadList
        from machfive_provider.triggers import events
        from machfive_provider.waiting.decision import Watch

        # dag.test() resumes the task where a triggerer would have ended it, with the state as the event.
        if event == "success" and self._ends_in_the_triggerer():
            return None
        with self.telling_errors(context):
            found = events.read(event, "ended")
            ended = LeadList.from_json(found["lists"][0])
            watch = Watch(ended.id, self.interval(), float(found["started_at"]), float(found["deadline"]))
            return self._finish(context, watch, ended)

    def on_kill(self) -> None:
        """Log what happens to the list: the API has no cancel."""
        self.log.warning(
            "The task was ended. MachFive has no cancel: a submitted list keeps running and its credits are spent. "
            "Clearing the task picks it up again without paying again."
        )

    def _finish(self, context: Context, watch: Watch, ended: LeadList) -> Any:
        while True:
            try:
                with telemetry.span("machfive.delivery", {"conn_id": self.machfive_conn_id, "list_id": ended.id}):
                    return self.on_list_ended(context, ended)
            except exceptions.MachFiveError as error:
                error.about(f"List {watch.list_id}")
                if not isinstance(error, exceptions.NotReadyError) or time.time() + watch.interval >= watch.deadline:
                    raise
                self.log.info("List %s has completed but cannot be exported yet; waiting for it.", watch.list_id)
            ended = self._wait(watch, pause=watch.interval)

    def _wait(self, watch: Watch, seen: LeadList | None = None, pause: float = 0.0) -> LeadList:
        """Return the list when it has ended, or defer.

        :param pause: seconds to wait before the first poll
        """
        from machfive_provider.api.retries import ONCE
        from machfive_provider.waiting.decision import poll_list, wait_for_list

        with self.hook(ONCE) as hook:
            if self.deferrable:
                ended = None if pause else self._ended_already(watch, hook, seen)
            else:
                if pause:
                    time.sleep(pause)
                poll = partial(poll_list, hook)
                ended = wait_for_list(watch, poll, self.log, time.sleep, time.time)
        if ended is None:
            self._defer(watch)
        telemetry.waited("completion", self.machfive_conn_id, watch.started_at)
        return ended

    def _ended_already(self, watch: Watch, hook: MachFiveHook, seen: LeadList | None) -> LeadList | None:
        """Poll once before deferring: the list may have ended, or the poll may fail for good."""
        from machfive_provider.waiting.decision import Done, GiveUp, Progress, Wait, decide_poll, poll_list

        poll: LeadList | exceptions.MachFiveError
        try:
            poll = seen or poll_list(hook, watch.list_id)
        except exceptions.MachFiveError as error:
            poll = error
        match decide_poll(watch, Progress(), poll, time.time()):
            case Done(lead_list):
                return lead_list
            case GiveUp(reason):
                raise reason
            case Wait() as wait:
                wait.tell(self.log)
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
                first_poll_at=time.time() + watch.interval,
                ends_task=self._ends_in_the_triggerer(),
            ),
            method_name="resume",
            timeout=timedelta(seconds=watch.deadline - time.time() + DEFERRAL_MARGIN),
        )

    def _ends_in_the_triggerer(self) -> bool:
        return not (self.has_work_left() or needs_a_worker(self))

    def interval(self) -> float:
        """Return the seconds between two polls."""
        from machfive_provider.waiting.decision import SHORTEST_INTERVAL

        return max(SHORTEST_INTERVAL, check_seconds("poll_interval", self.poll_interval))

    def deadline(self, started_at: float, timeout: float, began_at: float) -> float:
        """Return the epoch second at which a wait ends.

        Airflow counts ``execution_timeout`` anew after each deferral. Here it holds for the whole try.

        :param started_at: epoch seconds at which the wait began
        :param timeout: seconds for which it may last
        :param began_at: epoch seconds at which the try began
        """
        from machfive_provider.waiting.decision import effective_deadline

        limit = self.execution_timeout.total_seconds() if self.execution_timeout else None
        return min(started_at + timeout, effective_deadline(began_at, math.inf, limit))


def bought_list_failed(list_id: str, max_resubmissions: int) -> exceptions.MachFiveError:
    """Return the error for a list that the task has bought and that failed on MachFive's side."""
    message = f"List {list_id} failed on MachFive's side."
    if max_resubmissions == 0:
        return exceptions.ListFailedError(message, remedy="To buy it again, clear this task (max_resubmissions is 0).")
    times = counted(max_resubmissions, "time")
    return exceptions.BatchFailedError(message, remedy=f"A retry buys it again, up to {times} (max_resubmissions).")
