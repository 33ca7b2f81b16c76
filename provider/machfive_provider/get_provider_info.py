"""What Airflow's providers manager reads: the index of everything this package brings."""

from __future__ import annotations

from typing import Any

from machfive_provider import __version__
from machfive_provider.hooks.form import CONNECTION_FIELDS, FIELD_BEHAVIOUR

__all__ = ["get_provider_info"]

_INTEGRATION = "MachFive"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata (entry point ``apache_airflow_provider``)."""
    return {
        "package-name": "airflow-provider-machfive",
        "name": _INTEGRATION,
        "description": "Personalised cold-email sequences written by MachFive: batches, waiting, exports.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://app.machfive.io",
                "tags": ["service"],
            }
        ],
        "hooks": [_modules("hooks.machfive")],
        "operators": [_modules("operators.generate", "operators.generate_single", "operators.export")],
        "sensors": [_modules("sensors.lead_list")],
        "triggers": [
            _modules("triggers.capacity", "triggers.lead_list", "triggers.list_event", "triggers.unanswered_purchase")
        ],
        "connection-types": [
            {
                "connection-type": "machfive",
                "hook-class-name": "machfive_provider.hooks.machfive.MachFiveHook",
                "hook-name": _INTEGRATION,
                "ui-field-behaviour": {key.replace("_", "-"): value for key, value in FIELD_BEHAVIOUR.items()},
                "conn-fields": CONNECTION_FIELDS,
            }
        ],
        "cli": ["machfive_provider.cli.get_commands"],  # read by Airflow 3.2 and later
    }


def _modules(*names: str) -> dict[str, Any]:
    return {
        "integration-name": _INTEGRATION,
        "python-modules": [f"machfive_provider.{name}" for name in names],
    }
