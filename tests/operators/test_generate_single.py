"""The operator for a single lead over real sockets: synchronous on a worker, a batch of one when deferrable."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from machfive_provider import exceptions
from machfive_provider.operators.generate import MachFiveGenerateOperator
from machfive_provider.sandbox import Sandbox, SandboxSettings
from tests.clock import Pauses
from tests.tasks import LEADS, PERSONAL, Logs, Run, leaks

Connect = Callable[..., None]
MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])


@pytest.fixture(autouse=True)
def _no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", Pauses())


def single(sandbox: Sandbox, **arguments: Any) -> MachFiveGenerateOperator:
    """Make the operator as a DAG author does, short of what the test sets."""
    known = {"task_id": "write", "lead": dict(LEADS[0]), "campaign_id": sandbox.campaign_id, "email_count": 2}
    return MachFiveGenerateOperator(**{**known, **arguments})


@pytest.mark.parametrize("lead", [LEADS[0], json.dumps(LEADS[0])], ids=["mapping", "text"])
def test_on_a_worker(lead: Any, sandbox: Sandbox, connect: Connect, logs: Logs):
    connect(sandbox)
    run = Run(single(sandbox, lead=lead))
    answer = run()
    (purchase,) = sandbox.purchases
    assert purchase.endpoint == "generate"
    assert set(answer) == {"lead_id", "list_id", "sequence", "credits_remaining"}
    assert answer["list_id"] == purchase.list_id
    assert answer["credits_remaining"] == sandbox.settings.credits - 1
    assert [email["step"] for email in answer["sequence"]] == [1, 2]
    assert all(set(email) == {"step", "subject", "body"} for email in answer["sequence"])
    told = run.xcoms["machfive_batch"]
    assert told.items() >= {"phase": "completed", "credits": 1, "emails_created": 2, "bought": True}.items()
    assert "this spends 1 credit." in logs.text
    assert leaks([*PERSONAL, sandbox.api_key], logs.text) == []


def test_deferrable(slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    run = Run(single(slow_sandbox, deferrable=True), between=lambda each: slow_sandbox.complete(each.list_ids[0]))
    answer = run()
    (purchase,) = slow_sandbox.purchases
    assert purchase.endpoint == "generate-batch"
    assert len(run.triggers) == 1
    assert set(answer) == {"list_id", "sequence"}
    assert answer["list_id"] == purchase.list_id
    assert len(answer["sequence"]) == 2


@pytest.mark.parametrize("kind", ["reset", "html", "garbage", "truncate"])
def test_a_lost_answer_is_fetched_from_the_list(kind: str, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    sandbox.fault(kind, endpoint="generate", accepted=True)
    # The sandbox's single leads complete with their answer.
    answer = Run(single(sandbox))()
    (purchase,) = sandbox.purchases
    assert answer["list_id"] == purchase.list_id
    assert len(answer["sequence"]) == 2
    assert "lead_id" not in answer
    assert len(sandbox.requests_to("generate")) == 1


@MODES
def test_a_retry_adopts(deferrable: bool, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    first = Run(single(sandbox, deferrable=deferrable))()
    again = Run(single(sandbox, deferrable=deferrable))()
    assert again["list_id"] == first["list_id"]
    assert again["sequence"] == first["sequence"]
    assert len(sandbox.purchases) == 1


def test_the_other_mode_adopts_as_well(sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    first = Run(single(sandbox))()
    assert Run(single(sandbox, deferrable=True))()["list_id"] == first["list_id"]
    assert len(sandbox.purchases) == 1


def test_no_answer_and_no_list(sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    sandbox.fault("reset", endpoint="generate")
    with pytest.raises(exceptions.AmbiguousSubmissionError, match="submission of 1 lead may have been accepted"):
        Run(single(sandbox))()
    assert sandbox.purchases == []
    assert len(sandbox.requests_to("generate")) == 1


@MODES
def test_a_failed_list_is_bought_again_by_a_retry(deferrable: bool, slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    end = Run(single(slow_sandbox, deferrable=True), between=lambda trigger: slow_sandbox.fail(trigger.list_ids[0]))
    with pytest.raises(exceptions.BatchFailedError, match="A retry buys it again"):
        end()
    if deferrable:
        Run(single(slow_sandbox, deferrable=True), between=lambda each: slow_sandbox.complete(each.list_ids[0]))()
    else:
        Run(single(slow_sandbox))()
    assert [purchase.list_name[-3:] == "#2]" for purchase in slow_sandbox.purchases] == [False, True]


@MODES
def test_a_list_that_lacks_its_lead(deferrable: bool, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    sandbox.fault("lose_leads")
    if not deferrable:
        sandbox.fault("reset", endpoint="generate", accepted=True)
    with pytest.raises(exceptions.IncompleteExportError, match="without the emails of its lead"):
        Run(single(sandbox, deferrable=deferrable))()


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404])
def test_a_refusal_ends_the_task(status: int, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    sandbox.fault("status", endpoint="generate", times=None, status=status)
    with pytest.raises(AirflowFailException):
        Run(single(sandbox))()
    assert len(sandbox.requests_to("generate")) == 1


@MODES
def test_the_newer_generation(deferrable: bool, connect: Connect):
    with Sandbox(SandboxSettings(generation="2026")) as sandbox:
        connect(sandbox)
        answer = Run(single(sandbox, deferrable=deferrable, email_signature="Best"))()
        assert len(answer["sequence"]) == 2
        with pytest.raises(exceptions.BadRequestError, match=r"Exactly one of options\.email_signature"):
            Run(single(sandbox, deferrable=deferrable), run_id="manual__2")()


def test_an_export_that_is_not_ready_yet_heals(sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    sandbox.fault("status", endpoint="export", status=409)
    run = Run(single(sandbox, deferrable=True))
    assert len(run()["sequence"]) == 2
    assert len(run.triggers) == 1


def test_template_fields(sandbox: Sandbox):
    operator = single(sandbox, lead="{{ params.lead | tojson }}", list_name="For {{ ds }}")
    operator.render_template_fields({"params": {"lead": LEADS[0]}, "ds": "2026-01-01"})
    assert json.loads(operator.lead) == LEADS[0]
    assert operator.list_name == "For 2026-01-01"
    for field in operator.template_fields:
        assert hasattr(operator, field)


@MODES
def test_waits_for_room(deferrable: bool, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    endpoint = "generate-batch" if deferrable else "generate"
    sandbox.fault("status", endpoint=endpoint, status=429, code="WORKSPACE_LIMIT")
    assert Run(single(sandbox, deferrable=deferrable))()["sequence"]
    assert len(sandbox.purchases) == 1


@MODES
def test_unknown_fields_are_named(deferrable: bool, sandbox: Sandbox, connect: Connect, logs: Logs):
    connect(sandbox)
    Run(single(sandbox, lead={**LEADS[0], "nam": "Solo"}, deferrable=deferrable))()
    assert "MachFive has no fields for 'nam'" in logs.text
    assert "2 emails" in logs.text
