from __future__ import annotations

import socket
import threading

import httpx
import pytest

from machfive_provider.sandbox import Sandbox, SandboxSettings
from tests.sandbox.conftest import World


def test_connections_are_counted_and_threads_end() -> None:
    before = threading.active_count()
    with Sandbox() as sandbox:
        with httpx.Client(base_url=sandbox.base_url) as first, httpx.Client(base_url=sandbox.base_url) as second:
            for client in (first, second):
                assert client.get("/api/v1/lists").status_code == 401
            assert sandbox.open_connections == 2
        sandbox.wait_until(lambda: sandbox.open_connections == 0)
    assert threading.active_count() == before


def test_stopping_drops_idle_connections_and_frees_the_port() -> None:
    with Sandbox() as sandbox, httpx.Client(base_url=sandbox.base_url) as client:
        client.get("/api/v1/lists")
        port = sandbox.port
        sandbox.stop()
        assert sandbox.open_connections == 0
        with pytest.raises(httpx.TransportError):
            client.get("/api/v1/lists")
        with Sandbox(SandboxSettings(port=port)) as again:
            assert client.get("/api/v1/lists").status_code == 401
            assert again.port == port


def test_a_sandbox_can_be_started_again_but_not_twice() -> None:
    sandbox = Sandbox()
    for _ in range(2):
        with sandbox, pytest.raises(RuntimeError, match="running already"):
            sandbox.start()
        sandbox.stop()
    with pytest.raises(RuntimeError, match="not running"):
        _ = sandbox.base_url


def test_a_taken_port_is_an_error_for_the_caller() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        Sandbox(SandboxSettings(port=taken.getsockname()[1])).start()


def test_waiting_for_requests_ends_by_arrival_or_timeout(world: World) -> None:
    threading.Thread(target=world.lists).start()
    world.sandbox.wait_for_requests("lists", 1)
    with pytest.raises(TimeoutError):
        world.sandbox.wait_for_requests("lists", 2, timeout=0.01)


def test_what_stopped_stays_readable() -> None:
    with Sandbox() as sandbox:
        httpx.get(f"{sandbox.base_url}/api/v1/lists")
    assert len(sandbox.requests) == 1
