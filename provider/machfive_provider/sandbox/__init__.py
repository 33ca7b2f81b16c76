"""A stand-in for the MachFive API: the whole contract on a real socket, with scripted faults and books.

Start it with `python -m machfive_provider.sandbox`, or in a test with `with Sandbox() as sandbox:`. Needs
the extra `[sandbox]`; knows nothing of Airflow.
"""

from __future__ import annotations

from machfive_provider.sandbox.faults import Fault
from machfive_provider.sandbox.records import Campaign, LeadList, Purchase, RecordedRequest, Signature, Workspace
from machfive_provider.sandbox.sandbox import Sandbox
from machfive_provider.sandbox.settings import SandboxSettings

__all__ = [
    "Campaign",
    "Fault",
    "LeadList",
    "Purchase",
    "RecordedRequest",
    "Sandbox",
    "SandboxSettings",
    "Signature",
    "Workspace",
]
