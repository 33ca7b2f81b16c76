"""The accounting check: what the sandbox sold against what the files hold."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from machfive_provider.sandbox import Sandbox
from tests.chaos.faults import POST

_TAG = re.compile(r"\[af1:([0-9a-f]+-[0-9a-f]+)")
_BATCH = re.compile(r"@b([0-9]+)\.([a-z]+)\.")


class Load(Protocol):
    """What a run has to deliver: in each mode so many batches of so many leads."""

    @property
    def modes(self) -> tuple[str, ...]: ...
    @property
    def batches(self) -> int: ...
    @property
    def leads(self) -> int: ...


@dataclass(frozen=True)
class Accounts:
    """The figures, and a line of text for each thing that is wrong.

    A list that failed cannot be delivered and has to be bought again: its credits are counted apart, as are those of
    purchases that users asked for on top (`people.py`).
    """

    batches: int
    complete_files: int
    leads_wanted: int
    leads_delivered: int
    bought_twice: int
    credits: int
    credits_on_top: int
    credits_failed: int
    lists_failed: int
    refused: int
    problems: tuple[str, ...]

    @property
    def leads_lost(self) -> int:
        """Leads that are in no file."""
        return self.leads_wanted - self.leads_delivered

    @property
    def price(self) -> float:
        """Credits for a lead delivered."""
        return self.credits / self.leads_delivered if self.leads_delivered else 0.0


def check_accounts(plan: Load, sandbox: Sandbox, results: Path, asked: Mapping[str, int]) -> Accounts:
    """Compare the purchases that the sandbox recorded with the files; those of other leads do not count.

    :param asked: by the name of a batch, how often a clear asked for another purchase of it, because of an edit
    """
    failed = {each.id for each in sandbox.lists if each.ends_failed}
    purchases = [each for each in sandbox.purchases if _BATCH.search(each.emails[0])]
    bought = [purchase for purchase in purchases if purchase.list_id not in failed]
    # A list's name holds the tag with its generation, so one name twice is one purchase made twice, failed or not.
    # After an edit and a clear the batch is another purchase, with another tag: such a one each may come on top.
    names = Counter(purchase.list_name for purchase in purchases)
    same = Counter(_TAG.findall(str(purchase.list_name))[0] for purchase in bought)
    by_batch: dict[str, list[str]] = defaultdict(list)
    twice, on_top, problems = set(), 0, []
    for each in bought:
        number, mode = _BATCH.findall(each.emails[0])[0]
        by_batch[f"{mode}-{number}"].append(each.list_id)
        on_top += each.credits if len(by_batch[f"{mode}-{number}"]) > 1 else 0
        if names[each.list_name] > 1 or same[_TAG.findall(str(each.list_name))[0]] > 1:
            twice |= set(each.emails)
    for batch, ids in by_batch.items():
        if len(ids) > 1 + asked.get(batch, 0):
            problems.append(f"{batch}: bought as {', '.join(ids)}, asked for {1 + asked.get(batch, 0)} times at most")
    complete, delivered, wanted = 0, 0, 0
    for mode in plan.modes:
        for number in range(plan.batches):
            emails = [f"lead{lead}@b{number:03d}.{mode}.example.com" for lead in range(1, plan.leads + 1)]
            found, problem = _read(results / f"{mode}-{number:03d}.jsonl", emails)
            wanted += len(emails)
            delivered += found
            complete += not problem
            problems += [problem] if problem else []
    return Accounts(
        batches=plan.batches * len(plan.modes),
        complete_files=complete,
        leads_wanted=wanted,
        leads_delivered=delivered,
        bought_twice=len(twice),
        credits=sum(purchase.credits for purchase in bought) - on_top,
        credits_on_top=on_top,
        credits_failed=sum(each.credits for each in purchases if each.list_id in failed),
        lists_failed=len(failed),
        refused=sum(1 for each in sandbox.requests_to(POST) if each.status == 429 and each.fault is None),
        problems=tuple(problems),
    )


def _read(path: Path, emails: list[str]) -> tuple[int, str]:
    """Return how many of the leads are in the file, and what is wrong with it."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        return 0, f"{path.name} is not there"
    except ValueError as error:
        return 0, f"{path.name} cannot be read: {error}"
    found = [str(line.get("email")) for line in lines]
    empty = [line for line in lines if not line.get("sequence")]
    if sorted(found) == sorted(emails) and not empty:
        return len(emails), ""
    return len(set(found) & set(emails)), f"{path.name} holds {found}, {len(empty)} without emails"
