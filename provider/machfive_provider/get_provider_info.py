"""What Airflow's providers manager reads: the index of everything this package brings."""

from __future__ import annotations

from typing import Any

from machfive_provider import __version__
from machfive_provider.hooks.form import CONNECTION_FIELDS, FIELD_BEHAVIOUR

__all__ = ["get_provider_info"]

_INTEGRATION = "MachFive"
_OPTIONS = {
    "ui": {
        "description": "Whether the page and the button on tasks are there.",
        "type": "boolean",
        "version_added": "0.1.0",
        "example": None,
        "default": "True",
    },
    "ui_connections": {
        "description": "Connections, with commas, that the page offers although Airflow cannot list them.",
        "type": "string",
        "version_added": "0.1.0",
        "example": "machfive_default,machfive_eu",
        "default": "",
    },
    "ui_preview": {
        "description": "Whether the page shows the emails of a list's first three leads: personal data.",
        "type": "boolean",
        "version_added": "0.1.0",
        "example": None,
        "default": "False",
    },
}


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
        "operators": [
            _modules("operators.generate", "operators.generate_single", "operators.export", "operators.check")
        ],
        "sensors": [_modules("sensors.lead_list")],
        "triggers": [
            _modules("triggers.capacity", "triggers.lead_list", "triggers.list_event", "triggers.unanswered_purchase")
        ],
        "transfers": [
            _transfer("Common SQL", _INTEGRATION, "transfers.sql_to_leads"),
            _transfer("Common IO", _INTEGRATION, "transfers.file_to_leads"),
            _transfer(_INTEGRATION, "Common SQL", "transfers.list_to_sql"),
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
        "config": {"machfive": {"description": "The MachFive page in the Airflow UI.", "options": _OPTIONS}},
        "cli": ["machfive_provider.cli.get_commands"],  # read by Airflow 3.2 and later
    }


def _modules(*names: str) -> dict[str, Any]:
    return {
        "integration-name": _INTEGRATION,
        "python-modules": [f"machfive_provider.{name}" for name in names],
    }


def _transfer(source: str, target: str, name: str) -> dict[str, str]:
    return {
        "source-integration-name": source,
        "target-integration-name": target,
        "python-module": f"machfive_provider.{name}",
    }
