"""The address and the key that a client needs, checked before anything is sent."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from machfive_provider.exceptions import ConfigurationError

__all__ = ["DEFAULT_BASE_URL", "ClientSettings", "normalise_base_url"]

DEFAULT_BASE_URL = "https://app.machfive.io"  # docs/api.md, "Address and key"
_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What a client needs to reach one workspace.

    :param base_url: see :func:`normalise_base_url`
    :param api_key: the workspace's key; never part of a repr
    :raises ConfigurationError: if either cannot be used
    """

    base_url: str
    api_key: str = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", normalise_base_url(self.base_url))
        object.__setattr__(self, "api_key", self.api_key.strip())
        if not self.api_key:
            raise ConfigurationError("The connection has no API key: put it into the password field.")
        if not re.fullmatch(r"[\x21-\x7e]+", self.api_key):
            raise ConfigurationError(
                "The connection's API key (password field) holds white space or non-ASCII characters inside: "
                "copy it from the MachFive app again."
            )

    @property
    def is_loopback(self) -> bool:
        """Whether the API is on this machine, as the sandbox is: no proxy leads there."""
        return _is_loopback(urlsplit(self.base_url).hostname or "")


def normalise_base_url(host: str | None) -> str:
    """Turn a connection's host field into a base URL without a trailing slash.

    :param host: a URL, a bare host name (https is assumed) or nothing (MachFive itself)
    :raises ConfigurationError: for anything but https, or http to a loopback address; for a URL with
        a user, query or fragment
    """
    text = (host or "").strip()
    if not text:
        return DEFAULT_BASE_URL
    if not _SCHEME.match(text):
        text = f"https://{text}"
    try:
        url = urlsplit(text)
        name, _ = url.hostname, url.port
    except ValueError as error:
        raise _unusable(f"is not a URL ({error})") from None
    if not name or re.search(r"[\s\x00-\x1f\x7f]", text):
        raise _unusable("is not a URL")
    if "@" in url.netloc or url.query or url.fragment:
        raise _unusable("must not hold a user, a query or a fragment; the API key belongs in the password field")
    return _checked_scheme(url, name)


def _checked_scheme(url: SplitResult, name: str) -> str:
    scheme = url.scheme.lower()
    if scheme not in ("http", "https"):
        raise _unusable("must start with https://")
    if scheme == "http" and not _is_loopback(name):
        raise _unusable("uses plain http, which would send the API key unencrypted; only loopback may (use https://)")
    # People paste the address of the API itself; every path in protocol.py begins with /api/v1.
    path = url.path.rstrip("/").removesuffix("/api/v1").rstrip("/")
    return f"{scheme}://{url.netloc}{path}"


def _is_loopback(name: str) -> bool:
    if name.lower() == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _unusable(why: str) -> ConfigurationError:
    return ConfigurationError(f"The connection's host {why}. Leave it empty for {DEFAULT_BASE_URL}.")
