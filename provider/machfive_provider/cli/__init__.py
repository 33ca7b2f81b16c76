"""The command line: ``airflow machfive …`` (Airflow 3.2 and later) and ``python -m machfive_provider …``.

Begin with ``definition``: the commands and their arguments, which Airflow loads at each of its own commands, so that it
imports nothing heavy. ``run`` carries a command out and turns errors into messages and exit codes. ``commands`` says
what each does; ``lists`` selects lists and watches them, ``check`` reports on a file of leads, ``connection`` finds the
key, ``output`` writes tables, JSON and CSV.
"""

from __future__ import annotations

from machfive_provider.cli.definition import get_commands

__all__ = ["get_commands"]
