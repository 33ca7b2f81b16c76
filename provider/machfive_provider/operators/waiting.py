"""What all tasks that wait for a list share: where they wait, how long, and how they come back.

Operators import what does the work where they do it: a DAG file that is only parsed pays for none of it.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import BaseOperator

from machfive_provider import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.api.models import LeadList
    from machfive_provider.hooks.machfive import MachFiveHook
    from machfive_provider.polling import Watch

__all__ = ["DEFERRAL_MARGIN", "ListWaitingOperator", "seconds"]

# Our own deadline is to win over the deferral's, because its message says what becomes of the list.
DEFERRAL_MARGIN = 300.0


def seconds(parameter: str, value: Any) -> float:
    """Return a duration as seconds; raises ``ConfigurationError`` for anything but a positive number or timedelta."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise errors.ConfigurationError(f"{parameter} must be a positive number of seconds, not {value!r}.")
    return float(value)


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

    def on_list_ended(self, context: Context, lead_list: LeadList, batch: Mapping[str, Any]) -> Any:
        """Finish the task.

        :param batch: what was known before the wait, as in XCom ``machfive_batch``
        """
        raise NotImplementedError

    def hook(self) -> MachFiveHook:
        """Return a hook for this task's connection."""
        from machfive_provider.hooks.machfive import MachFiveHook

        return MachFiveHook(self.machfive_conn_id)

    def wait_for(
        self,
        context: Context,
        list_id: str,
        batch: Mapping[str, Any],
        *,
        submitted_at: float | None = None,
        seen: LeadList | None = None,
        not_before: float = 0.0,
    ) -> Any:
        """Wait for a list and finish the task with it.

        :param submitted_at: epoch seconds of our own submission, None for somebody else's list
        :param seen: the list as just seen, which saves a look
        :param not_before: seconds to let pass before the first look
        """
        from machfive_provider import polling

        started_at = time.time()
        interval = max(polling.SHORTEST_INTERVAL, seconds("poll_interval", self.poll_interval))
        watch = polling.Watch(list_id, interval, started_at, self._deadline(started_at), submitted_at)
        with self.hook() as hook:
            ended: LeadList | None = None
            if not self.deferrable:
                time.sleep(not_before)
                ended = polling.wait_for_list(watch, lambda list_id: polling.look_at(hook, list_id), self.log)
            elif not not_before:
                ended = self._ended_already(watch, hook, seen)
        if ended is None:
            self._defer(watch, time.time() + (not_before or watch.interval))
        return self.on_list_ended(context, ended, batch)

    def resume(self, context: Context, event: Any = None) -> Any:
        """Come back from the triggerer: raise what it found wrong, or finish with the list that ended."""
        from machfive_provider.api.models import LeadList
        from machfive_provider.triggers import events

        lead_list = LeadList.from_json(events.read(event, "ended")["lists"][0])
        ti = context["ti"]
        batch = ti.xcom_pull(task_ids=ti.task_id, key="machfive_batch", map_indexes=ti.map_index)
        return self.on_list_ended(context, lead_list, batch if isinstance(batch, dict) else {})

    def on_kill(self) -> None:
        """Say what becomes of the list: the API has no cancel."""
        self.log.warning(
            "The task was ended. MachFive has no cancel: a submitted list keeps running and its credits are spent. "
            "Clearing the task picks it up again without paying again."
        )

    def _ended_already(self, watch: Watch, hook: MachFiveHook, seen: LeadList | None) -> LeadList | None:
        """Take one look before deferring: there may be nothing to wait for, or no hope."""
        from machfive_provider.polling import Done, GiveUp, Progress, Wait, decide, look_at

        look: LeadList | errors.MachFiveError
        try:
            look = seen or look_at(hook, watch.list_id)
        except errors.MachFiveError as error:
            look = error
        match decide(watch, Progress(), look, time.time()):
            case Done(lead_list):
                return lead_list
            case GiveUp(reason):
                raise reason
            case Wait(notice=notice):
                self.log.info("%s", notice)
        return None

    def _defer(self, watch: Watch, first_look_at: float) -> NoReturn:
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
                first_look_at=first_look_at,
            ),
            method_name="resume",
            timeout=timedelta(seconds=watch.deadline - time.time() + DEFERRAL_MARGIN),
        )

    def _deadline(self, started_at: float) -> float:
        from machfive_provider.polling import effective_deadline

        limit = self.execution_timeout.total_seconds() if self.execution_timeout else None
        return effective_deadline(started_at, seconds("timeout", self.timeout), limit)
