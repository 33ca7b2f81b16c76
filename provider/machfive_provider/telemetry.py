"""What this provider tells monitoring: metrics through Airflow's ``Stats``, spans through OpenTelemetry.

Begin with ``METRICS``, the closed list of names; ``docs/telemetry.md`` describes them. Nothing here fails a task: what
a backend raises is swallowed in one place. No metric and no span holds the API key or a lead's data.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from airflow.providers.common.compat.sdk import AirflowSkipException, conf

from machfive_provider import __version__

if TYPE_CHECKING:
    from machfive_provider.api.call import Observer

__all__ = [
    "ENDPOINTS",
    "METRICS",
    "SPANS",
    "Metric",
    "delivered",
    "failed",
    "purchased",
    "request_observer",
    "span",
    "waited",
]

_log = logging.getLogger(__name__)


class Metric(NamedTuple):
    """A metric: its name, its kind, and the tags it has where the backend supports tags."""

    name: str
    kind: Literal["counter", "timer"]
    tags: tuple[str, ...] = ("conn_id",)


_REQUESTS: Final = Metric("machfive.requests", "counter", ("conn_id", "endpoint", "status"))
# statsd drops tags. As in Airflow's own metrics, a name with the values in it makes up for that.
_REQUESTS_BY_NAME: Final = Metric("machfive.requests.<endpoint>.<status>", "counter")
_RETRIES: Final = Metric("machfive.retries", "counter", ("conn_id", "endpoint"))
_BOUGHT: Final = Metric("machfive.batches.bought", "counter")
_ADOPTED: Final = Metric("machfive.batches.adopted", "counter")
_FAILED: Final = Metric("machfive.batches.failed", "counter")
_CREDITS: Final = Metric("machfive.credits", "counter")
_DELIVERED: Final = Metric("machfive.leads.delivered", "counter")
_MISSING: Final = Metric("machfive.leads.missing", "counter")
_WAITS: Final = {
    "capacity": Metric("machfive.wait.capacity", "timer"),
    "completion": Metric("machfive.wait.completion", "timer"),
}

METRICS: Final = (
    _REQUESTS,
    _REQUESTS_BY_NAME,
    _RETRIES,
    _BOUGHT,
    _ADOPTED,
    _FAILED,
    _CREDITS,
    _DELIVERED,
    _MISSING,
    *_WAITS.values(),
)

ENDPOINTS: Final[Mapping[str, str]] = {
    "GET /api/v1/campaigns": "list_campaigns",
    "GET /api/v1/lists": "list_lists",
    "GET /api/v1/lists/{list_id}": "get_list",
    "GET /api/v1/lists/{list_id}/export": "export_list",
    "POST /api/v1/campaigns/{campaign_id}/generate": "generate",
    "POST /api/v1/campaigns/{campaign_id}/generate-batch": "generate_batch",
}
"""What an endpoint is called in metrics, by the method and path template of its requests."""

SPANS: Final = ("machfive.purchase", "machfive.wait", "machfive.delivery")
_PURCHASE, _WAIT, _DELIVERY = SPANS
SpanName = Literal["machfive.purchase", "machfive.delivery"]

# Of what a task tells in its XCom: a list's name may be a person's.
_ATTRIBUTES: Final = ("conn_id", "campaign_id", "list_id", "generation", "bought", "leads_submitted", "credits")


@contextmanager
def _harmless() -> Iterator[None]:
    """Swallow whatever a backend raises: telemetry fails no task."""
    try:
        yield
    except Exception:  # noqa: BLE001 - of any backend
        _log.debug("A metric or span could not be sent.", exc_info=True)


def request_observer(conn_id: str) -> Observer:
    """Return what a client of the API calls after each attempt to send a request."""

    @_harmless()
    def observe(endpoint: str, status: int | None, again: bool) -> None:
        name, text = ENDPOINTS.get(endpoint, "other"), str(status or "error")
        _count(_REQUESTS, conn_id=conn_id, endpoint=name, status=text)
        if conf.getboolean("metrics", "legacy_names_on", fallback=True):
            _count(_REQUESTS_BY_NAME._replace(name=f"{_REQUESTS.name}.{name}.{text}"), conn_id=conn_id)
        if again:
            _count(_RETRIES, conn_id=conn_id, endpoint=name)

    return observe


def purchased(conn_id: str, *, bought: bool, credits: int | None) -> None:  # noqa: A002 - MachFive's word
    """Count a batch that a try has bought or adopted, and the credits that it spent.

    :param credits: what the batch costs, None if that is not known; an adopted one costs nothing now
    """
    _count(_BOUGHT if bought else _ADOPTED, conn_id=conn_id)
    if bought and credits:
        _count(_CREDITS, credits, conn_id=conn_id)


def failed(conn_id: str) -> None:
    """Count a batch of this provider that has failed on MachFive's side."""
    _count(_FAILED, conn_id=conn_id)


def delivered(conn_id: str, leads: int, missing: int | None) -> None:
    """Count the leads of a result.

    :param missing: leads that were bought and are not in it, None if that is not known
    """
    _count(_DELIVERED, leads, conn_id=conn_id)
    if missing:
        _count(_MISSING, missing, conn_id=conn_id)


def waited(what: Literal["capacity", "completion"], conn_id: str, since: float, until: float | None = None) -> None:
    """Tell how long a task has waited: for a free slot, or for its lists to end.

    :param since, until: epoch seconds of the beginning and the end; until now by default
    """
    until = time.time() if until is None else until
    _time(_WAITS[what], until - since, conn_id=conn_id)
    _record(_WAIT, since, until, {"machfive.conn_id": conn_id, "machfive.waited_for": what})


@contextmanager
def span(name: SpanName, facts: Mapping[str, Any]) -> Iterator[None]:
    """Record the block as a span when it has ended; nothing if the task is deferred or skipped in it.

    :param facts: what the task tells in its XCom, as known at the end; ids and numbers of it become attributes
    """
    began_at = time.time()
    try:
        yield
    except AirflowSkipException:
        raise
    except Exception as error:
        _record(name, began_at, time.time(), _attributes(facts), error)
        raise
    _record(name, began_at, time.time(), _attributes(facts))


def _attributes(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {f"machfive.{name}": facts[name] for name in _ATTRIBUTES if facts.get(name) is not None}


@_harmless()
def _count(metric: Metric, number: int = 1, **tags: str) -> None:
    _stats().incr(metric.name, number, tags=tags)


@_harmless()
def _time(metric: Metric, seconds: float, **tags: str) -> None:
    _stats().timing(metric.name, timedelta(seconds=seconds), tags=tags)


@_harmless()
def _record(
    name: str, began_at: float, ended_at: float, attributes: dict[str, Any], error: Exception | None = None
) -> None:
    """Record a span under the current one, which is Airflow's of the task or trigger.

    Afterwards and not around the work: a wait may begin on one machine and end on another.
    """
    from opentelemetry import trace

    tracer = trace.get_tracer("machfive_provider", __version__)
    recorded = tracer.start_span(name, start_time=_nanoseconds(began_at), attributes=attributes)
    if error is not None:
        # Not its text, which may quote what a server says.
        recorded.set_attribute("error.type", type(error).__name__)
        recorded.set_status(trace.StatusCode.ERROR)
    recorded.end(_nanoseconds(ended_at))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000_000)


@cache
def _stats() -> Any:
    # It lives elsewhere in each of Airflow 3.1, 3.2 and 3.3; common-compat knows where.
    from airflow.providers.common.compat.sdk import Stats

    return Stats
