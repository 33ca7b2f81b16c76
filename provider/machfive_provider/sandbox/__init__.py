"""A stand-in for the MachFive API on a real socket, with scripted faults; it records requests and purchases.

Start it with `python -m machfive_provider.sandbox`, or in a test with `with Sandbox() as sandbox:`. Needs
the extra `[sandbox]` and nothing of Airflow. Begin reading with `sandbox.py` (the class `Sandbox`) and
`routes.py` (the API's endpoints); `store.py` keeps what was bought, `faults.py` lists what can go wrong.
"""

from __future__ import annotations

from machfive_provider.sandbox.faults import Fault
from machfive_provider.sandbox.model import Campaign, LeadList, SandboxSettings, Signature, Workspace
from machfive_provider.sandbox.sandbox import Sandbox
from machfive_provider.sandbox.store import Purchase, RecordedRequest

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
