"""The example DAG that sends a mail on failure, in a real Airflow, against a mail server of our own."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from machfive_provider.sandbox import Sandbox
from scripts.live_airflow import LiveAirflow
from tests.jobs.conftest import MAIL_DAG
from tests.jobs.mail_sink import MailSink

pytestmark = pytest.mark.live
TIMEOUT = 150.0


def mail_of_a_failed_run(live: LiveAirflow, mails: MailSink, run_id: str) -> tuple[str, str]:
    """Run the example until it fails; return the mail's subject and the text of its first line."""
    live.trigger(MAIL_DAG, run_id=run_id)
    assert live.wait(MAIL_DAG, run_id, TIMEOUT).state == "failed"
    # Airflow calls the notifier after it has reported the state.
    mail = mails.next_mail(TIMEOUT)
    body = mail.get_body()
    assert body is not None
    line = re.search(r"<p>(.*?)</p>", body.get_content())
    assert line
    assert mails.is_empty()
    return mail["Subject"], html.unescape(line[1])


def test_a_refused_purchase_is_told_with_reason_cost_and_remedy(
    live: LiveAirflow, mails: MailSink, sandbox: Sandbox
) -> None:
    sandbox.fault("status", "generate-batch", status=402, code="INSUFFICIENT_CREDITS", contains="no-credits")
    subject, line = mail_of_a_failed_run(live, mails, "no-credits")
    assert subject == "MachFive: machfive_notifications.write_emails failed"
    assert line.startswith("machfive_notifications.write_emails, run no-credits: ")
    assert "Nothing was spent. Upgrade or wait for the reset, then clear the task." in line
    assert "402 INSUFFICIENT_CREDITS" in line


def test_what_is_found_after_the_wait_names_its_list_and_the_file_of_missing_leads(
    live: LiveAirflow, mails: MailSink, sandbox: Sandbox, data: Path
) -> None:
    sandbox.fault("lose_leads", "generate-batch", count=2, contains="leads-missing")
    _, line = mail_of_a_failed_run(live, mails, "leads-missing")
    list_id = live.xcom(MAIL_DAG, "leads-missing", "write_emails", "machfive_batch")["list_id"]
    assert f"list {list_id} lacks 2 of the 58 leads" in line
    assert str(data / "emails-leads-missing.jsonl.missing.csv") in line
