"""Bad input: a permanent error before anything is sent, naming the parameter and the fix, and nobody's data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from machfive_provider import exceptions
from machfive_provider.operators.export import MachFiveExportListOperator
from machfive_provider.operators.generate import MachFiveGenerateBatchOperator, MachFiveGenerateOperator
from machfive_provider.sandbox import Sandbox
from machfive_provider.sensors.lead_list import MachFiveListSensor
from tests.tasks import LEADS, PERSONAL, UNKNOWN_ID, leaks, task_context

Connect = Callable[..., None]
CONFIGURATION, LEAD_ERROR = exceptions.ConfigurationError, exceptions.InvalidLeadsError
DANA = LEADS[0]
GIVEN = object()  # leave the argument as the test's default


class Bad(NamedTuple):
    arguments: dict[str, Any]
    error: type[exceptions.MachFiveError]
    says: tuple[str, ...]
    asks: bool = False  # may look at the API, with GETs, to find out


BATCH: dict[str, Bad] = {
    # campaign
    "no campaign": Bad({"campaign_id": None}, CONFIGURATION, ("campaign_id and campaign_name", "neither", "exactly")),
    "two campaigns": Bad({"campaign_name": "Spring"}, CONFIGURATION, ("campaign_id and campaign_name", "both")),
    "campaign no UUID": Bad({"campaign_id": "Spring"}, CONFIGURATION, ("campaign_id",)),
    "campaign a number": Bad({"campaign_id": 7}, CONFIGURATION, ("campaign_id",)),
    "campaign unknown": Bad(
        {"campaign_id": None, "campaign_name": "No such"}, CONFIGURATION, ("campaign_name", "no campaign"), asks=True
    ),
    # leads
    "no leads": Bad({"leads": None}, CONFIGURATION, ("leads and leads_path", "neither", "exactly one")),
    "leads twice": Bad({"leads_path": "leads.csv"}, CONFIGURATION, ("leads and leads_path", "both")),
    "empty leads": Bad({"leads": []}, LEAD_ERROR, ("leads is empty",)),
    "one mapping": Bad({"leads": dict(DANA)}, LEAD_ERROR, ("leads must be a list", "of type dict")),
    "a bare text": Bad({"leads": "Dana Reyes"}, LEAD_ERROR, ("leads (a text) is not JSON", "tojson")),
    "a number": Bad({"leads": 5}, LEAD_ERROR, ("leads must be a list", "of type int")),
    "bytes": Bad({"leads": b"Dana"}, LEAD_ERROR, ("leads must be a list", "of type bytes")),
    "JSON without list": Bad({"leads": '{"email": "dana.reyes@example.com"}'}, LEAD_ERROR, ("no list of leads",)),
    "a lead is a text": Bad({"leads": [DANA, "Dana Reyes"]}, LEAD_ERROR, ("leads[1]", "of type str", "1 of 2")),
    "email missing": Bad({"leads": [DANA, {"name": "Sam Okafor"}]}, LEAD_ERROR, ("leads[1]: email is missing",)),
    "email bad": Bad(
        {"leads": [{"email": "sam.okafor@"}, DANA]},
        LEAD_ERROR,
        ("leads[0]: email is not a valid address", "on_invalid_lead='skip'"),
    ),
    "email a number": Bad({"leads": [{"email": 12}]}, LEAD_ERROR, ("leads[0]: email is a value of type int",)),
    "all skipped": Bad({"leads": [{"email": "Dana"}], "on_invalid_lead": "skip"}, LEAD_ERROR, ("1 of 1 leads",)),
    "a duplicate": Bad(
        {"leads": [DANA, {"email": "DANA.REYES@example.com"}]},
        LEAD_ERROR,
        ("leads[1]: same email as leads[0]", "on_duplicate_lead='first'"),
    ),
    "eleven bad ones": Bad({"leads": [{"email": "x"}] * 11}, LEAD_ERROR, ("leads[9]", "and 1 more")),
    "a file that is not there": Bad(
        {"leads": None, "leads_path": "/no/such/leads.csv"}, LEAD_ERROR, ("leads_path '/no/such/leads.csv'", "read")
    ),
    "a file of another kind": Bad(
        {"leads": None, "leads_path": "/tmp/leads.xlsx"}, LEAD_ERROR, ("unknown ending", ".csv")
    ),
    "a path that is none": Bad({"leads": None, "leads_path": 5}, CONFIGURATION, ("leads_path", "of type int")),
    # spending
    "too many leads": Bad({"max_credits": 2}, LEAD_ERROR, ("3 leads cost 3 credits", "max_credits=2", "Nothing was sent")),
    "enrichment doubles": Bad(
        {"max_credits": 5, "enrichment_enabled": True}, LEAD_ERROR, ("cost 6 credits", "twice", "max_credits=5")
    ),
    "max_credits none": Bad({"max_credits": 0}, CONFIGURATION, ("max_credits", "at least 1", "0")),
    "max_credits true": Bad({"max_credits": True}, CONFIGURATION, ("max_credits", "whole number")),
    "max_credits text": Bad({"max_credits": "many"}, CONFIGURATION, ("max_credits", "'many'")),
    # options
    "email_count text": Bad({"email_count": "three"}, LEAD_ERROR, ("email_count must be a whole number", "type str")),
    "email_count float": Bad({"email_count": 2.5}, LEAD_ERROR, ("email_count", "of type float")),
    "email_count true": Bad({"email_count": True}, LEAD_ERROR, ("email_count", "of type bool")),
    "enrichment text": Bad({"enrichment_enabled": "yes"}, LEAD_ERROR, ("enrichment_enabled must be True or False",)),
    "ctas": Bad({"approved_ctas": [1]}, LEAD_ERROR, ("approved_ctas must be a list of texts",)),
    "signature": Bad({"email_signature": {"Dana": "Reyes"}}, LEAD_ERROR, ("email_signature must be a text", "dict")),
    "list_name": Bad({"list_name": 5}, LEAD_ERROR, ("list_name must be a text",)),
    "options no mapping": Bad({"options": "campaign_angle"}, LEAD_ERROR, ("options must be a mapping", "str")),
    "option twice": Bad(
        {"email_count": 2, "options": {"email_count": 3}}, LEAD_ERROR, ("email_count is given twice",)
    ),
    "old list name": Bad({"options": {"sequence_name": "x"}}, LEAD_ERROR, ("sequence_name", "use list_name")),
    # policies
    "on_invalid_lead": Bad({"on_invalid_lead": "warn"}, CONFIGURATION, ("on_invalid_lead is 'warn'", "'skip'")),
    "on_duplicate_lead": Bad({"on_duplicate_lead": "last"}, CONFIGURATION, ("on_duplicate_lead is 'last'", "'first'")),
    "on_existing_list": Bad({"on_existing_list": "buy"}, CONFIGURATION, ("on_existing_list is 'buy'", "'resubmit'")),
    "on_missing_leads": Bad({"on_missing_leads": "skip"}, CONFIGURATION, ("on_missing_leads is 'skip'", "'ignore'")),
    "format": Bad({"export_format": "xlsx"}, CONFIGURATION, ("export_format is 'xlsx'", "'jsonl'")),
    "max_resubmissions": Bad({"max_resubmissions": -1}, CONFIGURATION, ("max_resubmissions must be 0 or more",)),
    "max_resubmissions text": Bad({"max_resubmissions": "1"}, CONFIGURATION, ("max_resubmissions", "'1'")),
    # times
    "timeout": Bad({"timeout": 0}, CONFIGURATION, ("timeout must be a positive number of seconds", "0")),
    "timeout text": Bad({"timeout": "1h"}, CONFIGURATION, ("timeout", "'1h'")),
    "poll_interval": Bad({"poll_interval": -5}, CONFIGURATION, ("poll_interval", "-5")),
    "poll_interval nan": Bad({"poll_interval": float("nan")}, CONFIGURATION, ("poll_interval",)),
    "capacity_timeout": Bad({"capacity_timeout": None}, CONFIGURATION, ("capacity_timeout",)),
    # export
    "export without waiting": Bad(
        {"export_to": "/tmp/x.jsonl", "wait_for_completion": False},
        CONFIGURATION,
        ("export_to needs wait_for_completion=True", "MachFiveExportListOperator"),
    ),
    "export to a folder": Bad({"export_to": "/tmp"}, CONFIGURATION, ("export_to '/tmp' is a folder",)),
    "export to nowhere": Bad({"export_to": "/dev/null/x.jsonl"}, CONFIGURATION, ("export_to", "cannot be written")),
    "export to no such system": Bad({"export_to": "nope://bucket/x"}, CONFIGURATION, ("export_to 'nope://bucket/x'",)),
    "export to a number": Bad({"export_to": 5}, CONFIGURATION, ("export_to must be a path",)),
    "export to an empty text": Bad({"export_to": " "}, CONFIGURATION, ("export_to must be a path",)),
}  # fmt: skip
SINGLE: dict[str, Bad] = {
    "no campaign": Bad({"campaign_id": None}, CONFIGURATION, ("campaign_id and campaign_name", "neither")),
    "no lead": Bad({"lead": None}, LEAD_ERROR, ("lead", "nothing")),
    "a list": Bad({"lead": [dict(DANA)]}, LEAD_ERROR, ("lead", "of type list")),
    "two in a text": Bad({"lead": "{}, {}"}, LEAD_ERROR, ("lead holds 2 leads",)),
    "no JSON": Bad({"lead": "Dana Reyes"}, LEAD_ERROR, ("lead (a text) is not JSON",)),
    "no email": Bad({"lead": {"name": "Dana Reyes"}}, LEAD_ERROR, ("lead: email is missing",)),
    "bad email": Bad({"lead": {"email": "dana.reyes"}}, LEAD_ERROR, ("lead: email is not a valid address",)),
    "email_count": Bad({"email_count": [3]}, LEAD_ERROR, ("email_count must be a whole number",)),
    "timeout": Bad({"timeout": -1}, CONFIGURATION, ("timeout",)),
    "policy": Bad({"on_existing_list": "x"}, CONFIGURATION, ("on_existing_list is 'x'",)),
}
EXPORT: dict[str, Bad] = {
    "no UUID": Bad({"list_id": "nonsense"}, CONFIGURATION, ("list_id",)),
    "an unrendered None": Bad({"list_id": None}, CONFIGURATION, ("list_id",)),
    "format": Bad({"export_format": "xml"}, CONFIGURATION, ("export_format is 'xml'",)),
    "policy": Bad({"on_missing_leads": "x"}, CONFIGURATION, ("on_missing_leads is 'x'",)),
    "a folder": Bad({"export_to": "/tmp"}, CONFIGURATION, ("is a folder",)),
    "expected a mapping": Bad({"expected_leads": {"a": 1}}, CONFIGURATION, ("expected_leads must be a number", "dict")),
    "expected true": Bad({"expected_leads": True}, CONFIGURATION, ("expected_leads must be", "bool")),
    "expected negative": Bad({"expected_leads": -1}, CONFIGURATION, ("expected_leads",)),
    "expected no file": Bad({"expected_leads": "/no/such.csv"}, LEAD_ERROR, ("/no/such.csv",)),
    "expected nobody": Bad({"expected_leads": []}, LEAD_ERROR, ("expected_leads is empty",)),
}
SENSOR: dict[str, Bad] = {
    "no UUID": Bad({"list_id": "nonsense"}, CONFIGURATION, ("list_id",)),
    "nothing": Bad({"list_id": None}, CONFIGURATION, ("list_id", "nothing")),
    "no lists": Bad({"list_id": []}, CONFIGURATION, ("list_id",)),
    "one of them no UUID": Bad({"list_id": [UNKNOWN_ID, "nonsense"]}, CONFIGURATION, ("list_id",)),
    "a number": Bad({"list_id": 5}, CONFIGURATION, ("list_id", "of type int")),
}
DEFAULTS: dict[type, tuple[dict[str, Bad], dict[str, Any]]] = {
    MachFiveGenerateBatchOperator: (BATCH, {"leads": list(LEADS), "campaign_id": GIVEN}),
    MachFiveGenerateOperator: (SINGLE, {"lead": dict(DANA), "campaign_id": GIVEN}),
    MachFiveExportListOperator: (EXPORT, {"list_id": UNKNOWN_ID, "export_to": GIVEN}),
    MachFiveListSensor: (SENSOR, {"list_id": UNKNOWN_ID}),
}
CASES = [
    pytest.param(kind, {**defaults, **bad.arguments}, bad, id=f"{kind.__name__}-{name}")
    for kind, (table, defaults) in DEFAULTS.items()
    for name, bad in table.items()
]


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
@pytest.mark.parametrize(("kind", "arguments", "bad"), CASES)
def test_bad_input(
    kind: type,
    arguments: dict[str, Any],
    bad: Bad,
    deferrable: bool,
    sandbox: Sandbox,
    connect: Connect,
    tmp_path: Path,
):
    connect(sandbox)
    given = {"campaign_id": sandbox.campaign_id, "export_to": str(tmp_path / "out")}
    arguments = {name: given[name] if value is GIVEN else value for name, value in arguments.items()}
    # Nothing is judged before execute: templates are not rendered and XComArgs not resolved in __init__.
    operator = kind(task_id="bad", deferrable=deferrable, **arguments)
    with pytest.raises(bad.error) as caught:
        operator.execute(task_context(operator))
    assert isinstance(caught.value, AirflowFailException)
    for part in bad.says:
        assert part in str(caught.value)
    assert leaks([*PERSONAL, sandbox.api_key], caught.value, repr(caught.value)) == []
    assert sandbox.purchases == []
    assert {request.method for request in sandbox.requests} <= ({"GET"} if bad.asks else set())
    assert not (tmp_path / "out").exists()


CONNECTIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "without key": ({"password": ""}, ("no API key", "password field")),
    "plain http": ({"host": "http://machfive.example"}, ("plain http",)),
    "host no URL": ({"host": "ftp://machfive.example"}, ("host", "https://")),
    "bad extra": ({"extra": {"namespace": 5}}, ("extra 'namespace' must be a text",)),
}


@pytest.mark.parametrize("connection", CONNECTIONS)
@pytest.mark.parametrize("kind", DEFAULTS, ids=lambda kind: kind.__name__)
def test_a_malformed_connection(kind: type, connection: str, sandbox: Sandbox, connect: Connect, tmp_path: Path):
    fields, says = CONNECTIONS[connection]
    connect(sandbox, **fields)
    given = {"campaign_id": sandbox.campaign_id, "export_to": str(tmp_path / "out")}
    arguments = {name: given.get(name) if value is GIVEN else value for name, value in DEFAULTS[kind][1].items()}
    operator = kind(task_id="bad", **arguments)
    with pytest.raises(exceptions.ConfigurationError) as caught:
        operator.execute(task_context(operator))
    for part in says:
        assert part in str(caught.value)
    assert sandbox.requests == []


@pytest.mark.parametrize("kind", DEFAULTS, ids=lambda kind: kind.__name__)
def test_a_connection_that_is_not_there(kind: type, sandbox: Sandbox, tmp_path: Path):
    given = {"campaign_id": sandbox.campaign_id, "export_to": str(tmp_path / "out")}
    arguments = {name: given.get(name) if value is GIVEN else value for name, value in DEFAULTS[kind][1].items()}
    operator = kind(task_id="bad", machfive_conn_id="nobody_made_this", **arguments)
    with pytest.raises(exceptions.ConfigurationError, match=r"'nobody_made_this'.*machfive_conn_id"):
        operator.execute(task_context(operator))
