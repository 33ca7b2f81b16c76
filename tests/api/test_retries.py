"""Retry or not, and after how long."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machfive_provider import exceptions
from machfive_provider.api.retries import ONCE, RequestRetries, RetryPolicy, backoff, may_repeat, retry_after_seconds

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


@given(st.integers(1, 5000), st.floats(0, 1, exclude_max=True))
def test_backoff_doubles_up_to_the_cap_with_full_jitter(attempt: int, luck: float):
    longest = 0.5 * 2 ** (attempt - 1) if attempt < 5 else 8.0
    assert backoff(RetryPolicy(), attempt, exceptions.ServerError("x"), lambda: luck) == luck * longest


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (exceptions.RateLimitedError("x", retry_after=7), 7),
        (exceptions.ServerError("x", retry_after=0), 0.25),
        (exceptions.ServerError("x", retry_after=61), 60),
        (exceptions.RateLimitedError("x"), 0.25),
    ],
    ids=repr,
)
def test_the_pause_is_as_long_as_the_server_asks_up_to_a_cap(error: exceptions.MachFiveError, pause: float):
    """``Retry-After: 0`` brings no flood: the own backoff goes on."""
    assert backoff(RetryPolicy(), 1, error, lambda: 0.5) == pause


@given(
    st.lists(st.floats(0.05, 1, exclude_max=True), min_size=400, max_size=400),
    st.floats(0.001, 40),
    st.sampled_from([None, 0.0, 7.0, 3600.0]),
)
def test_an_outage_of_thirty_seconds_is_survived(luck: list[float], took: float, retry_after: float | None):
    """The last attempt begins 30 s after the first, or later by less than one attempt and one pause."""
    attempts, jitter, error = RequestRetries(RetryPolicy(), repeatable=True), iter(luck), exceptions.ServerError("down")
    error.retry_after = retry_after
    began, now = [0.0], 0.0
    while (pause := attempts.pause_after(error, took, lambda: next(jitter))) is not None:
        now += took + pause
        began.append(now)
    longest = took + max(8.0, min(retry_after or 0.0, 60.0))
    assert began[-2] < 30 <= began[-1] < 30 + longest
    assert (error.attempts, error.tried_for) == (len(began), pytest.approx(now + took))


def test_attempts_may_be_limited_and_what_is_final_ends_them_at_once():
    down = exceptions.ServerError("x")
    assert RequestRetries(ONCE, repeatable=True).pause_after(down, 0.1, lambda: 0.5) is None
    three = RequestRetries(RetryPolicy(attempts=3), repeatable=True)
    assert [three.pause_after(down, 0.0, lambda: 0.5) for _ in range(3)] == [0.25, 0.5, None]
    assert (
        RequestRetries(RetryPolicy(), repeatable=True).pause_after(exceptions.NotFoundError("x"), 0.1, lambda: 0)
        is None
    )


@pytest.mark.parametrize("kind", [getattr(exceptions, name) for name in exceptions.__all__])
def test_reads_repeat_what_may_pass_and_purchases_what_was_never_sent(kind: type[exceptions.MachFiveError]):
    passing = issubclass(kind, exceptions.MachFiveTransientError) and kind is not exceptions.NotReadyError
    assert may_repeat(kind("x"), repeatable=True) is passing
    assert may_repeat(kind("x"), repeatable=False) is False
    never_sent = exceptions.TransportError("x", may_have_arrived=False)
    assert may_repeat(never_sent, repeatable=True)
    assert may_repeat(never_sent, repeatable=False)
