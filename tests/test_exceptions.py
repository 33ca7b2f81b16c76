"""The error tree: what Airflow sees, what a person reads, and that errors survive a trip."""

from __future__ import annotations

import copy
import pickle
import re

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout

from machfive_provider import exceptions
from machfive_provider.formatting import kind_of, one_line

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
def test_text_holds_everything_a_person_needs(kind: type[exceptions.MachFiveError]):
    text = str(full(kind))
    assert text.startswith("GET /api/v1/lists: 418 TEAPOT: it went wrong")
    assert '{"required": 3}' in text
    assert kind.advice in text
    assert text.endswith("[request id req-1, 2026-02-03T04:05:06.789000Z]")
    assert len(text.splitlines()) == 1


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
        ("out of\ncredits", " (detail: out of credits)"),
        ({"required": 3, "ö": None}, ' (detail: {"required": 3, "ö": null})'),
        ([1, 2], " (detail: [1, 2])"),
        (0, " (detail: 0)"),
        (False, " (detail: false)"),
    ],
    ids=repr,
)
def test_detail_of_any_json_type_is_shown(detail, shown: str):
    error = exceptions.MachFiveError("m", detail=detail, occurred_at=AT)
    assert str(error) == f"m{shown} [2026-02-03T04:05:06.789000Z]"


@pytest.mark.parametrize(
    ("message", "retry_after", "start"),
    [
        ("Slow", None, "429: Slow. Nothing was accepted."),
        ("Slow.", None, "429: Slow. Nothing"),
        ("Slow?", None, "429: Slow? Nothing"),
        ("Slow!", None, "429: Slow! Nothing"),
        ("Slow", 7.0, "429: Slow. The server asks to wait 7 s. Nothing was accepted."),
    ],
)
def test_advice_begins_a_sentence_of_its_own(message: str, retry_after: float | None, start: str):
    assert str(exceptions.RateLimitedError(message, status_code=429, retry_after=retry_after)).startswith(start)


def test_the_time_is_utc_now_unless_given():
    before = pendulum.now("UTC")
    moment = exceptions.MachFiveError("m").occurred_at
    assert before <= moment <= pendulum.now("UTC")
    assert moment.timezone_name == "UTC"


def test_kind_of_never_quotes():
    assert [kind_of(each) for each in (None, "secret", 3)] == ["nothing", "a value of type str", "a value of type int"]
