"""Scripted faults: what can go wrong, which requests it is meant for, and which ones are still unused.

Two families. *Request* faults spoil the answer to a request; `misbehaviour.py` acts them out. *List*
faults spoil the list that a purchase creates; `effects.py` does that. A fault is used up by its `times`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from machfive_provider.sandbox.endpoints import ENDPOINTS, PURCHASES

REQUIRED: Any = object()

REQUEST_KINDS: Mapping[str, Mapping[str, Any]] = {
    "status": {
        "status": REQUIRED,
        "code": None,
        "message": None,
        "detail": None,
        "headers": {},
        "body": None,
        "content_type": "text/plain; charset=utf-8",
        # "auto" sends the request id the sandbox would send anyway, None sends none.
        "request_id": "auto",
    },
    "html": {"status": 502},
    "reset": {},
    "truncate": {"keep": 0.5},
    "garbage": {"status": None},
    "wrong_shape": {"status": None, "body": {"unexpected": True}},
    "hang": {},
    "drop_field": {"field": REQUIRED},
    "extra_field": {"fields": {"added_later": {"nested": [1, 2, 3]}}},
    "delay": {"seconds": REQUIRED},
    "slow_headers": {"seconds": REQUIRED},
    "redirect": {"location": REQUIRED},
}
LIST_KINDS: Mapping[str, Mapping[str, Any]] = {
    "visible_late": {"seconds": REQUIRED},
    "cut_name": {"length": REQUIRED},
    "rewrite_name": {"name": REQUIRED},
    "fail_list": {},
    "stuck": {},
    "lose_leads": {"count": 1},
    "extra_leads": {"count": 1},
    "short_sequences": {"count": 1},
    "unknown_status": {"status": "researching"},
}
KINDS: Mapping[str, Mapping[str, Any]] = {**REQUEST_KINDS, **LIST_KINDS}
_TYPES: Mapping[str, tuple[type, ...]] = {
    "status": (int, str, type(None)),
    "code": (str, type(None)),
    "message": (str, type(None)),
    "headers": (dict,),
    "content_type": (str,),
    "request_id": (str, type(None)),
    "keep": (int, float),
    "field": (str,),
    "fields": (dict,),
    "seconds": (int, float),
    "location": (str,),
    "length": (int,),
    "name": (str,),
    "count": (int,),
}


@dataclass(eq=False)
class Fault:
    """One scripted fault and how much of it is left (`times` None: for ever)."""

    kind: str
    endpoint: str | None = None
    times: int | None = 1
    after: int = 0
    accepted: bool = False
    contains: str | None = None
    args: dict[str, Any] = field(default_factory=dict)
    used: int = 0

    def matches(self, endpoint: str, text: str) -> bool:
        """Tell whether a request is meant, by its endpoint's name and its path and body as text."""
        if self.times is not None and self.used >= self.times:
            return False
        if self.endpoint is not None and self.endpoint != endpoint:
            return False
        return self.contains is None or self.contains in text

    def as_json(self) -> dict[str, Any]:
        """Tell the fault to a client of the control API."""
        return {
            "kind": self.kind,
            "endpoint": self.endpoint,
            "times": self.times,
            "after": self.after,
            "accepted": self.accepted,
            "contains": self.contains,
            "used": self.used,
        }


def make_fault(
    kind: str,
    endpoint: str | None = None,
    times: int | None = 1,
    after: int = 0,
    accepted: bool = False,
    contains: str | None = None,
    **args: Any,
) -> Fault:
    """Check a fault's description, so that a typing error fails where it is made.

    Raises ValueError for an unknown kind, endpoint or argument, a missing argument, or a wrong value.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown fault kind {kind!r}; known: {', '.join(sorted(KINDS))}")
    allowed = PURCHASES if kind in LIST_KINDS else ENDPOINTS
    if endpoint is not None and endpoint not in allowed:
        raise ValueError(f"{kind!r} knows no endpoint {endpoint!r}; known: {', '.join(sorted(allowed))}")
    if times is not None and (not _is_count(times) or times < 1):
        raise ValueError(f"times must be a whole number from 1, or None for ever: {times!r}")
    if not _is_count(after):
        raise ValueError(f"after must be a whole number from 0: {after!r}")
    if not isinstance(accepted, bool) or not isinstance(contains, str | None):
        raise ValueError("accepted must be true or false, and contains a text")  # noqa: TRY004 one class for callers
    return Fault(kind, endpoint, times, after, accepted, contains, _complete(kind, args))


def _complete(kind: str, args: Mapping[str, Any]) -> dict[str, Any]:
    known = KINDS[kind]
    if unknown := sorted(set(args) - set(known)):
        raise ValueError(
            f"{kind!r} takes no argument {', '.join(unknown)}; known: {', '.join(sorted(known)) or 'none'}"
        )
    complete = {**known, **args}
    for name, value in complete.items():
        if value is REQUIRED:
            raise ValueError(f"{kind!r} needs the argument {name}")
        if name in _TYPES and (not isinstance(value, _TYPES[name]) or isinstance(value, bool)):
            raise ValueError(f"{kind!r}: {name} has the wrong type: {value!r}")
    # An unknown_status is a text; everywhere else a status is a number of HTTP.
    is_text = kind == "unknown_status"
    status = complete.get("status")
    if status is not None and (isinstance(status, str) != is_text or (not is_text and not 200 <= status <= 599)):
        raise ValueError(f"{kind!r}: status makes no sense: {status!r}")
    return complete


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def request_text(path: str, body: bytes) -> str:
    """Join what a fault's `contains` looks at; escaped JSON is added unescaped, to be found either way."""
    text = body.decode("utf-8", "replace")
    if "\\u" in text:
        with contextlib.suppress(ValueError, RecursionError):
            text += "\n" + json.dumps(json.loads(text), ensure_ascii=False)
    return f"{path}\n{text}"


class FaultBook:
    """The faults in the order in which they were scripted. Not locked: its owner's lock guards it."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def take_request_fault(self, endpoint: str, text: str) -> Fault | None:
        """Use up and return the first fault that is due for this request; the others wait their turn."""
        chosen: Fault | None = None
        for fault in self.faults:
            if fault.kind in REQUEST_KINDS and fault.matches(endpoint, text):
                if fault.after > 0:
                    fault.after -= 1
                elif chosen is None:
                    chosen = fault
                    fault.used += 1
        return chosen

    def take_list_faults(self, endpoint: str, text: str) -> list[Fault]:
        """Use up and return every fault that is due for this purchase: several may spoil one list."""
        due = []
        for fault in self.faults:
            if fault.kind in LIST_KINDS and fault.matches(endpoint, text):
                if fault.after > 0:
                    fault.after -= 1
                else:
                    fault.used += 1
                    due.append(fault)
        return due

    def unused(self) -> list[Fault]:
        """List the faults that never met their request, which is mostly an error in a test."""
        return [fault for fault in self.faults if fault.used == 0]
