"""`wait_for_list` and `export_list`: what notebooks and scripts call, and what they see meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from machfive_provider import exceptions
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.sandbox import Sandbox
from tests.clock import Clock
from tests.tasks import LEADS, UNKNOWN_ID, Logs

Connect = Callable[..., None]


def buy(hook: MachFiveHook, sandbox: Sandbox) -> str:
    return hook.generate_batch(sandbox.campaign_id, LEADS).list_id


# --- wait_for_list


@pytest.fixture
def slow(slow_sandbox: Sandbox, connect: Connect) -> Sandbox:
    connect(slow_sandbox)
    return slow_sandbox


@pytest.mark.parametrize("timeout", [3600, timedelta(hours=1)])
def test_a_wait_ends_when_the_list_does(slow: Sandbox, clock: Clock, timeout: Any):
    seen = []
    with MachFiveHook() as hook:
        list_id = buy(hook, slow)

        def on_progress(lead_list: Any) -> None:
            seen.append(lead_list.processing_status)
            if len(seen) == 2:
                slow.complete(list_id)

        ended = hook.wait_for_list(list_id, timeout, on_progress)
    assert (ended.id, ended.leads_count) == (list_id, 3)
    assert seen == ["processing", "processing", "completed"]
    assert all(18 <= pause <= 22 for pause in clock.slept)


def test_a_wait_ends_as_a_tasks_does(slow: Sandbox, clock: Clock, capsys: pytest.CaptureFixture[str]):
    with MachFiveHook() as hook:
        list_id = buy(hook, slow)
        with pytest.raises(exceptions.WaitTimeoutError, match=f"List {list_id} is still processing after 1 min"):
            hook.wait_for_list(list_id, 60)
        assert sum(clock.slept) == pytest.approx(60, abs=3)
        slow.fail(list_id)
        with pytest.raises(exceptions.ListFailedError, match="submit its leads again"):
            hook.wait_for_list(list_id, 60)
        with pytest.raises(exceptions.NotFoundError, match=UNKNOWN_ID):
            hook.wait_for_list(UNKNOWN_ID, 60)
        for wrong in ((list_id, 0), (list_id, float("nan")), ("nonsense", 60)):
            with pytest.raises(exceptions.ConfigurationError):
                hook.wait_for_list(*wrong)
    assert capsys.readouterr().err == ""  # no spinner without a terminal


def test_a_poll_that_fails_is_repeated_at_the_next_poll(slow: Sandbox, clock: Clock):
    slow.fault("status", "list", status=503, times=2)
    with MachFiveHook() as hook:
        list_id = buy(hook, slow)
        slow.complete(list_id)
        assert hook.wait_for_list(list_id, 600).is_completed
    assert len(slow.requests_to("list")) == 3
    assert min(clock.slept) >= 18


def test_a_list_just_submitted_may_be_invisible_for_a_while(timed_sandbox: Sandbox, connect: Connect):
    connect(timed_sandbox)
    timed_sandbox.fault("visible_late", seconds=50)
    with MachFiveHook() as hook, MachFiveHook() as other:
        list_id = buy(hook, timed_sandbox)
        with pytest.raises(exceptions.NotFoundError):
            other.wait_for_list(list_id, 600)
        assert hook.wait_for_list(list_id, 600).is_completed


# --- export_list


@pytest.fixture
def done(sandbox: Sandbox, connect: Connect) -> Sandbox:
    connect(sandbox)
    return sandbox


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl"])
def test_an_export_is_written_counted_and_told(done: Sandbox, tmp_path: Path, ending: str):
    path, seen = tmp_path / f"emails.{ending}", []
    with MachFiveHook() as hook:
        many = [{"email": f"lead{number}@example.com"} for number in range(400)]
        list_id = hook.generate_batch(done.campaign_id, many).list_id
        figures = hook.export_list(list_id, path, on_progress=lambda sofar: seen.append((sofar.bytes, sofar.leads)))
    assert (figures.path, figures.bytes) == (str(path), path.stat().st_size)
    assert (figures.leads, figures.emails, figures.missing, figures.extra, figures.odd) == (400, 1200, 0, 0, 0)
    assert figures.warnings == ()
    assert len(seen) > 1
    assert seen == sorted(seen)
    assert seen[-1] == (figures.bytes, 400)


def test_what_is_missing_is_written_told_and_no_error(done: Sandbox, tmp_path: Path, logs: Logs):
    done.fault("odd_leads", oddity="null_sequence")
    path = tmp_path / "emails.out"
    with MachFiveHook() as hook:
        figures = hook.export_list(buy(hook, done), path, format="json")
    assert (figures.leads, figures.missing) == (2, 1)
    assert len(json.loads(path.read_text())["leads"]) == 3
    assert any("lacks 1 of the 3 leads" in warning for warning in figures.warnings)
    assert logs.count("lacks 1 of the 3 leads") == 1


def test_what_cannot_be_exported_leaves_the_file_as_it_was(slow: Sandbox, tmp_path: Path):
    path = tmp_path / "emails.json"
    path.write_text("before")
    with MachFiveHook() as hook:
        list_id = buy(hook, slow)
        with pytest.raises(exceptions.NotReadyError, match=f"List {list_id}"):
            hook.export_list(list_id, path)
        slow.fail(list_id)
        with pytest.raises(exceptions.ListFailedError, match=f"List {list_id} failed"):
            hook.export_list(list_id, path)
        with pytest.raises(exceptions.ConfigurationError, match=r"ends in \.json"):
            hook.export_list(list_id, path, format="csv")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
