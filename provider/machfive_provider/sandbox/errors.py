"""The error answers of the API: one exception per answer, and the body they are sent with."""

from __future__ import annotations

from typing import Any

CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    402: "INSUFFICIENT_CREDITS",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "NOT_READY",
    429: "WORKSPACE_LIMIT",
    500: "INTERNAL_ERROR",
}


class ApiError(Exception):
    """An answer that refuses the request. `detail` is left out of the body when it is None."""

    def __init__(self, status: int, message: str, *, detail: Any = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = CODES[status]
        self.message = message
        self.detail = detail


def bad_request(message: str) -> ApiError:
    """Build the answer to a request that breaks the contract."""
    return ApiError(400, message)


def error_body(
    code: str, message: str, *, detail: Any = None, request_id: str | None = None, generation: str = "2025"
) -> dict[str, Any]:
    """Build the JSON of an error answer; only the newer generation tells the request id in it."""
    body: dict[str, Any] = {"error": code, "message": message}
    if detail is not None:
        body["detail"] = detail
    if generation != "2025" and request_id is not None:
        body["request_id"] = request_id
    return body
