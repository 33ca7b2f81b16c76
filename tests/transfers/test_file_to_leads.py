"""From a file to shards of leads. What shards are is tested in test_sql_to_leads.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from machfive_provider import exceptions
from machfive_provider.sandbox import Sandbox
from machfive_provider.transfers.file_to_leads import FileToMachFiveLeadsOperator
from tests.tasks import Logs, Run, batch, leaks


def source(folder: Path, **arguments: Any) -> FileToMachFiveLeadsOperator:
    known = {"task_id": "people", "leads_path": str(folder / "leads.csv"), "leads_folder": str(folder / "shards")}
    return FileToMachFiveLeadsOperator(**{**known, **arguments})


def who(paths: list[str]) -> list[list[str]]:
    return [[json.loads(line)["email"] for line in Path(path).read_text().splitlines()] for path in paths]


def test_a_file_becomes_shards_that_outlive_it(
    tmp_path: Path, sandbox: Sandbox, connect: Callable[..., None], logs: Logs
):
    connect(sandbox)
    file = tmp_path / "leads.csv"
    page = "https://example.com/a"  # no name, so a batch does not read it back
    rows = (f"a@example.com,Á & Co,{page}", "b@example.com,,", "nobody,,", "A@example.com,,", "c@example.com,,")
    file.write_text("\n".join(("Mail,Firm,Page", *rows)))
    columns = {"email": "Mail", "company": "Firm", "name": "Page"}
    with pytest.raises(exceptions.InvalidLeadsError, match=r"leads\.csv': 1 of 5 leads cannot be used.*line 4"):
        Run(source(tmp_path, columns=columns))()
    lenient: Any = {"columns": columns, "on_invalid_lead": "skip", "on_duplicate_lead": "first", "batch_size": 2}
    run = Run(source(tmp_path, **lenient))
    paths = run()
    assert who(paths) == [["a@example.com", "b@example.com"], ["c@example.com"]]
    told = {"rows": 5, "leads": 3, "skipped": 2, "already_written": 0, "shards": 2}
    assert run.xcoms["machfive_leads"] == told
    assert page not in Path(paths[0]).read_text()
    file.unlink()
    again = Run(source(tmp_path, **lenient), try_number=2, clears=1)
    assert (again(), again.xcoms["machfive_leads"]) == (paths, told)
    for path in paths:
        Run(batch(sandbox, leads_path=path))()
    assert [lead.fields for each in sandbox.lists for lead in each.leads] == [
        {"email": "a@example.com", "company": "Á & Co"},
        {"email": "b@example.com"},
        {"email": "c@example.com"},
    ]
    assert leaks(["a@example.com", "b@", "c@"], *(x for x in logs.text.splitlines() if "machfive_provider" in x)) == []


def test_a_file_without_rows_means_nobody_and_one_that_is_not_there_an_error(tmp_path: Path):
    with pytest.raises(exceptions.InvalidLeadsError, match="cannot be read"):
        Run(source(tmp_path))()
    (tmp_path / "leads.csv").write_text("email,name\n")
    run = Run(source(tmp_path))
    assert run() == []
    assert run.xcoms["machfive_leads"]["rows"] == 0


def test_refused_when_the_dag_is_parsed():
    with pytest.raises(exceptions.ConfigurationError, match="batch_size must be a whole number"):
        source(Path("x"), batch_size=0)
