"""The page of an Airflow in which nothing of ours has run yet. Its name makes it the first file with that Airflow."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.pictures import Photographer

pytestmark = pytest.mark.live


def test_without_a_connection_the_page_says_how_to_make_one(client: Any, shoot: Photographer):
    """A viewer may read no connections, and no task has named one yet."""
    assert "<h2>No MachFive connection yet</h2>" in client("viewer").get("").text
    shoot("no-connection", "", user="viewer", shows="text=No MachFive connection yet", twice=False)
