"""Keep every server of an Airflow on the loopback interface.

`airflow_home.py` copies this file to `$AIRFLOW_HOME/config/airflow_local_settings.py`, which Airflow imports
in each of its processes. The API server's address is a setting; that of the two log servers (scheduler and
triggerer) is not: they listen on all interfaces, and doing without them costs the UI the log of a running
task. So a wildcard address is replaced in `socket.bind`, which every server calls, whatever library it uses.
"""

import os
import socket
from typing import Any

_bind = socket.socket.bind
_WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104 - what is replaced


def _bind_to_loopback(self: socket.socket, address: Any) -> None:
    # Port 0 is left alone: it is a client's, and a client bound to loopback could not leave the machine.
    if (
        self.family in (socket.AF_INET, socket.AF_INET6)
        and self.type == socket.SOCK_STREAM
        and address[0] in _WILDCARDS
        and address[1]
    ):
        host = "::1" if self.family == socket.AF_INET6 else "127.0.0.1"
        address = (host, *address[1:])
    return _bind(self, address)


socket.socket.bind = _bind_to_loopback  # type: ignore[method-assign, assignment]
# Airflow's log servers ask this before they listen on IPv6 (serve_logs/core.py); logs are fetched over IPv4.
socket.has_dualstack_ipv6 = lambda: False


def host_name() -> str:
    """Name this machine so that the API server finds the log servers on it.

    Components that are to count as several machines have a loopback address each: on Linux all of 127.0.0.0/8 is one.
    """
    return os.environ.get("LOOPBACK_HOST", "127.0.0.1")
