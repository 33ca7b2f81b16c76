"""A PostgreSQL of the tests' own, and what it takes to start any database server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

__all__ = ["AS_NOBODY", "find_program", "free_port", "open_folder", "postgres", "postgres_engine"]

# Servers refuse to run as root.
AS_NOBODY = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder that the servers' user may enter and write to, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="machfive-db-"))
    folder.chmod(0o777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def find_program(name: str, *places: str) -> str:
    """Return the path of a server's program.

    :raises FileNotFoundError: if it is not installed
    """
    found = shutil.which(name, path=os.pathsep.join((os.environ["PATH"], "/usr/sbin", *places)))
    if not found:
        raise FileNotFoundError(f"{name} is not installed")
    return found


@contextmanager
def postgres(*settings: str) -> Iterator[int]:
    """Run a PostgreSQL server; give its port. The user airflow needs no password.

    :param settings: further lines of its configuration, such as ``max_connections=200``
    :raises FileNotFoundError: if it is not installed
    """
    versions = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))
    pg_ctl, initdb = (find_program(name, *versions[::-1]) for name in ("pg_ctl", "initdb"))
    with open_folder() as folder:
        data, port = folder / "data", free_port()
        command = [*AS_NOBODY, initdb, "-D", data, "-U", "airflow", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        options = " -c ".join([options, *settings])
        control = [*AS_NOBODY, pg_ctl, "-D", data, "-w", "-l", folder / "log"]
        subprocess.run([*control, "-o", options, "start"], check=True, stdout=subprocess.DEVNULL, cwd=folder)
        try:
            yield port
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, capture_output=True, cwd=folder)


@contextmanager
def postgres_engine() -> Iterator[Engine | None]:
    """Run a PostgreSQL server; give an engine of its database ``postgres``.

    None without a PostgreSQL, as on a machine that only has Python, make and git; an error in CI.
    """
    with ExitStack() as stack:
        try:
            port = stack.enter_context(postgres())
        except FileNotFoundError:
            assert not os.environ.get("CI"), "PostgreSQL is not installed: see .ci/run"
            yield None
            return
        yield create_engine(f"postgresql+psycopg2://airflow@127.0.0.1:{port}/postgres", poolclass=NullPool)
