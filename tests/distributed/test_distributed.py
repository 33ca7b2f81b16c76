"""The whole run, as `make test-distributed` runs it; `python -m tests.distributed` runs others."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.live


def test_nothing_is_lost_or_bought_twice_when_one_process_of_each_kind_is_killed(tmp_path: Path) -> None:
    for needed in ("redis", "airflow.providers.celery"):
        pytest.importorskip(needed, reason="make test-distributed installs it")
    from tests.distributed.plan import Plan
    from tests.distributed.report import shortcomings, table
    from tests.distributed.run import DistributedRun

    outcome = DistributedRun(Plan(), tmp_path, print).run()
    print(figures := table(outcome))
    wrong = shortcomings(outcome)
    assert not wrong, "\n".join([*wrong, "", figures])
