"""A short run of both modes in one Airflow, so that `make test-kills` covers the chaos suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.plan import short
from tests.chaos.report import shortcomings, table
from tests.chaos.run import ChaosRun

pytestmark = pytest.mark.live
# Fixed, so that a failure is not a matter of which faults were drawn.
SEED = 1


def test_every_batch_is_bought_once_and_delivered_whole_whatever_breaks(tmp_path: Path) -> None:
    outcome = ChaosRun(short(SEED), tmp_path, print).run()
    print(figures := table(outcome))
    wrong = shortcomings(outcome)
    assert not wrong, "\n".join([*wrong, "", figures])
