"""The batch operator over real sockets: submit, wait in either mode, export, and never pay twice."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from airflow.sdk import Asset

from machfive_provider import exceptions
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.operators.generate import MachFiveGenerateBatchOperator
from machfive_provider.sandbox import Sandbox, SandboxSettings
from machfive_provider.triggers import events
from machfive_provider.triggers.lead_list import MachFiveListTrigger
from tests.clock import Clock, Pauses
from tests.tasks import LEADS, PERSONAL, Logs, Run, assert_plain, batch, leaks, task_context

Connect = Callable[..., None]
MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
TAG = re.compile(r"\[af1:[0-9a-f]{10}-[0-9a-f]{12}:[0-9]+\.[0-9]*\.[0-9a-f]{6}(#[0-9]+)?\]$")
EMAILS = [lead["email"] for lead in LEADS]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let no worker sleep; return how long it would have."""
    slept = Pauses()
    monkeypatch.setattr(time, "sleep", slept)
    return slept


def finish(sandbox: Sandbox, how: str = "complete") -> Callable[[Any], None]:
    """Return what ends the list that a trigger waits for, once it has been looked at."""

    def end(trigger: MachFiveListTrigger) -> None:
        (list_id,) = trigger.list_ids
        getattr(sandbox, how)(list_id)

    return end


# --- the whole way


@MODES
def test_submit_and_wait(deferrable: bool, sandbox: Sandbox, connect: Connect, pauses: list[float]):
    connect(sandbox)
    run = Run(batch(sandbox, deferrable=deferrable, list_name="Spring fair", email_count=2))
    list_id = run()

    (purchase,) = sandbox.purchases
    assert list_id == purchase.list_id
    assert purchase.emails == tuple(EMAILS)
    assert run.triggers == []  # it was done at the first look: nothing to defer for, nothing to sleep for
    assert pauses == []
    (request,) = sandbox.requests_to("generate-batch")
    assert request.json["leads"] == list(LEADS)
    assert request.json["options"] == {"email_count": 2, "list_name": purchase.list_name}
    assert purchase.list_name.startswith("Spring fair [af1:")
    first, last = (value for key, value in run.context["ti"].pushes if key == "machfive_batch")
    assert first == {
        "list_id": list_id,
        "list_name": purchase.list_name,
        "tag": TAG.search(purchase.list_name).group(),
        "generation": 1,
        "campaign_id": sandbox.campaign_id,
        "campaign_name": None,
        "conn_id": "machfive_default",
        "leads_submitted": 3,
        "leads_skipped": 0,
        "credits": 3,
        "bought": True,
        "phase": "submitted",
        "times": first["times"],
    }
    counted = {"leads_count": 3, "emails_created": 6, "phase": "completed", "times": last["times"]}
    assert last.items() >= {**first, **counted}.items()
    assert list(last["times"]) == ["submitted", "completed"]
    assert last["completed_at"].startswith("20")
    assert "machfive_export" not in run.xcoms


def test_deferral(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    run = Run(batch(slow_sandbox, deferrable=True, poll_interval=15), between=finish(slow_sandbox))
    before = time.time()
    assert run() == slow_sandbox.purchases[0].list_id
    (trigger,) = run.triggers
    assert isinstance(trigger, MachFiveListTrigger)
    _, kwargs = trigger.serialize()
    for value in kwargs.values():
        assert_plain(value)
    assert leaks([slow_sandbox.api_key, *PERSONAL], json.dumps(kwargs), repr(trigger)) == []
    assert kwargs["poll_interval"] == 15
    assert before <= kwargs["started_at"] <= kwargs["deadline"] - 86400 + 1
    assert kwargs["first_poll_at"] >= before + 15
    assert kwargs["submitted_at"] >= before
    assert run.xcoms["machfive_batch"]["leads_count"] == 3


@pytest.mark.parametrize("left", [{}, {"outlets": [Asset("s3://crm/emails")]}, {"export_to": "emails.jsonl"}], ids=str)
def test_a_task_with_nothing_left_to_do_ends_in_the_triggerer(
    left: dict[str, Any], slow_sandbox: Sandbox, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without a file to write or an XCom to push, a worker would be started for nothing."""
    connect(slow_sandbox)
    monkeypatch.chdir(tmp_path)
    run = Run(batch(slow_sandbox, deferrable=True, do_xcom_push=False, **left), between=finish(slow_sandbox))
    run()
    assert run.ended_in_triggerer is not bool(left)
    assert ("leads_count" in run.xcoms["machfive_batch"]) is bool(left)


def test_a_task_with_nothing_left_to_do_fails_all_the_same(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    run = Run(batch(slow_sandbox, deferrable=True, do_xcom_push=False), between=finish(slow_sandbox, "fail"))
    with pytest.raises(exceptions.BatchFailedError):
        run()


def test_dag_test_resumes_where_the_triggerer_would_have_ended_the_task(sandbox: Sandbox):
    assert batch(sandbox, deferrable=True, do_xcom_push=False).resume({}, "success") is None


def test_waiting_on_the_worker(slow_sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch):
    connect(slow_sandbox)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 4:
            slow_sandbox.complete(slow_sandbox.purchases[0].list_id)

    monkeypatch.setattr(time, "sleep", sleep)
    run = Run(batch(slow_sandbox, deferrable=False, poll_interval=20))
    assert run() == slow_sandbox.purchases[0].list_id
    assert len(slow_sandbox.requests_to("list")) == 1 + 5  # the first reads the name back
    assert all(18 <= each <= 22 for each in slept)


def test_no_wait(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    run = Run(batch(slow_sandbox, wait_for_completion=False, deferrable=False))
    assert run() == slow_sandbox.purchases[0].list_id
    assert len(slow_sandbox.requests_to("list")) == 1  # is the tag still in its name?
    assert set(run.xcoms) == {"machfive_batch"}


@MODES
def test_both_generations_of_the_api(deferrable: bool, connect: Connect):
    with Sandbox(SandboxSettings(generation="2026", pending_seconds=0)) as sandbox:
        connect(sandbox)
        run = Run(
            batch(
                sandbox,
                deferrable=deferrable,
                email_count=2,
                email_signature="Best",
                enrichment_enabled=True,
                notification_email="ops@example.com",
                additional_details="The fair in May",
                approved_ctas=["Demo CTA"],
            )
        )
        run()
        (purchase,) = sandbox.purchases
        assert purchase.credits == 6
        options = sandbox.requests_to("generate-batch")[0].json["options"]
        assert options.items() >= {"enrichment_enabled": True, "additional_details": "The fair in May"}.items()


def test_campaign_by_name(sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    Run(batch(sandbox, campaign_name=sandbox.workspaces[0].campaigns[0].name.lower()))()
    assert sandbox.purchases[0].campaign_id == sandbox.campaign_id


def test_old_options_still_pass(sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    Run(batch(sandbox, options={"campaign_angle": "The fair"}))()
    assert sandbox.requests_to("generate-batch")[0].json["options"]["campaign_angle"] == "The fair"


def test_leads_as_text_and_from_a_file(sandbox: Sandbox, connect: Connect, tmp_path: Path):
    connect(sandbox)
    path = tmp_path / "leads.csv"
    path.write_text(
        "\ufeffE-mail,Full Name,Company Name,Shoe size\n"
        + "".join(f"{lead['email']},{lead['name']},{lead['company']},44\n" for lead in LEADS),
        encoding="utf-8",
    )
    Run(batch(sandbox, leads=json.dumps(LEADS)))()
    Run(batch(sandbox, leads_path=str(path)), run_id="manual__2")()
    assert [purchase.emails for purchase in sandbox.purchases] == [tuple(EMAILS)] * 2


def test_bad_leads_and_duplicates_may_be_left_out(sandbox: Sandbox, connect: Connect, logs: Logs):
    connect(sandbox)
    leads = [*LEADS, {"email": "nobody"}, {"email": "DANA.REYES@example.com"}]
    run = Run(batch(sandbox, leads=leads, on_invalid_lead="skip", on_duplicate_lead="first"))
    run()
    assert run.xcoms["machfive_batch"].items() >= {"leads_submitted": 3, "leads_skipped": 2}.items()
    assert "2 of 5 leads skipped: leads[3]: email is not a valid address (" in logs.text
    assert "; leads[4]: same email as leads[0]" in logs.text


# --- export


@MODES
@pytest.mark.parametrize("form", ["jsonl", "json", "csv"])
def test_export(deferrable: bool, form: str, slow_sandbox: Sandbox, connect: Connect, tmp_path: Path):
    connect(slow_sandbox)
    target = tmp_path / "deep" / f"emails.{form}"
    operator = batch(slow_sandbox, deferrable=deferrable, export_to=str(target), email_count=2)
    slow_sandbox.fault("status", endpoint="list", status=500)  # a passing failure, to have both modes wait
    if deferrable:
        run = Run(operator, between=finish(slow_sandbox))
    else:
        run = Run(operator)
        slow_sandbox.fault("end_when_polled", times=None)
    run()
    content = target.read_bytes()
    assert run.xcoms["machfive_export"] == {
        "path": str(target),
        "bytes": len(content),
        "leads": 3,
        "emails": 6,
        "missing": 0,
        "extra": 0,
        "short": 0,
        "odd": 0,
        "suppressed_later": 0,
        "missing_path": None,
    }
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(content.decode())))
        assert [row["email"] for row in rows] == EMAILS
    else:
        leads = [json.loads(line) for line in content.splitlines()] if form == "jsonl" else json.loads(content)["leads"]
        assert [lead["email"] for lead in leads] == EMAILS
        assert all(len(lead["sequence"]) == 2 for lead in leads)
    assert [each.name for each in target.parent.iterdir()] == [target.name]


@MODES
def test_an_export_that_is_not_ready_yet_heals(
    deferrable: bool, sandbox: Sandbox, connect: Connect, tmp_path: Path, pauses: list[float]
):
    connect(sandbox)
    sandbox.fault("status", endpoint="export", status=409, times=2)
    target = tmp_path / "emails.jsonl"
    run = Run(batch(sandbox, deferrable=deferrable, export_to=str(target), poll_interval=15))
    run()
    assert len(target.read_text().splitlines()) == 3
    assert len(sandbox.requests_to("export")) == 3
    assert len(sandbox.purchases) == 1
    assert len(run.triggers) == (2 if deferrable else 0)
    assert deferrable or pauses.count(15.0) == 2


def test_a_broken_export_leaves_nothing_behind(sandbox: Sandbox, connect: Connect, tmp_path: Path):
    connect(sandbox)
    target = tmp_path / "emails.jsonl"
    operator = batch(sandbox, export_to=str(target))
    sandbox.fault("truncate", endpoint="export")
    with pytest.raises(exceptions.TransportError):
        Run(operator)()
    assert list(tmp_path.iterdir()) == []
    Run(operator)()  # the retry adopts, and exports
    assert len(target.read_text().splitlines()) == 3
    assert len(sandbox.purchases) == 1


@pytest.mark.parametrize(
    ("policy", "raises"), [("fail", exceptions.IncompleteExportError), ("warn", None), ("ignore", None)]
)
def test_missing_leads(
    policy: str,
    raises: type[Exception] | None,
    sandbox: Sandbox,
    connect: Connect,
    tmp_path: Path,
    logs: Logs,
):
    connect(sandbox)
    sandbox.fault("lose_leads")
    run = Run(batch(sandbox, export_to=str(tmp_path / "emails.jsonl"), on_missing_leads=policy))
    if raises:
        with pytest.raises(raises, match=r"lacks 1 of the 3 leads.*on_missing_leads='warn'"):
            run()
    else:
        run()
    assert run.xcoms["machfive_export"]["missing"] == 1
    assert ("lacks 1 of the 3 leads" in logs.text) == (policy == "warn")
    assert leaks(PERSONAL, logs.text) == []


def test_leads_that_change_meanwhile_are_counted(slow_sandbox: Sandbox, connect: Connect, tmp_path: Path, logs: Logs):
    """The file is another one when the task resumes: the number that was bought still holds."""
    connect(slow_sandbox)
    leads = tmp_path / "leads.jsonl"
    leads.write_text("\n".join(map(json.dumps, LEADS)))
    target = tmp_path / "emails.jsonl"

    def end(trigger: MachFiveListTrigger) -> None:
        leads.write_text(json.dumps({"email": "somebody.else@example.com"}))
        slow_sandbox.complete(trigger.list_ids[0])

    slow_sandbox.fault("lose_leads")
    run = Run(batch(slow_sandbox, leads_path=str(leads), export_to=str(target), deferrable=True), between=end)
    with pytest.raises(exceptions.IncompleteExportError, match="lacks 1 of the 3 leads"):
        run()
    assert "they are counted, not compared" in logs.text
    assert len(slow_sandbox.purchases) == 1


def test_an_existing_destination_is_refused_before_anything_is_bought(
    sandbox: Sandbox, connect: Connect, tmp_path: Path
):
    connect(sandbox)
    target = tmp_path / "emails.jsonl"
    target.write_text("precious")
    with pytest.raises(exceptions.ConfigurationError, match="exists and overwrite is False"):
        Run(batch(sandbox, export_to=str(target), overwrite=False))()
    assert sandbox.purchases == []
    assert target.read_text() == "precious"
    Run(batch(sandbox, export_to=str(target)))()
    assert "precious" not in target.read_text()


def test_a_repeated_export_of_the_same_bytes_is_fine(sandbox: Sandbox, connect: Connect, tmp_path: Path):
    connect(sandbox)
    operator = batch(sandbox, export_to=str(tmp_path / "emails.jsonl"), overwrite=False)
    assert Run(operator)() == Run(operator)()
    assert len(sandbox.purchases) == 1


# --- buying exactly once


def test_a_clear_adopts_and_other_runs_do_not(sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    operator = batch(sandbox)
    first = Run(operator)()
    assert Run(operator, clears=1)() == first
    assert Run(operator, map_index=3)() == first  # shards are told apart by their leads alone
    assert Run(operator, run_id="manual__2")() != first
    assert Run(batch(sandbox, leads=list(LEADS[:2])))() != first
    assert len(sandbox.purchases) == 3


def test_resubmit_pays_once_for_each_clear(sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    operator = batch(sandbox, on_existing_list="resubmit", retries=2)
    first = Run(operator)()
    assert Run(operator)() == first  # a retry
    second = Run(operator, clears=1)()
    assert second != first
    assert Run(operator, clears=1)() == second
    assert len(sandbox.purchases) == 2


def test_fail_refuses_what_is_bought_already(sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    first = Run(batch(sandbox))()
    with pytest.raises(exceptions.MachFivePermanentError, match=f"already bought, as list {first}"):
        Run(batch(sandbox, on_existing_list="fail"))()
    assert len(sandbox.purchases) == 1


@MODES
def test_a_failed_list_is_bought_again_by_the_retry(deferrable: bool, slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    operator = batch(slow_sandbox, deferrable=deferrable, max_resubmissions=1)
    slow_sandbox.fault("fail_list", times=2)
    for generation in (1, 2):
        run = Run(batch(slow_sandbox, wait_for_completion=False))
        assert run() == slow_sandbox.purchases[-1].list_id
        assert run.xcoms["machfive_batch"]["generation"] == generation
        slow_sandbox.fail(slow_sandbox.purchases[-1].list_id)
        assert len(slow_sandbox.purchases) == generation
    with pytest.raises(exceptions.ListFailedError, match="bought 2 times") as caught:
        Run(operator)()
    assert isinstance(caught.value, AirflowFailException)
    assert len(slow_sandbox.purchases) == 2
    assert slow_sandbox.purchases[1].list_name.endswith("#2]")


@MODES
def test_a_list_that_fails_while_waited_for(deferrable: bool, slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    if deferrable:
        run = Run(batch(slow_sandbox, deferrable=True), between=finish(slow_sandbox, "fail"))
    else:
        slow_sandbox.fault("status", endpoint="list", times=1, status=503)
        run = Run(batch(slow_sandbox, deferrable=False))
        slow_sandbox.fault("end_when_polled", status="failed")
    with pytest.raises(exceptions.BatchFailedError, match="up to 1 time") as caught:
        run()
    assert not isinstance(caught.value, AirflowFailException)
    assert caught.value.retryable


@pytest.mark.parametrize("status", [{"status": 408, "code": "REQUEST_TIMEOUT"}, {"status": 204, "body": ""}], ids=str)
def test_accepted_without_a_usable_response(status: dict[str, Any], sandbox: Sandbox, connect: Connect, logs: Logs):
    """The other ways to lose the response are in ``test_ambiguous_endings``."""
    connect(sandbox)
    sandbox.fault("status", endpoint="generate-batch", accepted=True, **status)
    run = Run(batch(sandbox))
    assert run() == sandbox.purchases[0].list_id
    assert len(sandbox.requests_to("generate-batch")) == len(sandbox.purchases) == 1
    assert run.xcoms["machfive_batch"]["bought"] is True
    assert "not known whether the submission was accepted" in logs.text


def test_a_double_purchase_is_reported(sandbox: Sandbox, connect: Connect, logs: Logs):
    """Somebody bought it twice, by hand say: the oldest is used and the other one named."""
    connect(sandbox)
    operator = batch(sandbox)
    first = Run(operator)()
    with MachFiveHook() as hook:
        again = hook.generate_batch(sandbox.campaign_id, LEADS, {"list_name": sandbox.purchases[0].list_name})
    assert Run(operator)() == first
    assert f"bought more than once. Using list {first};" in logs.text
    assert f"paid for and not used: {again.list_id}." in logs.text


def test_the_support_desk_gets_its_facts(sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    sandbox.fault("status", endpoint="generate-batch", status=500, request_id="req_desk")
    with pytest.raises(exceptions.AmbiguousSubmissionError) as caught:
        Run(batch(sandbox))()
    assert (caught.value.status_code, caught.value.code) == (500, "INTERNAL_ERROR")
    assert caught.value.retryable
    assert caught.value.endpoint == "POST /api/v1/campaigns/{campaign_id}/generate-batch"
    assert "[af1:" in str(caught.value)
    assert "request id req_desk" in str(caught.value)


def test_lists_that_cannot_be_read_are_not_absent(sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    sandbox.fault("status", endpoint="lists", times=None, status=500, headers={"Retry-After": "0"})
    with pytest.raises(exceptions.ServerError):
        Run(batch(sandbox))()
    assert sandbox.requests_to("generate-batch") == []


# --- a full workspace


def fill(sandbox: Sandbox, connect: Connect) -> list[str]:
    """Take up every place in the workspace."""
    for number in range(sandbox.settings.concurrency):
        Run(batch(sandbox, wait_for_completion=False), run_id=f"full_{number}")()
    return [purchase.list_id for purchase in sandbox.purchases]


def test_a_full_workspace_is_waited_for_on_the_worker(
    slow_sandbox: Sandbox, connect: Connect, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    connect(slow_sandbox)
    running = fill(slow_sandbox, connect)
    slow_sandbox.fault(
        "status", endpoint="generate-batch", status=429, headers={"Retry-After": "33"}, code="WORKSPACE_LIMIT"
    )

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if len(clock.slept) == 3:
            slow_sandbox.complete(running[0])

    monkeypatch.setattr(time, "sleep", sleep)
    slow_sandbox.fault("end_when_polled", times=None)
    run = Run(batch(slow_sandbox, deferrable=False, poll_interval=20))
    assert run() == slow_sandbox.purchases[-1].list_id
    assert 29 < clock.slept[0] < 37
    assert all(18 <= each <= 22 for each in clock.slept[1:3])


@MODES
def test_no_room_in_time(deferrable: bool, sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch):
    connect(sandbox)
    sandbox.fault("status", endpoint="generate-batch", times=None, status=429, code="WORKSPACE_LIMIT")
    clock = [time.time()]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    operator = batch(sandbox, deferrable=deferrable, capacity_timeout=timedelta(minutes=10), poll_interval=60)
    if deferrable:
        with pytest.raises(TaskDeferred) as caught:
            operator.execute(task_context(operator))
        assert caught.value.method_name == "resume_submission"
        clock[0] += 601
        event = events.submit(caught.value.trigger.attempt)
        with pytest.raises(exceptions.CapacityTimeoutError, match=r"for 10 min.*Nothing was bought"):
            operator.resume_submission(task_context(operator), event)
    else:
        with pytest.raises(exceptions.CapacityTimeoutError, match=r"for 10 min.*Nothing was bought") as raised:
            operator.execute(task_context(operator))
        assert raised.value.retryable
    assert sandbox.purchases == []


def test_a_resume_validates_no_plain_address_again(
    slow_sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
):
    """The regular expression is enough for plain ASCII addresses: resumes of large lists stay cheap."""
    connect(slow_sandbox)
    slow_sandbox.fault("status", endpoint="generate-batch", times=1, status=429, code="WORKSPACE_LIMIT")
    operator = batch(
        slow_sandbox, deferrable=True, leads=[{"email": f"lead{number}@Example.com"} for number in range(9)]
    )
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(task_context(operator))
    monkeypatch.setattr("email_validator.validate_email", lambda *_, **__: pytest.fail("validated by the library"))
    with pytest.raises(TaskDeferred):
        operator.resume_submission(task_context(operator), events.submit(caught.value.trigger.attempt))
    assert [each.credits for each in slow_sandbox.purchases] == [9]


# --- what people see


def test_the_batch_is_told_before_the_deferral(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    operator = batch(slow_sandbox, deferrable=True)
    context = task_context(operator)
    with pytest.raises(TaskDeferred):
        operator.execute(context)
    assert context["ti"].xcoms["machfive_batch"]["list_id"] == slow_sandbox.purchases[0].list_id


@MODES
def test_no_person_and_no_key_in_the_log(
    deferrable: bool, sandbox: Sandbox, connect: Connect, logs: Logs, tmp_path: Path
):
    connect(sandbox)
    sandbox.fault("reset", endpoint="generate-batch", accepted=True)
    leads = [*LEADS, {"email": "bad.person@"}]
    run = Run(
        batch(
            sandbox,
            leads=leads,
            on_invalid_lead="skip",
            deferrable=deferrable,
            export_to=str(tmp_path / "emails.csv"),
        )
    )
    run()
    assert "Wrote" in logs.text
    assert leaks([*PERSONAL, "bad.person", sandbox.api_key], logs.text, json.dumps(run.xcoms)) == []


def test_the_log_says_what_is_spent(sandbox: Sandbox, connect: Connect, logs: Logs):
    connect(sandbox)
    Run(batch(sandbox))()
    assert "Submitting 3 leads; if accepted, this spends 3 credits." in logs.text
    logs.clear()
    Run(batch(sandbox))()
    assert "An earlier try has already bought this batch" in logs.text
    assert "Submitting" not in logs.text


def test_template_fields(sandbox: Sandbox):
    operator = batch(
        sandbox,
        leads="{{ params.leads | tojson }}",
        campaign_id="{{ params.campaign }}",
        list_name="Leads of {{ ds }}",
        options={"campaign_angle": "{{ ds }}"},
        export_to="/tmp/{{ ds }}.jsonl",
    )
    operator.render_template_fields(
        {"params": {"leads": list(LEADS), "campaign": sandbox.campaign_id}, "ds": "2026-01-01"}
    )
    assert json.loads(operator.leads) == list(LEADS)
    assert operator.campaign_id == sandbox.campaign_id
    assert operator.list_name == "Leads of 2026-01-01"
    assert operator.options == {"campaign_angle": "2026-01-01"}
    assert operator.export_to == "/tmp/2026-01-01.jsonl"
    assert operator.template_fields_renderers["leads"] == "json"
    assert set(operator.template_fields_renderers) - {"lead"} <= set(operator.template_fields)


def test_values_that_look_like_template_files_stay_values(sandbox: Sandbox):
    assert MachFiveGenerateBatchOperator.template_ext == ()


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, exceptions.UnauthorizedError), (403, exceptions.ForbiddenError), (404, exceptions.NotFoundError)],
)
def test_a_refused_look_while_deferred_raises_its_class(
    status: int, error: type[exceptions.MachFiveError], slow_sandbox: Sandbox, connect: Connect
):
    """By way of the event, as plain JSON, and with what support asks for."""
    connect(slow_sandbox)

    def refuse(trigger: MachFiveListTrigger) -> None:
        trigger.submitted_at = None
        slow_sandbox.fault("status", endpoint="list", times=None, status=status, request_id="req_later")

    operator = batch(slow_sandbox, deferrable=True)
    context = task_context(operator)
    # Adopted by a retry: a 404 shortly after one's own submission would only mean "not visible yet".
    Run(batch(slow_sandbox, wait_for_completion=False))()
    with pytest.raises(error, match="req_later"):
        Run(operator, context, between=refuse)()
    assert len(slow_sandbox.requests_to("list")) - 1 <= 4


@MODES
def test_an_adopted_list_that_has_completed_is_told_in_full(deferrable: bool, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    Run(batch(sandbox, wait_for_completion=False))()
    run = Run(batch(sandbox, deferrable=deferrable))
    run()
    known = run.xcoms["machfive_batch"]
    assert (known["bought"], known["leads_count"]) == (False, len(LEADS))
    assert known["emails_created"]
    assert known["completed_at"]


def test_room_is_not_asked_for_more_than_once_a_second(sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    sandbox.fault("status", endpoint="generate-batch", status=429, code="WORKSPACE_LIMIT")
    operator = batch(sandbox, deferrable=True, poll_interval=0.001)
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(task_context(operator))
    assert caught.value.trigger.poll_interval == 1


@pytest.mark.parametrize("status", [401, 403, 500])
def test_an_ambiguity_stays_one_whatever_the_look_after_it_says(status: int, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    sandbox.fault("reset", endpoint="generate-batch", accepted=True)
    sandbox.fault("status", endpoint="lists", after=1, times=None, status=status)
    operator = batch(sandbox)
    with pytest.raises(exceptions.AmbiguousSubmissionError):
        operator.execute(task_context(operator))
    assert len(sandbox.purchases) == 1


def test_buying_again_is_announced(sandbox: Sandbox, connect: Connect, logs: Logs):
    connect(sandbox)
    sandbox.fault("fail_list")
    with pytest.raises(exceptions.BatchFailedError):
        Run(batch(sandbox))()
    Run(batch(sandbox))()
    assert "has failed on MachFive's side: buying the batch again, as generation 2" in logs.text


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ({"list_name": "Spring fair"}, "Spring fair"),
        ({"leads_path": "s3://bucket/shards/0007.csv"}, "0007.csv"),
        ({"export_to": "/out/emails.csv"}, "emails.csv"),
        ({}, ""),
    ],
)
def test_the_label_of_a_mapped_task(given: dict[str, Any], label: str, sandbox: Sandbox):
    assert batch(sandbox, **given).label == label


def test_a_mapped_task_shows_its_label_unless_the_user_says_otherwise():
    mapped = MachFiveGenerateBatchOperator.partial(task_id="write", campaign_name="Spring").expand(leads=[[], []])
    assert "task.label" in mapped.map_index_template
    own = MachFiveGenerateBatchOperator.partial(task_id="w", campaign_name="Spring", map_index_template="{{ x }}")
    assert own.expand(leads=[[]]).map_index_template == "{{ x }}"
