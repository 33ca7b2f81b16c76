"""Email addresses: whether one is valid, its normalised form, and why not. The verdict is email_validator's.

The library takes some 50 µs for an address. Plain ASCII addresses that are certainly valid are recognised by a
regular expression instead; a property test compares the two.
"""

from __future__ import annotations

import re
from functools import cache

__all__ = ["InvalidAddressError", "normalised", "plain_address"]

# Labels without "--" are no Punycode; no part is longer than _PLAIN_LENGTH, which keeps every limit of the RFCs.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*"
_PLAIN = re.compile(rf"({_ATOM}(?:\.{_ATOM})*)@((?:{_LABEL}\.)+([A-Za-z]+))")
_PLAIN_LENGTH = 60
# Mailboxes whose name the library writes in lower case (RFC 2142).
_ROLES = frozenset(
    (
        *("info", "marketing", "sales", "support", "abuse", "noc", "security"),
        *("postmaster", "hostmaster", "usenet", "news", "webmaster", "www", "uucp", "ftp"),
    )
)
# `Jane Doe <jane@example.com>`, as mail programs and contact lists write it.
_IN_BRACKETS = re.compile(r"[^<>]*<\s*([^<>\s]+)\s*>")
_QUOTES = ("''", '""', "\u2018\u2019", "\u201c\u201d", "\u201e\u201c")


class InvalidAddressError(ValueError):
    """A text is no email address; the message says why, without a part of the text."""


def normalised(text: str) -> str:
    """Return the address in its normalised form.

    :param text: without white space around it and invisible characters in it
    :raises InvalidAddressError: if it is no valid address
    """
    return plain_address(text) or _by_library(_bare(text))


def plain_address(text: str) -> str | None:
    """Return the normalised form of a plain ASCII address that is certainly valid, None for any other text."""
    plain = _PLAIN.fullmatch(text) if len(text) <= _PLAIN_LENGTH else None
    if plain is None or plain[3].lower() in _special_use():
        return None
    if text.islower():
        return text
    local, domain = plain[1], plain[2].lower()
    return f"{local.lower() if local.lower() in _ROLES else local}@{domain}"


@cache
def _special_use() -> frozenset[str]:
    """Return the top-level domains in which some names are reserved (IANA's special-use domain names)."""
    from email_validator import SPECIAL_USE_DOMAIN_NAMES

    return frozenset(name.rpartition(".")[2] for name in SPECIAL_USE_DOMAIN_NAMES)


def _bare(text: str) -> str:
    """Return the address without a display name, ``mailto:`` and quotes around it, and joiners in it."""
    text = text.replace("\u200c", "").replace("\u200d", "")
    if found := _IN_BRACKETS.fullmatch(text):
        text = found[1]
    if text[:7].lower() == "mailto:":
        text = text[7:].partition("?")[0]
    return text[1:-1] if text[:1] + text[-1:] in _QUOTES else text


def _by_library(text: str) -> str:
    from email_validator import EmailNotValidError, validate_email

    try:
        return validate_email(text, check_deliverability=False).normalized
    except EmailNotValidError as error:
        raise InvalidAddressError(_reason(text, str(error))) from None


def _reason(text: str, message: str) -> str:
    if text.count("@") > 1:
        return "email holds several addresses; keep one in each row"
    # What follows a colon or stands in brackets may be a part of the address.
    why = re.sub(r"\s*\([^)]*\)?", "", message.partition(":")[0]).rstrip(". ")
    return f"email is not a valid address ({why[:1].lower()}{why[1:]})"
