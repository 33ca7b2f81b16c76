"""What the API refuses; test_routes.py tests that a refused request gets a 400 and buys nothing."""

from __future__ import annotations

import re
from typing import Any, Literal

import pytest

from machfive_provider.sandbox.validation import (
    ApiError,
    generate_request,
    json_object,
    query_parameters,
    signature_request,
    whole_number,
)
from tests.sandbox.conftest import LEAD, OPTIONS_2026

BAD_BODIES: list[tuple[bool, Any, str]] = [
    (True, {}, "leads"),
    (True, {"leads": []}, "leads"),
    (True, {"leads": LEAD}, "leads"),
    (True, {"leads": "a@x.example"}, "leads"),
    (True, {"leads": [LEAD, 7]}, "leads[1]"),
    (True, {"leads": [LEAD, {"name": "x"}]}, "leads[1].email is required"),
    (True, {"leads": [LEAD, LEAD, LEAD, {"email": "nonsense"}]}, "leads[3].email"),
    (True, {"leads": [{"email": "a b@x.example"}]}, "leads[0].email"),
    (True, {"leads": [{"email": "a@x"}]}, "leads[0].email"),
    (True, {"leads": [{**LEAD, "name": None}]}, "leads[0].name"),
    (True, {"leads": [{**LEAD, "phone": "1"}]}, "leads[0].phone"),
    (True, {"leads": [LEAD], "lead": LEAD}, "body field: lead"),
    (True, {"leads": [LEAD], "webhook": "x"}, "webhook"),
    (True, {"leads": [LEAD], "options": []}, "options"),
    (False, {"lead": [LEAD]}, "lead must be an object"),
    (False, {"lead": {"email": ""}}, "lead.email"),
    (False, {"leads": [LEAD]}, "leads"),
]
BAD_OPTIONS_2025: list[tuple[dict[str, Any], str]] = [
    ({"email_count": 0}, "email_count"),
    ({"email_count": 6}, "email_count"),
    ({"email_count": True}, "email_count"),
    ({"email_count": "3"}, "email_count"),
    ({"email_count": 2.5}, "email_count"),
    ({"list_name": None}, "list_name"),
    ({"approved_ctas": [1]}, "approved_ctas[0]"),
    ({"approved_ctas": {}}, "approved_ctas"),
    ({"additional_details": "x"}, "additional_details"),
    ({"signature_id": "x"}, "signature_id"),
    ({"sequence_name": "x"}, "sequence_name"),
    ({"tone": "x", "angle": "y"}, "angle, tone"),
]
BAD_OPTIONS_2026: list[tuple[dict[str, Any], str]] = [
    ({"email_count": None}, "email_count"),
    ({"email_count": 5}, "from 1 to 4"),
    ({"email_signature": ...}, "exactly one"),
    ({"signature_id": "00000000-0000-4000-8000-000000000000"}, "exactly one"),
    ({"email_signature": ..., "signature_id": "7"}, "uuid"),
    ({"email_count": ...}, "email_count"),
    ({"approved_ctas": ["Question CTA", "Question"]}, "approved_ctas[1]"),
    ({"approved_ctas": "Demo CTA, Fun CTA"}, "approved_ctas[1]"),
    ({"notification_email": "nobody"}, "notification_email"),
    ({"enrichment_enabled": "yes"}, "enrichment_enabled"),
    ({"angle": "x"}, "angle"),
]
BAD_JSON = [
    (b"{", "json"),
    (b"", "json"),
    (b'{"leads": NaN}', "json"),
    (b"[" * 100_000, "json"),
    (b'{"leads": "\xff"}', "utf-8"),
    (b'{"leads": "\\ud800"}', "utf-8"),
    (b"[]", "object"),
]


def refused(named: str) -> Any:
    return pytest.raises(ApiError, match=f"(?i){re.escape(named)}")


def check(options: dict[str, Any], generation: Literal["2025", "2026"], *, batch: bool = True, **lead: str) -> Any:
    body = {"leads": [lead or LEAD]} if batch else {"lead": lead or LEAD}
    return generate_request({**body, "options": options}, generation=generation, batch=batch)


@pytest.mark.parametrize(("batch", "body", "named"), BAD_BODIES)
def test_wrong_bodies_are_refused_with_their_position(batch: bool, body: Any, named: str) -> None:
    for generation in ("2025", "2026"):
        with refused(named):
            generate_request(body, generation=generation, batch=batch)


def test_wrong_options_are_refused_by_name() -> None:
    for options, named in BAD_OPTIONS_2025:
        with refused(named):
            check(options, "2025")
    for changes, named in BAD_OPTIONS_2026:
        options = {name: value for name, value in {**OPTIONS_2026, **changes}.items() if value is not ...}
        with refused(named):
            check(options, "2026")


def test_options_that_are_taken() -> None:
    assert check({}, "2025").email_count == 3
    options = {"list_name": "x", "email_count": 5, "email_signature": "R", "campaign_angle": "y"}
    for ctas in (["Anything", "goes"], "Anything, goes", []):
        taken = check({**options, "approved_ctas": ctas}, "2025")
        assert (taken.list_name, taken.email_count, taken.signature, taken.credits) == ("x", 5, "R", 1)
    for more in (
        {"approved_ctas": "Demo CTA, Loom Video CTA", "additional_details": "x"},
        {"approved_ctas": ["Trial CTA"], "campaign_angle": "x", "notification_email": "me@x.example"},
    ):
        check({**OPTIONS_2026, **more}, "2026")
    assert check({**OPTIONS_2026, "sequence_name": "Old name"}, "2026").list_name == "Old name"
    with refused("notification_email"):
        check({**OPTIONS_2026, "notification_email": "me@x.example"}, "2026", batch=False)
    with refused("email_count"):
        check({}, "2026")


def test_enrichment_needs_something_to_start_from() -> None:
    options = {**OPTIONS_2026, "enrichment_enabled": True}
    bare, linked = {"email": "c@x.example", "name": "C"}, {"linkedin_url": "https://linkedin.example/c"}
    with refused("leads[0] needs"):
        check(options, "2026", **bare)
    with refused("lead needs"):
        check(options, "2026", batch=False, **bare)
    assert check(options, "2026", **bare, **linked).credits == 2


def test_bytes_that_are_no_json_object_are_refused() -> None:
    for content, named in BAD_JSON:
        with refused(named):
            json_object(content, "application/json; charset=utf-8")
    with refused("content-type"):
        json_object(b"{}", "text/plain")
    for body in ({"name": "x"}, {"name": "x", "signature": ""}, {"name": "x", "signature": "y", "z": 1}):
        with refused(""):
            signature_request(body)


def test_queries_are_decoded_strictly_and_numbers_have_bounds() -> None:
    for query, named in ((b"limit=1&limit=2", "more than once"), (b"page=2", "page"), (b"limit=%FF", "utf-8")):
        with refused(named):
            query_parameters(query, ("limit",))
    for text in ("0", "101", "ten", "", "1.5", "-1", "1" * 5000):
        with refused("limit"):
            whole_number({"limit": text}, "limit", default=50, least=1, most=100)
    assert whole_number({"limit": "100"}, "limit", default=50, least=1, most=100) == 100
