"""Renders the templates. Everything is escaped."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from machfive_provider.formatting import counted, duration
from machfive_provider.ui.link import base_path
from machfive_provider.ui.rows import TaskSeen
from machfive_provider.ui.words import ORIGINS, STATUSES

__all__ = ["render"]

_UNKNOWN = "\N{EN DASH}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(ORIGINS=ORIGINS, STATUSES=STATUSES, base_path=base_path, task_url=_task_url)
    environment.filters.update(counted=counted, duration=duration, ago=_ago, utc=_utc, number=_number, rounded=_rounded)
    return environment


def render(template: str, **values: Any) -> str:
    """Return a rendered template."""
    return _environment().get_template(template).render(**values)


def _task_url(task: TaskSeen) -> str:
    parts = (quote(each, safe="") for each in (task.dag_id, task.run_id, task.task_id))
    address = "{}/dags/{}/runs/{}/tasks/{}".format(base_path(), *parts)
    return address if task.map_index < 0 else f"{address}/mapped/{task.map_index}"


def _rounded(seconds: float) -> str:
    """Write seconds in whole minutes, and from a day on in days, as a glance needs it."""
    if seconds < 60:
        return duration(seconds)
    return duration(seconds // 60 * 60) if seconds < 86400 else f"{seconds // 86400:.0f} d"


def _ago(moment: datetime | None, now: datetime) -> str:
    return _UNKNOWN if moment is None else f"{_rounded(max(0.0, (now - moment).total_seconds()))} ago"


def _utc(moment: datetime | None) -> str:
    return "unknown" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _number(value: int | None) -> str:
    return _UNKNOWN if value is None else f"{value:,}"
