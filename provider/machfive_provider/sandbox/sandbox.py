"""`Sandbox`: starts and stops the stand-in for the API, scripts it, and shows what it recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from starlette.types import ASGIApp

from machfive_provider.sandbox.app import build_app
from machfive_provider.sandbox.faults import Fault, make_fault
from machfive_provider.sandbox.model import Clock, LeadList, SandboxSettings, Workspace
from machfive_provider.sandbox.server import ServerThread
from machfive_provider.sandbox.store import Purchase, RecordedRequest, Store

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 an address to translate, not one to bind


class Sandbox:
    """A stand-in for the MachFive API on a real socket; a context manager that runs it in a thread.

    `clock` moves lists through their states and stamps everything; waiting inside a response
    (`generate_seconds`, delays) takes the time of the event loop it runs in. Thread-safe; what the
    properties return is a copy.
    """

    def __init__(self, settings: SandboxSettings | None = None, *, clock: Clock = time.time) -> None:
        self.settings = settings or SandboxSettings()
        self._state = Store(self.settings, clock)
        self._app = build_app(self._state)
        self._server: ServerThread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start to serve. Raises OSError where the port is taken, RuntimeError where it serves already."""
        if self._server is not None:
            raise RuntimeError("the sandbox is running already")
        server = ServerThread(self._app, self._state, self.settings)
        server.start()
        self._server = server

    def stop(self) -> None:
        """Drop all connections and stop; does nothing where it is stopped already. What it kept stays readable."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    @property
    def app(self) -> ASGIApp:
        """The ASGI application, to be called in an event loop of the caller's own; needs no `start`.

        All waiting in it is asyncio's on the running loop. Where a fault drops the connection, it raises
        ConnectionResetError, since there is no connection.
        """
        return self._app

    @property
    def port(self) -> int:
        """The port it listens on. Raises RuntimeError while it does not serve."""
        if self._server is None:
            raise RuntimeError("the sandbox is not running")
        return self._server.port

    @property
    def base_url(self) -> str:
        """Where clients on this machine reach it, without a slash at the end."""
        host = _ANY_ADDRESS.get(self.settings.host, self.settings.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def workspaces(self) -> list[Workspace]:
        """The workspaces themselves: their `credits` and `api_key` may be set. `reset` makes new ones."""
        return list(self._state.workspaces)

    @property
    def api_key(self) -> str:
        """The key of the first workspace."""
        return self._state.workspaces[0].api_key

    @property
    def campaign_id(self) -> str:
        """The first campaign of the first workspace, which is ready for generation."""
        return self._state.workspaces[0].campaigns[0].id

    @property
    def unready_campaign_id(self) -> str:
        """The campaign of the first workspace that was not set up for generation at the start."""
        return self._state.workspaces[0].campaigns[-1].id

    @property
    def purchases(self) -> list[Purchase]:
        """Everything bought, in order."""
        with self._state.changed:
            return list(self._state.purchases)

    @property
    def requests(self) -> list[RecordedRequest]:
        """Every request to the API that arrived, in order; control requests are not among them."""
        with self._state.changed:
            return list(self._state.requests)

    @property
    def lists(self) -> list[LeadList]:
        """Every list, oldest first, those not visible yet included."""
        with self._state.changed:
            return list(self._state.lists.values())

    @property
    def duplicates(self) -> int:
        """How many leads were bought more than once within one campaign."""
        return self._state.duplicates()

    @property
    def open_connections(self) -> int:
        """How many TCP connections are open. The server notices a close a moment later: see `wait_until`."""
        return self._state.open_connections

    @property
    def hanging(self) -> int:
        """How many requests hang right now because of a "hang" fault."""
        return self._state.hanging

    @property
    def unused_faults(self) -> list[Fault]:
        """The scripted faults that never met their request."""
        with self._state.changed:
            return [fault for fault in self._state.faults if fault.used == 0]

    def fault(
        self,
        kind: str,
        endpoint: str | None = None,
        times: int | None = 1,
        after: int = 0,
        accepted: bool = False,
        contains: str | None = None,
        **args: Any,
    ) -> Fault:
        """Script a fault for the next `times` matching requests (None: for ever) after skipping `after`.

        `accepted` lets the API handle the request first. Raises ValueError where the fault makes no sense.
        """
        return self._state.add_fault(make_fault(kind, endpoint, times, after, accepted, contains, **args))

    def clear_faults(self) -> None:
        """Forget all scripted faults, those for ever included."""
        with self._state.changed:
            self._state.faults.clear()

    def complete(self, list_id: str) -> None:
        """End a list well, now. Raises KeyError for an unknown list, as the next three do."""
        self._state.force(list_id, "completed")

    def fail(self, list_id: str) -> None:
        """End a list as failed, now."""
        self._state.force(list_id, "failed")

    def set_status(self, list_id: str, status: str) -> None:
        """Show any status for a list, now and until it is changed again."""
        self._state.force(list_id, status)

    def rename(self, list_id: str, name: str) -> None:
        """Rename a list, as a user of the web app can."""
        self._state.rename(list_id, name)

    def build_campaign(self, campaign_id: str) -> None:
        """End the building of a campaign, now."""
        self._state.finish_building(campaign_id)

    def reset(self) -> None:
        """Go back to the start: full credits, no lists, no purchases or requests, no faults, the same ids again."""
        self._state.reset()

    def requests_to(self, endpoint: str) -> list[RecordedRequest]:
        """Every request to one endpoint that arrived, in order."""
        return [request for request in self.requests if request.endpoint == endpoint]

    def wait_until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Block until the condition holds; it is asked again after every change in the sandbox.

        Raises TimeoutError after `timeout` seconds.
        """
        with self._state.changed:
            if not self._state.changed.wait_for(condition, timeout):
                raise TimeoutError(f"the sandbox did not come to the expected state within {timeout} s")

    def wait_for_requests(self, endpoint: str, count: int, timeout: float = 10.0) -> None:
        """Block until so many requests to the endpoint have arrived, whether responded to or not; as `wait_until`."""
        self.wait_until(lambda: len(self.requests_to(endpoint)) >= count, timeout)
