"""What a look at a list means, and the loop of a worker that waits by itself."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machfive_provider import exceptions
from machfive_provider.api.models import LeadList
from machfive_provider.formatting import counted, duration
from machfive_provider.waiting.decision import (
    Done,
    GiveUp,
    Progress,
    Wait,
    Watch,
    decide_poll,
    effective_deadline,
    jittered,
    next_news,
    poll_list,
    wait_for_list,
)

T0 = 1_770_000_000.0
WATCH = Watch("l1", interval=20.0, started_at=T0, deadline=T0 + 3600)
OURS = replace(WATCH, submitted_at=T0 - 10)
DEADLINE = "2026-02-02 03:40:00 UTC"
TROUBLE = exceptions.ServerError("down", status_code=503, request_id="r1")


def seen(status: str) -> LeadList:
    return LeadList("l1", status)


PROGRESSES = {
    "fresh": Progress(),
    "running": Progress(status="processing"),
    "failing": Progress(status="processing", failures=9, failing_since=T0 - 700),
    "invisible": Progress(status="invisible"),
}
TIMES = {"start": T0, "before": T0 + 3599, "deadline": T0 + 3600, "late": T0 + 99999}


@pytest.mark.parametrize("status", ["pending", "processing", "completed", "failed", "archived", ""])
@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("progress", PROGRESSES)
@pytest.mark.parametrize("watch", [WATCH, OURS], ids=["theirs", "ours"])
def test_every_status_at_every_time(watch: Watch, progress: str, time: str, status: str):
    now, outcome = TIMES[time], decide_poll(watch, PROGRESSES[progress], seen(status), TIMES[time])
    if status in ("completed", "failed"):
        assert outcome == Done(seen(status))
    elif now >= watch.deadline:
        assert isinstance(outcome, GiveUp)
        assert type(outcome.error) is exceptions.WaitTimeoutError
        assert f"List l1 is still {status} after " in outcome.error.message
        assert "waits for the same list, at no cost" in outcome.error.remedy
    else:
        assert isinstance(outcome, Wait)
        assert outcome.after == min(20.0, watch.deadline - now)
        assert (outcome.progress.status, outcome.progress.failures, outcome.progress.failing_since) == (status, 0, None)


PERMANENT = [
    exceptions.BadRequestError,
    exceptions.UnauthorizedError,
    exceptions.InsufficientCreditsError,
    exceptions.ForbiddenError,
    exceptions.NotFoundError,
    exceptions.ConfigurationError,
]


@pytest.mark.parametrize("kind", PERMANENT)
@pytest.mark.parametrize("progress", PROGRESSES)
@pytest.mark.parametrize("time", TIMES)
def test_a_permanent_error_ends_the_wait_at_once(kind, progress: str, time: str):
    error = kind("no", request_id="r1")
    outcome = decide_poll(WATCH, PROGRESSES[progress], error, TIMES[time])
    assert isinstance(outcome, GiveUp)
    assert (type(outcome.error), outcome.error.message, outcome.error.request_id) == (kind, "List l1: no", "r1")
    assert error.message == "no"  # all that wait for lists of this connection are given this one error


@pytest.mark.parametrize(
    ("submitted_at", "now", "waits"),
    [
        (T0, T0, True),
        (T0, T0 + 119.9, True),
        (T0, T0 + 120, False),
        (T0, T0 + 500, False),
        (T0 - 119, T0, True),
        (T0 - 120, T0, False),
        (None, T0, False),
    ],
)
def test_a_404_right_after_our_submission_is_no_news(submitted_at: float | None, now: float, waits: bool):
    error = exceptions.NotFoundError("no such list", status_code=404)
    outcome = decide_poll(replace(WATCH, submitted_at=submitted_at), Progress(), error, now)
    if not waits:
        assert isinstance(outcome, GiveUp)
        assert isinstance(outcome.error, exceptions.NotFoundError)
        return
    assert outcome == Wait(20.0, Progress(status="invisible"), "List l1 is not visible yet.")
    again = decide_poll(replace(WATCH, submitted_at=submitted_at), outcome.progress, error, now)
    assert again == Wait(20.0, Progress(status="invisible"), None)


def test_only_a_404_has_that_grace():
    error = exceptions.ForbiddenError("no")
    assert isinstance(decide_poll(replace(WATCH, submitted_at=T0), Progress(), error, T0), GiveUp)


def test_a_list_that_is_never_visible_times_out():
    watch = replace(WATCH, submitted_at=T0, deadline=T0 + 60)
    outcome = decide_poll(watch, Progress(), exceptions.NotFoundError("no"), T0 + 60)
    assert isinstance(outcome, GiveUp)
    assert type(outcome.error) is exceptions.WaitTimeoutError
    assert "List l1 is not visible yet after 1 min (timeout)" in outcome.error.message


@pytest.mark.parametrize(
    ("failures", "since", "gives_up"),
    [
        (8, 9999, False),
        (9, 599, False),
        (9, 599.9, False),
        (9, 600, True),
        (10, 599, False),
        (200, 599, False),
        (200, 601, True),
        (0, 0, False),
    ],
)
def test_polling_is_given_up_after_ten_failures_and_ten_minutes(failures: int, since: float, gives_up: bool):
    now = T0 + 1000
    progress = Progress(status="processing", failures=failures, failing_since=now - since)
    outcome = decide_poll(WATCH, progress, TROUBLE, now)
    if gives_up:
        assert isinstance(outcome, GiveUp)
        assert type(outcome.error) is exceptions.PollingError
        assert outcome.error.request_id == "r1"
        assert f"{failures + 1} polls in a row failed, over {duration(since)}" in outcome.error.message
        assert "the list itself may be fine" in outcome.error.message
    else:
        assert isinstance(outcome, Wait)
        assert (outcome.progress.failures, outcome.progress.failing_since) == (failures + 1, now - since)
        assert outcome.progress.status == "processing"


def test_the_first_failure_starts_the_clock_and_a_success_resets_it():
    first = decide_poll(WATCH, Progress(status="processing"), TROUBLE, T0 + 5)
    assert first.progress == Progress(status="processing", failures=1, failing_since=T0 + 5)
    assert first.notice.startswith("Poll 1 in a row of list l1 failed; next in 20 s. down.")
    healed = decide_poll(WATCH, first.progress, seen("processing"), T0 + 25)
    assert (first.is_trouble, healed.is_trouble) == (True, False)
    assert healed.progress == Progress(status="processing")
    assert healed.notice == "List l1 can be seen again: processing after 25 s."
    assert decide_poll(WATCH, healed.progress, TROUBLE, T0 + 700).progress.failing_since == T0 + 700


@pytest.mark.parametrize(
    ("retry_after", "now", "pause"),
    [(None, T0, 20), (5, T0, 20), (90, T0, 90), (90, T0 + 3550, 50), (None, T0 + 3590, 10)],
)
def test_retry_after_is_respected_within_the_deadline(retry_after: float | None, now: float, pause: float):
    error = exceptions.RateLimitedError("slow", retry_after=retry_after)
    assert decide_poll(WATCH, Progress(), error, now).after == pause


def test_trouble_at_the_deadline_is_a_timeout_that_names_it():
    outcome = decide_poll(WATCH, Progress(), TROUBLE, WATCH.deadline)
    assert type(outcome.error) is exceptions.WaitTimeoutError
    assert str(outcome.error).startswith(
        "List l1 could not be polled at the end after 1 h (timeout). The last failure: down."
    )
    assert outcome.error.request_id == "r1"


def test_the_log_tells_status_changes_once():
    progress, notices = Progress(), []
    for number, status in enumerate(["pending"] * 3 + ["processing"] * 5 + ["archiving"] * 4):
        outcome = decide_poll(WATCH, progress, seen(status), T0 + 20 * number)
        progress = outcome.progress
        notices.append(outcome.notice)
    told = [notice for notice in notices if notice]
    assert [notices.index(notice) for notice in told] == [0, 3, 8]
    assert told == [
        f"List l1 is pending after 0 s; polling every 20 s, until {DEADLINE} at the latest.",
        f"List l1 is processing (was pending) after 1 min; polling every 20 s, until {DEADLINE} at the latest.",
        (
            f"List l1 is archiving (was processing) after 2 min 40 s; polling every 20 s, until {DEADLINE} at the "
            "latest. That status is not one this provider knows: it waits on."
        ),
    ]


def test_reports_of_a_long_wait_get_rarer():
    watch, progress, reported = replace(WATCH, deadline=T0 + 100_000), Progress(status="processing"), []
    for waited in range(0, 20_000, 100):
        outcome = decide_poll(watch, progress, seen("processing"), T0 + waited)
        progress = outcome.progress
        if outcome.notice:
            reported.append(waited)
            assert f"is still processing after {duration(waited)}; next poll in 20 s" in outcome.notice
    assert reported == [300, 600, 1200, 2400, 4800, 8400, 12000, 15600, 19200]


@given(
    status=st.sampled_from(["pending", "processing", "archived", "invisible"]),
    failures=st.integers(0, 12),
    report_after=st.floats(1, 100_000),
    deadline=st.floats(0, 100_000),
    waited=st.floats(0, 100_000),
    shown=st.sampled_from(["pending", "processing", "archived", "completed", "failed"]),
)
def test_a_look_that_is_no_news_need_not_be_decided_on(
    status: str, failures: int, report_after: float, deadline: float, waited: float, shown: str
):
    """The shared poller tells a trigger of nothing else, so whatever `decide_poll` would act on must be news."""
    watch = replace(OURS, deadline=T0 + deadline)
    progress = Progress(status, failures, T0 if failures else None, report_after)
    known, quiet_until = next_news(watch, progress)
    if shown == known and T0 + waited < quiet_until:
        outcome = decide_poll(watch, progress, seen(shown), T0 + waited)
        assert isinstance(outcome, Wait)
        assert (outcome.progress, outcome.notice) == (progress, None)


def test_most_looks_are_no_news():
    assert next_news(WATCH, Progress("processing")) == ("processing", T0 + 300)
    assert next_news(WATCH, Progress("processing", report_after=8400.0)) == ("processing", T0 + 3600)
    assert next_news(WATCH, Progress())[0] is None
    assert next_news(WATCH, Progress("processing", failures=1))[0] is None


class Script:
    """A world of its own: a clock that only moves when somebody sleeps, and looks told in advance."""

    def __init__(self, *looks) -> None:
        self.looks, self.time, self.slept = list(looks), T0, []

    def look(self, list_id: str) -> LeadList:
        assert list_id == "l1"
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(look, Exception):
            raise look
        return seen(look)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    def wait(self, watch: Watch = WATCH) -> LeadList:
        return wait_for_list(watch, self.look, logging.getLogger("test"), self.sleep, lambda: self.time)


def test_waiting_until_completed(caplog):
    caplog.set_level(logging.INFO, logger="test")
    script = Script("pending", "processing", TROUBLE, "processing", "completed")
    assert script.wait() == seen("completed")
    assert len(script.slept) == 4
    assert all(18 <= pause <= 22 for pause in script.slept)
    assert [record.getMessage().split(";")[0].split(" after")[0] for record in caplog.records] == [
        "List l1 is pending",
        "List l1 is processing (was pending)",
        "Poll 1 in a row of list l1 failed",
        "List l1 can be seen again: processing",
    ]


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_list_that_has_ended_needs_one_look_even_after_the_deadline(status: str):
    script = Script(status)
    assert script.wait(replace(WATCH, deadline=T0 - 1)) == seen(status)
    assert script.slept == []


def test_waiting_ends_with_the_deadline():
    script = Script("processing")
    with pytest.raises(exceptions.WaitTimeoutError):
        script.wait()
    assert 3599.99 <= sum(script.slept) <= 3602  # the sum of many rounded pauses


def test_waiting_ends_with_a_permanent_error():
    script = Script("pending", exceptions.ForbiddenError("no"))
    with pytest.raises(exceptions.ForbiddenError):
        script.wait()
    assert len(script.slept) == 1


def test_waiting_ends_when_trouble_lasts():
    script = Script("pending", TROUBLE)
    with pytest.raises(exceptions.PollingError):
        script.wait()
    assert 600 <= sum(script.slept) <= 700


def test_other_exceptions_are_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        Script(ZeroDivisionError()).wait()


class Keys:
    """Stands for a hook whose connection holds one key after the other."""

    def __init__(self, *answers) -> None:
        self.answers, self.forgotten = list(answers), 0

    def get_list(self, list_id: str) -> LeadList:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def forget_connection(self) -> None:
        self.forgotten += 1


def test_a_rotated_key_is_read_once_more():
    refused = exceptions.UnauthorizedError("Invalid API key.")
    hook = Keys(refused, seen("pending"))
    assert poll_list(hook, "l1") == seen("pending")
    assert hook.forgotten == 1
    hook = Keys(refused, refused, seen("pending"))
    with pytest.raises(exceptions.UnauthorizedError):
        poll_list(hook, "l1")
    hook = Keys(exceptions.ForbiddenError("no"))
    with pytest.raises(exceptions.ForbiddenError):
        poll_list(hook, "l1")
    assert hook.forgotten == 0


@pytest.mark.parametrize(
    ("timeout", "execution_timeout", "deadline"),
    [
        (3600, None, T0 + 3600),
        (3600, 86400, T0 + 3600),
        (3600, 3600, T0 + 3590),
        (86400, 3600, T0 + 3590),
        (86400, 200, T0 + 190),
        (86400, 100, T0 + 95),
        (86400, 20, T0 + 19),
        (5, 20, T0 + 5),
    ],
)
def test_our_deadline_comes_before_airflows(timeout: float, execution_timeout: float | None, deadline: float):
    assert effective_deadline(T0, timeout, execution_timeout) == deadline


def test_jitter_is_a_tenth_either_way():
    pauses = {jittered(100) for _ in range(200)}
    assert 90 <= min(pauses) < 100 < max(pauses) <= 110


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (0.4, "0 s"),
        (45, "45 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3599, "59 min 59 s"),
        (3599.7, "1 h"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (7529, "2 h 5 min"),
        (90_000, "25 h"),
    ],
)
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 leads"), (1, "1 lead"), (2, "2 leads")])
def test_counted(number: int, text: str):
    assert counted(number, "lead") == text
