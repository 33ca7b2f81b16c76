"""The error tree: what Airflow sees, what a person reads, and that errors survive a trip."""

from __future__ import annotations

import copy
import pickle

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


@pytest.mark.parametrize("name", sorted(PERMANENT))
def test_permanent_errors_fail_the_task_at_once(name: str):
    kind = getattr(exceptions, name)
    assert issubclass(kind, exceptions.MachFivePermanentError)
    assert issubclass(kind, AirflowFailException)
    assert not issubclass(kind, exceptions.MachFiveTransientError)
    assert kind.retryable is False


@pytest.mark.parametrize("name", sorted(TRANSIENT))
def test_transient_errors_leave_the_retries_to_the_task(name: str):
    kind = getattr(exceptions, name)
    assert issubclass(kind, exceptions.MachFiveTransientError)
    assert not issubclass(kind, AirflowFailException)
    assert kind.retryable is (name != "SensorTimeoutError")


@pytest.mark.parametrize(
    ("child", "parent"),
    [
        (exceptions.WorkspaceLimitError, exceptions.RateLimitedError),
        (exceptions.SensorTimeoutError, exceptions.WaitTimeoutError),
        (exceptions.SensorTimeoutError, AirflowSensorTimeout),
    ],
)
def test_tree_below_the_two_branches(child: type, parent: type):
    assert issubclass(child, parent)


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
    ("message", "start"),
    [
        ("Slow", "429: Slow. Nothing was accepted."),
        ("Slow.", "429: Slow. Nothing"),
        ("Slow?", "429: Slow? Nothing"),
        ("Slow!", "429: Slow! Nothing"),
    ],
)
def test_advice_begins_a_sentence_of_its_own(message: str, start: str):
    assert str(exceptions.RateLimitedError(message, status_code=429)).startswith(start)


def test_the_time_is_utc_now_unless_given():
    before = pendulum.now("UTC")
    moment = exceptions.MachFiveError("m").occurred_at
    assert before <= moment <= pendulum.now("UTC")
    assert moment.timezone_name == "UTC"


@pytest.mark.parametrize(
    ("value", "kind"),
    [(None, "nothing"), ("secret", "a value of type str"), (3, "a value of type int")],
    ids=repr,
)
def test_kind_of_never_quotes(value, kind: str):
    assert kind_of(value) == kind


def test_what_the_server_asks_for_is_told():
    assert "Slow down. The server asks to wait 7 s. Nothing was accepted." in str(
        exceptions.RateLimitedError("Slow down", retry_after=7.0)
    )
