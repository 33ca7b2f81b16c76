"""`lists --watch`: what is on the screen from one update to the next. No time passes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console

from machfive_provider import exceptions
from machfive_provider.api.retries import QUICK
from machfive_provider.cli import lists
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.sandbox import Sandbox
from tests.cli.conftest import buy


class Screen:
    """A terminal, and what stands on it at each pause; ``steps`` happen in the pauses, then Ctrl+C is pressed."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.console = Console(file=io.StringIO(), force_terminal=True, width=140, height=40)
        self.steps = list(steps)
        self.shown: list[str] = []
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.shown.append(self.console.file.getvalue())
        self.console.file.truncate(0)
        self.console.file.seek(0)
        if not self.steps:
            raise KeyboardInterrupt
        self.steps.pop(0)()


def watch(screen: Screen, hook: MachFiveHook) -> None:
    names = lists.campaign_names(hook)
    wanted = lists.Selection(limit=2)
    lists.watch(
        lambda: [lists.row(each, names) for each in lists.select(hook, wanted)], 2, screen.console, 10.0, screen.sleep
    )


@pytest.fixture
def hook(slow_sandbox: Sandbox, connect: Callable[..., None]) -> Iterator[MachFiveHook]:
    connect(slow_sandbox)
    with MachFiveHook(retry_policy=QUICK) as hook:
        yield hook


def test_the_table_follows_the_lists(slow_sandbox: Sandbox, hook: MachFiveHook):
    list_id = buy(slow_sandbox, "First")
    screen = Screen(
        lambda: slow_sandbox.complete(list_id),
        lambda: [buy(slow_sandbox, name) for name in ("Summer", "Autumn")],
        lambda: slow_sandbox.fault("status", "lists", status=503, times=None),
        slow_sandbox.clear_faults,
    )
    watch(screen, hook)
    running, completed, more, failing, again = screen.shown
    assert "processing" in running
    assert "every 10 s; Ctrl+C ends." in running
    assert "completed" in completed
    assert "There are more than 2 lists" in more
    assert "First" not in more
    assert "The last update failed" in failing
    assert "Autumn" in failing
    assert "The last update failed" not in again
    assert screen.pauses == [10.0] * 5


def test_what_fails_for_good_ends_it(slow_sandbox: Sandbox, hook: MachFiveHook):
    screen = Screen(lambda: slow_sandbox.fault("status", "lists", status=401, code="UNAUTHORIZED"))
    with pytest.raises(exceptions.UnauthorizedError):
        watch(screen, hook)
    assert "No lists found." in screen.shown[0]
