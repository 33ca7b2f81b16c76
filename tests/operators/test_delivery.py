"""Delivery counted, over real sockets: what was bought is what came back, or everybody learns what is not."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from machfive_provider import exceptions
from machfive_provider.operators.generate import MachFiveGenerateBatchOperator, MachFiveGenerateOperator
from machfive_provider.sandbox import Sandbox
from tests.clock import Pauses
from tests.delivery import test_destination
from tests.tasks import LEADS, PERSONAL, Logs, Run, batch, leaks

Connect = Callable[..., None]
MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
FORMS = pytest.mark.parametrize("form", ["jsonl", "json", "csv"])
POLICIES = pytest.mark.parametrize("policy", ["fail", "warn", "ignore"])
bucket = test_destination.bucket


@pytest.fixture(autouse=True)
def _no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", Pauses())


def exporting(sandbox: Sandbox, export_to: Any, **arguments: Any) -> MachFiveGenerateBatchOperator:
    return batch(sandbox, export_to=str(export_to), **arguments)


def figures(run: Run) -> tuple[int | None, ...]:
    told = run.xcoms["machfive_export"]
    return tuple(told[name] for name in ("leads", "missing", "extra", "short"))


@MODES
@FORMS
@POLICIES
def test_missing_leads_are_ready_to_be_submitted_again(
    policy: str,
    form: str,
    deferrable: bool,
    sandbox: Sandbox,
    connect: Connect,
    tmp_path: Path,
    logs: Logs,
):
    connect(sandbox)
    sandbox.fault("lose_leads", count=2)
    target, beside = tmp_path / f"emails.{form}", tmp_path / f"emails.{form}.missing.csv"
    run = Run(exporting(sandbox, target, export_format=form, on_missing_leads=policy, deferrable=deferrable))
    if policy == "fail":
        with pytest.raises(exceptions.IncompleteExportError, match="lacks 2 of the 3 leads") as caught:
            run()
        for told in (str(beside), "leads_path", "on_missing_leads='warn'", "support", sandbox.purchases[0].list_id):
            assert told in str(caught.value)
        assert leaks(PERSONAL, str(caught.value)) == []
    else:
        run()
        assert logs.count("lacks 2 of the 3 leads") == (policy == "warn")
        assert logs.count(str(beside)) == 1
    assert figures(run) == (1, 2, 0, None)
    assert run.xcoms["machfive_export"]["missing_path"] == str(beside)
    assert leaks(PERSONAL, logs.text) == []
    with beside.open(newline="") as file:
        assert list(csv.DictReader(file)) == list(LEADS[1:])

    Run(exporting(sandbox, tmp_path / "rest.jsonl", leads_path=str(beside)), run_id="manual__2")()
    assert sandbox.requests_to("generate-batch")[-1].json["leads"] == list(LEADS[1:])


def test_an_object_store_gets_the_file_as_well(sandbox: Sandbox, connect: Connect, bucket: Any):
    connect(sandbox)
    sandbox.fault("lose_leads")
    run = Run(exporting(sandbox, "memory://crm/emails.jsonl", on_missing_leads="warn"))
    run()
    assert run.xcoms["machfive_export"]["missing_path"] == "memory://crm/emails.jsonl.missing.csv"
    assert b"sam.okafor@example.net" in bucket.objects["/crm/emails.jsonl.missing.csv"]
    Run(exporting(sandbox, "memory://crm/emails.jsonl"), run_id="manual__2")()
    assert list(bucket.objects) == ["/crm/emails.jsonl"]


def test_the_file_of_an_earlier_attempt_goes_when_nothing_is_missing(
    sandbox: Sandbox, connect: Connect, tmp_path: Path, logs: Logs
):
    connect(sandbox)
    sandbox.fault("lose_leads")
    with pytest.raises(exceptions.IncompleteExportError):
        Run(exporting(sandbox, tmp_path / "emails.jsonl"))()
    assert len(list(tmp_path.iterdir())) == 2
    run = Run(exporting(sandbox, tmp_path / "emails.jsonl"), run_id="manual__2")
    run()
    assert [each.name for each in tmp_path.iterdir()] == ["emails.jsonl"]
    assert figures(run) == (3, 0, 0, None)
    assert run.xcoms["machfive_export"]["missing_path"] is None
    assert logs.count("Nothing is missing: 3 leads expected, all delivered.") == 1


def test_a_file_that_cannot_be_removed_is_told_and_fails_nothing(
    sandbox: Sandbox, connect: Connect, tmp_path: Path, logs: Logs
):
    connect(sandbox)
    (tmp_path / "emails.jsonl.missing.csv").mkdir()
    run = Run(exporting(sandbox, tmp_path / "emails.jsonl"))
    run()
    assert logs.count("emails.jsonl.missing.csv' was written by an earlier attempt") == 1
    assert run.xcoms["machfive_export"]["missing_path"] is None


@FORMS
@POLICIES
def test_extra_leads(policy: str, form: str, sandbox: Sandbox, connect: Connect, tmp_path: Path, logs: Logs):
    connect(sandbox)
    sandbox.fault("extra_leads", count=2)
    run = Run(exporting(sandbox, tmp_path / "emails", export_format=form, on_missing_leads=policy))
    run()
    assert figures(run) == (5, 0, 2, None)
    assert logs.count("holds 2 leads more than was bought") == 1
    assert [each.name for each in tmp_path.iterdir()] == ["emails"]
    assert leaks([*PERSONAL, "stranger"], logs.text) == []


def test_an_extra_lead_hides_no_missing_one(sandbox: Sandbox, connect: Connect, tmp_path: Path, logs: Logs):
    connect(sandbox)
    sandbox.fault("lose_leads")
    sandbox.fault("extra_leads")
    run = Run(exporting(sandbox, tmp_path / "emails.jsonl"))
    with pytest.raises(exceptions.IncompleteExportError, match="lacks 1 of the 3 leads"):
        run()
    assert figures(run) == (3, 1, 1, None)
    assert logs.count("holds 1 lead more than was bought") == 1


def test_the_same_lead_again_is_extra_and_emails_are_compared_whatever_their_case(
    sandbox: Sandbox, connect: Connect, tmp_path: Path
):
    connect(sandbox)
    emails = [{"step": 1, "subject": "Hi", "body": "Hello"}]
    delivered = [{"email": lead["email"].upper(), "sequence": emails} for lead in (*LEADS, LEADS[0])]
    body = json.dumps({"leads": delivered})
    sandbox.fault("status", endpoint="export", status=200, body=body, content_type="application/json")
    run = Run(exporting(sandbox, tmp_path / "emails.jsonl", email_count=1))
    run()
    assert figures(run) == (4, 0, 1, 0)


@MODES
@FORMS
@pytest.mark.parametrize("asked", [{"email_count": "3"}, {"options": {"email_count": 3}}, {}], ids=str)
def test_leads_with_fewer_emails_than_asked(
    asked: dict[str, Any],
    form: str,
    deferrable: bool,
    sandbox: Sandbox,
    connect: Connect,
    tmp_path: Path,
    logs: Logs,
):
    connect(sandbox)
    sandbox.fault("short_sequences", count=2)
    run = Run(exporting(sandbox, tmp_path / "emails", export_format=form, deferrable=deferrable, **asked))
    run()
    assert figures(run) == (3, 0, 0, 2 if asked else None)
    assert logs.count("holds 2 leads whose emails are fewer than email_count=3 asks for") == bool(asked)
    assert len(sandbox.requests_to("export")) == (2 if form == "csv" else 1)
    assert leaks(PERSONAL, logs.text) == []


def test_a_whole_csv_is_fetched_once(sandbox: Sandbox, connect: Connect, tmp_path: Path, logs: Logs):
    connect(sandbox)
    sandbox.fault("lose_leads")
    operator = exporting(sandbox, tmp_path / "a.csv", export_format="csv", email_count=3, on_missing_leads="ignore")
    run = Run(operator)
    run()
    assert figures(run) == (2, 1, 0, 0)
    assert len(sandbox.requests_to("export")) == 1


def test_leads_that_change_meanwhile_are_only_counted(
    slow_sandbox: Sandbox, connect: Connect, tmp_path: Path, logs: Logs
):
    """No file is written, and none of another result stays beside this one."""
    connect(slow_sandbox)
    leads, beside = tmp_path / "leads.jsonl", tmp_path / "emails.jsonl.missing.csv"
    leads.write_text("\n".join(map(json.dumps, LEADS)))
    beside.write_text("email\nold@example.com\n")

    def end(trigger: Any) -> None:
        leads.write_text(json.dumps({"email": "somebody.else@example.com"}))
        slow_sandbox.complete(trigger.list_ids[0])

    slow_sandbox.fault("lose_leads")
    operator = exporting(slow_sandbox, tmp_path / "emails.jsonl", leads_path=str(leads), deferrable=True, email_count=3)
    run = Run(operator, between=end)
    with pytest.raises(exceptions.IncompleteExportError, match=r"lacks 1 of the 3 leads.*Only their number is known"):
        run()
    assert figures(run) == (2, 1, 0, None)
    assert run.xcoms["machfive_export"]["missing_path"] is None
    assert not beside.exists()


# --- a single lead


@pytest.mark.parametrize(("asked", "warned"), [(2, True), (None, False)])
def test_a_single_lead_with_fewer_emails_than_asked(
    asked: int | None, warned: bool, slow_sandbox: Sandbox, connect: Connect, logs: Logs
):
    connect(slow_sandbox)
    slow_sandbox.fault("short_sequences")
    operator = MachFiveGenerateOperator(
        task_id="write", lead=dict(LEADS[0]), campaign_id=slow_sandbox.campaign_id, email_count=asked, deferrable=True
    )
    answer = Run(operator, between=lambda trigger: slow_sandbox.complete(trigger.list_ids[0]))()
    assert len(answer["sequence"]) == (asked or 3) - 1
    assert logs.count("has 1 usable email of 2: the others are missing") == warned
    assert leaks(PERSONAL, logs.text) == []


def test_a_single_lead_with_all_its_emails(sandbox: Sandbox, connect: Connect, logs: Logs):
    connect(sandbox)
    operator = MachFiveGenerateOperator(
        task_id="write", lead=dict(LEADS[0]), campaign_id=sandbox.campaign_id, email_count=2, deferrable=True
    )
    Run(operator)()
    assert "usable" not in logs.text
