"""What Airflow sends metrics and spans to: a statsd server and an OTLP/HTTP collector on loopback."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_LAST = b"last"
_BUFFER = 4 * 2**20  # bytes: a burst of datagrams must not be lost while the thread waits for the processor


class StatsdServer:
    """Keeps the lines that arrive by UDP."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._lines: list[str] = []
        self._caught_up = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    @property
    def lines(self) -> list[str]:
        """All that has been sent by now: datagrams on loopback keep their order."""
        self._send(_LAST)
        assert self._caught_up.acquire(timeout=30)
        return list(self._lines)

    def ours(self) -> Counter[str]:
        """Return this provider's counters, added up, and how often each timer was sent."""
        counts: Counter[str] = Counter()
        for line in self.lines:
            name, _, value = line.partition(":")
            number, _, kind = value.partition("|")
            if name.startswith("airflow.machfive."):
                counts[name.removeprefix("airflow.")] += int(number) if kind == "c" else 1
        return counts

    def close(self) -> None:
        self._send(b"")
        self._thread.join()
        self._socket.close()

    def _send(self, data: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(data, ("127.0.0.1", self.port))

    def _receive(self) -> None:
        while data := self._socket.recv(65536):
            if data == _LAST:
                self._caught_up.release()
            else:
                self._lines += data.decode().splitlines()


@contextmanager
def statsd_server() -> Iterator[StatsdServer]:
    server = StatsdServer()
    try:
        yield server
    finally:
        server.close()


class Collector(ThreadingHTTPServer):
    """Keeps the spans that are posted to it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Posts)
        self.spans: list[Any] = []
        self.raw: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def ours(self) -> list[Any]:
        """Return this provider's spans in the order in which they ended."""
        ours = [each for each in self.spans if each.name.startswith("machfive.")]
        return sorted(ours, key=lambda each: each.end_time_unix_nano)


class _Posts(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = ExportTraceServiceRequest.FromString(body)
        self.server.raw.append(body)
        self.server.spans += [
            span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans
        ]
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@contextmanager
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
