"""The tag in a list's name, by which a later attempt recognises the list of an earlier one.

The API has no idempotency key (``docs/api.md``). A list's name is the one value that is sent with the purchase and
shown again with the list. So the name ends in a tag that every attempt of the same purchase computes alike:
``[af1:<who>-<what>]``, and ``[af1:<who>-<what>#2]`` for the list bought after the first one failed.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from machfive_provider.api.models import GenerationOptions, Lead, LeadList

__all__ = ["Intent", "Origin"]

_LONGEST_NAME = 100  # code points. The user's part of the name is cut here, so that the server need not cut the tag.
_TAG = re.compile(r"\[af1:(?P<who>[0-9a-f]{10})-(?P<what>[0-9a-f]{12})(?:#(?P<generation>[0-9]+))?\]")
_CUT_OFF_TAG = re.compile(r"\[af1:[0-9a-f]*-?[0-9a-f]*#?[0-9]*$")
# These options change how a list is shown or announced, not the emails. Changing them does not make another purchase.
_NOT_IN_RESULT = ("list_name", "notification_email")


@dataclass(frozen=True, slots=True)
class Origin:
    """Who buys: the same for every attempt of a task in a DAG run, and for all its map indexes.

    :param namespace: from the connection, for deployments that share a workspace
    :param round: with ``on_existing_list="resubmit"``, the number of the clear; None otherwise
    """

    dag_id: str
    run_id: str
    task_id: str
    namespace: str | None = None
    round: int | None = None


@dataclass(frozen=True)
class Intent:
    """What is to be bought, for whom.

    :param options: as the user set them; ``list_name`` is the name without the tag
    :param since: the search stops at lists created before it; None searches through all
    """

    origin: Origin
    campaign_id: str
    leads: tuple[Lead, ...]
    options: GenerationOptions
    since: datetime | None = None

    @cached_property
    def who(self) -> str:
        """The first part of the tag: the task in its DAG run."""
        origin = self.origin
        return _digest([origin.namespace, origin.dag_id, origin.run_id, origin.task_id, origin.round])[:10]

    @cached_property
    def what(self) -> str:
        """The second part of the tag: campaign, leads (in any order) and options."""
        what = [
            self.campaign_id,
            sorted(json.dumps(lead.to_json(), sort_keys=True) for lead in self.leads),
            {name: value for name, value in self.options.items() if name not in _NOT_IN_RESULT},
        ]
        return _digest(what)[:12]

    @property
    def base(self) -> str:
        """``<who>-<what>``: the same for all attempts of one purchase."""
        return f"{self.who}-{self.what}"

    def tag(self, generation: int) -> str:
        """Return the tag of a generation: 1 is the first list, 2 the one bought after the first failed."""
        return f"[af1:{self.base}]" if generation == 1 else f"[af1:{self.base}#{generation}]"

    def list_name(self, generation: int) -> str:
        """Return the name to send: the user's, cut if it is too long, and the whole tag."""
        tag = self.tag(generation)
        shown = str(self.options.get("list_name") or "").strip() or f"{self.origin.dag_id} {self.origin.task_id}"
        return f"{shown[: _LONGEST_NAME - len(tag) - 1].strip()} {tag}"

    def is_tagged(self, tag: str) -> bool:
        """Whether a tag names the same campaign, leads and options, whoever bought them."""
        return f"-{self.what}" in tag

    def generation_of(self, lead_list: LeadList) -> int | None:
        """Return the generation of a list of this intent, None for any other list."""
        for tag in _TAG.finditer(lead_list.custom_name or ""):
            if (tag["who"], tag["what"]) == (self.who, self.what):
                return int(tag["generation"] or 1)
        return None

    def is_other_purchase(self, lead_list: LeadList) -> bool:
        """Whether the same task bought this list in the same run with other leads, options or campaign."""
        tags = list(_TAG.finditer(lead_list.custom_name or ""))
        return any(tag["who"] == self.who and tag["what"] != self.what for tag in tags)

    def has_cut_tag(self, lead_list: LeadList) -> bool:
        """Whether the name ends in the beginning of our tag, because the server cut the name short."""
        cut = _CUT_OFF_TAG.search(lead_list.custom_name or "")
        ours = f"[af1:{self.base}"
        return cut is not None and (ours.startswith(cut[0]) or cut[0].startswith(ours))


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
