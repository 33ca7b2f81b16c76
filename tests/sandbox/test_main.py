from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from machfive_provider.sandbox.__main__ import main

COMMAND = [sys.executable, "-m", "machfive_provider.sandbox"]


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the command and read what it prints up to the last connection line."""
    wanted = int(arguments[arguments.index("--workspaces") + 1]) if "--workspaces" in arguments else 1
    with subprocess.Popen(
        [*COMMAND, "--port", "0", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            lines: list[str] = []
            while sum(line.startswith("export AIRFLOW_CONN_") for line in lines) < wanted:
                line = process.stdout.readline()
                assert line, process.stderr.read() if process.stderr else ""
                lines.append(line)
            yield process, "".join(lines)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_a_connection_serves_and_stops_cleanly(number: signal.Signals) -> None:
    with started("--generation", "2026", "--credits", "7") as (process, printed):
        match = re.search(r"^export AIRFLOW_CONN_MACHFIVE_DEFAULT='(.*)'$", printed, re.MULTILINE)
        assert match
        connection = json.loads(match[1])
        assert connection["conn_type"] == "machfive"
        assert re.search(r"credits +7$", printed, re.MULTILINE)
        headers = {"Authorization": f"Bearer {connection['password']}"}
        campaigns = httpx.get(f"{connection['host']}/api/v1/campaigns", headers=headers).json()["campaigns"]
        assert all(campaign["id"] in printed and campaign["name"] in printed for campaign in campaigns)
        assert httpx.get(f"{connection['host']}/_sandbox/state").json()["generation"] == "2026"
        process.send_signal(number)
        _, logged = process.communicate(timeout=600)
        assert process.returncode == 0
        assert '"GET /api/v1/campaigns HTTP/1.1" 200' in logged
        assert connection["password"] not in logged


def test_quiet_and_several_workspaces() -> None:
    with started("--quiet", "--workspaces", "2", "--seed", "4") as (process, printed):
        assert "AIRFLOW_CONN_MACHFIVE_2=" in printed
        keys = re.findall(r"API key +(\S+)", printed)
        assert len(set(keys)) == 2
        host = re.findall(r"base URL +(\S+)", printed)[0]
        assert httpx.get(f"{host}/api/v1/lists", headers={"X-API-Key": keys[1]}).status_code == 200
        process.terminate()
        assert process.communicate(timeout=600)[1] == ""


def test_what_cannot_be_started_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for *arguments, named in (
            ("--generation", "2024", "2024"),
            ("--port", "99999", "port"),
            ("--workspaces", "0", "workspaces"),
            ("--processing-seconds", "-1", "processing_seconds"),
            ("--credits", "many", "credits"),
            ("--port", port, port),
        ):
            with pytest.raises(SystemExit) as ended:
                main([*arguments, "--quiet"])
            assert ended.value.code == 2
            assert named in capsys.readouterr().err


def test_importing_the_sandbox_does_not_import_airflow() -> None:
    check = "import sys, machfive_provider.sandbox.__main__; sys.exit('airflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
