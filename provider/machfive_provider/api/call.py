"""What goes over the wire: a request, a response, and the call that joins the two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["READ_TIMEOUT", "Call", "Observer", "Request", "Response"]

T = TypeVar("T")

READ_TIMEOUT = 30.0  # seconds without a byte

Observer = Callable[[str, int | None, bool], None]
"""Called after each attempt to send a request, with its endpoint, the HTTP status (None without a whole response), and
whether it is sent again."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, without host and key.

    :param endpoint: method and path template, for messages; never holds a value
    :param read_timeout: seconds to wait between two bytes of the response
    """

    method: str
    path: str
    endpoint: str
    read_timeout: float = READ_TIMEOUT
    params: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    accept: str = "application/json"

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice costs nothing. Reads cost nothing; both POSTs spend credits (docs/api.md)."""
        return self.method == "GET"


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request together with the way to parse its response; parsing raises a ``MachFiveError``."""

    request: Request
    parse: Callable[[Response], T]
