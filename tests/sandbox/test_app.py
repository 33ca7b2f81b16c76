"""`Sandbox.app` in an event loop of the test's own, without a socket and on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest

from machfive_provider.sandbox import Sandbox, SandboxSettings
from tests.sandbox.conftest import LEAD
from tests.virtual import Network, VirtualLoop


def run(scenario: Callable[[Sandbox, httpx.AsyncClient], Awaitable[None]]) -> None:
    """Run a scenario on virtual time, with a sandbox and a client in the same loop."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        sandbox = Sandbox(SandboxSettings(processing_seconds=600, generate_seconds=90), clock=loop.time)
        async with httpx.AsyncClient(
            transport=Network(sandbox).open(),
            base_url="https://app.machfive.io/api/v1",
            headers={"X-API-Key": sandbox.api_key},
            timeout=100,
        ) as client:
            await scenario(sandbox, client)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


def test_lists_and_responses_take_the_time_of_the_loop() -> None:
    async def scenario(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
        started = asyncio.get_running_loop().time()
        url = f"/campaigns/{sandbox.campaign_id}"
        list_id = (await client.post(f"{url}/generate-batch", json={"leads": [LEAD]})).json()["list_id"]
        assert (await client.post(f"{url}/generate", json={"lead": LEAD})).status_code == 200
        assert asyncio.get_running_loop().time() == started + 90
        sandbox.fault("delay", "list", seconds=60)
        assert (await client.get(f"/lists/{list_id}")).json()["processing_status"] == "processing"
        assert asyncio.get_running_loop().time() == started + 150
        await asyncio.sleep(450)
        assert (await client.get(f"/lists/{list_id}")).json()["processing_status"] == "completed"
        assert sandbox.purchases[0].list_id == list_id
        with pytest.raises(RuntimeError, match="not running"):
            _ = sandbox.base_url

    run(scenario)


def test_a_dropped_connection_is_an_exception_and_silence_lasts_until_the_timeout() -> None:
    async def scenario(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
        sandbox.fault("reset", "generate-batch", accepted=True)
        with pytest.raises(httpx.ReadError):
            await client.post(f"/campaigns/{sandbox.campaign_id}/generate-batch", json={"leads": [LEAD]})
        assert len(sandbox.purchases) == 1
        sandbox.fault("truncate")
        with pytest.raises(httpx.ReadError):
            await client.get("/lists")
        for kind, arguments in (("hang", {}), ("delay", {"seconds": float("inf")})):
            sandbox.fault(kind, **arguments)
            with pytest.raises(httpx.ReadTimeout):
                await client.get("/lists")
        assert (sandbox.hanging, sandbox.unused_faults) == (0, [])
        assert (await client.get("/lists")).status_code == 200

    run(scenario)
