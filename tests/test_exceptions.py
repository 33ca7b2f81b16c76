"""The error tree: what Airflow sees, what a person reads, and that errors survive a trip."""

from __future__ import annotations

import copy
import pickle
import re

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout

from machfive_provider import exceptions
from machfive_provider.api.models import LeadList
from machfive_provider.formatting import kind_of, one_line
from machfive_provider.waiting.decision import GiveUp, Progress, Watch, decide_poll
from tests.tasks import UNKNOWN_ID

ALL = [getattr(exceptions, name) for name in exceptions.__all__]
PERMANENT = {
    "MachFivePermanentError",
    "ConfigurationError",
    "InvalidLeadsError",
    "BadRequestError",
    "UnauthorizedError",
    "InsufficientCreditsError",
    "ForbiddenError",
    "NotFoundError",
    "ListFailedError",
    "IncompleteExportError",
}
TRANSIENT = {
    "MachFiveTransientError",
    "RateLimitedError",
    "WorkspaceLimitError",
    "ServerError",
    "TransportError",
    "ProtocolError",
    "NotReadyError",
    "AmbiguousSubmissionError",
    "BatchFailedError",
    "CapacityTimeoutError",
    "WaitTimeoutError",
    "SensorTimeoutError",
    "PollingError",
}
AT = pendulum.datetime(2026, 2, 3, 4, 5, 6, 789000)


def full(kind: type[exceptions.MachFiveError]) -> exceptions.MachFiveError:
    return kind(
        "it went wrong",
        status_code=418,
        code="TEAPOT",
        detail={"required": 3},
        request_id="req-1",
        occurred_at=AT,
        endpoint="GET /api/v1/lists",
        retry_after=1.5,
        attempts=9,
        tried_for=30.6,
    )


def test_every_public_error_is_listed_once_and_sorted():
    defined = {
        name
        for name, each in vars(exceptions).items()
        if isinstance(each, type) and issubclass(each, Exception) and each.__module__ == exceptions.__name__
    }
    assert list(exceptions.__all__) == sorted(defined)
    assert defined == PERMANENT | TRANSIENT | {"MachFiveError"}


def test_the_base_class_says_whether_a_retry_can_help():
    for name in PERMANENT:
        kind = getattr(exceptions, name)
        assert issubclass(kind, exceptions.MachFivePermanentError)
        assert issubclass(kind, AirflowFailException)
        assert kind.retryable is False
    for name in TRANSIENT:
        kind = getattr(exceptions, name)
        assert issubclass(kind, exceptions.MachFiveTransientError)
        assert not issubclass(kind, AirflowFailException)
        assert kind.retryable is (name != "SensorTimeoutError")
    assert issubclass(exceptions.WorkspaceLimitError, exceptions.RateLimitedError)
    assert issubclass(exceptions.SensorTimeoutError, exceptions.WaitTimeoutError)
    assert issubclass(exceptions.SensorTimeoutError, AirflowSensorTimeout)


def test_the_tree_in_the_docstring_is_complete():
    drawn = set(re.findall(r"\bMachFive\w*Error|\w+Error\b", exceptions.__doc__.partition("::")[2]))
    assert drawn == set(exceptions.__all__)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_text_begins_with_cause_and_remedy_and_ends_with_what_support_asks_for(kind: type[exceptions.MachFiveError]):
    remedy = f"{kind.remedy} " if kind.remedy else ""
    assert str(full(kind)) == (
        f"it went wrong. The server asks to wait 1.5 s. {remedy}Tried 9 times in 31 s. "
        'Detail: {"required": 3} [418 TEAPOT, GET /api/v1/lists, request id req-1, 2026-02-03T04:05:06.789000Z]'
    )


SEEN = 130  # characters of a line that Airflow's UI shows
LIST = f"List {UNKNOWN_ID}"
SPENT = "Nothing was spent."
WATCH = Watch(UNKNOWN_ID, 20.0, 0.0, 86400.0)
OUTAGE = exceptions.TransportError("MachFive cannot be reached ([Errno 111] Connection refused).", attempts=9)


def timed_out() -> exceptions.MachFiveError:
    match decide_poll(WATCH, Progress(), LeadList(UNKNOWN_ID, "processing"), 86400.0):
        case GiveUp(error):
            return error
    raise AssertionError


@pytest.mark.parametrize(
    "error",
    [
        exceptions.BadRequestError("This campaign is not set up for generation."),
        exceptions.UnauthorizedError("Invalid API key."),
        exceptions.InsufficientCreditsError("You have 0 credits remaining. Please upgrade your plan."),
        exceptions.ForbiddenError("This campaign is not in the workspace of your API key."),
        exceptions.NotFoundError("List not found.").about(LIST),
        exceptions.NotFoundError("Campaign not found.").add(SPENT),
        exceptions.WorkspaceLimitError("Too many concurrent batch jobs in this workspace. Retry later."),
        exceptions.RateLimitedError("Too many requests.", retry_after=30, attempts=2).add(SPENT),
        exceptions.ServerError("MachFive responded 502 and gave no reason (an empty body).").add(SPENT),
        OUTAGE,
        copy.copy(OUTAGE).add(SPENT),
        exceptions.ListFailedError(f"{LIST} failed on MachFive's side."),
        timed_out(),
        exceptions.PollingError(f"{LIST}: 31 polls in a row failed."),
        exceptions.InvalidLeadsError("leads: 1 of 3 leads cannot be used: leads[0]: no email.", remedy="Correct them."),
        exceptions.ProtocolError("The response, an HTML page of 12 bytes, does not follow the API's contract."),
    ],
    ids=lambda error: f"{type(error).__name__}-{error.message[:20]}",
)
def test_cause_and_remedy_are_seen_in_the_ui_without_scrolling(error: exceptions.MachFiveError):
    text = str(error)
    first = error.remedy.partition(";")[0]  # what follows says why, or what to do later
    assert first
    assert text.index(first) + len(first) <= SEEN, text
    assert text.count(SPENT) <= 1


def test_what_is_added_keeps_class_ids_and_time():
    before = full(exceptions.ServerError)
    after = before.add(" Nothing was spent.").about("List 1").about("list 1").add("Nothing was spent.")
    assert after is before
    assert after.args == (after.message,) == ("List 1: it went wrong. Nothing was spent.",)
    assert (after.request_id, after.occurred_at, after.attempts) == ("req-1", AT, 9)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "travel",
    [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deep"],
)
def test_errors_survive_a_trip(kind: type[exceptions.MachFiveError], travel):
    before = full(kind)
    after = travel(before)
    assert type(after) is kind
    assert vars(after) == vars(before)
    assert str(after) == str(before)


def test_a_transport_error_keeps_whether_it_may_have_arrived():
    error = exceptions.TransportError("refused", may_have_arrived=False, endpoint="GET /x")
    assert pickle.loads(pickle.dumps(error)).may_have_arrived is False
    assert exceptions.TransportError("reset").may_have_arrived is True


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("plain", "plain"),
        (" a\n b\r\n\tc\u2028d\x85e ", "a b c d e"),
        ("lone \ud800 surrogate", "lone surrogate"),
        ("\x1b[31mred\x00", "[31mred"),
        ("ünï", "ünï"),
        ("x" * 600, "x" * 600),
        ("x" * 601, "x" * 600 + "…"),
        ("", ""),
    ],
    ids=["plain", "white space", "surrogate", "control characters", "non-ASCII", "longest", "too long", "empty"],
)
def test_one_line(message: str, shown: str):
    assert one_line(message) == shown
    text = str(exceptions.MachFiveError(message, detail=message))
    assert len(text.splitlines()) == 1
    assert text.encode()


@pytest.mark.parametrize(
    ("detail", "shown"),
    [
        (None, ""),
        ("", ""),
        ([], ""),
        ({}, ""),
        ("out of\ncredits", " Detail: out of credits"),
        ({"required": 3, "ö": None}, ' Detail: {"required": 3, "ö": null}'),
        ([1, 2], " Detail: [1, 2]"),
        (0, " Detail: 0"),
        (False, " Detail: false"),
    ],
    ids=repr,
)
def test_detail_of_any_json_type_is_shown(detail, shown: str):
    error = exceptions.MachFiveError("m", detail=detail, occurred_at=AT)
    assert str(error) == f"m.{shown} [2026-02-03T04:05:06.789000Z]"


@pytest.mark.parametrize(
    ("message", "start"), [("Slow", "Slow. "), ("Slow.", "Slow. "), ("Slow?", "Slow? "), ("Slow!", "Slow! "), ("", "")]
)
def test_the_remedy_begins_a_sentence_of_its_own(message: str, start: str):
    assert str(exceptions.RateLimitedError(message)).startswith(f"{start}Nothing was spent.")


def test_the_time_is_utc_now_unless_given():
    before = pendulum.now("UTC")
    moment = exceptions.MachFiveError("m").occurred_at
    assert before <= moment <= pendulum.now("UTC")
    assert moment.timezone_name == "UTC"


def test_kind_of_never_quotes():
    assert [kind_of(each) for each in (None, "secret", 3)] == ["nothing", "a value of type str", "a value of type int"]
