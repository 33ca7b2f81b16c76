"""Backends in the process of the test: they keep the metrics and spans that they are given."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Stats
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Metrics:
    """Keeps metrics as a statsd server would: counters added up, the seconds of each timer, and all tags."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.seconds: list[tuple[str, float]] = []
        self.tags: dict[str, list[dict[str, str]]] = {}

    def incr(self, name: str, count: int = 1, *_: Any, tags: dict[str, str]) -> None:
        self.counts[name] += count
        self.tags.setdefault(name, []).append(tags)

    def timing(self, name: str, dt: timedelta, *, tags: dict[str, str]) -> None:
        self.seconds.append((name, dt.total_seconds()))
        self.tags.setdefault(name, []).append(tags)

    def ours(self, but: str = "machfive.requests") -> dict[str, int]:
        """Return the counters but those that begin with a prefix."""
        return {name: number for name, number in self.counts.items() if not name.startswith(but)}


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    kept = Metrics()
    monkeypatch.setattr(Stats, "incr", kept.incr)
    monkeypatch.setattr(Stats, "timing", kept.timing)
    return kept


class Spans:
    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    @property
    def all(self) -> list[ReadableSpan]:
        """The spans that have ended, in that order."""
        return list(self._exporter.get_finished_spans())

    @property
    def names(self) -> list[str]:
        return [each.name.removeprefix("machfive.") for each in self.all]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return Spans(exporter)
