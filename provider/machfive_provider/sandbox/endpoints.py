"""The names of the endpoints, as the books and the scripted faults use them."""

from __future__ import annotations

import re

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


def endpoint_of(path: str) -> str:
    """Name the endpoint of a path; "page" is the page for people, "unknown" is everything else."""
    return next((name for name, pattern in _PATTERNS.items() if pattern.fullmatch(path)), "unknown")


def is_control(path: str) -> bool:
    """Tell whether a path belongs to the sandbox's own control interface."""
    return path == CONTROL_PREFIX or path.startswith(CONTROL_PREFIX + "/")
