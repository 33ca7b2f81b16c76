"""The command line as a process of its own: exit codes, terminals, Airflow's own CLI and its database."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from airflow.configuration import conf
from airflow.models import Connection, import_all_models
from airflow.models.base import Base
from packaging.version import Version
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

import machfive_provider
from machfive_provider.sandbox import Sandbox
from tests.cli.conftest import buy
from tests.tasks import leaks

OURS = [sys.executable, "-m", "machfive_provider"]
AIRFLOW = [sys.executable, "-m", "airflow", "machfive"]
HAS_AIRFLOWS = Version(version("apache-airflow")) >= Version("3.2")
Environment = dict[str, str]


@pytest.fixture
def env(tmp_path: Path, sandbox: Sandbox, connect: Callable[..., None]) -> Environment:
    """Give an environment with an Airflow home of its own, and the sandbox's key and address."""
    connect(sandbox)  # for the tests themselves
    package = str(Path(machfive_provider.__file__).parents[1])
    own = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path / 'airflow.db'}",
        # Airflow 3.2 and Airflow on Python 3.14 log to stdout before they call us (docs/command-line.md).
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "AIRFLOW__CORE__FERNET_KEY": conf.get("core", "fernet_key"),
        "PYTHONPATH": package,
        "MACHFIVE_API_KEY": sandbox.api_key,
        "MACHFIVE_BASE_URL": sandbox.base_url,
    }
    return {**{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_CONN_")}, **own}


def start(arguments: list[str], env: Environment, **streams: Any) -> subprocess.CompletedProcess[str]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.run(arguments, env=env, text=True, timeout=600, check=False, **streams)


def test_a_connection_in_airflows_database(sandbox: Sandbox, env: Environment):
    list_id = buy(sandbox, "Spring")
    del env["MACHFIVE_API_KEY"]
    import_all_models()
    engine = create_engine(env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        saved = Connection("machfive_default", "machfive", host=sandbox.base_url, password=sandbox.api_key)
        session.add(saved)
        session.commit()
    engine.dispose()
    for command in (OURS, AIRFLOW) if HAS_AIRFLOWS else (OURS,):
        done = start([*command, "lists", "-o", "csv"], env)
        assert (done.returncode, [line.split(",")[0] for line in done.stdout.splitlines()]) == (0, ["id", list_id])
        assert leaks([sandbox.api_key], done.stdout, done.stderr) == []


@pytest.mark.skipif(not HAS_AIRFLOWS, reason="no commands of providers yet")
def test_a_failure_under_airflows_own_command(sandbox: Sandbox, env: Environment):
    del env["MACHFIVE_API_KEY"]
    done = start([*AIRFLOW, "lists", "--conn-id", "absent"], env)
    assert (done.returncode, done.stdout) == (2, "")
    assert "The Airflow connection 'absent' does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_terminal_has_a_progress_bar(sandbox: Sandbox, env: Environment, tmp_path: Path):
    list_id, path = buy(sandbox, "Spring"), tmp_path / "emails.jsonl"
    mine, theirs = pty.openpty()
    try:
        done = start([*OURS, "export", list_id, str(path)], {**env, "TERM": "xterm"}, stderr=theirs)
        os.close(theirs)
        shown = os.read(mine, 100_000).decode()
    finally:
        os.close(mine)
    assert (done.returncode, done.stdout.startswith(f"Wrote {path}: 3 leads")) == (0, True)
    assert "Exporting" in shown
    assert "3 of 3 leads" in shown
    assert leaks([sandbox.api_key], shown) == []


def test_a_reader_that_leaves(env: Environment):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = start([*OURS, "campaigns"], env, stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
