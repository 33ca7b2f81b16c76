"""Addresses: the verdict and the normalised form are those of email_validator, and the reason is told without data."""

from __future__ import annotations

import string

import pytest
from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email
from hypothesis import example, given, settings
from hypothesis import strategies as st

from machfive_provider.leads.emails import InvalidAddressError, normalised

LOCAL = string.ascii_letters + string.digits + "!#$%&'*+/=?^_`{|}~-."
ROLES = st.sampled_from(["Info", "sales", "POSTMASTER", "Support", "wWw", "Ada"])
labels = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=8) | st.sampled_from(
    ["xn--bcher-kva", "XN--a", "ab--c", "a" * 63, "a" * 64, "1", "-a", "a-", "a_b"]
)
tops = st.sampled_from(["com", "DE", "c", "b1", "travel", "Example", *SPECIAL_USE_DOMAIN_NAMES, "TEST"]) | labels
locals_ = st.text(LOCAL, max_size=12) | ROLES | st.sampled_from(["a" * 64, "a" * 65, "a" * 200, ".a", "a..b"])
domains = st.lists(labels, max_size=4).flatmap(lambda each: tops.map(lambda top: ".".join([*each, top])))
plain = st.builds("{}@{}".format, locals_, domains)
anything = st.builds("{}@{}".format, st.text(max_size=9), st.sampled_from(["bücher.example", "[::1]", "a.com.", ""]))


def by_library(text: str) -> str | None:
    try:
        return validate_email(text, check_deliverability=False).normalized
    except EmailNotValidError:
        return None


def ours(text: str) -> str | None:
    try:
        return normalised(text)
    except InvalidAddressError:
        return None


@settings(max_examples=1500)
@given(plain | anything | st.emails())
@example("a" * 64 + "@" + ".".join(["b" * 61] * 3) + ".com")
@example("a" * 64 + "@" + ".".join(["b" * 61] * 3) + ".co")
@example("a@" + ".".join(["b" * 63] * 4))
@example("a@x.home.arpa")
def test_the_verdict_is_the_librarys(text: str):
    if text[:1] in "'\"" or "<" in text or text[:7].lower() == "mailto:" or "\u200c" in text or "\u200d" in text:
        return  # what stands around an address is taken off first: see below
    assert ours(text) == by_library(text)


@pytest.mark.parametrize(
    "text",
    [
        "Jane Doe <jane@example.com>",
        '"Doe, Jane" <jane@example.com>',
        "jane@example.com <jane@example.com>",
        "<jane@example.com>",
        "mailto:jane@EXAMPLE.com?subject=Hello",
        "MAILTO:jane@example.com",
        "Jane <mailto:jane@example.com>",
        "'jane@example.com'",
        "\u201cjane@example.com\u201d",
        "ja\u200dne@example.com",
    ],
)
def test_what_stands_around_an_address_is_taken_off(text: str):
    assert normalised(text) == "jane@example.com"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hidden@example.com, b@example.com", "email holds several addresses; keep one in each row"),
        ("hidden@example.com ::: b@example.com", "email holds several addresses; keep one in each row"),
        ("hidden", "email is not a valid address (an email address must have an @-sign)"),
        ("hid den@example.com", "(the email address contains invalid characters before the @-sign)"),
        ("hidden@hid_den.com", "(the part after the @-sign contains invalid characters)"),
        ("hidden@hidden", "(the part after the @-sign is not valid"),
        ("hidden@xn--hidden\u00e4.com", "email is not a valid address"),
        ("hidden@hidden.test", "is a special-use or reserved name that cannot be used with email)"),
    ],
)
def test_the_reason_is_told_without_the_address(text: str, reason: str):
    with pytest.raises(InvalidAddressError) as caught:
        normalised(text)
    assert reason in str(caught.value)
    assert "hid" not in str(caught.value)
