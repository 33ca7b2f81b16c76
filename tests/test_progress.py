"""What `make run` shows while it waits."""

from __future__ import annotations

import io

from rich.console import Console

from scripts.progress import SECONDS_BETWEEN_LINES, Progress
from tests.clock import Clock


def test_off_a_terminal_a_line_for_each_change_and_one_every_few_seconds() -> None:
    clock, out = Clock(), io.StringIO()
    with Progress(Console(file=out, width=40), 3, clock) as progress:
        progress.show(1, "Starting [Airflow]")
        progress.show(1, "Starting [Airflow]")
        clock.advance(SECONDS_BETWEEN_LINES)
        progress.show(1, "Starting [Airflow]")
        progress.show(3, "a line that is longer than the console is wide")
        progress.show(2, "never back")
        progress.done("Done")
    shown = out.getvalue().rstrip()  # before 14.3 rich ends with an empty line
    lines = [line.partition(" s  ")[2] for line in shown.splitlines()]
    assert lines == [
        "[1/3] Starting [Airflow]",
        "[1/3] Starting [Airflow]",
        "[3/3] a line that is longer than the console is wide",
        "[3/3] never back",
        "Done",
    ]


def test_on_a_terminal_a_bar() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True)
    with Progress(console, 3) as progress:
        progress.show(3, "Starting [Airflow]")
    assert "2/3" in out.getvalue()
    assert "Starting [Airflow]" in out.getvalue()
