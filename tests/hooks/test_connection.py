"""A connection's fields: each checked, each complaint naming the field."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import Connection

from machfive_provider.api.client_settings import DEFAULT_BASE_URL
from machfive_provider.exceptions import ConfigurationError
from machfive_provider.hooks.connection import ConnectionSettings

KEY = "mf_live_" + "k" * 32


def read(host=None, port=None, password=KEY, extra=None) -> ConnectionSettings:
    return ConnectionSettings.from_connection(SimpleNamespace(host=host, port=port, password=password, extra=extra))


@pytest.mark.parametrize(
    ("host", "port", "url"),
    [
        (None, None, DEFAULT_BASE_URL),
        ("", None, DEFAULT_BASE_URL),
        (None, 8555, DEFAULT_BASE_URL),
        (" app.machfive.co ", None, "https://app.machfive.co"),
        ("app.machfive.co", 8443, "https://app.machfive.co:8443"),
        ("app.machfive.co:8443", None, "https://app.machfive.co:8443"),
        ("app.machfive.co:8443", 9999, "https://app.machfive.co:8443"),
        ("http://localhost", 8555, "http://localhost:8555"),
        ("http://localhost:8555", 9999, "http://localhost:8555"),
        ("http://127.0.0.1", 8555, "http://127.0.0.1:8555"),
        ("http://[::1]", 8555, "http://[::1]:8555"),
        ("http://[::1]:8555", 9999, "http://[::1]:8555"),
        ("https://proxy.example.com/machfive", None, "https://proxy.example.com/machfive"),
        ("http://localhost/", 8555, "http://localhost:8555"),
        ("http://localhost/machfive", 8555, "http://localhost:8555/machfive"),
    ],
)
def test_host_and_port(host: str | None, port: int | None, url: str):
    assert read(host, port).client.base_url == url


def test_a_real_connection():
    settings = ConnectionSettings.from_connection(
        Connection(
            conn_id="c",
            conn_type="machfive",
            host="http://localhost",
            port=8555,
            password=f" {KEY} ",
            extra='{"namespace": "prod", "max_concurrent_batches": 3}',
        )
    )
    assert (settings.client.base_url, settings.client.api_key) == ("http://localhost:8555", KEY)
    assert (settings.namespace, settings.max_concurrent_batches) == ("prod", 3)
    assert KEY not in repr(settings)


@pytest.mark.parametrize(
    ("extra", "namespace", "limit"),
    [
        (None, None, None),
        ("", None, None),
        (" \n", None, None),
        ("{}", None, None),
        ('{"namespace": null, "max_concurrent_batches": null}', None, None),
        ('{"namespace": "", "max_concurrent_batches": ""}', None, None),
        ('{"namespace": "  "}', None, None),
        ('{"namespace": " prod "}', "prod", None),
        ('{"max_concurrent_batches": 1}', None, 1),
        ('{"max_concurrent_batches": "12"}', None, 12),
        ('{"something_else": [1]}', None, None),
    ],
)
def test_extras(extra: str | None, namespace: str | None, limit: int | None):
    settings = read(extra=extra)
    assert (settings.namespace, settings.max_concurrent_batches) == (namespace, limit)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ("nonsense", "extra is not a JSON object"),
        ("[]", "extra is not a JSON object"),
        ('"text"', "extra is not a JSON object"),
        ("7", "extra is not a JSON object"),
        ("null", "extra is not a JSON object"),
        ('{"namespace": 7}', "'namespace' must be a text"),
        ('{"namespace": ["prod"]}', "'namespace' must be a text"),
        ('{"namespace": false}', "'namespace' must be a text"),
        ('{"max_concurrent_batches": 0}', "'max_concurrent_batches' must be a whole number of at least 1"),
        ('{"max_concurrent_batches": -1}', "'max_concurrent_batches' must be"),
        ('{"max_concurrent_batches": 2.0}', "'max_concurrent_batches' must be"),
        ('{"max_concurrent_batches": true}', "'max_concurrent_batches' must be"),
        ('{"max_concurrent_batches": "many"}', "'max_concurrent_batches' must be"),
        ('{"max_concurrent_batches": "2.5"}', "'max_concurrent_batches' must be"),
        ('{"max_concurrent_batches": [3]}', "'max_concurrent_batches' must be"),
        pytest.param("[" * 100_000, "not a JSON object", id="deep"),
    ],
)
def test_bad_extras(extra: str, reason: str):
    with pytest.raises(ConfigurationError, match=reason):
        read(extra=extra)
