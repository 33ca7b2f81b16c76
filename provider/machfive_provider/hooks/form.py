"""The connection form, for ``get_provider_info`` (Airflow 3.2 and later) and for the hook (Airflow 3.1).

Imports nothing: Airflow reads provider info while Airflow itself is still being imported.
"""

from __future__ import annotations

from typing import Any

__all__ = ["CONNECTION_FIELDS", "FIELD_BEHAVIOUR"]

CONNECTION_FIELDS: dict[str, dict[str, Any]] = {
    "namespace": {
        "label": "Namespace",
        "description": "Set it when several Airflow deployments use one MachFive workspace, to a different "
        "text in each: it keeps their batches apart.",
        "schema": {"type": ["string", "null"]},
    },
    "max_concurrent_batches": {
        "label": "Max concurrent batches",
        "description": "How many batches your MachFive plan lets a workspace process at once, if you know.",
        "schema": {"type": ["integer", "null"], "minimum": 1},
    },
}
FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden_fields": ["schema", "login", "port", "extra"],
    "relabeling": {"password": "API key", "host": "Base URL"},
    "placeholders": {"host": "https://app.machfive.io", "password": "mf_live_…"},
}
