"""What `airflow` loads of ours at each call, and that both parsers take the same arguments."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest
from packaging.version import Version

from machfive_provider.cli.definition import make_parser

HEAVY = (
    "httpx",
    "ijson",
    "pendulum",
    "rich",
    "tenacity",
    "email_validator",
    "starlette",
    "uvicorn",
    "machfive_provider",
)
LOADED = f"""
import sys
import machfive_provider.cli
first = sorted(name for name in sys.modules if name.partition(".")[0] in {("airflow", *HEAVY)})
import airflow.cli.cli_config
before = set(sys.modules)
machfive_provider.cli.get_commands()
print(*first, sep=",")
print(*sorted(name for name in set(sys.modules) - before if name.partition(".")[0] in {HEAVY}), sep=",")
"""
CALLS = (
    "campaigns",
    "campaigns spring -o csv --conn-id other",
    "lists --campaign Spring --status running --text q3 --since 2h --limit 5 --watch --interval 30",
    "show 123 -o json",
    "export 123 emails.jsonl --format jsonl",
    "check leads.csv --columns {} --on-invalid skip --on-duplicate first --enrichment",
    "sandbox --port 0 --help -q x",
    "sandbox",
)


def test_what_airflow_loads_at_each_of_its_commands_is_light():
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=600, check=True)
    first, second = done.stdout.splitlines()[-2:]
    assert first == "machfive_provider,machfive_provider.cli,machfive_provider.cli.definition"
    assert second == ""


@pytest.mark.skipif(Version(version("apache-airflow")) < Version("3.2"), reason="no commands of providers yet")
@pytest.mark.parametrize("arguments", CALLS)
def test_both_parsers_understand_the_same(arguments: str):
    from airflow.cli.cli_parser import get_parser

    theirs = vars(get_parser().parse_args(["machfive", *arguments.split()]))
    assert theirs.pop("func").__name__ == "run"
    assert theirs == vars(make_parser().parse_args(arguments.split()))


def test_the_sandbox_has_its_arguments_itself():
    assert make_parser().parse_args(["sandbox", "--port", "0", "-h"]).arguments == ["--port", "0", "-h"]
