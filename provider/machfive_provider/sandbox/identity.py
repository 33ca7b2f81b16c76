"""Ids, keys and choices that follow from the seed, so that two runs of one script are the same."""

from __future__ import annotations

import hashlib
import string
import uuid
from collections.abc import Sequence
from typing import TypeVar

KEY_PREFIX = "mf_live_"
_KEY_LENGTH = 32
_ALPHABET = string.ascii_letters + string.digits

T = TypeVar("T")


def digest(*parts: object) -> bytes:
    """Hash the parts; parts are kept apart, so that ("ab", "c") and ("a", "bc") differ."""
    return hashlib.sha256("\x1f".join(str(part) for part in parts).encode("utf-8", "surrogatepass")).digest()


def make_uuid(*parts: object) -> str:
    """Make the id that belongs to the parts, in the shape of a random UUID."""
    return str(uuid.UUID(bytes=digest(*parts)[:16], version=4))


def make_key(*parts: object) -> str:
    """Make the API key that belongs to the parts."""
    return KEY_PREFIX + "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest(*parts)[:_KEY_LENGTH])


def pick(options: Sequence[T], *parts: object) -> T:
    """Choose one option, always the same one for the same parts."""
    return options[int.from_bytes(digest(*parts)[:8], "big") % len(options)]
