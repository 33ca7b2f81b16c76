"""What the API may send that its contract does not know: odd leads in exports, odd entries in pages of lists.

Each is a function that makes an odd one of a right one. The csv export shows as blank cells what the json lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Shown: TypeAlias = dict[str, Any]


def _with(name: str, value: Any) -> Callable[[Shown], Shown]:
    return lambda shown: {**shown, name: value}


def _without(name: str) -> Callable[[Shown], Shown]:
    return lambda shown: {key: value for key, value in shown.items() if key != name}


def _first_email(change: Callable[[Shown], Any]) -> Callable[[Shown], Shown]:
    def changed(shown: Shown) -> Shown:
        emails = shown["sequence"]
        return {**shown, "sequence": [*map(change, emails[:1]), *emails[1:]]}

    return changed


ODD_LEADS: Mapping[str, Callable[[Shown], Any]] = {
    "null_sequence": _with("sequence", None),
    "no_sequence": _without("sequence"),
    "empty_sequence": _with("sequence", []),
    "null_entry": _first_email(lambda _: None),
    "null_subject": _first_email(_with("subject", None)),
    "no_body": _first_email(_without("body")),
    "text_step": _first_email(lambda email: {**email, "step": str(email["step"])}),
    "null_email": _with("email", None),
    "no_email": _without("email"),
    "no_object": lambda shown: shown["email"],
}
ODD_ENTRIES: Mapping[str, Callable[[Shown], Any]] = {
    "null_status": _with("processing_status", None),
    "number_status": _with("processing_status", 7),
    "no_status": _without("processing_status"),
    "null_name": _with("custom_name", None),
    "no_name": _without("custom_name"),
    "null_id": _with("id", None),
    "no_id": _without("id"),
    "no_object": lambda shown: shown["custom_name"],
}
