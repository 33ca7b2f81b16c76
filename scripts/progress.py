"""Shows a DAG run while it runs, and its result, on a terminal or in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from scripts.airflow_api import DagRunResult, TaskResult

_STYLES = {"success": "green", "failed": "red", "running": "cyan", "deferred": "magenta", "up_for_retry": "yellow"}
_NO_STATE = "waiting"


class Progress:
    """Shows each poll of a run: a live table on a terminal, a line for each change anywhere else."""

    def __init__(self, console: Console, describe: Callable[[], str]) -> None:
        self._console = console
        self._describe = describe
        self._began = time.monotonic()
        self._said: dict[str, str] = {}
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, run: DagRunResult) -> None:
        """Show the run's current state."""
        note = self._describe()
        if self._live:
            elapsed = f"{time.monotonic() - self._began:.0f} s"
            footer = Text(f"{elapsed} · MachFive: {note}" if note else elapsed, style="dim")
            self._live.update(Group(task_table(run), footer), refresh=True)
            return
        for task in run.tasks:
            if task.state:
                self._say(_name(task), f"{task.state} (try {task.try_number})")
        if note:
            self._say("MachFive", note)

    def _say(self, who: str, what: str) -> None:
        if self._said.get(who) != what:
            self._said[who] = what
            line = f"{time.monotonic() - self._began:6.1f} s  {who}: {what}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def task_table(run: DagRunResult) -> Table:
    """Return the task instances with states, durations and tries."""
    table = Table(title=f"{run.dag_id}: {run.state}", title_justify="left")
    table.add_column("task")
    table.add_column("state")
    table.add_column("seconds", justify="right")
    table.add_column("tries", justify="right")
    for task in run.tasks:
        state = Text(task.state or _NO_STATE, style=_STYLES.get(task.state or "", "dim"))
        table.add_row(_name(task), state, _seconds(task), str(task.try_number or ""))
    return table


def lead_panel(lead: dict[str, Any]) -> Panel:
    """Return one lead's emails as a person would read them."""
    parts: list[Text] = []
    for email in lead["sequence"]:
        parts += [
            Text(f"{email['step']}. {email['subject']}", style="bold"),
            Text(f"{str(email['body']).strip()}\n"),
        ]
    return Panel(Group(*parts), title=f"Emails for {lead['email']}", title_align="left", padding=(1, 2, 0, 2))


def _name(task: TaskResult) -> str:
    return task.task_id if task.map_index < 0 else f"{task.task_id}[{task.map_index}]"


def _seconds(task: TaskResult) -> str:
    if task.start_date is None:
        return ""
    return f"{((task.end_date or datetime.now(UTC)) - task.start_date).total_seconds():.1f}"
