"""Bad input: a permanent error before anything is sent, naming the parameter and the fix, and nobody's data."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

from machfive_provider import exceptions
from machfive_provider.operators.export import MachFiveExportListOperator
from machfive_provider.operators.generate import MachFiveGenerateBatchOperator, MachFiveGenerateOperator
from machfive_provider.sandbox import Sandbox
from machfive_provider.sensors.lead_list import MachFiveListSensor
from tests.tasks import LEADS, PERSONAL, UNKNOWN_ID, leaks, task_context

Connect = Callable[..., None]
CONFIG, BAD_LEADS = exceptions.ConfigurationError, exceptions.InvalidLeadsError
DANA = LEADS[0]
GIVEN = object()  # leave the argument as the test's default


class Bad(NamedTuple):
    """Arguments, the error they end in, and what it says."""

    arguments: dict[str, Any]
    error: type[exceptions.MachFiveError]
    says: tuple[str, ...]
    asks: bool = False  # may read from the API to find out


DEFAULTS: dict[type, dict[str, Any]] = {
    MachFiveGenerateBatchOperator: {"leads": list(LEADS), "campaign_id": GIVEN},
    MachFiveGenerateOperator: {"lead": dict(DANA), "campaign_id": GIVEN},
    MachFiveExportListOperator: {"list_id": UNKNOWN_ID, "export_to": GIVEN},
    MachFiveListSensor: {"list_id": UNKNOWN_ID},
}
BATCH, SINGLE, EXPORT, SENSOR = DEFAULTS
BOTH, ALL = (BATCH, SINGLE), (BATCH, SINGLE, EXPORT)
TIME = "must be a positive number of seconds"


def make(kind: type, sandbox: Sandbox, tmp_path: Path, **arguments: Any) -> Any:
    given = {"campaign_id": sandbox.campaign_id, "export_to": str(tmp_path / "out.csv")}
    known = {**DEFAULTS[kind], **arguments}
    return kind(task_id="bad", **{name: given[name] if value is GIVEN else value for name, value in known.items()})


# --- what fails when the DAG is parsed

PARSED: list[tuple[tuple[type, ...], dict[str, Any], str]] = [
    (BOTH, {"campaign_id": None}, "campaign_id and campaign_name: neither given; give exactly one"),
    (BOTH, {"campaign_name": "Spring"}, "campaign_id and campaign_name: both given"),
    ((BATCH,), {"leads": None}, "leads and leads_path: neither given; give exactly one"),
    ((BATCH,), {"leads_path": "leads.csv"}, "leads and leads_path: both given"),
    (BOTH, {"columns": {"mail": "E-mail"}}, "columns: MachFive has no field 'mail'. Its fields are email, name, title"),
    (BOTH, {"columns": ["E-mail"]}, "columns must be a mapping of MachFive's fields to your columns"),
    (BOTH, {"columns": {"email": []}}, r"columns\['email'\] must be a column's name or a list of names"),
    (BOTH, {"email_count": "three"}, "email_count must be a whole number such as 3, not a value of type str"),
    (BOTH, {"email_count": 2.5}, "email_count must be a whole number"),
    (BOTH, {"email_count": True}, "email_count must be a whole number"),
    (BOTH, {"on_existing_list": "buy"}, "on_existing_list is 'buy'; use one of 'adopt', 'resubmit', 'fail'"),
    ((BATCH,), {"on_invalid_lead": "warn"}, "on_invalid_lead is 'warn'; use one of 'fail', 'skip'"),
    ((BATCH,), {"on_duplicate_lead": "last"}, "on_duplicate_lead is 'last'; use one of 'fail', 'first'"),
    ((BATCH, EXPORT), {"on_missing_leads": None}, "on_missing_leads is nothing; use one of 'fail', 'warn', 'ignore'"),
    (BOTH, {"max_resubmissions": -1}, "max_resubmissions must be a whole number of at least 0, not -1"),
    (BOTH, {"max_resubmissions": "1"}, "max_resubmissions must be a whole number of at least 0, not '1'"),
    ((BATCH,), {"max_credits": 0}, "max_credits must be a whole number of at least 1, not 0"),
    ((BATCH,), {"max_credits": True}, "max_credits must be a whole number"),
    ((BATCH,), {"max_credits": "many"}, "max_credits must be a whole number of at least 1, not 'many'"),
    (ALL, {"timeout": "1h"}, f"timeout {TIME}"),
    (ALL, {"timeout": timedelta(0)}, f"timeout {TIME}"),
    (ALL, {"timeout": True}, f"timeout {TIME}"),
    *((ALL, {"poll_interval": each}, f"poll_interval {TIME}") for each in (0, -5, float("nan"), float("inf"), 1e300)),
    (BOTH, {"capacity_timeout": None}, f"capacity_timeout {TIME}"),
    *(((SENSOR,), {"timeout": each}, "timeout must be a number of seconds") for each in (-1, float("nan"), "1h")),
    ((SENSOR,), {"poke_interval": float("inf")}, "poke_interval must be a number of seconds from 0 to ten years"),
    (
        (BATCH,),
        {"export_to": "x.jsonl", "wait_for_completion": False},
        "export_to needs wait_for_completion=True.*MachFiveExportListOperator",
    ),
    ((BATCH, EXPORT), {"export_to": "x.csv", "export_format": "xlsx"}, "export_format is 'xlsx'; use one of 'csv', 'j"),
    ((BATCH, EXPORT), {"export_to": "{{ ds }}", "export_format": "xlsx"}, "export_format is 'xlsx'"),
    ((BATCH, EXPORT), {"export_to": "x.csv", "export_format": "json"}, "ends in .csv, but export_format is 'json'"),
    ((BATCH, EXPORT), {"export_to": "x.txt"}, "does not end in .csv, .json, .jsonl, .ndjson, .parquet: set"),
    ((BATCH, EXPORT), {"export_shape": "wide"}, "export_shape is 'wide'; use one of 'api', 'flat'"),
    ((BATCH,), {"export_shape": None}, "export_shape is nothing; use one of"),
    ((BATCH, EXPORT), {"export_to": "x.json", "export_shape": "flat"}, "in csv or jsonl, but .* is written as json:"),
    ((EXPORT,), {"export_to": "x.parquet", "export_shape": "flat"}, "in csv or jsonl, but .* is written as parquet:"),
    (
        (EXPORT,),
        {"export_to": "{{ ds }}", "export_format": "json", "export_shape": "flat"},
        "in csv or jsonl, but .* is written as json:",
    ),
    ((BATCH, EXPORT), {"export_to": "x.jsonl", "escape_formulas": True}, "cells of a csv, but .* is written as jsonl:"),
    ((BATCH, EXPORT), {"export_to": 5}, "export_to must be a path or URL, not a value of type int"),
    ((BATCH, EXPORT), {"export_to": " "}, "export_to must be a path or URL"),
]


@pytest.mark.parametrize(
    ("kind", "arguments", "says"),
    [pytest.param(kind, *rest, id=f"{kind.__name__}-{rest[0]}") for kinds, *rest in PARSED for kind in kinds],
)
def test_refused_at_parse(kind: type, arguments: dict[str, Any], says: str, sandbox: Sandbox, tmp_path: Path):
    with pytest.raises(CONFIG, match=says):
        make(kind, sandbox, tmp_path, **arguments)


RENDERED: list[tuple[type, dict[str, Any], str]] = [
    (BATCH, {"campaign_id": "", "campaign_name": ""}, "neither given"),
    (BATCH, {"leads": None}, r"leads_path: neither given; .* The task or template that it comes from gave nothing"),
    (BATCH, {"campaign_name": "Spring"}, "both given"),
    (BATCH, {"leads_path": "leads.csv"}, "both given"),
    (SINGLE, {"email_count": "three"}, "email_count"),
    (BATCH, {"export_to": "x.csv", "export_format": "json"}, "ends in .csv"),
    (EXPORT, {"export_format": "xlsx"}, "export_format is 'xlsx'"),
    (EXPORT, {"export_to": "x.txt"}, "set export_format"),
]


@pytest.mark.parametrize(("kind", "rendered", "says"), RENDERED, ids=str)
@pytest.mark.parametrize("unknown", ["{{ params.later }}", "{% if ds %}x{% endif %}", "an XComArg"])
def test_a_template_is_checked_in_execute(
    kind: type, rendered: dict[str, Any], says: str, unknown: str, sandbox: Sandbox, connect: Connect, tmp_path: Path
):
    connect(sandbox)
    with DAG("crm", schedule=None):
        output = EmptyOperator(task_id="before").output
        later = output if unknown == "an XComArg" else unknown
        operator = make(kind, sandbox, tmp_path, **dict.fromkeys(rendered, later))
    for name, value in rendered.items():
        setattr(operator, name, value)
    with pytest.raises(CONFIG, match=says):
        operator.execute(task_context(operator))
    assert sandbox.requests == []


def test_a_mapped_task_is_checked_with_its_real_values(sandbox: Sandbox):
    with DAG("crm", schedule=None):
        mapped = MachFiveGenerateBatchOperator.partial(task_id="write", campaign_name="Spring").expand(
            leads_path=["a.csv", "b.csv"]
        )
    assert mapped.unmap({"leads_path": "a.csv"}).leads_path == "a.csv"
    with pytest.raises(CONFIG, match="leads and leads_path: both given"):
        mapped.unmap({"leads_path": "a.csv", "leads": list(LEADS)})


# --- what fails in execute, before anything is sent

EXECUTED: dict[type, dict[str, Bad]] = {
    BATCH: {
        "campaign no UUID": Bad({"campaign_id": "Spring"}, CONFIG, ("campaign_id",)),
        "campaign a number": Bad({"campaign_id": 7}, CONFIG, ("campaign_id",)),
        "campaign unknown": Bad(
            {"campaign_id": None, "campaign_name": "No such"},
            CONFIG,
            ("campaign_name", "no campaign"),
            asks=True,
        ),
        "empty leads": Bad({"leads": []}, BAD_LEADS, ("leads is empty",)),
        "one mapping": Bad({"leads": dict(DANA)}, BAD_LEADS, ("leads must be a list", "of type dict")),
        "a column that is not there": Bad(
            {"columns": {"email": "Mail", "name": "Name"}},
            BAD_LEADS,
            ("columns names 'Mail', which leads does not have", "'email', 'name', 'title', 'company'"),
        ),
        "a bare text": Bad({"leads": "Dana Reyes"}, BAD_LEADS, ("leads (a text) is not JSON", "tojson")),
        "a number": Bad({"leads": 5}, BAD_LEADS, ("leads must be a list", "of type int")),
        "bytes": Bad({"leads": b"Dana"}, BAD_LEADS, ("leads must be a list", "of type bytes")),
        "JSON without list": Bad({"leads": '{"email": "dana.reyes@example.com"}'}, BAD_LEADS, ("no list of leads",)),
        "a lead is a text": Bad({"leads": [DANA, "Dana Reyes"]}, BAD_LEADS, ("leads[1]", "of type str", "1 of 2")),
        "email missing": Bad({"leads": [DANA, {"name": "Sam Okafor"}]}, BAD_LEADS, ("leads[1]: email is missing",)),
        "email bad": Bad(
            {"leads": [{"email": "sam.okafor@"}, DANA]},
            BAD_LEADS,
            ("leads[0]: email is not a valid address", "on_invalid_lead='skip'"),
        ),
        "email a number": Bad({"leads": [{"email": 12}]}, BAD_LEADS, ("leads[0]: email is a value of type int",)),
        "all skipped": Bad({"leads": [{"email": "Dana"}], "on_invalid_lead": "skip"}, BAD_LEADS, ("1 of 1 leads",)),
        "a duplicate": Bad(
            {"leads": [DANA, {"email": "DANA.REYES@example.com"}]},
            BAD_LEADS,
            ("leads[1]: same email as leads[0]", "on_duplicate_lead='first'"),
        ),
        "eleven bad ones": Bad({"leads": [{"email": "x"}] * 11}, BAD_LEADS, ("leads[9]", "and 1 more")),
        "a file that is not there": Bad(
            {"leads": None, "leads_path": "/no/such/leads.csv"}, BAD_LEADS, ("leads_path '/no/such/leads.csv'", "read")
        ),
        "a file of another kind": Bad(
            {"leads": None, "leads_path": "/tmp/leads.docx"}, BAD_LEADS, ("unknown ending", ".csv")
        ),
        "a path that is none": Bad({"leads": None, "leads_path": 5}, CONFIG, ("leads_path", "of type int")),
        "too many leads": Bad(
            {"max_credits": 2}, BAD_LEADS, ("3 leads cost 3 credits", "max_credits=2", "Nothing was sent")
        ),
        "enrichment doubles": Bad(
            {"max_credits": 5, "enrichment_enabled": True}, BAD_LEADS, ("cost 6 credits", "twice", "max_credits=5")
        ),
        "enrichment text": Bad({"enrichment_enabled": "yes"}, BAD_LEADS, ("enrichment_enabled must be True or False",)),
        "ctas": Bad({"approved_ctas": [1]}, BAD_LEADS, ("approved_ctas must be a list of texts",)),
        "signature": Bad({"email_signature": {"Dana": "Reyes"}}, BAD_LEADS, ("email_signature must be a text", "dict")),
        "list_name": Bad({"list_name": 5}, BAD_LEADS, ("list_name must be a text",)),
        "options no mapping": Bad({"options": "campaign_angle"}, BAD_LEADS, ("options must be a mapping", "str")),
        "option twice": Bad(
            {"email_count": 2, "options": {"email_count": 3}}, BAD_LEADS, ("email_count is given twice",)
        ),
        "old list name": Bad({"options": {"sequence_name": "x"}}, BAD_LEADS, ("sequence_name", "use list_name")),
        "export to a folder": Bad(
            {"export_to": "/tmp", "export_format": "csv"}, CONFIG, ("export_to '/tmp' is a folder",)
        ),
        "export to nowhere": Bad({"export_to": "/dev/null/x.jsonl"}, CONFIG, ("export_to", "cannot be written")),
        "export to no such system": Bad({"export_to": "nope://bucket/x.csv"}, CONFIG, ("export_to 'nope://",)),
    },
    SINGLE: {
        "no lead": Bad({"lead": None}, BAD_LEADS, ("lead", "nothing")),
        "a list": Bad({"lead": [dict(DANA)]}, BAD_LEADS, ("lead", "of type list")),
        "two in a text": Bad({"lead": "{}, {}"}, BAD_LEADS, ("lead holds 2 leads",)),
        "a column that is not there": Bad(
            {"columns": {"email": "Mail"}}, BAD_LEADS, ("'Mail', which lead does not have. Its columns are 'email'",)
        ),
        "no JSON": Bad({"lead": "Dana Reyes"}, BAD_LEADS, ("lead (a text) is not JSON",)),
        "no email": Bad({"lead": {"name": "Dana Reyes"}}, BAD_LEADS, ("lead: email is missing",)),
        "bad email": Bad({"lead": {"email": "dana.reyes"}}, BAD_LEADS, ("lead: email is not a valid address",)),
    },
    EXPORT: {
        "no UUID": Bad({"list_id": "nonsense"}, CONFIG, ("list_id",)),
        "an unrendered None": Bad({"list_id": None}, CONFIG, ("list_id",)),
        "a folder": Bad({"export_to": "/tmp", "export_format": "csv"}, CONFIG, ("is a folder",)),
        "a mapping": Bad({"expected_leads": {"a": 1}}, CONFIG, ("expected_leads must be a number", "dict")),
        "expected true": Bad({"expected_leads": True}, CONFIG, ("expected_leads must be", "bool")),
        "expected negative": Bad({"expected_leads": -1}, CONFIG, ("expected_leads",)),
        "expected no file": Bad({"expected_leads": "/no/such.csv"}, BAD_LEADS, ("/no/such.csv",)),
        "expected nobody": Bad({"expected_leads": []}, BAD_LEADS, ("expected_leads is empty",)),
    },
    SENSOR: {
        "no UUID": Bad({"list_id": "nonsense"}, CONFIG, ("list_id",)),
        "nothing": Bad({"list_id": None}, CONFIG, ("list_id", "nothing")),
        "no lists": Bad({"list_id": []}, CONFIG, ("list_id",)),
        "one of them no UUID": Bad({"list_id": [UNKNOWN_ID, "nonsense"]}, CONFIG, ("list_id",)),
        "a number": Bad({"list_id": 5}, CONFIG, ("list_id", "of type int")),
    },
}


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        pytest.param(kind, bad, id=f"{kind.__name__}-{name}")
        for kind, rows in EXECUTED.items()
        for name, bad in rows.items()
    ],
)
@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
def test_refused_in_execute(kind: type, bad: Bad, deferrable: bool, sandbox: Sandbox, connect: Connect, tmp_path: Path):
    connect(sandbox)
    operator = make(kind, sandbox, tmp_path, deferrable=deferrable, **bad.arguments)
    with pytest.raises(bad.error) as caught:
        operator.execute(task_context(operator))
    assert isinstance(caught.value, AirflowFailException)
    for part in bad.says:
        assert part in str(caught.value)
    assert leaks([*PERSONAL, sandbox.api_key], caught.value, repr(caught.value)) == []
    assert sandbox.purchases == []
    assert {request.method for request in sandbox.requests} <= ({"GET"} if bad.asks else set())
    assert list(tmp_path.iterdir()) == []


CONNECTIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "without key": ({"password": ""}, ("no API key", "password field")),
    "plain http": ({"host": "http://machfive.example"}, ("plain http",)),
    "host no URL": ({"host": "ftp://machfive.example"}, ("host", "https://")),
    "bad extra": ({"extra": {"namespace": 5}}, ("extra 'namespace' must be a text",)),
    "not there": ({}, ("'nobody_made_this'", "machfive_conn_id")),
}


@pytest.mark.parametrize("connection", CONNECTIONS)
@pytest.mark.parametrize("kind", DEFAULTS, ids=lambda kind: kind.__name__)
def test_an_unusable_connection(kind: type, connection: str, sandbox: Sandbox, connect: Connect, tmp_path: Path):
    fields, says = CONNECTIONS[connection]
    connect(sandbox, **fields)
    conn_id = "nobody_made_this" if connection == "not there" else "machfive_default"
    operator = make(kind, sandbox, tmp_path, machfive_conn_id=conn_id)
    with pytest.raises(exceptions.ConfigurationError) as caught:
        operator.execute(task_context(operator))
    for part in says:
        assert part in str(caught.value)
    assert sandbox.requests == []
