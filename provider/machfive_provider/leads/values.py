"""The value of a cell or key, as a text."""

from __future__ import annotations

import math
import unicodedata
from decimal import Decimal
from numbers import Real
from typing import Any

from machfive_provider.formatting import kind_of

__all__ = ["NotTextError", "is_filled", "text_of"]

# These two join letters in Persian, in Indian scripts and in emoji; all other format characters are invisible.
_JOINERS = "\u200c\u200d"


class NotTextError(ValueError):
    """A value cannot be written as a text; the message names its kind."""


def text_of(value: Any) -> str:
    """Return the value with single spaces and without invisible characters; an empty text for a missing value.

    :raises NotTextError: for a value that is neither a text nor a number
    """
    if type(value) is not str:
        value = _written(value)
    if value.isascii() and value.isprintable():
        text = " ".join(value.split())
        return value if text == value else text  # the same object, so that a list of leads is not kept twice
    if "\0" in value:
        raise NotTextError("holds a zero byte")
    # A lone surrogate cannot be sent as UTF-8.
    value = value.encode("utf-8", "replace").decode("utf-8")
    if not value.isprintable():
        value = "".join(each for each in value if not _is_invisible(each))
    return " ".join(value.split())


def is_filled(value: Any) -> bool:
    """Whether a cell or key holds anything."""
    if isinstance(value, str):
        return bool(value) and not value.isspace()
    return value is not None and not _is_missing(value)


def _is_invisible(character: str) -> bool:
    if character.isspace() or character in _JOINERS:
        return False
    return unicodedata.category(character) in ("Cf", "Cc")


def _written(value: Any) -> str:
    """Write a number as people do; pandas, numpy and decimal have missing values of their own."""
    if value is None or _is_missing(value):
        return ""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal)):
        raise NotTextError(f"is {kind_of(value)}, not a text")
    try:
        whole = math.trunc(value)
        if whole == value:
            return str(whole)
        return str(value if isinstance(value, Decimal) else float(value))
    except (OverflowError, ValueError):  # Python writes no whole number of more than 4,300 digits
        raise NotTextError("is an infinite number or one with too many digits, not a text") from None


def _is_missing(value: Any) -> bool:
    """Whether it is a NaN of any width, ``NaT`` or ``pandas.NA``: none of them equals itself."""
    try:
        return not value == value  # noqa: PLR0124, SIM201 - that is the test
    except ArithmeticError:  # a signalling Decimal("sNaN")
        return True
    except TypeError:  # pandas.NA is neither true nor false
        return type(value).__name__ == "NAType"
    except ValueError:  # an array
        return False
