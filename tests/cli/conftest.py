"""The command line, called in this process as `python -m machfive_provider` does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from machfive_provider.cli.run import main
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.sandbox import Sandbox
from tests.tasks import LEADS


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert (self.code, self.err) == (0, "")
        return json.loads(self.out)


Call = Callable[..., Result]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Give a function that runs one command and returns its exit code and what it wrote."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # as the command does, and undone after the test
    monkeypatch.delenv("MACHFIVE_API_KEY", raising=False)

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        code = 0
        try:
            main(arguments)
        except SystemExit as ended:
            code = ended.code
        return Result(code, *capsys.readouterr())

    return run


def buy(sandbox: Sandbox, name: str, campaign: int = 0, leads: Any = LEADS) -> str:
    """Buy a list, return its id."""
    with MachFiveHook() as hook:
        return hook.generate_batch(sandbox.workspaces[0].campaigns[campaign].id, leads, {"list_name": name}).list_id
