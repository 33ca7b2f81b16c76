"""Databases for the transfers: SQLite always, PostgreSQL and MariaDB as real servers where they are installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from airflow.providers.common.sql.hooks.sql import DbApiHook
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, Engine, make_url

from tests.database_servers import AS_NOBODY, find_program, free_port, open_folder, postgres

KINDS = ("sqlite", "postgres", "mariadb")
ONLY_SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


class PyMySqlHook(DbApiHook):
    """A connection to MySQL without a compiler: Airflow's own provider needs mysqlclient, which has no wheels."""

    conn_name_attr = "pymysql_conn_id"
    conn_type = "pymysql"

    @property
    def sqlalchemy_url(self) -> URL:
        found = self.get_connection(self.get_conn_id())
        return make_url("mysql+pymysql://").set(
            username=found.login, host=found.host, port=found.port, database=found.schema
        )


class Database:
    """One database of a server.

    :param kind: of ``KINDS``
    :param connection: the Airflow connection
    :param url: the same for SQLAlchemy
    :param placeholder: how a query of its driver names the value ``name``
    """

    conn_id = "warehouse"

    def __init__(self, kind: str, connection: dict[str, Any], url: str, placeholder: str) -> None:
        self.kind, self.connection, self.url, self.placeholder = kind, connection, url, placeholder
        self.engine: Engine = create_engine(url)

    def run(self, statement: str, *rows: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Run a statement, once for each row of values if there are any; return what it returns."""
        with self.engine.begin() as connection:
            result = connection.execute(text(statement), list(rows)) if rows else connection.execute(text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []

    def people(self, *rows: dict[str, Any], **types: str) -> None:
        """Make the table ``people`` with these columns and rows."""
        names = list(types)
        charset = " CHARACTER SET utf8mb4" if self.kind == "mariadb" else ""  # Debian's default has no emoji
        self.run(f"CREATE TABLE people ({', '.join(f'{name} {kind}' for name, kind in types.items())}){charset}")
        values = ", ".join(f":{name}" for name in names)
        if rows:
            self.run(f"INSERT INTO people ({', '.join(names)}) VALUES ({values})", *rows)


def _program(name: str) -> str:
    """Find a server's program; without it the test is skipped, but never in the CI."""
    try:
        return find_program(name)
    except FileNotFoundError as error:
        _skip(error)


def _skip(error: FileNotFoundError) -> NoReturn:
    assert not os.environ.get("CI"), f"{error}: see .ci/run"
    pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[int]:
    """Run a PostgreSQL server; give its port."""
    with ExitStack() as stack:
        try:
            port = stack.enter_context(postgres())
        except FileNotFoundError as error:
            _skip(error)
        yield port


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[int]:
    """Run a MariaDB server; give its port."""
    server, install = _program("mariadbd"), _program("mariadb-install-db")
    with open_folder() as folder:
        data, port = folder / "data", free_port()
        # A starting MariaDB deletes the temporary tables in its tmpdir, in a shared one those of other test processes.
        common = ["--no-defaults", f"--datadir={data}", f"--tmpdir={folder}"]
        subprocess.run(
            [*AS_NOBODY, install, *common, "--auth-root-authentication-method=normal"],
            check=True,
            capture_output=True,
            cwd=folder,
        )
        command = [*AS_NOBODY, server, *common, f"--port={port}", "--bind-address=127.0.0.1"]
        command += [f"--socket={folder}/socket", f"--pid-file={folder}/pid", "--skip-name-resolve"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder)
        try:
            assert process.stderr
            said = iter(process.stderr.readline, "")
            assert any("ready for connections" in line for line in said), "mariadbd has ended"
            yield port
        finally:
            process.terminate()
            process.wait()
            process.stderr.close()


def _sqlite(request: pytest.FixtureRequest) -> Database:
    path = request.getfixturevalue("tmp_path") / "warehouse.db"
    return Database("sqlite", {"conn_type": "sqlite", "host": str(path)}, f"sqlite:///{path}", ":{}")


def _postgres(request: pytest.FixtureRequest) -> Database:
    port = request.getfixturevalue("postgres_server")
    there = f"postgresql+psycopg2://airflow@127.0.0.1:{port}"
    name = _recreate(f"{there}/postgres", request)
    fields = {"conn_type": "postgres", "host": "127.0.0.1", "port": port, "login": "airflow", "schema": name}
    return Database("postgres", fields, f"{there}/{name}", "%({})s")


def _mariadb(request: pytest.FixtureRequest) -> Database:
    port = request.getfixturevalue("mariadb_server")
    there = f"mysql+pymysql://root@127.0.0.1:{port}"
    name = _recreate(there, request)
    fields = {"conn_type": "pymysql", "host": "127.0.0.1", "port": port, "login": "root", "schema": name}
    return Database("mariadb", fields, f"{there}/{name}?charset=utf8mb4", "%({})s")


def _recreate(url: str, request: pytest.FixtureRequest) -> str:
    """Make a database of the test's own."""
    name = re.sub(r"\W", "", request.node.name)[:40].lower()
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name}"))
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return name


def _hooks() -> Any:
    """Return Airflow's own index of hooks by connection type."""
    try:
        from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime as Manager
    except ImportError:  # Airflow 3.1
        from airflow.providers_manager import ProvidersManager as Manager
    return Manager().hooks


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Give an empty database of each kind, known to Airflow as the connection ``warehouse``."""
    made = {"sqlite": _sqlite, "postgres": _postgres, "mariadb": _mariadb}[request.param](request)
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(made.connection))
    info = SimpleNamespace(
        hook_class_name=f"{__name__}.{PyMySqlHook.__name__}",
        connection_id_attribute_name=PyMySqlHook.conn_name_attr,
    )
    monkeypatch.setitem(_hooks(), PyMySqlHook.conn_type, info)
    yield made
    made.engine.dispose()
