"""Where the API is and who is asking."""

from __future__ import annotations

import pytest

from machfive_provider.api.client_settings import DEFAULT_BASE_URL, ClientSettings, normalise_base_url
from machfive_provider.exceptions import ConfigurationError

KEY = "mf_live_" + "k" * 32


@pytest.mark.parametrize(
    ("host", "url"),
    [
        (None, DEFAULT_BASE_URL),
        ("", DEFAULT_BASE_URL),
        ("  ", DEFAULT_BASE_URL),
        ("app.machfive.co", "https://app.machfive.co"),
        (" app.machfive.co/ ", "https://app.machfive.co"),
        ("app.machfive.co:8443", "https://app.machfive.co:8443"),
        ("https://app.machfive.io", "https://app.machfive.io"),
        ("https://app.machfive.io///", "https://app.machfive.io"),
        ("HTTPS://app.machfive.io", "https://app.machfive.io"),
        ("https://proxy.example.com/machfive/", "https://proxy.example.com/machfive"),
        ("https://10.0.0.1", "https://10.0.0.1"),
        ("https://app.machfive.io/api/v1/", "https://app.machfive.io"),
        ("https://app.machfive.io/proxy/api/v1", "https://app.machfive.io/proxy"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ("http://localhost:8555", "http://localhost:8555"),
        ("http://LOCALHOST", "http://LOCALHOST"),
        ("http://127.0.0.1:8555/", "http://127.0.0.1:8555"),
        ("http://127.9.8.7", "http://127.9.8.7"),
        ("http://[::1]:8555", "http://[::1]:8555"),
    ],
)
def test_hosts_that_are_understood(host: str | None, url: str):
    assert normalise_base_url(host) == url
    assert normalise_base_url(url) == url
    assert ClientSettings(url, KEY).is_loopback is any(name in url.lower() for name in ("localhost", "//127.", "[::1]"))


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("http://app.machfive.io", "plain http"),
        ("HTTP://app.machfive.io", "plain http"),
        ("http://10.0.0.1", "plain http"),
        ("http://128.0.0.1", "plain http"),
        ("http://0.0.0.0:8555", "plain http"),
        ("http://[2001:db8::1]", "plain http"),
        ("http://localhost.example.com", "plain http"),
        ("http://127.0.0.1.example.com", "plain http"),
        ("http://127.0.0.1\\.example.com", "plain http"),
        ("https://user@app.machfive.io", "must not hold a user"),
        ("https://user:secret@app.machfive.io", "must not hold a user"),  # pragma: allowlist secret
        ("http://localhost:1@evil.example.com", "must not hold a user"),
        ("https://app.machfive.io/?q=1", "must not hold a user, a query"),
        ("https://app.machfive.io/#top", "or a fragment"),
        ("ftp://app.machfive.io", "must start with https://"),
        ("file:///etc/passwd", "is not a URL"),
        ("ws://localhost", "must start with https://"),
        ("https://", "is not a URL"),
        ("https://:8555", "is not a URL"),
        ("https://app.machfive.io:port", "is not a URL"),
        ("https://app.machfive.io:65536", "is not a URL"),
        ("https://[::1", "is not a URL"),
        ("https://app.mach five.io", "is not a URL"),
        ("https://app.machfive.io\r\nX-Evil: 1", "is not a URL"),
        ("https://app.mach\tfive.io", "is not a URL"),
        ("https://app.mach\x00five.io", "is not a URL"),
        ("https://app.machfive.io/\x7f", "is not a URL"),
    ],
)
def test_hosts_that_are_refused(host: str, reason: str):
    with pytest.raises(ConfigurationError, match="connection's host") as caught:
        normalise_base_url(host)
    assert reason in caught.value.message
    assert "secret" not in str(caught.value)


def test_both_fields_are_normalised():
    settings = ClientSettings("", f" {KEY}\n")
    assert (settings.base_url, settings.api_key) == (DEFAULT_BASE_URL, KEY)


@pytest.mark.parametrize("key", ["", "  ", "\n"], ids=repr)
def test_a_missing_key_is_refused(key: str):
    with pytest.raises(ConfigurationError, match="no API key: put it into the password field"):
        ClientSettings("", key)


@pytest.mark.parametrize("key", ["mf_live a", "mf_live\na", "mf_livé", "mf\x00", "mf\u200b"], ids=ascii)
def test_a_key_that_no_header_can_carry_is_refused_without_quoting_it(key: str):
    with pytest.raises(ConfigurationError, match="white space or non-ASCII") as caught:
        ClientSettings("", key)
    assert key not in str(caught.value)


def test_the_key_is_not_in_the_repr():
    settings = ClientSettings("", KEY)
    assert KEY not in repr(settings)
    assert DEFAULT_BASE_URL in repr(settings)
