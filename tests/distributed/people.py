"""Lists that people buy in MachFive's own app: sensors wait for them, and watchers see them end."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field

from machfive_provider.api import protocol
from machfive_provider.api.client import MachFiveClient
from machfive_provider.api.client_settings import ClientSettings
from machfive_provider.api.models import Lead
from machfive_provider.sandbox import Sandbox

# What each watcher wants to see in a list's name.
WATCHED: Mapping[str, str | None] = {"everything": None, "newsletter": "newsletter"}
NAMES = ("Made in the app", "The newsletter")


@dataclass
class People:
    """Buys lists of single leads, which take no slot of the workspace; ends them in turn as the batches get done."""

    sandbox: Sandbox
    count: int
    lists: dict[str, str] = field(default_factory=dict)  # names by id
    ended: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        workspace = self.sandbox.workspaces[2]
        with closing(MachFiveClient(ClientSettings(self.sandbox.base_url, workspace.api_key))) as client:
            for number in range(self.count):
                name = NAMES[number % 2]
                call = protocol.generate(
                    workspace.campaigns[0].id, Lead(f"reader{number}@example.com"), {"list_name": name}
                )
                list_id = client.send(call).list_id
                self.sandbox.set_status(list_id, "processing")
                self.lists[list_id] = name

    def step(self, done: float) -> None:
        """End as many lists as belong to this part of the batches; the last before all batches are done."""
        due = int(done * (self.count + 1))
        for list_id in [*self.lists][len(self.ended) : due]:
            self.sandbox.complete(list_id)
            self.ended.append(list_id)

    def wanted_by(self, watcher: str) -> set[str]:
        """Return the lists whose end a watcher has to report."""
        part = (WATCHED[watcher] or "").lower()
        return {list_id for list_id, name in self.lists.items() if part in name.lower()}
