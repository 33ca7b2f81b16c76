"""A trigger's outcome as plain JSON and back."""

from __future__ import annotations

import json
from typing import Any

import pendulum
import pytest

from machfive_provider import exceptions
from machfive_provider.api.models import LeadList
from machfive_provider.triggers import events

AT = pendulum.datetime(2026, 2, 3, 4, 5, 6, 789000)


def travelled(event):
    return json.loads(json.dumps(event))


@pytest.mark.parametrize("name", exceptions.__all__)
def test_every_error_comes_back_as_itself(name: str):
    before = getattr(exceptions, name)(
        "wört\n",
        status_code=402,
        code="X",
        detail={"required": [3]},
        request_id="r1",
        occurred_at=AT,
        endpoint="GET /api/v1/lists",
        retry_after=1.5,
        remedy="Do this.",
        attempts=9,
        tried_for=30.5,
    ).add("Nothing was spent.")
    with pytest.raises(exceptions.MachFiveError) as caught:
        events.read(travelled(events.failed(before)), "ended")
    after = caught.value
    assert type(after) is type(before)
    assert vars(after) == vars(before)
    assert str(after) == str(before)


def test_lists_that_ended():
    lists = [LeadList("a", "completed", created_at=AT, leads_count=2), LeadList("b", "failed")]
    event = events.read(travelled(events.ended(lists, 1.5, 2.5)), "ended")
    assert [LeadList.from_json(each) for each in event["lists"]] == lists
    assert (event["started_at"], event["deadline"]) == (1.5, 2.5)


def test_submit():
    attempt = {"try_number": 3, "began_at": 12.5, "absent_since": 11.25, "granted": False}
    assert events.read(travelled(events.submit(attempt)), "submit")["attempt"] == attempt


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        [],
        "ended",
        7,
        {"status": None},
        {"status": "cancelled"},
        {"status": "submit", "asked_at": 1.0},
        {"status": "error"},
        {"status": "error", "error": "text"},
        {"status": "success"},
    ],
    ids=repr,
)
def test_only_a_known_success_is_one(event):
    with pytest.raises(exceptions.PollingError, match="without a usable event"):
        events.read(event, "ended")


@pytest.mark.parametrize("name", ["BrandNewError", "pendulum", "__name__", "", None, 7, ["ServerError"]], ids=repr)
def test_an_unknown_class_is_a_transient_error(name):
    """As from a triggerer with another release of the provider."""
    error = events.error_from_json({"class": name, "message": "m", "status_code": 500})
    assert type(error) is exceptions.MachFiveTransientError
    assert (error.message, error.status_code, error.retryable) == ("m", 500, True)


@pytest.mark.parametrize("occurred_at", ["garbage", 5, None, "2026-01-01"])
def test_missing_fields_and_an_unreadable_time_are_survived(occurred_at):
    error = events.error_from_json({"class": "ServerError", "occurred_at": occurred_at})
    assert type(error) is exceptions.ServerError
    assert error.occurred_at.timezone_name == "UTC"


@pytest.mark.parametrize(
    "field", ["status_code", "code", "request_id", "endpoint", "retry_after", "remedy", "attempts"]
)
@pytest.mark.parametrize("value", [{"a": []}, float("inf"), pytest.param(10**400, id="long")])
def test_a_field_of_another_kind_is_left_out(field: str, value: Any):
    """It would fail only when the error is shown."""
    error = events.error_from_json({"class": "ServerError", "message": "m", "detail": [1], field: value})
    assert str(error).startswith("m. Try again later") or field == "remedy"
    assert error.detail == [1]
