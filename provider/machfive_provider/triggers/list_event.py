"""The trigger that watches a workspace for lists that end, for DAGs that run when one has (``AssetWatcher``)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from machfive_provider.exceptions import ConfigurationError, MachFiveError
from machfive_provider.formatting import duration
from machfive_provider.triggers.base import PlainTrigger
from machfive_provider.triggers.cursor_store import AIRFLOW_TAKES, CursorStore
from machfive_provider.waiting.deferral import check_seconds

# Neither the HTTP client nor what reads lists is imported here: DAG files import this module.
if TYPE_CHECKING:
    from machfive_provider.api.models import LeadList
    from machfive_provider.waiting.ended_lists import Cursor, ListReads, Polled

__all__ = ["MachFiveListEventTrigger"]

_STATUSES: tuple[Literal["completed", "failed"], ...] = ("completed", "failed")
_LONGEST_PAUSE = 300.0  # seconds between polls that fail, if the interval is not longer
_NOT_IN_KEY = ("poll_interval", "look_back")  # they may change, and the cursor still holds


class MachFiveListEventTrigger(PlainTrigger, BaseEventTrigger):
    """Reports each list of a workspace that completes or fails, once or more; sends GETs only.

    To be given to an ``AssetWatcher``. The payload of an event is flat JSON: ``list_id``, ``list_name``,
    ``campaign_id``, ``campaign_name``, ``status``, ``created_at``, ``completed_at``, ``failed_at``, ``leads_count``,
    ``emails_created``, ``conn_id``; None where it is not known. It begins with what ends after the first poll. From
    Airflow 3.3.2 on its cursor is kept: what ends while the triggerer is down is reported afterwards.

    :param machfive_conn_id: the Airflow connection. Default: ``machfive_default``
    :param campaign_id: report lists of this campaign only. Default: of all
    :param campaign_name: the same by the campaign's name, in any case; either this or ``campaign_id``
    :param name: report only lists with this in their name, in any case. Default: all
    :param statuses: which ends to report: ``completed``, ``failed`` or, by default, both
    :param include_airflow: report lists that tasks of this provider have bought as well. A DAG that buys and runs on
        such events would start itself again and pay for ever. Default: False
    :param poll_interval: seconds between polls, 1 at least. Default: 60
    :param look_back: seconds; without a cursor, lists that were created so recently are reported although they ended
        before the first poll. Default: 0
    :param watcher_id: tells watchers with otherwise equal arguments apart, as two assets must have. Default: None
    :raises ConfigurationError: when the DAG is parsed, for an argument that is wrong
    """

    def __init__(
        self,
        *,
        machfive_conn_id: str = "machfive_default",
        campaign_id: str | None = None,
        campaign_name: str | None = None,
        name: str | None = None,
        statuses: Sequence[Literal["completed", "failed"]] = _STATUSES,
        include_airflow: bool = False,
        poll_interval: float = 60,
        look_back: float = 0,
        watcher_id: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.machfive_conn_id = machfive_conn_id
        self.campaign_id = campaign_id
        self.campaign_name = campaign_name
        self.name = name
        # A list and floats: the arguments go through JSON, and what comes back must be equal.
        self.statuses = [statuses] if isinstance(statuses, str) else list(statuses)
        self.include_airflow = include_airflow
        self.poll_interval = max(1.0, check_seconds("poll_interval", poll_interval))
        self.look_back = check_seconds("look_back", look_back, allow_zero=True)
        self.watcher_id = watcher_id
        self._check()

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each list that ends, for as long as the asset is watched."""
        from machfive_provider.waiting.ended_lists import list_reads

        async with list_reads(self.machfive_conn_id) as reads:
            watch = _Watch(self, reads)
            while True:
                for payload in await watch.poll():
                    yield TriggerEvent(payload)  # type: ignore[no-untyped-call]
                await watch.rest()

    def wants(self, lead_list: LeadList, campaign_name: str | None) -> bool:
        """Whether to report a list when it ends; a list in work may still be renamed.

        :param campaign_name: of its campaign, None if that has none
        """
        from machfive_provider.purchase.tag import is_tagged

        if self.campaign_id and (lead_list.campaign_id or "").lower() != self.campaign_id:
            return False
        if self.campaign_name and _folded(campaign_name) != _folded(self.campaign_name):
            return False
        if not self.include_airflow and is_tagged(lead_list.custom_name):
            return False
        if not (lead_list.is_completed or lead_list.is_failed):
            return True
        return lead_list.processing_status in self.statuses and _folded(self.name) in _folded(lead_list.custom_name)

    def cursor_key(self) -> str:
        """Return the key under which the cursor is kept: with another connection or filter a watcher begins anew."""
        watched = {name: value for name, value in self.serialize()[1].items() if name not in _NOT_IN_KEY}
        return f"machfive_lists_{hashlib.sha256(json.dumps(watched, sort_keys=True).encode()).hexdigest()[:10]}"

    def _check(self) -> None:
        if self.campaign_id and self.campaign_name:
            raise ConfigurationError("campaign_id and campaign_name: give one of them, or neither for all campaigns.")
        if self.campaign_id:
            from machfive_provider.api.protocol import check_uuid

            self.campaign_id = check_uuid("campaign_id", self.campaign_id)
        if not self.statuses or not set(self.statuses) <= set(_STATUSES):
            raise ConfigurationError(f"statuses is {self.statuses!r}: give 'completed', 'failed' or both.")


class _Watch:
    """One run of the trigger: polls, rests, and keeps the cursor.

    Airflow creates a run for the first event of an asset, with the events up to that one. Those that come before it has
    created the run wait until a later event brings the next run (``scheduler_job_runner.py``,
    ``_create_dag_runs_asset_triggered``). So events are reported in groups with a pause between, and a group of
    several is followed by one more event: the next end, or the last end again.
    """

    def __init__(self, trigger: MachFiveListEventTrigger, reads: ListReads) -> None:
        self._trigger, self._reads, self._log = trigger, reads, trigger.log
        store = getattr(trigger, "asset_state_store", None)  # from Airflow 3.3 on
        self._store = CursorStore(store, trigger.cursor_key(), trigger.log)
        self._cursor: Cursor | None = None
        self._loaded = False
        self._reported = False
        self._closing: list[dict[str, Any]] = []  # the event that is to follow the last group
        self._failures = self._lost_polls = 0  # in a row; a poll is lost if it has read nothing

    async def poll(self) -> list[dict[str, Any]]:
        """Return the payloads of the lists that have ended. Errors are logged, and the next poll comes later."""
        payloads = await self._ended() or self._closing
        self._reported, self._closing = bool(payloads), payloads[-1:] if len(payloads) > 1 else []
        return payloads

    async def _ended(self) -> list[dict[str, Any]]:
        try:
            polled = await self._poll()
        except Exception as error:  # noqa: BLE001 - a trigger that ends is started again at once, without a pause
            self._lost_polls += 1
            self._failed(error)
            return []
        self._cursor, self._lost_polls = polled.cursor, 0
        if polled.trouble:
            self._failed(polled.trouble)
        elif self._failures:
            self._log.info("The lists of connection %r can be read again.", self._trigger.machfive_conn_id)
            self._failures = 0
        return [self._payload(each, polled) for each in polled.ended]

    async def rest(self) -> None:
        """Keep the cursor and wait for the next poll."""
        if self._cursor:
            try:
                await self._store.keep(self._cursor.to_json(), reported=self._reported, needs_event=bool(self._closing))
            except Exception as error:  # noqa: BLE001 - as above; the next poll keeps it
                self._log.warning("The cursor of this watcher could not be kept; the next poll tries again. %s", error)
        # On multiples of the pause: the watchers of a connection poll at the same time and share what is read. A
        # hundredth, because asyncio may wake us slightly early.
        pause, now = self._pause(), asyncio.get_running_loop().time()
        left = (math.floor(now / pause + 0.01) + 1) * pause - now
        if self._closing:
            left = AIRFLOW_TAKES
        elif self._reported:
            left = max(left, AIRFLOW_TAKES)
        await asyncio.sleep(left)

    async def _poll(self) -> Polled:
        import pendulum

        from machfive_provider.waiting.ended_lists import Cursor

        trigger = self._trigger
        if not self._loaded:
            kept = await self._store.load()
            try:
                self._cursor = Cursor.from_json(kept) if kept is not None else None
            except ValueError as error:
                self._log.warning("The cursor of this watcher cannot be read, so it begins with now: %s.", error)
            self._loaded = True
        return await self._reads.poll(
            self._cursor,
            trigger.wants,
            max_age=min(1.0, trigger.poll_interval / 2),
            look_back_to=pendulum.from_timestamp(time.time() - trigger.look_back) if trigger.look_back else None,
        )

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures in (1, 3) or self._failures % 10 == 0:
            self._log.warning(
                "Lists of connection %r could not be read (failure %d in a row): events come late, none is lost. Next "
                "poll within %s. %s",
                self._trigger.machfive_conn_id,
                self._failures,
                duration(self._pause()),
                error,
                exc_info=None if isinstance(error, MachFiveError) else error,
            )

    def _pause(self) -> float:
        interval = self._trigger.poll_interval
        longer = interval * 2.0 ** min(max(0, self._lost_polls - 1), 10)
        return max(interval, min(_LONGEST_PAUSE, longer))

    def _payload(self, lead_list: LeadList, polled: Polled) -> dict[str, Any]:
        self._log.info("List %s has %s.", lead_list.id, lead_list.processing_status)
        known = lead_list.to_json()
        return {
            "list_id": lead_list.id,
            "list_name": lead_list.custom_name,
            "campaign_id": lead_list.campaign_id,
            "campaign_name": polled.campaigns.get(lead_list.campaign_id or ""),
            "status": lead_list.processing_status,
            **{name: known.get(name) for name in ("created_at", "completed_at", "failed_at")},
            "leads_count": lead_list.leads_count,
            "emails_created": lead_list.emails_created,
            "conn_id": self._trigger.machfive_conn_id,
        }


def _folded(text: str | None) -> str:
    return (text or "").strip().casefold()
