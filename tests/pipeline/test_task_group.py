"""What the pipeline is made of. That it runs is tested in tests/jobs and tests/e2e."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import DAG

from machfive_provider.exceptions import ConfigurationError
from machfive_provider.pipeline.task_group import machfive_pipeline

FILE = {"leads_path": "leads.csv", "leads_folder": "folder", "campaign_name": "Spring"}
QUERY = {"sql": "SELECT 1", "sql_conn_id": "crm", "leads_folder": "folder", "campaign_name": "Spring"}


def tasks(**arguments: Any) -> dict[str, Any]:
    """Return the tasks of a pipeline by their ids in the group."""
    with DAG("crm", schedule=None, default_args={"retries": 3, "depends_on_past": True}) as dag:
        group = machfive_pipeline(**{"default_args": {"owner": "sales"}, **arguments})
    assert group.group_id == "machfive"
    return {each.task_id.removeprefix("machfive."): each for each in dag.tasks}


def test_the_least_there_can_be():
    found = tasks(**FILE)
    assert list(found) == ["freeze_leads", "check_leads", "batch.write_emails", "summary"]
    assert {(each.retries, each.owner, each.depends_on_past) for each in found.values()} == {(3, "sales", True)}
    buy = found["batch.write_emails"]
    assert (buy.deferrable, buy.export_format, buy.approved_is_given) == (True, "jsonl", True)
    assert buy.trigger_rule == "all_success"
    assert found["summary"].upstream_task_ids == {f"machfive.{each}" for each in list(found)[:3]}


def test_all_there_can_be():
    found = tasks(
        **QUERY,
        sql_parameters={"since": "{{ ds }}"},
        skip_already_written="emails",
        suppress="no.csv",
        to_table="emails",
        export_to="all.csv",
        export_shape="flat",
        approval=True,
        approval_timeout=3600,
        max_credits=10,
        on_missing_leads="fail",
        wait_for_previous_run=True,
    )
    assert list(found) == [
        "freeze_leads",
        "check_leads",
        "approve",
        "batch.write_emails",
        "batch.save_emails",
        "summary",
    ]
    source, check, approve, buy, save, summary = found.values()
    assert (source.skip_already_written, source.parameters) == ("emails", {"since": "{{ ds }}"})
    assert source.wait_for_downstream
    assert summary.task_id in source.downstream_task_ids
    assert (check.skip_already_written, check.max_credits, check.export_to) == (None, 10, "all.csv")
    assert (approve.retries, approve.fail_on_reject, approve.defaults) == (0, True, ["Reject"])
    assert buy.upstream_task_ids == {each.task_id for each in (source, check, approve)}
    assert (buy.trigger_rule, buy.export_format, buy.on_missing_leads) == (
        "none_failed_min_one_success",
        "jsonl",
        "warn",
    )
    assert (save.table, save.sql_conn_id, save.on_missing_leads) == ("emails", "crm", "warn")
    assert {each.suppress_is_given for each in (check, buy, save, summary)} == {True}
    assert (summary.delivery_id, summary.on_missing_leads) == (buy.task_id, "fail")


def test_a_table_alone_needs_no_files_and_csv_is_merged_from_csv():
    found = tasks(**QUERY, to_table="emails", to_sql_conn_id="elsewhere")
    assert (found["batch.write_emails"].export_to, found["batch.save_emails"].sql_conn_id) == (None, "elsewhere")
    assert found["summary"].delivery_id == "machfive.batch.save_emails"
    assert tasks(**FILE, export_to="all.csv")["batch.write_emails"].export_format == "csv"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({**QUERY, "leads_path": "x.csv"}, "leads_path and sql: both given"),
        ({"leads_folder": "x", "campaign_name": "x"}, "leads_path and sql: neither given"),
        ({**QUERY, "sql_conn_id": None}, "sql needs sql_conn_id"),
        ({**FILE, "sql_conn_id": "crm"}, "sql_conn_id and sql_parameters are for sql"),
        ({**FILE, "to_table": "emails"}, "to_table needs to_sql_conn_id"),
        ({**QUERY, "to_sql_conn_id": "crm"}, "to_sql_conn_id needs to_table"),
        ({**FILE, "export_shape": "flat"}, "need export_to"),
        ({**FILE, "export_to": "all.json", "export_shape": "flat"}, "export_shape 'flat' is one row a lead"),
        ({**FILE, "export_to": "all.txt"}, "does not end in"),
        ({**FILE, "approval_timeout": 5}, "approval_timeout needs approval=True"),
        ({**FILE, "approval": True, "approval_timeout": 0}, "approval_timeout must be"),
        ({**FILE, "campaign_id": "x"}, "campaign_id and campaign_name: both given"),
        ({**FILE, "max_credits": 0}, "max_credits must be"),
        ({**FILE, "on_missing_leads": "stop"}, "on_missing_leads is 'stop'"),
        ({**FILE, "suppress": 5}, "suppress must be a path or a list"),
    ],
)
def test_refused_when_the_dag_is_parsed(arguments: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=message):
        tasks(**arguments)
