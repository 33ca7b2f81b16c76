"""The other side of the pollers, in a process of its own: whatever is waited for is still running until told to end.

It answers MachFive's two reads truthfully, and the one read of each peer. Answers are ready-made bytes, so that what is
measured is the poller. ``/control/...`` is for the harness and not counted.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

__all__ = ["ServerProcess", "api_key", "ask", "list_id"]

CAMPAIGN = "c0000000-0000-4000-8000-000000000000"
NEWEST = datetime(2026, 11, 1, 12, tzinfo=UTC)
PENDING = 0.05  # of the lists, the newest ones
RUN = {"id": "msgbatch", "type": "message_batch", "created_at": "2026-11-01T12:00:00Z"}
BATCH = {**RUN, "expires_at": "2026-11-02T12:00:00Z"}
COUNTS = dict.fromkeys(("canceled", "errored", "expired", "processing", "succeeded"), 0)


def api_key(number: int) -> str:
    """Return the API key of one of the workspaces."""
    return f"key{number}"


FIRST_KEY = api_key(0).encode()
KEY = re.compile(rb"(?i)\r\nauthorization: bearer (key\d+)")  # a peer's other key is none of them


def list_id(number: int) -> str:
    """Return the id of one of the lists that are waited for."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def foreign_id(number: int) -> str:
    """Return the id of a list that another client of the workspace has submitted."""
    return f"{number:08x}-ffff-4000-8000-000000000000"


def to_bytes(status: str, body: Any) -> bytes:
    """Return a whole answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


class Workspace:
    """MachFive's lists, newest first: ours strewn among those of others.

    :param ours: the numbers of the lists that are waited for
    """

    def __init__(self, ours: Iterable[int], foreign: int) -> None:
        ids = [*map(list_id, ours), *map(foreign_id, range(foreign))]
        random.Random(7).shuffle(ids)
        pending = max(1, round(PENDING * len(ids)))
        self.lists = {each: self._new(each, age, pending) for age, each in enumerate(ids)}
        self._answers: dict[str, bytes] = {}

    @staticmethod
    def _new(list_id: str, age: int, pending: int) -> dict[str, Any]:
        return {
            "id": list_id,
            "campaign_id": CAMPAIGN,
            "custom_name": f"Leads of {list_id[:8]}",
            "processing_status": "pending" if age < pending else "processing",
            "created_at": (NEWEST - timedelta(seconds=age)).isoformat(),
        }

    def end(self, list_ids: list[str]) -> None:
        """Complete lists."""
        for each in list_ids:
            self.lists[each].update(processing_status="completed", completed_at=NEWEST.isoformat())
        self._answers.clear()

    def answer(self, target: str) -> bytes:
        """Return the answer to a read, ready-made since the last change."""
        if target not in self._answers:
            self._answers[target] = self._make(target)
        return self._answers[target]

    def _make(self, target: str) -> bytes:
        parts = urlsplit(target)
        if parts.path == "/api/v1/lists":
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            wanted = query.get("status")
            lists = [each for each in self.lists.values() if wanted in (None, each["processing_status"])]
            begin = int(query.get("offset", 0))
            return to_bytes("200 OK", {"lists": lists[begin : begin + min(100, int(query.get("limit", 50)))]})
        found = self.lists.get(parts.path.rpartition("/")[2])
        if found is None:
            return to_bytes("404 Not Found", {"error": "NOT_FOUND", "message": "no such list"})
        figures = {"leads_count": 3, "emails_created": 9} if found["processing_status"] == "completed" else {}
        return to_bytes("200 OK", {**found, "updated_at": NEWEST.isoformat(), **figures})


# By the beginning of the path: what a peer reads while the work is going on, and after its end.
PEERS: dict[str, tuple[bytes, bytes]] = {
    "/api/v2/accounts/1/runs/": (
        to_bytes("200 OK", {"data": {"id": 1, "status": 3}}),
        to_bytes("200 OK", {"data": {"id": 1, "status": 10}}),
    ),
    "/jobs/": tuple(
        to_bytes("200 OK", {"jobId": 1, "status": each, "jobType": "sync", "connectionId": CAMPAIGN, "startTime": "x"})
        for each in ("running", "succeeded")
    ),
    # The HTTP sensor's trigger waits while it is answered 404, and takes any other answer for the end.
    "/wait/": (to_bytes("404 Not Found", {}), to_bytes("200 OK", {})),
    "/v1/messages/batches/": tuple(
        to_bytes("200 OK", {**BATCH, "processing_status": each, "request_counts": COUNTS})
        for each in ("in_progress", "ended")
    ),
}
FAILURE = to_bytes("500 Internal Server Error", {"error": "INTERNAL_ERROR", "message": "scripted"})


class Server:
    """All answers, and the count of the requests.

    :param workspaces: the lists are dealt to so many in turn; each is known by its API key
    """

    def __init__(self, ours: int, foreign: int, workspaces: int = 1) -> None:
        dealt = [Workspace(range(number, ours, workspaces), foreign) for number in range(workspaces)]
        self.workspaces = {api_key(number).encode(): each for number, each in enumerate(dealt)}
        self.ended: set[str] = set()
        self.requests: list[float] = []
        self.failing = False

    def answer(self, target: str, key: bytes = FIRST_KEY) -> bytes:
        """Return the answer to a GET."""
        if target.startswith("/control/"):
            return to_bytes("200 OK", self._control(urlsplit(target)))
        self.requests.append(time.monotonic())
        if self.failing:
            return FAILURE
        if target.startswith("/api/v1/lists"):
            return self.workspaces[key].answer(target)
        for beginning, (running, ended) in PEERS.items():
            if target.startswith(beginning):
                return ended if target.partition("?")[0].rstrip("/").rpartition("/")[2] in self.ended else running
        return to_bytes("404 Not Found", {"error": "NOT_FOUND", "message": target})

    def _control(self, parts: Any) -> dict[str, Any]:
        query = parse_qs(parts.query)
        if parts.path == "/control/end":
            ids = query["ids"][0].split(",")
            self.ended.update(ids)
            for workspace in self.workspaces.values():
                workspace.end([each for each in ids if each in workspace.lists])
        elif parts.path == "/control/fail":
            self.failing = query["on"] == ["1"]
        counted = [each for each in self.requests if each >= float(query.get("since", ["0"])[0])]
        # The clock is the machine's: it reads the same in the process that asks.
        return {"now": time.monotonic(), "requests": len(counted), "first": counted[:1], "last": counted[-1:]}


class Talk(asyncio.Protocol):
    """One kept connection: GETs in, answers out."""

    def __init__(self, answer: Callable[[str, bytes], bytes]) -> None:
        self.answer, self.rest = answer, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        *heads, self.rest = (self.rest + data).split(b"\r\n\r\n")
        for head in heads:
            key = KEY.search(head)
            self.transport.write(self.answer(head.split(b" ", 2)[1].decode(), key[1] if key else FIRST_KEY))


async def serve(ours: int, foreign: int, workspaces: int) -> None:
    """Serve until standard input ends, which it does with the process that started this one."""
    loop, server = asyncio.get_running_loop(), Server(ours, foreign, workspaces)
    listening = await loop.create_server(lambda: Talk(server.answer), "127.0.0.1", 0, backlog=4096)
    print(listening.sockets[0].getsockname()[1], flush=True)
    over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), over.set)
    await over.wait()


async def ask(port: int, target: str) -> dict[str, Any]:
    """Send one control request from the loop that is measured, at next to no cost to it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {target} HTTP/1.1\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n", 1)[0])
    body = await reader.readexactly(length)
    writer.close()
    return json.loads(body)


class ServerProcess:
    """A server, started and ended; ``port`` is where it listens, on loopback only."""

    def __init__(self, ours: int, foreign: int = 0, workspaces: int = 1) -> None:
        numbers = map(str, (ours, foreign, workspaces))
        self._command = [sys.executable, "-m", "tests.benchmarks.polling_server", *numbers]
        self.port = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


if __name__ == "__main__":
    asyncio.run(serve(*map(int, sys.argv[1:])))
