"""What every test needs before Airflow is imported: a home of its own, thrown away afterwards."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings

_HOME = Path(tempfile.mkdtemp(prefix="machfive-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ["AIRFLOW_HOME"] = str(_HOME)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{_HOME / 'airflow.db'}"

# No deadline: how long an example takes says something about the machine, not about the code.
settings.register_profile("provider", deadline=None, database=None)
settings.load_profile("provider")
