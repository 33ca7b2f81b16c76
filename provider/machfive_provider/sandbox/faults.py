"""Scripted faults: what can go wrong, which requests it is meant for, and which ones are still unused.

*Request* faults spoil the response to a request: `broken_responses.py`. *List* faults spoil the list that a
purchase creates: `spoil` in `lists.py`. A fault is used up after so many requests as its `times` says.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from machfive_provider.sandbox.oddities import ODD_ENTRIES, ODD_LEADS

PURCHASES = ("generate", "generate-batch")
ENDPOINTS = ("campaigns", *PURCHASES, "lists", "list", "export", "signatures")
CONTROL_PREFIX = "/_sandbox"

_PATTERNS = {
    "campaigns": re.compile(r"/api/v1/campaigns"),
    "generate": re.compile(r"/api/v1/campaigns/[^/]+/generate"),
    "generate-batch": re.compile(r"/api/v1/campaigns/[^/]+/generate-batch"),
    "lists": re.compile(r"/api/v1/lists"),
    "list": re.compile(r"/api/v1/lists/[^/]+"),
    "export": re.compile(r"/api/v1/lists/[^/]+/export"),
    "signatures": re.compile(r"/api/v1/signatures"),
    "page": re.compile(r"/campaigns/[^/]+"),
}
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
    "end_when_polled": {"status": "completed"},
    "lose_leads": {"count": 1},
    "extra_leads": {"count": 1},
    "short_sequences": {"count": 1},
    "unknown_status": {"status": "researching"},
    "odd_leads": {"oddity": REQUIRED, "count": 1},
    "odd_entry": {"oddity": REQUIRED},
}
ODDITIES: Mapping[str, Mapping[str, Any]] = {"odd_leads": ODD_LEADS, "odd_entry": ODD_ENTRIES}
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
        """Whether the fault is for a request, by its endpoint's name and its path and body as text."""
        if self.times is not None and self.used >= self.times:
            return False
        if self.endpoint is not None and self.endpoint != endpoint:
            return False
        return self.contains is None or self.contains in text

    def as_json(self) -> dict[str, Any]:
        """Show the fault as the control endpoints do."""
        names = ("kind", "endpoint", "times", "after", "accepted", "contains", "used")
        return {name: getattr(self, name) for name in names}


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
    if kind in ODDITIES and complete["oddity"] not in ODDITIES[kind]:
        raise ValueError(f"{kind!r} knows no oddity {complete['oddity']!r}; known: {', '.join(ODDITIES[kind])}")
    # The status of a list fault is a list's, a text; everywhere else it is HTTP's, a number.
    is_text = kind in LIST_KINDS
    status = complete.get("status")
    if status is not None and (isinstance(status, str) != is_text or (not is_text and not 200 <= status <= 599)):
        raise ValueError(f"{kind!r}: status makes no sense: {status!r}")
    return complete


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def endpoint_of(path: str) -> str:
    """Name the endpoint of a path; "page" is the page for people, "unknown" is everything else."""
    return next((name for name, pattern in _PATTERNS.items() if pattern.fullmatch(path)), "unknown")


def is_control(path: str) -> bool:
    """Whether a path belongs to the control endpoints."""
    return path == CONTROL_PREFIX or path.startswith(CONTROL_PREFIX + "/")


def request_text(path: str, body: bytes) -> str:
    """Join the text in which a fault's `contains` is searched; JSON escapes are added unescaped, so that both match."""
    text = body.decode("utf-8", "replace")
    if "\\u" in text:
        with contextlib.suppress(ValueError, RecursionError):
            text += "\n" + json.dumps(json.loads(text), ensure_ascii=False)
    return f"{path}\n{text}"


def take_due_faults(
    faults: list[Fault], kinds: Collection[str], endpoint: str, text: str, most: int | None = None
) -> list[Fault]:
    """Use up and return the faults of these kinds that are due for a request, at most so many; the others wait."""
    due: list[Fault] = []
    for fault in faults:
        if fault.kind in kinds and fault.matches(endpoint, text):
            if fault.after > 0:
                fault.after -= 1
            elif most is None or len(due) < most:
                fault.used += 1
                due.append(fault)
    return due
