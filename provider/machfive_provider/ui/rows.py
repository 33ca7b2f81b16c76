"""Joins lists with the tasks that bought them, wait for them or have not bought yet. Pure: no I/O, no clock."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pendulum

from machfive_provider.api.models import LeadList
from machfive_provider.purchase.tag import is_tagged, without_tag

__all__ = ["Row", "TaskSeen", "join"]

# Airflow's states in which a task instance is still on its way.
_LIVE = frozenset(("scheduled", "queued", "running", "deferred", "restarting", "up_for_reschedule"))
_HAPPENED = {
    "waiting_for_room": "task waits for a free slot",
    "looking_for_purchase": "task looks for an earlier purchase",
    "submitted": "task has a list",
    "completed": "task knows that its list is completed",
    "skipped": "nobody was left to write to",
    "failed": "task failed",
}
_SAMPLES = 3  # completed lists of a campaign from which its usual duration is known
_STUCK_AFTER = 2.0  # times the usual duration
_NEVER_STUCK_BEFORE = 600.0  # seconds


@dataclass(frozen=True, slots=True)
class TaskSeen:
    """A task instance and what it has told in its XComs.

    :param told: the XCom ``machfive_batch``
    :param export: the XCom ``machfive_export``, empty if there is none
    :param state: Airflow's
    :param label: of a mapped task instance
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: str | None
    told: Mapping[str, Any]
    export: Mapping[str, Any] = field(default_factory=dict)
    label: str | None = None

    @property
    def key(self) -> str:
        """Identify the task instance in URLs."""
        return f"{self.dag_id}|{self.run_id}|{self.task_id}|{self.map_index}"

    @property
    def is_live(self) -> bool:
        """Whether the task is still on its way."""
        return self.state in _LIVE

    @property
    def title(self) -> str:
        """The task's name for people."""
        index = "" if self.map_index < 0 else f" [{self.label or self.map_index}]"
        return f"{self.dag_id}.{self.task_id}{index}"

    @property
    def list_ids(self) -> tuple[str, ...]:
        """The lists that the task buys or waits for."""
        single = [self.told["list_id"]] if self.told.get("list_id") else []
        return tuple(str(each) for each in (*single, *(seen["list_id"] for seen in self.told.get("lists", ()))))

    @property
    def buys(self) -> bool:
        """Whether it buys, rather than waits for a list of somebody else."""
        return "credits" in self.told

    @property
    def asked_at(self) -> float:
        """Epoch seconds at which it first asked for a slot."""
        return float(self.told.get("asked_at") or 0.0)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the page: a list, or a task that has none yet.

    Numbers are None where they are not known: MachFive tells no progress before completion.

    :param key: the list's id, or the key of the task
    :param status: a key of ``words.STATUSES``
    :param usual: seconds that lists of this campaign usually take, None if too few are known
    :param stuck: whether it has been running for longer than twice that, and ten minutes
    :param how: a key of ``words.ORIGINS``
    :param note: what MachFive calls the state of a list, where that says more than the word
    :param position: in the queue for a slot, from 1
    :param tasks: those concerned, the buyer first
    """

    key: str
    status: str
    name: str
    list_id: str | None = None
    campaign_id: str | None = None
    campaign: str | None = None
    created_at: datetime | None = None
    ended_at: datetime | None = None
    seconds: float | None = None
    usual: float | None = None
    stuck: bool = False
    leads: int | None = None
    emails: int | None = None
    credits: int | None = None
    how: str = "made elsewhere"
    position: int | None = None
    note: str = ""
    tasks: tuple[TaskSeen, ...] = ()

    @property
    def error(self) -> Mapping[str, Any]:
        """The error with which a task concerned has failed, empty if none has."""
        return next((task.told["error"] for task in self.tasks if task.told.get("error")), {})

    @property
    def export(self) -> Mapping[str, Any]:
        """What was written, empty if nothing was."""
        return next((task.export for task in self.tasks if task.export), {})

    @property
    def timeline(self) -> list[tuple[datetime, str]]:
        """What happened when: the phases that the first task told, and the list's own times."""
        told = self.tasks[0].told.get("times", {}) if self.tasks else {}
        happened = [(_moment(text), _HAPPENED.get(phase, phase)) for phase, text in told.items()]
        if self.list_id and self.created_at:
            happened.append((self.created_at, "list created at MachFive"))
        if self.ended_at:
            how = "failed" if self.status == "failed" else "completed"
            happened.append((self.ended_at, f"list {how} at MachFive"))
        return sorted(happened)


def join(
    lists: Iterable[LeadList], tasks: Sequence[TaskSeen], campaigns: Mapping[str, str], now: datetime
) -> list[Row]:
    """Return a row for each list, and one for each task that has no list among them.

    :param campaigns: names by id
    """
    known = list(lists)
    by_list: dict[str, list[TaskSeen]] = defaultdict(list)
    for task in tasks:
        for list_id in task.list_ids:
            by_list[list_id].append(task)
    rows = [_list_row(each, by_list.get(each.id, ()), now) for each in known]
    shown = {each.id for each in known}
    rows += [_task_row(task, now) for task in tasks if not shown.intersection(task.list_ids)]
    usual = _usual(rows)
    queue = sorted((row for row in rows if row.status == "waiting"), key=lambda row: (row.tasks[0].asked_at, row.key))
    positions = {row.key: number for number, row in enumerate(queue, start=1)}
    return [_in_context(row, campaigns, usual, positions) for row in rows]


def _list_row(each: LeadList, tasks: Iterable[TaskSeen], now: datetime) -> Row:
    concerned = tuple(sorted(tasks, key=lambda task: (not task.buys, not task.told.get("bought"), task.key)))
    buyer = next((task for task in concerned if task.buys), None)
    told: Mapping[str, Any] = buyer.told if buyer else {}
    ended_at = each.completed_at or each.failed_at
    return Row(
        key=each.id,
        status=_list_status(each, concerned),
        note="queued at MachFive" if each.processing_status == "pending" else _unknown_status(each),
        name=without_tag(each.custom_name) or "(no name)",
        list_id=each.id,
        campaign_id=each.campaign_id,
        campaign=told.get("campaign_name"),
        created_at=each.created_at,
        ended_at=ended_at,
        seconds=_seconds(each.created_at, ended_at if each.is_completed or each.is_failed else now),
        leads=_first(told.get("leads_submitted"), each.leads_count, *_told("leads_count", concerned)),
        emails=_first(each.emails_created, *_told("emails_created", concerned)),
        credits=told.get("credits"),
        how=_how(each, concerned, buyer),
        tasks=concerned,
    )


def _how(each: LeadList, concerned: Sequence[TaskSeen], buyer: TaskSeen | None) -> str:
    if buyer is not None:
        return "bought" if any(task.told.get("bought") for task in concerned) else "adopted"
    return "bought, task unknown" if is_tagged(each.custom_name) else "made elsewhere"


def _list_status(each: LeadList, concerned: Iterable[TaskSeen]) -> str:
    if each.is_failed:
        return "failed"
    if not each.is_completed:
        return "running"
    return (
        "undelivered" if any(task.state == "failed" and task.told.get("error") for task in concerned) else "completed"
    )


def _unknown_status(each: LeadList) -> str:
    known = each.is_completed or each.is_failed or each.processing_status == "processing"
    return "" if known else f"MachFive says {each.processing_status!r}"


def _task_row(task: TaskSeen, now: datetime) -> Row:
    told = task.told
    began_at = min((_moment(text) for text in told.get("times", {}).values()), default=None)
    return Row(
        key=task.key,
        status=_task_status(task),
        name=without_tag(told.get("list_name")) or task.title,
        list_id=told.get("list_id"),
        campaign_id=told.get("campaign_id"),
        campaign=told.get("campaign_name"),
        created_at=began_at,
        ended_at=_moment(told["completed_at"]) if told.get("completed_at") else None,
        seconds=_seconds(began_at, now) if task.is_live else None,
        leads=_first(told.get("leads_submitted"), told.get("leads_count")),
        emails=told.get("emails_created"),
        credits=told.get("credits") if told.get("list_id") else None,
        how="bought" if told.get("bought") else "adopted" if told.get("list_id") and task.buys else "not bought",
        tasks=(task,),
    )


def _task_status(task: TaskSeen) -> str:
    phase = task.told.get("phase")
    if phase in ("completed", "skipped"):
        return str(phase)
    if task.state == "up_for_retry":
        return "retrying"
    if phase == "failed" or not task.is_live:
        return "failed"
    return {"waiting_for_room": "waiting", "looking_for_purchase": "checking"}.get(str(phase), "running")


def _in_context(
    row: Row, campaigns: Mapping[str, str], usual: Mapping[str | None, float], positions: Mapping[str, int]
) -> Row:
    takes = usual.get(row.campaign_id)
    is_late = takes is not None and (row.seconds or 0.0) > max(_NEVER_STUCK_BEFORE, _STUCK_AFTER * takes)
    return replace(
        row,
        campaign=campaigns.get(row.campaign_id or "") or row.campaign,
        usual=takes,
        stuck=row.status == "running" and is_late,
        position=positions.get(row.key),
    )


def _usual(rows: Iterable[Row]) -> dict[str | None, float]:
    """Return the median of what completed lists took, by campaign."""
    took: dict[str | None, list[float]] = defaultdict(list)
    for row in rows:
        if row.status in ("completed", "undelivered") and row.list_id and row.seconds is not None:
            took[row.campaign_id].append(row.seconds)
    return {campaign: statistics.median(each) for campaign, each in took.items() if len(each) >= _SAMPLES}


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return max(0.0, (end - start).total_seconds()) if start and end else None


def _told(name: str, tasks: Iterable[TaskSeen]) -> list[int | None]:
    return [task.told.get(name) for task in tasks]


def _moment(text: str) -> datetime:
    return pendulum.DateTime.fromisoformat(text)
