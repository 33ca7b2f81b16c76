"""An SMTP server on loopback that keeps the mails it is given."""

from __future__ import annotations

import email
import queue
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.policy import default


class MailSink(socketserver.ThreadingTCPServer):
    """Keeps mails in the order in which they arrive."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self._mails: queue.Queue[EmailMessage] = queue.Queue()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def keep(self, content: bytes) -> None:
        self._mails.put(email.message_from_bytes(content, policy=default))

    def next_mail(self, timeout: float) -> EmailMessage:
        """Return the oldest mail that was not returned yet; raises queue.Empty if none comes in time."""
        return self._mails.get(timeout=timeout)

    def is_empty(self) -> bool:
        return self._mails.empty()


class _Session(socketserver.StreamRequestHandler):
    """The part of RFC 5321 that smtplib needs: every command is accepted."""

    server: MailSink

    def handle(self) -> None:
        self._reply("220 sink")
        while line := self.rfile.readline():
            command = line.strip().upper()
            if command == b"DATA":
                self._reply("354 go on")
                self.server.keep(b"".join(self._content()))
            self._reply("221 bye" if command == b"QUIT" else "250 ok")

    def _content(self) -> Iterator[bytes]:
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            yield line.removeprefix(b".") if line.startswith(b"..") else line

    def _reply(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@contextmanager
def running_sink() -> Iterator[MailSink]:
    with MailSink() as sink:
        thread = threading.Thread(target=sink.serve_forever, daemon=True)
        thread.start()
        try:
            yield sink
        finally:
            sink.shutdown()
            thread.join()
