"""A server that responds in every odd way and quotes the API key wherever it can."""

from __future__ import annotations

import base64
import binascii
import json
import re
import string
from random import Random
from typing import Any
from urllib.parse import quote, unquote

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
STATUSES = (
    200,
    200,
    200,
    200,
    202,
    204,
    301,
    302,
    307,
    400,
    401,
    402,
    403,
    404,
    408,
    409,
    418,
    422,
    429,
    500,
    502,
    503,
    504,
    599,
)
CODES = ("BAD_REQUEST", "UNAUTHORIZED", "NOT_READY", "WORKSPACE_LIMIT", "INTERNAL_ERROR")
RESPONSES = {
    "campaigns": {"campaigns": [{"id": UNKNOWN_ID, "name": "Spring"}]},
    "lists": {"lists": []},
    "list": {"id": UNKNOWN_ID, "processing_status": "completed", "leads_count": 1, "emails_created": 1},
    "export": {"leads": [{"email": "dana.reyes@example.com", "sequence": [{"subject": "Hi", "body": "Hello"}]}]},
    "generate-batch": {"list_id": UNKNOWN_ID, "status": "pending", "leads_count": 1},
    "generate": {"list_id": UNKNOWN_ID, "sequence": [{"subject": "Hi", "body": "Hello"}]},
}


def new_key(random: Random) -> str:
    """Return a key as MachFive makes them, or one that looks like no key and has to be encoded in a URL."""
    if random.random() < 0.5:
        return "mf_live_" + "".join(random.choices(string.ascii_letters + string.digits, k=32))
    return "".join(random.choices(string.ascii_letters + string.digits + "+/=&%~.:-_", k=random.randint(12, 40)))


def quoted(random: Random, key: str) -> str:
    """Return a text that gives the key away."""
    around = "".join(random.choices(string.ascii_letters, k=random.randint(0, 5)))
    spelled = random.choice(
        [
            key,
            f"Bearer {key}",
            quote(key, safe=""),
            re.sub("%..", lambda found: found[0].lower(), quote(key, safe="")),
            base64.b64encode(f"{around}{key}{around[::-1]}".encode()).decode(),
            base64.urlsafe_b64encode(f"{around}{key}".encode()).decode().rstrip("="),
        ]
    )
    return random.choice(["{}", "Bad key: {}.", "<b>{}</b>", "key={}&x=1", '{{"key": "{}"}}']).format(spelled)


def gives_away(key: str, text: str) -> bool:
    """Whether the key can be read in a text: as it is, percent-encoded or in base64."""
    if key in text or key in unquote(text):
        return True
    for run in re.findall(r"[A-Za-z0-9+/_-]{8,}", text):
        encoded = run.replace("-", "+").replace("_", "/")
        for begin in range(4):
            part = encoded[begin:]
            try:
                decoded = base64.b64decode(part[: len(part) // 4 * 4])
            except binascii.Error:
                continue
            if key.encode()[2:-2] in decoded:
                return True
    return False


def endpoint_of(head: bytes) -> str:
    """Return the endpoint that a request is for."""
    method, path = head.split(b" ")[:2]
    path = path.partition(b"?")[0]
    if method == b"POST":
        return "generate-batch" if path.endswith(b"generate-batch") else "generate"
    if path.endswith(b"/export"):
        return "export"
    return {b"campaigns": "campaigns", b"lists": "lists"}.get(path.rpartition(b"/")[2], "list")


def right_response(endpoint: str) -> bytes:
    """Return the response of an API that works."""
    body = json.dumps(RESPONSES[endpoint]).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def wrong_response(random: Random, key: str) -> bytes:
    """Return bytes of a response that is an error, or no response at all, with the key in many places."""

    def text() -> str:
        return quoted(random, key)

    status = random.choice([200, random.choice(STATUSES)])
    reason = text() if random.random() < 0.2 else "Reason"
    headers = [
        (name, text())
        for name in ("X-Request-Id", "Location", "Retry-After", "WWW-Authenticate", "Set-Cookie", "Server", "X-Debug")
        if random.random() < 0.3
    ]
    body = random.choice([_error_body, _any_json, _page, _no_body])(random, text)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    content_type = random.choice(["application/json", "text/html", "text/csv", text()])
    start = f"HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\n{head}".encode()
    length = b"Content-Length: %d\r\n" % len(body)
    whole = start + length + b"\r\n" + body
    return random.choice(
        [
            *[whole] * 3,
            whole[: random.randint(0, len(whole))],
            start + b"Content-Length: %d\r\n\r\n" % (len(body) + 9) + body,
            *[start + b'Transfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\n' + text().encode() + b"\r\n"] * 3,
            start + f"Content-Length: {text()}\r\n\r\n".encode() + body,
            start + f"no header {text()}\r\n\r\n".encode() + body,
            f"{text()}\r\n\r\n".encode(),
            f"HTTP/{text()} 200 OK\r\n\r\n".encode(),
            start + b"Content-Encoding: gzip\r\n" + length + b"\r\n" + body,
        ]
    )


def _error_body(random: Random, text: Any) -> bytes:
    body: dict[str, Any] = {"error": random.choice([*CODES, text()]), "message": text()}
    if random.random() < 0.5:
        body["detail"] = random.choice([text(), {text(): [text(), {"deep": text()}]}, [[text()]]])
    if random.random() < 0.5:
        body["request_id"] = text()
    plain = json.dumps(body)
    if random.random() < 0.3:  # any character of a JSON text may be escaped
        plain = re.sub(
            "[a-zA-Z0-9]", lambda found: f"\\u{ord(found[0]):04x}" if random.random() < 0.5 else found[0], plain
        )
    return plain.encode()


def _any_json(random: Random, text: Any) -> bytes:
    return json.dumps(
        random.choice([text(), [text()], {text(): text()}, {"lists": text()}, {"leads": [text()]}])
    ).encode()


def _page(random: Random, text: Any) -> bytes:
    return f"<html><title>{text()}</title>{text()}</html>".encode()


def _no_body(random: Random, text: Any) -> bytes:
    return b""
