"""Checks the lines of a `bash` block: each is parsed by the program that it calls, none is run but for `curl`."""

from __future__ import annotations

import json
import re
import shlex
import tomllib

import httpx
from airflow.cli.cli_parser import get_parser
from packaging.requirements import Requirement

from machfive_provider.cli.definition import make_parser
from machfive_provider.sandbox import Sandbox
from machfive_provider.sandbox.__main__ import make_parser as make_sandbox_parser
from tests.docs.pages import ROOT

OURS = "airflow-provider-machfive"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def check_commands(text: str, sandbox: Sandbox) -> None:
    """Fail at a line that its program would refuse, and at a program that is not known here."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"\$\(.*?\)", "2026-01-02", text))
    for line in filter(None, (shlex.split(line, comments=True) for line in joined.splitlines())):
        match line:
            case ["airflow", "machfive", *arguments] | ["python", "-m", "machfive_provider", *arguments]:
                _check_ours(arguments)
            case ["python", "-m", "machfive_provider.sandbox", *arguments]:
                _check_ours(["sandbox", *arguments])
            case ["airflow", *arguments]:
                get_parser().parse_args(arguments)
            case ["make", *words]:
                assert {word for word in words if "=" not in word} <= TARGETS
            case ["pip", "install", *packages]:
                _check_packages(packages)
            case ["export", setting]:
                name, _, value = setting.partition("=")
                assert not name.startswith("AIRFLOW_CONN_") or json.loads(value)["conn_type"]
            case [".venv/bin/python", "-m", "pytest", path, *_]:
                assert (ROOT / path).exists()
            case ["curl", "-s", url, "-H", header, "-d", body]:
                headers = dict([header.split(": ")])
                address = f"{sandbox.base_url}{url.removeprefix('127.0.0.1:8555')}"
                httpx.post(address, headers=headers, content=body).raise_for_status()
            case _:
                raise AssertionError(f"nobody checks this line: {line}")


def _check_ours(arguments: list[str]) -> None:
    given = make_parser().parse_args(arguments)
    if given.subcommand == "sandbox":
        make_sandbox_parser().parse_args(given.arguments)


def _check_packages(packages: list[str]) -> None:
    for package in packages:
        wanted = Requirement(re.sub(r"^\.", OURS, package))
        assert wanted.name == OURS or wanted.name.startswith("apache-airflow")
        assert wanted.name != OURS or wanted.extras <= EXTRAS.keys()
