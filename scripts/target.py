"""Which MachFive the example runs against: a sandbox of our own, or the real API after an explicit yes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

if TYPE_CHECKING:
    from machfive_provider.leads.prepare import PreparedLeads
    from machfive_provider.sandbox import Sandbox

CONN_ID = "machfive_default"
DEFAULT_BASE_URL = "https://app.machfive.io"
SANDBOX_PROCESSING_SECONDS = 8.0
# Long enough to watch twenty shards queue for three slots.
DEMO_PROCESSING_SECONDS = 40.0
SANDBOX_CREDITS = 2000


class NotConfirmedError(RuntimeError):
    """The real API would be used, and the user has not confirmed it or named a campaign."""


@dataclass(frozen=True)
class Target:
    """An API with a key and a campaign, and what the example will buy there.

    `describe` says what the sandbox is doing; it says nothing of the real API.
    """

    name: str
    base_url: str
    campaign: str
    timeout: float
    plan: str
    is_sandbox: bool
    api_key: str = field(repr=False)
    describe: Callable[[], str] = field(default=lambda: "", repr=False)

    def connection(self) -> dict[str, str | int]:
        """Return the Airflow connection to this API."""
        address = urlsplit(self.base_url)
        return {
            "conn_type": "machfive",
            "description": f"Made by make: {self.name}",
            "host": self.base_url,
            # Without it Airflow 3.3.2's Test button refuses the stored connection (docs/connection.md).
            "port": address.port or (443 if address.scheme == "https" else 80),
            "password": self.api_key,
        }


@contextmanager
def choose_target(environ: Mapping[str, str], leads_file: Path, *, demo: bool = False) -> Iterator[Target]:
    """Start a sandbox, or check that the user wants to spend credits; raise NotConfirmedError if not.

    With `demo` the sandbox begins with lists in every state, works slower, and spoils what `demo_dags` buys.
    """
    prepared = check_leads(leads_file)
    key = environ.get("MACHFIVE_API_KEY", "").strip()
    if key:
        yield _real_api(environ, key, leads_file, prepared)
        return
    from machfive_provider.sandbox import Sandbox, SandboxSettings

    seconds = DEMO_PROCESSING_SECONDS if demo else SANDBOX_PROCESSING_SECONDS
    # One slot more for the demo's list that never ends.
    concurrency = 4 if demo else 3
    settings = SandboxSettings(processing_seconds=seconds, credits=SANDBOX_CREDITS, concurrency=concurrency, demo=demo)
    # Airflow, which `check_leads` has imported, prints what uvicorn logs.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    with Sandbox(settings) as sandbox:
        if demo:
            _spoil_demo(sandbox)
        url, key = sandbox.base_url, sandbox.api_key
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, trust_env=False) as http:
            yield Target(
                name=f"the MachFive sandbox at {url}, which costs nothing",
                base_url=url,
                campaign=sandbox.workspaces[0].campaigns[0].name,
                timeout=180.0,
                plan=_plan(leads_file, prepared),
                is_sandbox=True,
                api_key=key,
                describe=lambda: _newest_list(http),
            )


def check_leads(leads_file: Path) -> PreparedLeads:
    """Return what the provider's own checks leave of the example's leads, and what they skip."""
    from machfive_provider.leads.prepare import prepare, read_leads

    return prepare(read_leads(leads_path=str(leads_file)), on_invalid_lead="skip", on_duplicate_lead="first")


def _plan(leads_file: Path, prepared: PreparedLeads) -> str:
    """Say what will be bought, what it costs, and which rows are skipped."""
    sent, skipped = len(prepared.leads), (*prepared.invalid, *prepared.duplicates)
    counts = f"{sent} will be sent, for {sent} credits; {len(skipped)} will be skipped, at no cost"
    return "\n".join([f"{leads_file.name} holds {prepared.given} leads: {counts}.", *(f"  {each}" for each in skipped)])


def _real_api(environ: Mapping[str, str], key: str, leads_file: Path, prepared: PreparedLeads) -> Target:
    base_url = environ.get("MACHFIVE_BASE_URL", "").strip() or DEFAULT_BASE_URL
    campaign = environ.get("MACHFIVE_CAMPAIGN", "").strip()
    if not campaign:
        raise NotConfirmedError(
            "MACHFIVE_API_KEY is set, so this would use the real MachFive API, but no campaign is named.\n"
            "Set MACHFIVE_CAMPAIGN to the name of a campaign of that workspace, "
            "or unset MACHFIVE_API_KEY to use the sandbox."
        )
    plan = _plan(leads_file, prepared)
    if environ.get("CONFIRM", "").strip().lower() != "yes":
        raise NotConfirmedError(
            f"This would spend {len(prepared.leads)} credits of the real MachFive API at {base_url}, "
            f"in the campaign {campaign!r}.\n{plan}\n"
            "If that is what you want, set CONFIRM=yes. Unset MACHFIVE_API_KEY to use the sandbox, "
            "which costs nothing."
        )
    # Real batches take minutes to hours, and a full workspace makes the task wait for capacity.
    return Target(f"the real MachFive API at {base_url}", base_url, campaign, 6 * 3600.0, plan, False, key)


def _spoil_demo(sandbox: Sandbox) -> None:
    """Script what goes wrong with the purchases of `demo_dags`, once each: clearing the task shows the remedy."""
    sandbox.fault(
        "status",
        "generate-batch",
        status=402,
        code="INSUFFICIENT_CREDITS",
        message="You have 4 credits remaining. Please upgrade your plan.",
        contains="no-credits@",
    )
    sandbox.fault("fail_list", "generate-batch", contains="list-fails@")
    sandbox.fault("lose_leads", "generate-batch", count=2, contains="leads-missing@")
    sandbox.fault("stuck", "generate-batch", contains="never-ends@")
    # Shorter than a task searches before it buys again.
    sandbox.fault("visible_late", "generate-batch", seconds=80, contains="response-lost@")
    sandbox.fault("reset", "generate-batch", accepted=True, contains="response-lost@")


def _newest_list(http: httpx.Client) -> str:
    """Describe the sandbox's newest list in a few words."""
    try:
        lists = http.get("/api/v1/lists", params={"limit": 1}).raise_for_status().json()["lists"]
    except (httpx.HTTPError, ValueError, KeyError):
        return ""  # only shown beside the run
    return f"its list is {lists[0]['processing_status']}" if lists else ""
