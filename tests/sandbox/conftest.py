from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import httpx
import pytest

from machfive_provider.sandbox import Sandbox, SandboxSettings

LEAD = {"email": "ada@analytical.example", "name": "Ada Lovelace", "title": "Head of Engines", "company": "Analytical"}
OPTIONS_2026 = {"email_count": 2, "email_signature": "Robin\nMachFive"}


class FakeClock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A running sandbox with a client of its first workspace."""

    def __init__(self, sandbox: Sandbox, client: httpx.Client, clock: FakeClock) -> None:
        self.sandbox = sandbox
        self.client = client
        self.clock = clock

    def batch(self, *emails: str, options: dict[str, Any] | None = None, campaign: str | None = None) -> httpx.Response:
        body: dict[str, Any] = {"leads": [{**LEAD, "email": email} for email in emails or (LEAD["email"],)]}
        return self.post("generate-batch", body, options, campaign)

    def generate(self, options: dict[str, Any] | None = None, campaign: str | None = None) -> httpx.Response:
        return self.post("generate", {"lead": LEAD}, options, campaign)

    def post(
        self, endpoint: str, body: dict[str, Any], options: dict[str, Any] | None = None, campaign: str | None = None
    ) -> httpx.Response:
        if options is None and self.sandbox.settings.generation == "2026":
            options = OPTIONS_2026
        if options is not None:
            body = {**body, "options": options}
        return self.client.post(f"/api/v1/campaigns/{campaign or self.sandbox.campaign_id}/{endpoint}", json=body)

    def bought(self, *emails: str, **arguments: Any) -> str:
        response = self.batch(*emails, **arguments)
        assert response.status_code == 202, response.text
        list_id: str = response.json()["list_id"]
        return list_id

    def list(self, list_id: str) -> httpx.Response:
        return self.client.get(f"/api/v1/lists/{list_id}")

    def lists(self, **query: Any) -> list[dict[str, Any]]:
        response = self.client.get("/api/v1/lists", params=query)
        assert response.status_code == 200, response.text
        rows: list[dict[str, Any]] = response.json()["lists"]
        return rows

    def export(self, list_id: str, form: str = "csv") -> httpx.Response:
        return self.client.get(f"/api/v1/lists/{list_id}/export", params={"format": form})


class MakeWorld(Protocol):
    def __call__(self, **settings: Any) -> World: ...


@pytest.fixture
def make_world() -> Iterator[Callable[..., World]]:
    with ExitStack() as stack:

        def make(**settings: Any) -> World:
            clock = FakeClock()
            sandbox = stack.enter_context(Sandbox(SandboxSettings(**settings), clock=clock))
            headers = {"Authorization": f"Bearer {sandbox.api_key}"}
            client = stack.enter_context(httpx.Client(base_url=sandbox.base_url, headers=headers, timeout=60))
            return World(sandbox, client, clock)

        yield make


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world()


@pytest.fixture(params=["2025", "2026"])
def each_world(make_world: MakeWorld, request: pytest.FixtureRequest) -> World:
    return make_world(generation=request.param)


def refused(response: httpx.Response, status: int, code: str, text: str = "") -> dict[str, Any]:
    """Assert that an answer is the error it should be, and return its body."""
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()
    assert body["error"] == code
    assert text.lower() in body["message"].lower()
    assert response.headers["X-Request-Id"].startswith("req_")
    return body
