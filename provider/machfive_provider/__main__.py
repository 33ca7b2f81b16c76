"""``python -m machfive_provider``: the commands of ``airflow machfive``, also where Airflow is too old for those."""

from __future__ import annotations

import os

from machfive_provider.cli.run import main

if __name__ == "__main__":
    # Airflow logs to standard output or standard error, depending on its release: into the midst of JSON or messages.
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    main()
