"""One test for each way in which a submit-and-poll provider has disappointed its users: ours does not.

The numbers are of public issues; bare ones are of apache/airflow. What is parsed, shown or packaged has its tests
elsewhere: here is what submits, retries and waits, over real sockets.
"""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from machfive_provider import exceptions
from machfive_provider.sandbox import Sandbox
from machfive_provider.triggers.capacity import MachFiveCapacityTrigger
from machfive_provider.triggers.lead_list import MachFiveListTrigger
from machfive_provider.triggers.unanswered_purchase import MachFiveUnansweredPurchaseTrigger
from tests import virtual
from tests.clock import Clock
from tests.tasks import (
    LEADS,
    PERSONAL,
    Killed,
    Logs,
    Run,
    StateStore,
    assert_plain,
    batch,
    events_of,
    leaks,
    run_trigger,
    task_context,
    told,
)

Connect = Callable[..., None]
CONN_ID = "machfive_default"
MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])


@pytest.fixture
def sandbox(timed_sandbox: Sandbox, connect: Connect) -> Sandbox:
    """Give the sandbox that lives by the test's clock, connected."""
    connect(timed_sandbox)
    return timed_sandbox


def posts(sandbox: Sandbox) -> int:
    return sum(request.method == "POST" for request in sandbox.requests)


def left(operator: Any, **ti: Any) -> TaskDeferred:
    """Run a task until it leaves for the triggerer; return with what it left."""
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(task_context(operator, **ti))
    return caught.value


# --- buying


@MODES
def test_worker_dies_after_submit_and_the_retry_pays_again_not_here(deferrable: bool, sandbox: Sandbox):
    """#18999, #15588, #67118, #72414, #72416, #72423."""
    store = StateStore(dies="submitted")
    operator = batch(sandbox, deferrable=deferrable)
    with pytest.raises(Killed):
        Run(operator, store=store)()
    for again in (Run(operator, store=store, try_number=2), Run(operator, try_number=2)):
        assert again() == sandbox.purchases[0].list_id
    assert posts(sandbox) == 1


@MODES
def test_an_id_in_xcom_is_gone_on_retry_and_nobody_misses_it(deferrable: bool, sandbox: Sandbox):
    """#72938."""
    operator = batch(sandbox, deferrable=deferrable)
    first, second = Run(operator), Run(operator, try_number=2)
    list_id = first()
    assert second.xcoms == {}
    assert second() == list_id
    assert posts(sandbox) == 1


@MODES
@pytest.mark.parametrize("status", ["pending", "processing", "queued", "waiting_for_campaign"])
def test_waiting_states_are_active_and_not_resubmitted(deferrable: bool, status: str, sandbox: Sandbox):
    """#69195."""
    list_id = Run(batch(sandbox, wait_for_completion=False))()
    sandbox.set_status(list_id, status)
    operator = batch(sandbox, deferrable=deferrable, wait_for_completion=False)
    assert Run(operator, try_number=2)() == list_id
    assert posts(sandbox) == 1


@pytest.mark.parametrize("wait", [True, False], ids=["wait", "no wait"])
@MODES
def test_crash_safety_is_the_same_in_every_mode(deferrable: bool, wait: bool, sandbox: Sandbox):
    """#71485, #71610, #68952."""
    operator = batch(sandbox, deferrable=deferrable, wait_for_completion=wait)
    sandbox.fault("reset", endpoint="generate-batch", accepted=True)
    sandbox.fault("visible_late", seconds=60)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        Run(operator)()
    assert Run(operator, try_number=2)() == sandbox.purchases[0].list_id
    assert posts(sandbox) == 1


@MODES
def test_a_reconnected_run_returns_what_the_first_would_have(deferrable: bool, sandbox: Sandbox):
    """The resumable mixin of Airflow 3.3.2 returns None."""
    operator = batch(sandbox, deferrable=deferrable)
    first, second = Run(operator), Run(operator, try_number=2)
    assert first() == second() == sandbox.purchases[0].list_id
    assert told(second.xcoms) == {**told(first.xcoms), "bought": False}


def test_a_trigger_run_twice_posts_nothing(sandbox: Sandbox, clock: Clock):
    """#67945: a triggerer restart runs the same trigger again."""
    sandbox.fault("stuck")
    waiting = left(batch(sandbox, deferrable=True)).trigger
    now = clock()
    attempt = {"try_number": 1, "began_at": now, "absent_since": now, "granted": False}
    known = {"machfive_conn_id": "machfive_default", "poll_interval": 1.0, "attempt": attempt}
    capacity = MachFiveCapacityTrigger(**known, asked_at=now, deadline=now + 60, limit=None, not_before=0.0)
    tag = f"[af1:{'0' * 10}-{'0' * 12}:0..{'0' * 6}]"
    unanswered = MachFiveUnansweredPurchaseTrigger(**known, tag=tag, known=[], since=0.0, until=now + 5)
    sandbox.complete(sandbox.purchases[0].list_id)
    before = len(sandbox.requests)
    for trigger in (waiting, capacity, unanswered):
        for _ in range(2):
            run_trigger(trigger)
            clock.advance(61)  # a granted slot stays reserved for a minute
    sent = sandbox.requests[before:]
    assert sent
    assert {request.method for request in sent} == {"GET"}
    assert len(sandbox.purchases) == 1


async def test_a_killed_task_says_that_the_remote_job_runs_on(sandbox: Sandbox, logs: Logs):
    """#36090, #65590."""
    sandbox.fault("stuck")
    operator = batch(sandbox, deferrable=True)
    trigger = (await asyncio.to_thread(left, operator)).trigger
    for kill in (operator.on_kill, trigger.on_kill):
        logs.clear()
        if (pending := kill()) is not None:
            await pending
        assert "keeps running" in logs.text or "keep running" in logs.text
        assert "learing the task" in logs.text


def test_a_batch_that_finds_no_free_slot_waits_by_itself(sandbox: Sandbox):
    """#37212, #33212."""
    sandbox.fault("stuck", times=None)
    running = [Run(batch(sandbox, wait_for_completion=False), run_id=f"r{number}")() for number in range(3)]

    def free_a_slot(trigger: Any) -> None:
        sandbox.complete(running[0] if isinstance(trigger, MachFiveCapacityTrigger) else trigger.list_ids[0])

    run = Run(batch(sandbox, deferrable=True), between=free_a_slot)
    assert run() == sandbox.purchases[-1].list_id
    assert [type(each) for each in run.triggers] == [MachFiveCapacityTrigger, MachFiveListTrigger]
    assert len(sandbox.purchases) == 4


@MODES
@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422])
def test_what_a_retry_cannot_help_uses_no_retries(deferrable: bool, status: int, sandbox: Sandbox):
    """#21562, #7133."""
    sandbox.fault("status", endpoint="generate-batch", status=status)
    with pytest.raises(AirflowFailException):
        Run(batch(sandbox, deferrable=deferrable))()
    assert posts(sandbox) == 1


@MODES
@pytest.mark.parametrize(
    ("endpoint", "status"),
    [("generate-batch", 402), ("generate-batch", 404), ("lists", 403), ("list", 403), ("list", 401)],
)
def test_a_refusal_is_not_buried_under_frames(deferrable: bool, endpoint: str, status: int, sandbox: Sandbox):
    """Before the purchase, by it, and while waiting: in a trigger the refusal comes back as an event."""
    sandbox.fault("stuck")
    # Before the wait the list is read twice.
    sandbox.fault("status", endpoint=endpoint, status=status, times=None, after=2 if endpoint == "list" else 0)
    with pytest.raises(AirflowFailException) as caught:
        Run(batch(sandbox, deferrable=deferrable))()
    text = "".join(traceback.format_exception(caught.value))
    assert not [
        each for each in ("tenacity", "concurrent/futures", "httpx", "httpcore", "asyncio") if f"/{each}" in text
    ]
    assert "During handling" not in text
    assert "direct cause" not in text
    assert text.count('  File "') <= 14


@MODES
def test_a_429_is_waited_for_as_it_asks(deferrable: bool, sandbox: Sandbox, clock: Clock):
    """#21559, and the HTTP provider."""
    sandbox.fault("status", endpoint="generate-batch", status=429, headers={"Retry-After": "33"})
    before = clock()

    def let_it_pass(trigger: MachFiveCapacityTrigger) -> None:
        assert trigger.not_before >= before + 33
        clock.advance(34)

    run = Run(batch(sandbox, deferrable=deferrable), between=let_it_pass)
    assert run() == sandbox.purchases[0].list_id
    assert deferrable or clock() - before >= 33
    assert (posts(sandbox), len(sandbox.purchases)) == (2, 1)


# --- waiting


async def test_a_hanging_request_does_not_block_the_triggerer(workspace: Sandbox):
    """#47312, #35806, #20607: other triggers of the loop go on meanwhile."""
    first, second = await virtual.buy(workspace, 2)
    workspace.fault("hang", endpoint="list", contains=first)
    now = time.time()
    waiting = [
        asyncio.create_task(events_of(MachFiveListTrigger([each], CONN_ID, 20, now, now + 3600), 1e9))
        for each in (first, second)
    ]
    workspace.complete(second)
    await waiting[1]
    assert workspace.hanging == 1
    assert not waiting[0].done()
    waiting[0].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


def test_a_connection_that_cannot_be_read_is_not_a_failed_batch(sandbox: Sandbox, connect: Connect):
    """#53447, #70398, #71525."""
    sandbox.fault("stuck")
    operator = batch(sandbox, deferrable=True)
    gone = left(operator)
    connect(host="http://elsewhere.example", password="key")
    event = run_trigger(gone.trigger)
    with pytest.raises(exceptions.ConfigurationError, match="plain http") as caught:
        operator.resume(task_context(operator), event=event.payload)
    assert not isinstance(caught.value, exceptions.BatchFailedError)


def test_a_connection_with_extras_is_read_in_the_triggerer(sandbox: Sandbox, connect: Connect):
    """#65286, #71891: extra_dejson deadlocks there."""
    connect(sandbox, extra={"namespace": "prod", "max_concurrent_batches": 1})
    sandbox.fault("stuck")
    running = Run(batch(sandbox, wait_for_completion=False), run_id="first")()
    run = Run(batch(sandbox, deferrable=True), between=lambda _: sandbox.complete(running))
    assert run() == sandbox.purchases[1].list_id
    assert isinstance(run.triggers[0], MachFiveCapacityTrigger)


@MODES
@pytest.mark.parametrize("kind", ["status", "reset", "truncate", "garbage"])
def test_api_trouble_while_polling_does_not_fail_a_healthy_job(
    deferrable: bool, kind: str, sandbox: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    """#51801, #57359, airflow-provider-fivetran-async #139."""
    sandbox.fault("stuck")
    list_id = Run(batch(sandbox, wait_for_completion=False))()
    trouble = sandbox.fault(kind, endpoint="list", times=8, **({"status": 500} if kind == "status" else {}))

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if trouble.used == 8:
            sandbox.complete(list_id)

    monkeypatch.setattr(time, "sleep", sleep)
    again = batch(sandbox, deferrable=deferrable)
    assert Run(again, try_number=2, between=lambda _: sandbox.complete(list_id), after=3600)() == list_id
    assert trouble.used == 8
    assert posts(sandbox) == 1


@MODES
@pytest.mark.parametrize(
    ("status", "error"),
    [(401, exceptions.UnauthorizedError), (403, exceptions.ForbiddenError), (404, exceptions.NotFoundError)],
)
def test_a_permanent_refusal_ends_the_wait_at_once(
    deferrable: bool, status: int, error: type[Exception], sandbox: Sandbox, clock: Clock
):
    """#70177."""
    Run(batch(sandbox, wait_for_completion=False))()
    sandbox.set_status(sandbox.purchases[0].list_id, "processing")
    sandbox.fault("status", endpoint="list", times=None, status=status)
    slept = len(clock.slept)
    with pytest.raises(error) as caught:
        Run(batch(sandbox, deferrable=deferrable), try_number=2)()
    assert isinstance(caught.value, AirflowFailException)
    assert clock.slept[slept:] == []


@MODES
def test_a_404_right_after_the_submission_is_not_fatal(deferrable: bool, sandbox: Sandbox, clock: Clock):
    """#72385, #10031."""
    sandbox.fault("visible_late", seconds=60)
    run = Run(batch(sandbox, deferrable=deferrable), between=lambda _: clock.advance(60))
    assert run() == sandbox.purchases[0].list_id
    assert 404 in [request.status for request in sandbox.requests_to("list")]


def test_polling_is_slow_enough_and_spread(sandbox: Sandbox, clock: Clock):
    """#57583: every few seconds eats the rate limit."""
    sandbox.fault("stuck")
    with pytest.raises(exceptions.WaitTimeoutError):
        Run(batch(sandbox, poll_interval=0.001, timeout=20))()
    assert len(sandbox.requests_to("list")) <= 20 / 0.9 + 4  # of which one reads the name back, and two are at the end
    sandbox.reset()
    clock.slept.clear()
    sandbox.fault("stuck")
    with pytest.raises(exceptions.WaitTimeoutError):
        Run(batch(sandbox, timeout=600))()
    assert len(sandbox.requests_to("list")) <= 600 / 18 + 4
    assert max(clock.slept) <= 22
    assert len(set(clock.slept)) > 10


def test_what_is_done_already_is_not_deferred_for(sandbox: Sandbox):
    """#31188."""
    run = Run(batch(sandbox, deferrable=True))
    run()
    assert run.triggers == []


@pytest.mark.parametrize(
    "event", [None, {}, {"status": "cancelled"}, {"status": "timeout"}, {"status": "success"}, {"id": 1}, "success"]
)
def test_only_a_known_success_is_a_success(event: Any, sandbox: Sandbox):
    """#69379, #69506, #69739, #35597."""
    operator = batch(sandbox, deferrable=True)
    for resume in (operator.resume, operator.resume_submission):
        with pytest.raises(exceptions.PollingError):
            resume(task_context(operator), event=event)
    assert sandbox.requests == []


@pytest.mark.parametrize("status", ["cancelled", "timeout", "archived", "", "COMPLETED?"])
def test_an_unknown_status_of_the_list_is_not_a_success(status: str, sandbox: Sandbox):
    """#69379, #69506, #69739, #35597: it is waited on, until the deadline."""
    list_id = Run(batch(sandbox, wait_for_completion=False))()
    sandbox.set_status(list_id, status)
    with pytest.raises((exceptions.WaitTimeoutError, exceptions.PollingError)):
        Run(batch(sandbox, timeout=3600, poll_interval=60), try_number=2)()
    assert posts(sandbox) == 1


@MODES
def test_a_wait_always_has_a_deadline(deferrable: bool, sandbox: Sandbox, clock: Clock):
    """#34017, airflow-provider-fivetran-async #21, #93, #106, #172, #223: deferred for two days."""
    sandbox.fault("stuck")
    operator = batch(sandbox, deferrable=deferrable, poll_interval=600)
    with pytest.raises(exceptions.WaitTimeoutError, match="is still processing after 24 h"):
        Run(operator, between=lambda _: clock.advance(86400 + 1))()
    sandbox.complete(sandbox.purchases[0].list_id)
    assert Run(operator, try_number=2)() == sandbox.purchases[0].list_id
    assert posts(sandbox) == 1


def test_an_end_that_nobody_saw_is_seen_by_id(sandbox: Sandbox, clock: Clock):
    """#34017: the list ended while the triggerer was away; thousands of others came after it."""
    sandbox.fault("stuck")
    operator = batch(sandbox, deferrable=True)
    gone = left(operator)
    sandbox.complete(sandbox.purchases[0].list_id)
    clock.advance(3600)
    event = run_trigger(gone.trigger)
    assert event.payload["status"] == "ended"


@MODES
def test_execution_timeout_is_kept_and_ours_fires_first(deferrable: bool, sandbox: Sandbox, clock: Clock):
    """#61467, #64048, #67382."""
    sandbox.fault("stuck")
    operator = batch(sandbox, deferrable=deferrable, execution_timeout=timedelta(minutes=10))
    before = clock()
    with pytest.raises(exceptions.WaitTimeoutError, match="A retry waits for the same list, at no cost"):
        Run(operator)()
    assert clock() - before < 600


@MODES
@pytest.mark.parametrize(
    ("end", "error", "says"),
    [
        (
            "the list fails",
            exceptions.BatchFailedError,
            r"failed on MachFive's side\. A retry buys it again, up to 1 time",
        ),
        ("the time is over", exceptions.WaitTimeoutError, "is still processing after 24 h"),
        ("nobody can see it", exceptions.PollingError, "the list itself may be fine"),
    ],
    ids=["failed", "timeout", "gave up"],
)
def test_failed_and_gave_up_polling_do_not_look_the_same(
    deferrable: bool,
    end: str,
    error: type[Exception],
    says: str,
    sandbox: Sandbox,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
):
    """#69003, #72149."""
    sandbox.fault("stuck")
    list_id = Run(batch(sandbox, wait_for_completion=False))()

    def happen(_: Any = None) -> None:
        if end == "the list fails":
            sandbox.fail(list_id)
        elif end == "the time is over":
            clock.advance(86401)
        elif not sandbox.unused_faults:
            sandbox.fault("status", endpoint="list", times=None, status=500)

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if len(clock.slept) == 1:
            happen()

    monkeypatch.setattr(time, "sleep", sleep)
    run = Run(batch(sandbox, deferrable=deferrable), try_number=2, between=happen if deferrable else None)
    with pytest.raises(exceptions.MachFiveError, match=says) as caught:
        run()
    assert type(caught.value) is error
    assert list_id in caught.value.message


def test_not_waiting_wins_over_default_deferrable(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    """#40966."""
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    sandbox.fault("stuck")
    for deferrable in (True, False):
        run = Run(batch(sandbox, wait_for_completion=False, deferrable=deferrable))
        assert run() == sandbox.purchases[0].list_id
        assert run.triggers == []


@MODES
def test_xcoms_stay_small(deferrable: bool, sandbox: Sandbox, tmp_path: Any):
    """#9299, #48852."""
    leads = [{"email": f"person{number}@example.com", "name": "N" * 50} for number in range(1000)]
    run = Run(batch(sandbox, leads=leads, deferrable=deferrable, export_to=str(tmp_path / "emails.jsonl")))
    run()
    assert len(json.dumps(run.xcoms)) < 2000
    assert "person" not in json.dumps(run.xcoms)


def test_trigger_arguments_are_plain_and_hold_no_secret(sandbox: Sandbox):
    """#46863, #42925, #64960, #68017; #28563, #36492 for the token."""
    found: list[Any] = []
    sandbox.fault("stuck", times=None)
    found.append(left(batch(sandbox, deferrable=True), run_id="waits").trigger)
    sandbox.fault("status", endpoint="generate-batch", status=429, code="WORKSPACE_LIMIT")
    found.append(left(batch(sandbox, deferrable=True), run_id="full").trigger)
    found.append(left(batch(sandbox, deferrable=True), run_id="in doubt", try_number=2).trigger)
    assert [type(each) for each in found] == [
        MachFiveListTrigger,
        MachFiveCapacityTrigger,
        MachFiveUnansweredPurchaseTrigger,
    ]
    for trigger in found:
        path, kwargs = trigger.serialize()
        for value in kwargs.values():
            assert_plain(value)
        assert path == f"{type(trigger).__module__}.{type(trigger).__qualname__}"
        assert leaks([sandbox.api_key, *PERSONAL], json.dumps(kwargs), repr(trigger), str(trigger)) == []


def test_the_token_is_in_no_log_and_no_xcom(sandbox: Sandbox, logs: Logs):
    """#28563, #36492."""
    sandbox.fault("status", endpoint="generate-batch", status=500)
    run = Run(batch(sandbox))
    with pytest.raises(exceptions.AmbiguousSubmissionError) as caught:
        run()
    assert leaks([sandbox.api_key], logs.text, run.xcoms, caught.value, repr(caught.value)) == []


def test_templates_are_rendered_before_they_are_looked_at(sandbox: Sandbox):
    """#70296, #33786."""
    operator = batch(sandbox, leads="{{ params.leads | tojson }}", campaign_id="{{ params.campaign }}")
    operator.render_template_fields({"params": {"leads": list(LEADS), "campaign": sandbox.campaign_id}})
    assert Run(operator)() == sandbox.purchases[0].list_id


def test_a_resumed_task_knows_what_it_needs(sandbox: Sandbox):
    """#34270, #40521: attributes set before the deferral are gone; :class:`Run` resumes on a fresh copy."""
    sandbox.fault("stuck")
    run = Run(batch(sandbox, deferrable=True), between=lambda trigger: sandbox.complete(trigger.list_ids[0]))
    assert run() == sandbox.purchases[0].list_id
    assert len(run.triggers) == 1
    batch_ = run.xcoms["machfive_batch"]
    assert (batch_["bought"], batch_["leads_submitted"], batch_["leads_count"]) == (True, 3, 3)
