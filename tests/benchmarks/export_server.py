"""A server that sends prebuilt exports as fast as a socket takes them, or at a pace; and the making of those exports.

Nothing is computed while it sends, so that what is measured is the client. The id of a list says what is sent:
``list_id(200_000, 20_000_000)`` has 200,000 leads, at 20 MB/s.

Usage: ``python -m tests.benchmarks.export_server FOLDER``; prints its port.
"""

from __future__ import annotations

import csv
import json
import os
import random
import re
import socketserver
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EMAILS_PER_LEAD = 3
_CHUNK = 64 * 1024
_BURST = 0.05  # seconds of the pace that a client may catch up with after it has paused
_BODIES = 997
_PATH = re.compile(r"/lists/(\d{8})-0000-4000-8000-(\d{12})(/export\?format=(csv|json))?")
_TEXT = (
    "the your team about growth café naïve schnell Zürich quick week reply call — “idea” pipeline señor outreach we "
    "noticed that company recently expanded into logistics and 🦆 offers, warehouse planning świetnie данные"
)


def list_id(leads: int, bytes_per_second: int = 0) -> str:
    """Return the id of a list of so many leads, whose export is sent at that pace; 0: as fast as possible."""
    return f"{leads:08}-0000-4000-8000-{bytes_per_second:012}"


def make_exports(folder: Path, sizes: tuple[int, ...]) -> None:
    """Write a csv and a json export of each number of leads, as the API would send them."""
    bodies = [*_bodies()]
    for leads in sizes:
        with (folder / f"{leads}.json").open("w", encoding="utf-8") as file:
            file.write('{"leads": [')
            for number, lead in enumerate(_leads(leads, bodies)):
                file.write((", " if number else "") + json.dumps(lead, ensure_ascii=False))
            file.write("]}")
        with (folder / f"{leads}.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            steps = range(1, EMAILS_PER_LEAD + 1)
            rows.writerow(["email", "name", "company", *(f"{what}_{n}" for n in steps for what in ("subject", "body"))])
            for lead in _leads(leads, bodies):
                emails = [each[what] for each in lead["sequence"] for what in ("subject", "body")]
                rows.writerow([lead["email"], lead["name"], lead["company"], *emails])


def _bodies() -> Iterator[str]:
    chance, vocabulary = random.Random(7), _TEXT.split()
    for _ in range(_BODIES):
        length, words, size = chance.randint(500, 900), [], 0
        while size < length:
            words.append(chance.choice(vocabulary) + ("\n\n" if chance.random() < 0.04 else ""))
            size += len(words[-1].encode()) + 1
        yield " ".join(words)


def _leads(leads: int, bodies: list[str]) -> Iterator[dict[str, Any]]:
    for n in range(leads):
        sequence = [
            {"step": step, "subject": f"Idea {n} - step {step}", "body": bodies[(n * 3 + step) % _BODIES]}
            for step in range(1, EMAILS_PER_LEAD + 1)
        ]
        yield {
            "email": f"First.Last{n}@Company{n % 5000}.example.com",
            "name": f"Zoë Last {n}",
            "company": f"Company, {n % 5000} GmbH",
            "sequence": sequence,
        }


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        while self.rfile.peek(1):
            head = b"".join(iter(self.rfile.readline, b"\r\n"))
            leads, pace, export, form = _PATH.search(head.decode()).groups()
            if export:
                self.send_export(self.server.folder / f"{int(leads)}.{form}", form, int(pace))
            else:
                self.send_list(head.split()[1].decode().rpartition("/")[2], int(leads))

    def send_list(self, name: str, leads: int) -> None:
        known = {"id": name, "processing_status": "completed", "leads_count": leads}
        body = json.dumps({**known, "emails_created": leads * EMAILS_PER_LEAD}).encode()
        self.wfile.write(_head("application/json", len(body)) + body)

    def send_export(self, path: Path, form: str, pace: int) -> None:
        with path.open("rb") as file:
            size, sent, due = os.fstat(file.fileno()).st_size, 0, time.monotonic()
            self.wfile.write(_head("text/csv" if form == "csv" else "application/json", size))
            while sent < size:
                chunk = os.sendfile(self.connection.fileno(), file.fileno(), sent, _CHUNK)
                sent += chunk
                if pace:
                    due = max(due, time.monotonic() - _BURST) + chunk / pace
                    time.sleep(max(0.0, due - time.monotonic()))


def _head(content_type: str, length: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n".encode()


if __name__ == "__main__":
    with _Server(Path(sys.argv[1])) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()
