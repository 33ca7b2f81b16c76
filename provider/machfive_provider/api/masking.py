"""Keeps the API key out of errors and logs, whatever a server quotes and however it spells it."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from machfive_provider.exceptions import MachFiveError

__all__ = ["KeyMask", "key_spellings", "texts_changed"]

_SHORTEST = 8  # characters of a part of base64 that tells enough to be hidden
_DEEPEST = 20  # levels of a JSON value that are kept


class KeyMask:
    """Replaces one API key by ``***``, however it is spelled.

    :param key: the key; no attribute and no repr shows it
    """

    __slots__ = ("_spelled",)

    def __init__(self, key: str) -> None:
        self._spelled = re.compile("|".join(map(re.escape, key_spellings(key))), re.IGNORECASE)

    def __repr__(self) -> str:
        return "KeyMask()"

    def text(self, text: str) -> str:
        """Return the text without the key."""
        return self._spelled.sub("***", text)

    def error(self, error: MachFiveError) -> MachFiveError:
        """Take the key out of an error, and return it."""
        error.message = self.text(error.message)
        error.args = (error.message,)
        error.code = self.text(error.code) if error.code else error.code
        error.request_id = self.text(error.request_id) if error.request_id else error.request_id
        error.detail = texts_changed(error.detail, self.text)
        return error


def key_spellings(key: str) -> list[str]:
    """Return the texts that give a key away, the longest first: the key itself, percent-encoded, in base64.

    Base64 makes four characters of three bytes, so a key inside an encoded text has three spellings, by where it
    begins. The characters at the two ends may also hold bits of what is around the key, and are left out.
    """
    encoded = quote(key, safe="")
    found = {key, encoded, re.sub("%..", lambda each: each[0].lower(), encoded)}
    for before in range(3):
        whole = base64.b64encode(bytes(before) + key.encode()).decode()
        inner = whole[math.ceil(before * 8 / 6) : (before + len(key)) * 8 // 6]
        if len(inner) >= _SHORTEST:
            found |= {inner, inner.replace("+", "-").replace("/", "_")}
    return sorted(found, key=len, reverse=True)


def texts_changed(value: Any, change: Callable[[str], str], deepest: int = _DEEPEST) -> Any:
    """Return a JSON value with each text in it changed, keys of objects included.

    What lies deeper than 20 levels becomes ``…``, and a number that is not finite a text: no database takes either.
    """
    if isinstance(value, str):
        return change(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if not isinstance(value, (dict, list)):
        return value
    if not deepest:
        return "…"
    if isinstance(value, dict):
        return {change(name): texts_changed(each, change, deepest - 1) for name, each in value.items()}
    return [texts_changed(each, change, deepest - 1) for each in value]
