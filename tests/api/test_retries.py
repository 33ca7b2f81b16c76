"""Retry or not, and after how long."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machfive_provider import exceptions
from machfive_provider.api.retries import ONCE, RetryPolicy, backoff, may_repeat, retry_after_seconds, should_stop

NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("   ", None),
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("007", 7.0),
        ("1.5", 1.5),
        ("86400", 86400.0),
        ("99999999999", 99999999999.0),
        ("9" * 400, None),
        ("-1", None),
        ("+1", None),
        ("1e3", None),
        ("1.", None),
        (".5", None),
        ("inf", None),
        ("nan", None),
        ("1, 2", None),
        ("1 s", None),
        ("١٢", None),
        ("\uff13", None),
        ("²", None),
        ("soon", None),
        ("Tue, 03 Feb 2026 04:05:36 GMT", 30.0),
        ("Tue, 03 Feb 2026 05:05:36 +0100", 30.0),
        ("Tue, 03 Feb 2026 04:05:36", 30.0),
        ("Tuesday, 03-Feb-26 04:05:36 GMT", 30.0),
        ("Tue Feb  3 04:05:36 2026", 30.0),
        ("Tue, 03 Feb 2026 04:05:06 GMT", 0.0),
        ("Mon, 02 Feb 2026 04:05:06 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Tue, 31 Feb 2026 04:05:06 GMT", None),
        ("Tue, 03 Feb 2026 04:05:06 +9999", None),
        ("Tue, 03 Feb 99999 04:05:06 GMT", None),
        ("2026-02-03T04:05:36Z", None),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_retry_after(value: str | None, seconds: float | None):
    assert retry_after_seconds(value, NOW) == seconds


def test_retry_after_takes_now_in_any_zone():
    elsewhere = NOW.astimezone(timezone(timedelta(hours=-7)))
    assert retry_after_seconds("Tue, 03 Feb 2026 04:05:36 GMT", elsewhere) == 30.0


date_like = st.builds(
    " ".join,
    st.lists(
        st.sampled_from(["Tue,", "03", "99999999999", "Feb", "2026", "-1", "04:05:06", "4:5", "GMT", "+9999", "-0000"]),
        max_size=8,
    ),
)


@given(st.one_of(st.none(), st.text(), date_like, st.from_regex(r"[0-9.+\-e]+", fullmatch=True)))
def test_retry_after_never_raises_and_is_a_usable_pause(value: str | None):
    seconds = retry_after_seconds(value, NOW)
    assert seconds is None or (math.isfinite(seconds) and seconds >= 0)


@given(st.integers(min_value=1, max_value=5000), st.floats(min_value=0, max_value=1, exclude_max=True))
def test_backoff_is_bounded_by_base_and_cap(attempt: int, luck: float):
    policy = RetryPolicy()
    pause = backoff(policy, attempt, exceptions.ServerError("x"), lambda: luck)
    assert 0 <= pause <= policy.cap
    assert pause <= policy.base * 2 ** min(attempt - 1, 10)


@pytest.mark.parametrize(("attempt", "longest"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 8.0)])
def test_backoff_doubles_up_to_the_cap(attempt: int, longest: float):
    assert backoff(RetryPolicy(), attempt, None, lambda: 0.5) == longest / 2


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (exceptions.RateLimitedError("x", retry_after=7), 7),
        (exceptions.ServerError("x", retry_after=0), 0),
        (exceptions.ServerError("x", retry_after=61), 60),
        (exceptions.RateLimitedError("x"), 0.25),
        (exceptions.BadRequestError("x", retry_after=7), 0.25),
        (OSError(), 0.25),
        (None, 0.25),
    ],
    ids=repr,
)
def test_the_server_is_taken_at_its_word_up_to_a_cap(error, pause: float):
    assert backoff(RetryPolicy(), 1, error, lambda: 0.5) == pause


ASKED = exceptions.RateLimitedError("x", retry_after=30)


@pytest.mark.parametrize(
    ("attempt", "elapsed", "error", "pause", "stop"),
    [
        (1, 0, None, 1, False),
        (4, 59, None, 1, False),
        (5, 0, None, 0, True),
        (6, 0, None, 0, True),
        (1, 60, None, 0, True),
        (1, 59.5, None, 1, True),
        (1, 59, None, 1, False),
        (1, 59, ASKED, 30, False),
        (1, 60, ASKED, 30, True),
        (5, 1, ASKED, 30, True),
        (1, 59, exceptions.RateLimitedError("x"), 30, True),
        (1, 59, exceptions.BadRequestError("x", retry_after=30), 30, True),
    ],
)
def test_should_stop(attempt: int, elapsed: float, error, pause: float, stop: bool):
    assert should_stop(RetryPolicy(), attempt, elapsed, error, pause) is stop


def test_once_never_repeats():
    assert should_stop(ONCE, 1, 0, ASKED, 0) is True


@pytest.mark.parametrize(
    ("error", "read", "paid"),
    [
        (exceptions.ServerError("x"), True, False),
        (exceptions.RateLimitedError("x"), True, False),
        (exceptions.WorkspaceLimitError("x"), True, False),
        (exceptions.ProtocolError("x"), True, False),
        (exceptions.TransportError("x"), True, False),
        (exceptions.TransportError("x", may_have_arrived=True), True, False),
        (exceptions.TransportError("x", may_have_arrived=False), True, True),
        (exceptions.NotReadyError("x"), False, False),
        (exceptions.BadRequestError("x"), False, False),
        (exceptions.UnauthorizedError("x"), False, False),
        (exceptions.InsufficientCreditsError("x"), False, False),
        (exceptions.ForbiddenError("x"), False, False),
        (exceptions.NotFoundError("x"), False, False),
        (exceptions.ConfigurationError("x"), False, False),
        (OSError(), False, False),
        (KeyboardInterrupt(), False, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_may_repeat(error: BaseException, read: bool, paid: bool):
    assert may_repeat(error, repeatable=True) is read
    assert may_repeat(error, repeatable=False) is paid
