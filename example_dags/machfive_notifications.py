"""A mail when a batch has failed for good: which one, what happened, what it means for the money, what to do.

Airflow's own SMTP notifier sends it, over the connection `smtp_default`. It is called after the last retry only:
a full workspace or an outage that heals sends no mail. The text is that of the error, which holds no lead's data.
"""

from __future__ import annotations

import os
from pathlib import Path

import pendulum
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG, Context

from machfive_provider.operators.generate import MachFiveGenerateBatchOperator

LEADS = Path(__file__).parent / "data" / "leads.csv"
RESULTS = os.environ.get("MACHFIVE_RESULTS", str(Path.cwd() / "results"))

TASK = "{{ ti.dag_id }}.{{ ti.task_id }}{{ '[%d]' % ti.map_index if ti.map_index >= 0 else '' }}"
# A worker that was lost leaves no exception; Airflow's DAG processor then calls the function.
REASON = "{{ exception | default('Its worker was lost. Clear the task: it pays nothing twice.') | e }}"


def mail_on_failure(context: Context) -> None:
    """Send a mail about the task. A new notifier for each: one keeps the texts that it rendered for its first mail."""
    SmtpNotifier(
        from_email=os.environ.get("MACHFIVE_MAIL_FROM", "airflow@example.com"),
        to=os.environ.get("MACHFIVE_MAIL_TO", "you@example.com"),
        subject=f"MachFive: {TASK} failed",
        html_content=f"<p>{TASK}, run {{{{ ti.run_id }}}}: {REASON}</p><p><a href='{{{{ ti.log_url }}}}'>Log</a></p>",
    )(context)


with DAG(
    dag_id="machfive_notifications",
    description="A mail when a batch fails",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 3, "on_failure_callback": mail_on_failure},
    tags=["machfive", "example"],
    doc_md=__doc__,
) as dag:
    MachFiveGenerateBatchOperator(
        task_id="write_emails",
        leads_path=str(LEADS),
        campaign_name=os.environ.get("MACHFIVE_CAMPAIGN", "Spring Outreach"),
        list_name="Leads of {{ run_id }}",
        email_count=3,
        email_signature="Alex Morgan\nNorthwind Analytics",
        on_invalid_lead="skip",
        on_duplicate_lead="first",
        deferrable=True,
        poll_interval=10,
        export_to=f"{RESULTS}/emails-{{{{ run_id }}}}.jsonl",
    )
