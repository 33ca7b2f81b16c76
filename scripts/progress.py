"""Shows how far a command is while it waits, and the emails at its end, on a terminal or in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

# Off a terminal: how long a wait may look as if nothing happened.
SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Shows which of a number of steps is being done: a bar on a terminal, else a line every few seconds.

    :param clock: returns seconds; only differences count
    """

    def __init__(self, console: Console, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._steps = steps
        self._clock = clock
        self._began = clock()
        self._step = 0
        self._line, self._printed_at = "", self._began
        self._bar = RichProgress(
            SpinnerColumn(finished_text="✓"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            # What is too long for the terminal is cut here, not in the bar.
            TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
            console=console,
            expand=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=steps)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, step: int, what: str) -> None:
        """Show that a step, counted from 1, is being done. To be called at each poll; a bar never goes back."""
        self._step = max(self._step, step)
        self._update(self._step - 1, f"[{self._step}/{self._steps}] {what}", what)

    def done(self, what: str) -> None:
        """Show that the last step has been done."""
        self._update(self._steps, what, what)

    def _update(self, completed: int, line: str, description: str) -> None:
        self._bar.update(self._task, completed=completed, description=description)
        now = self._clock()
        if self._console.is_terminal or (line == self._line and now - self._printed_at < SECONDS_BETWEEN_LINES):
            return
        self._line, self._printed_at = line, now
        self._console.print(f"{now - self._began:5.0f} s  {line}", markup=False, highlight=False, soft_wrap=True)


def lead_panel(lead: dict[str, Any]) -> Panel:
    """Return one lead's emails as a person would read them."""
    parts: list[Text] = []
    for email in lead["sequence"]:
        parts += [
            Text(f"{email['step']}. {email['subject']}", style="bold"),
            Text(f"{str(email['body']).strip()}\n"),
        ]
    return Panel(Group(*parts), title=f"Emails for {lead['email']}", title_align="left", padding=(1, 2, 0, 2))
