"""Every block of code in the documentation is checked.

The DAGs of the five jobs run in a real Airflow as well: tests/jobs.
"""

from __future__ import annotations

import asyncio
import configparser
import csv
import inspect
import json
import tomllib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import yaml
from airflow.sdk import DAG, Asset

from machfive_provider.leads.prepare import prepare, read_leads
from machfive_provider.operators.export import MachFiveExportListOperator
from machfive_provider.operators.generate import MachFiveGenerateBatchOperator
from machfive_provider.pipeline.task_group import machfive_pipeline
from machfive_provider.sandbox import Sandbox
from machfive_provider.transfers.file_to_leads import FileToMachFiveLeadsOperator
from machfive_provider.transfers.sql_to_leads import SqlToMachFiveLeadsOperator
from tests.docs.commands import check_commands
from tests.docs.pages import BLOCKS, DAGS, Block

Connect = Callable[..., None]
# Run one after the other in tests/docs/test_walks.py, where what they print is compared.
WALKED = {("docs/hook.md", "python"), ("docs/hook.md", "text"), ("docs/command-line.md", "console")}
# What a block of a reference page may use without an import.
NAMES = {
    each.__name__: each
    for each in (
        Asset,
        FileToMachFiveLeadsOperator,
        MachFiveExportListOperator,
        MachFiveGenerateBatchOperator,
        SqlToMachFiveLeadsOperator,
        machfive_pipeline,
        timedelta,
    )
}
DATA: dict[str, Callable[[str], Any]] = {
    "csv": lambda text: prepare(read_leads(list(csv.DictReader(text.splitlines())))),
    "ini": lambda text: configparser.ConfigParser(interpolation=None).read_string(text),
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
}
CHECKED = {"python", "bash", *DATA}
# Blocks that are not checked here, by how they begin, and why.
NOT_CHECKED = {
    ("docs/transfers.md", "query ── SqlToMachFiveLeadsOperator"): "a drawing",
    ("docs/errors.md", "You have 0 credits remaining."): "an error's text: tests/api/test_error_matrix.py has them all",
    ("docs/telemetry.md", "statsd_exporter --statsd"): "a program of Prometheus that is not here",
    ("docs/warehouse.md", "CREATE TABLE contacts"): "run on PostgreSQL in tests/jobs",
    ("docs/warehouse.md", "SELECT email, step"): "run on PostgreSQL in tests/jobs",
}


EXPLAINED = [
    block for block in BLOCKS for page, start in NOT_CHECKED if block.page == page and block.text.startswith(start)
]
OTHERS = [block for block in BLOCKS if block not in EXPLAINED and (block.page, block.language) not in WALKED]


def of(*languages: str) -> Any:
    found = [block for block in OTHERS if block.language in languages]
    return pytest.mark.parametrize("block", found, ids=map(str, found))


def test_no_block_is_forgotten():
    assert [str(block) for block in OTHERS if block.language not in CHECKED] == []
    assert len(EXPLAINED) == len(NOT_CHECKED)


@of("python")
def test_python(block: Block, connect: Connect, timed_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    """DAG files and tests are complete; other blocks are parts of a DAG."""
    connect(timed_sandbox)
    names: dict[str, Any] = {}
    if "import " in block.text:
        exec(compile(block.text, str(block), "exec"), names)
    else:
        with DAG("documentation", schedule=None):
            exec(compile(block.text, str(block), "exec"), dict(NAMES))
    for name, test in names.items():
        if name.startswith("test_"):
            done = test(*[monkeypatch for _ in inspect.signature(test).parameters])
            if inspect.iscoroutine(done):
                asyncio.run(done)


@of("bash")
def test_bash(block: Block, sandbox: Sandbox):
    check_commands(block.text, sandbox)


@of(*DATA)
def test_data(block: Block):
    DATA[block.language](block.text)


def test_the_dags_have_ids_of_their_own():
    assert len(DAGS) == sum(block.dag_id is not None for block in BLOCKS)
