"""The tag in a list's name, by which a later attempt recognises the list of an earlier one.

The API has no idempotency key (``docs/api.md``). A list's name is the one value that is sent with the purchase and
shown again with the list. So the name ends in a tag: ``[af1:<who>-<what>:<round>.<map index>.<sent>#<generation>]``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from machfive_provider.api.models import GenerationOptions, Lead

__all__ = [
    "Tag",
    "digest_of_leads",
    "digest_of_what",
    "digest_of_who",
    "is_tagged",
    "may_be_cut_off",
    "sorted_leads",
    "without_tag",
]

_TAG = re.compile(
    r"\[af1:(?P<who>[0-9a-f]{10})-(?P<what>[0-9a-f]{12})"
    r":(?P<round>[0-9]+)\.(?P<map_index>[0-9]*)\.(?P<sent>[0-9a-f]{6})(?:#(?P<generation>[0-9]+))?\]"
)
_CUT_OFF = re.compile(r"\[af1:[0-9a-f]*(?:-[0-9a-f]*(?::[0-9a-f.#]*)?)?$")
# These options change how a list is shown or announced, not the emails. Changing them does not make another purchase.
_NOT_IN_RESULT = ("list_name", "notification_email")


@dataclass(frozen=True, slots=True)
class Tag:
    """What a list's name tells of its purchase. Two lists with equal ``who`` and ``what`` are the same purchase.

    :param who: digest of the task, its DAG run and the connection's namespace
    :param what: digest of the campaign, the leads and the options
    :param round: the task instance's ``max_tries`` when it was bought, which tells clears apart
    :param map_index: of the task instance; None if it is not mapped
    :param sent: short digest of the leads that were sent
    :param generation: 1 for the first list, then counted up: after a failure, or a clear with ``resubmit``
    """

    who: str
    what: str
    round: int
    map_index: int | None
    sent: str
    generation: int = 1

    def __str__(self) -> str:
        index = "" if self.map_index is None else self.map_index
        generation = "" if self.generation == 1 else f"#{self.generation}"
        return f"[af1:{self.who}-{self.what}:{self.round}.{index}.{self.sent}{generation}]"

    @classmethod
    def all_in(cls, name: str | None) -> list[Tag]:
        """Return all whole tags in a name."""
        return [
            cls(
                found["who"],
                found["what"],
                int(found["round"]),
                int(found["map_index"]) if found["map_index"] else None,
                found["sent"],
                int(found["generation"] or 1),
            )
            for found in _TAG.finditer(name or "")
        ]

    def is_of_same_task(self, other: Tag) -> bool:
        """Whether the same task has bought it: the same purchase, or another one in the same round and map index."""
        place = (self.round, self.map_index) == (other.round, other.map_index)
        return self.who == other.who and (self.what == other.what or place)

    def is_same_list_as(self, other: Tag) -> bool:
        """Whether both are of the same list: of one purchase, round and generation."""
        return (self.who, self.what, self.round, self.generation) == (
            other.who,
            other.what,
            other.round,
            other.generation,
        )


def is_tagged(name: str | None) -> bool:
    """Whether a name holds a tag, or ends in the beginning of one because the server cut the name short."""
    return bool(_TAG.search(name or "") or _CUT_OFF.search(name or ""))


def without_tag(name: str | None) -> str:
    """Return a list's name as its user wrote it."""
    return (name or "").partition("[af1:")[0].strip() if is_tagged(name) else (name or "").strip()


def may_be_cut_off(name: str | None, who: str, what: str) -> bool:
    """Whether a name ends in the beginning of a tag of this purchase, because the server cut the name short."""
    cut = _CUT_OFF.search(name or "")
    ours = f"[af1:{who}-{what}"
    return cut is not None and (ours.startswith(cut[0]) or cut[0].startswith(ours))


def digest_of_who(namespace: str | None, dag_id: str, run_id: str, task_id: str) -> str:
    """Return the digest of who buys: the same for every attempt of a task in a DAG run, and for all map indexes."""
    return _digest([namespace, dag_id, run_id, task_id])[:10]


def sorted_leads(leads: Iterable[Lead]) -> list[str]:
    """Return the leads as texts in one order, whatever theirs is: what the digests are made of."""
    return sorted(json.dumps(lead.to_json(), sort_keys=True) for lead in leads)


def digest_of_what(campaign_id: str, leads: list[str], options: GenerationOptions) -> str:
    """Return the digest of what is bought.

    :param leads: as :func:`sorted_leads` returns them
    """
    result = {name: value for name, value in options.items() if name not in _NOT_IN_RESULT}
    return _digest([campaign_id, leads, result])[:12]


def digest_of_leads(leads: list[str]) -> str:
    """Return the short digest of the leads that are sent, as :func:`sorted_leads` returns them."""
    return _digest(leads)[:6]


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
