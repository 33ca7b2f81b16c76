"""Schemathesis holds the running sandbox to its own OpenAPI description, for both editions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
import yaml
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

import machfive_provider.sandbox
from machfive_provider.sandbox import Sandbox, SandboxSettings
from machfive_provider.sandbox.model import make_uuid

DESCRIPTION = Path(machfive_provider.sandbox.__file__).with_name("openapi.yaml")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
    negative_data_rejection,
    positive_data_acceptance,
    # Left out: ignored_auth sends each request twice more, and test_routes.py tests every endpoint without
    # and with a wrong key; missing_required_header, since no header but the key is required;
    # use_after_free and ensure_resource_availability, since nothing can be deleted; max_response_time.
]
BOUNDED = settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


# What `serve` buys first; ids follow from the seed, so they are known before anything runs.
LIST_IDS = [make_uuid(0, "list", number) for number in range(2)]


def describe(generation: str) -> dict[str, Any]:
    """Narrow the description to one edition, and its ids to ones that exist, so that calls get through."""
    spec: dict[str, Any] = yaml.safe_load(DESCRIPTION.read_text("utf-8"))
    # Every call carries the right key, so a key spoilt by schemathesis would be mended again.
    del spec["security"]
    spec["paths"] = {
        path: item for path, item in spec["paths"].items() if item.pop("x-generation", generation) == generation
    }
    for path in ("generate", "generate-batch"):
        body = spec["paths"][f"/api/v1/campaigns/{{campaign_id}}/{path}"]["post"]["requestBody"]
        content = body["content"]["application/json"]
        content["schema"] = next(each for each in content["schema"]["anyOf"] if each["$ref"].endswith(generation))
    sandbox = Sandbox()
    campaigns = [campaign.id for campaign in sandbox.workspaces[0].campaigns[:2]]
    spec["components"]["parameters"]["CampaignId"]["schema"] = {"enum": campaigns}
    spec["components"]["parameters"]["ListId"]["schema"] = {"enum": LIST_IDS}
    for name in ("Options2026", "BatchOptions2026"):
        # schemathesis 4.1 does not come to an end with this oneOf, and overlooks the if of enrichment;
        # test_validation.py tests both.
        options = spec["components"]["schemas"][name]
        del options["oneOf"], options["properties"]["signature_id"], options["properties"]["enrichment_enabled"]
        options["required"] = [*options["required"], "email_signature"]
    for name in ("Generate2026", "GenerateBatch2026"):
        del spec["components"]["schemas"][name]["if"], spec["components"]["schemas"][name]["then"]
    return spec


def serve(generation: Any) -> Iterator[Sandbox]:
    """Run a sandbox that never refuses for want of credits or room, with two completed lists."""
    with Sandbox(SandboxSettings(generation=generation, credits=10**9, concurrency=10**9)) as sandbox:
        options = {} if generation == "2025" else {"email_count": 2, "email_signature": "Robin"}
        url = f"{sandbox.base_url}/api/v1/campaigns/{sandbox.campaign_id}"
        lead = {"email": "ada@analytical.example", "name": "Ada", "company": "Analytical"}
        headers = {"X-API-Key": sandbox.api_key}
        httpx.post(
            f"{url}/generate-batch", json={"leads": [lead], "options": options}, headers=headers
        ).raise_for_status()
        httpx.post(f"{url}/generate", json={"lead": lead, "options": options}, headers=headers).raise_for_status()
        assert [each.id for each in sandbox.lists] == LIST_IDS
        yield sandbox


@pytest.fixture(scope="module")
def sandbox_2025() -> Iterator[Sandbox]:
    yield from serve("2025")


@pytest.fixture(scope="module")
def sandbox_2026() -> Iterator[Sandbox]:
    yield from serve("2026")


def hold_to_description(sandbox: Sandbox, case: schemathesis.Case, session: requests.Session) -> None:
    case.call_and_validate(
        base_url=sandbox.base_url,
        session=session,
        headers={"Authorization": f"Bearer {sandbox.api_key}"},
        checks=CHECKS,
        # A wrong type in a query may read as a right one once it is text ("27"), which 4.1 overlooks;
        # test_validation.py has the queries that must be refused.
        excluded_checks=[negative_data_rejection] if case.method == "GET" else [],
    )


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


schema_2025 = schemathesis.openapi.from_dict(describe("2025"))
schema_2026 = schemathesis.openapi.from_dict(describe("2026"))


@schema_2025.parametrize()
@BOUNDED
def test_2025_keeps_its_description(case: schemathesis.Case, sandbox_2025: Sandbox, session: requests.Session) -> None:
    hold_to_description(sandbox_2025, case, session)


@schema_2026.parametrize()
@BOUNDED
def test_2026_keeps_its_description(case: schemathesis.Case, sandbox_2026: Sandbox, session: requests.Session) -> None:
    hold_to_description(sandbox_2026, case, session)
