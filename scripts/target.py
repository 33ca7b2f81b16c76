"""Which MachFive the example runs against: a sandbox of our own, or the real API after an explicit yes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

DEFAULT_BASE_URL = "https://app.machfive.io"
SANDBOX_PROCESSING_SECONDS = 8.0
SANDBOX_CREDITS = 2000


class NotConfirmedError(RuntimeError):
    """The real API would be used, and the user has not confirmed it or named a campaign."""


@dataclass(frozen=True)
class Target:
    """An API with a key and a campaign; `describe` says what the sandbox is doing; it says nothing of the real API."""

    name: str
    base_url: str
    campaign: str
    timeout: float
    api_key: str = field(repr=False)
    describe: Callable[[], str] = field(default=lambda: "", repr=False)

    def environment(self) -> dict[str, str]:
        """Return what tells Airflow's tasks about this API: the connection and the campaign's name."""
        connection = {"conn_type": "machfive", "host": self.base_url, "password": self.api_key}
        return {"AIRFLOW_CONN_MACHFIVE_DEFAULT": json.dumps(connection), "MACHFIVE_CAMPAIGN": self.campaign}


@contextmanager
def choose_target(environ: Mapping[str, str], leads_file: Path) -> Iterator[Target]:
    """Start a sandbox, or check that the user wants to spend credits; raise NotConfirmedError if not."""
    key = environ.get("MACHFIVE_API_KEY", "").strip()
    if key:
        yield _real_api(environ, key, leads_file)
        return
    from machfive_provider.sandbox import Sandbox, SandboxSettings

    settings = SandboxSettings(processing_seconds=SANDBOX_PROCESSING_SECONDS, credits=SANDBOX_CREDITS)
    with Sandbox(settings) as sandbox:
        campaign = sandbox.workspaces[0].campaigns[0].name
        url, key = sandbox.base_url, sandbox.api_key
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, trust_env=False) as http:
            yield Target(f"the MachFive sandbox at {url}", url, campaign, 180.0, key, lambda: _newest_list(http))


def _real_api(environ: Mapping[str, str], key: str, leads_file: Path) -> Target:
    base_url = environ.get("MACHFIVE_BASE_URL", "").strip() or DEFAULT_BASE_URL
    campaign = environ.get("MACHFIVE_CAMPAIGN", "").strip()
    if not campaign:
        raise NotConfirmedError(
            "MACHFIVE_API_KEY is set, so this would use the real MachFive API, but no campaign is named.\n"
            "Set MACHFIVE_CAMPAIGN to the name of a campaign of that workspace, "
            "or unset MACHFIVE_API_KEY to use the sandbox."
        )
    credits_needed = count_credits(leads_file)
    if environ.get("CONFIRM", "").strip().lower() != "yes":
        raise NotConfirmedError(
            f"This would spend {credits_needed} credits of the real MachFive API at {base_url}: one for each valid, "
            f"unique lead of {leads_file.name}, in the campaign {campaign!r}.\n"
            "If that is what you want, set CONFIRM=yes. Unset MACHFIVE_API_KEY to use the sandbox, "
            "which costs nothing."
        )
    print(f"Spending {credits_needed} credits of the real MachFive API at {base_url}, campaign {campaign!r}.")
    # Real batches take minutes, and a full workspace makes the task wait for capacity.
    return Target(f"the real MachFive API at {base_url}", base_url, campaign, 6 * 3600.0, key)


def count_credits(leads_file: Path) -> int:
    """Return what the example will cost: the leads that are left after the provider's own checks."""
    from machfive_provider.leads.prepare import prepare, read_leads

    rows = read_leads(leads_path=str(leads_file))
    return len(prepare(rows, on_invalid_lead="skip", on_duplicate_lead="first").leads)


def _newest_list(http: httpx.Client) -> str:
    """Describe the sandbox's newest list in a few words."""
    try:
        lists = http.get("/api/v1/lists", params={"limit": 1}).raise_for_status().json()["lists"]
    except (httpx.HTTPError, ValueError, KeyError):
        return ""  # only shown beside the run
    return f"list {lists[0]['id']} is {lists[0]['processing_status']}" if lists else "no list yet"
