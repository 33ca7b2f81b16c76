"""What one try of a task is to buy, for whom, and under which policy. Plain values: no I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from machfive_provider.api.models import GenerationOptions, Lead, LeadList
from machfive_provider.purchase.tag import (
    Tag,
    digest_of_leads,
    digest_of_what,
    digest_of_who,
    may_be_cut_off,
    sorted_leads,
)

__all__ = ["BATCH", "SINGLE", "Purchase", "credits_needed"]

BATCH, SINGLE = "generate-batch", "generate"  # the two paid calls (docs/api.md, "Endpoints")

_LONGEST_NAME = 100  # code points. The user's part of the name is cut here, so that the server need not cut the tag.


def credits_needed(leads: int, options: GenerationOptions) -> int:
    """Return the price of so many leads: a credit each, two with ``enrichment_enabled`` (docs/api.md)."""
    return leads * (2 if options.get("enrichment_enabled") else 1)


@dataclass(frozen=True)
class Purchase:
    """One batch of leads for one task in one DAG run, as one try of the task sees it.

    :param map_index: of the task instance; None if it is not mapped
    :param namespace: from the connection, for Airflow deployments that share a workspace
    :param round: the task instance's ``max_tries``. Airflow keeps it through automatic tries, also when ``retries`` is
        edited, and a clear sets it to ``try_number + retries``. So different rounds mean that the user cleared the
        task; equal ones can hide a clear, for instance if ``retries`` was lowered
    :param leads: the valid leads, before any is left out: they name the purchase
    :param selected: those of them that are sent; None for all
    :param options: as the user set them; ``list_name`` is the name without the tag
    :param call: the paid call that this try makes, ``BATCH`` or ``SINGLE``
    :param one_lead: whether the task buys one lead, so that an earlier try may have made either call
    :param on_existing_list: ``adopt`` uses a list that was bought already; ``resubmit`` uses only one of the same
        round, so it buys again after each clear; ``fail`` uses only what an earlier try of the same round bought
    :param max_resubmissions: how often a batch is bought again in a round because its list failed
    :param since: a search stops at lists created before it; None searches through all
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int | None
    namespace: str | None
    try_number: int
    round: int
    campaign_id: str
    leads: tuple[Lead, ...]
    options: GenerationOptions
    call: str = BATCH
    one_lead: bool = False
    on_existing_list: str = "adopt"
    max_resubmissions: int = 1
    since: datetime | None = None
    selected: tuple[Lead, ...] | None = None

    @property
    def sent(self) -> tuple[Lead, ...]:
        """The leads that are sent and paid for."""
        return self.leads if self.selected is None else self.selected

    @cached_property
    def who(self) -> str:
        """The first part of the tag."""
        return digest_of_who(self.namespace, self.dag_id, self.run_id, self.task_id)

    @property
    def what(self) -> str:
        """The second part of the tag."""
        return self._digests[0]

    @cached_property
    def _digests(self) -> tuple[str, str]:
        """What, and the leads that are sent. Made together: with 200,000 leads their texts take most of the time."""
        leads = sorted_leads(self.leads)
        sent = leads if self.selected is None else sorted_leads(self.selected)
        return digest_of_what(self.campaign_id, leads, self.options), digest_of_leads(sent)

    @property
    def credits(self) -> int:
        """What it costs."""
        return credits_needed(len(self.sent), self.options)

    def tag(self, generation: int) -> Tag:
        """Return the tag of the list that this try would buy."""
        return Tag(self.who, self.what, self.round, self.map_index, self._digests[1], generation)

    @property
    def title(self) -> str:
        """The list's name without a tag."""
        return str(self.options.get("list_name") or "").strip() or f"{self.dag_id} {self.task_id}"

    def list_name(self, tag: Tag) -> str:
        """Return the name of the list with this tag: the user's text, cut if it is too long, and the whole tag."""
        return f"{self.title[: _LONGEST_NAME - len(str(tag)) - 1].strip()} {tag}"

    def tag_of(self, lead_list: LeadList) -> Tag | None:
        """Return the tag of a list that this task bought in this run; None for any other list."""
        tags = [tag for tag in Tag.all_in(lead_list.custom_name) if tag.who == self.who]
        return next((tag for tag in tags if tag.what == self.what), tags[0] if tags else None)

    def may_be_cut_off(self, lead_list: LeadList) -> bool:
        """Whether the list's name ends in the beginning of our tag."""
        return may_be_cut_off(lead_list.custom_name, self.who, self.what)
