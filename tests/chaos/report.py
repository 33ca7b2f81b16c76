"""The table at the end of a run, and what in it fails the requirements."""

from __future__ import annotations

from collections import Counter

from tests.chaos.faults import HTTP_KINDS
from tests.chaos.run import Outcome


def table(outcome: Outcome) -> str:
    """Return all figures of a run, a line each."""
    accounts, injector, killer = outcome.accounts, outcome.injector, outcome.killer
    sorts = ", ".join(f"{count} {what} ({why})" for (what, why), count in sorted(killer.by_sort.items()))
    lines = [
        ("mode", " and ".join(outcome.plan.modes)),
        ("seed", str(outcome.plan.seed)),
        ("seconds", f"{outcome.seconds:.0f}"),
        ("batches, successful", f"{accounts.batches}, {accounts.batches - len(outcome.unfinished)}"),
        ("complete export files", str(accounts.complete_files)),
        ("faults that hit", str(len(injector.hits))),
        ("kinds of faults", str(len(injector.by_name))),
        *((f"  {name}", _by_target(outcome, name)) for name in sorted(injector.by_name)),
        ("SIGKILLs", f"{len(killer.kills)}: {sorts}"),
        ("  within a POST", str(killer.within_post)),
        ("  planned kills missed", str(killer.missed)),
        *((f"{name} restarted", str(count)) for name, count in outcome.component_ends.items() if count),
        ("POSTs refused, no capacity", str(accounts.refused)),
        ("tries", str(outcome.endings.tries)),
        ("errors that ended a try", _counted(outcome.endings.typed)),
        ("  without a typed class", str(len(outcome.endings.untyped))),
        ("  Airflow's own", str(len(outcome.endings.infrastructure))),
        ("leads lost", str(accounts.leads_lost)),
        ("leads bought twice", str(accounts.bought_twice)),
        ("credits ÷ leads delivered", f"{accounts.credits} ÷ {accounts.leads_delivered} = {accounts.price:.3f}"),
        ("credits of purchases after edits", str(accounts.credits_on_top)),
        ("edits and clears", _counted(outcome.people.done)),
        ("advice that was just followed", str(len(outcome.people.repeated))),
        ("credits of failed lists", f"{accounts.credits_failed}, {accounts.lists_failed} lists"),
    ]
    width = max(len(name) for name, _ in lines)
    details = [*outcome.endings.infrastructure, *outcome.endings.untyped]
    return "\n".join([*(f"{name:<{width}}  {value}" for name, value in lines), *(f"  {each}" for each in details)])


def shortcomings(outcome: Outcome) -> list[str]:
    """Return a line for each requirement that is not met."""
    wanted, accounts, injector, killer = outcome.plan.wanted, outcome.accounts, outcome.injector, outcome.killer
    at_least = [
        ("batches", accounts.batches, wanted.batches),
        ("faults", len(injector.hits), wanted.faults),
        ("kinds of faults", len(injector.by_name), wanted.kinds),
        *((f"faults {name!r}", injector.by_name[name], wanted.each_http_kind) for name in HTTP_KINDS),
        ("SIGKILLs", len(killer.kills), wanted.kills),
        ("SIGKILLs within a POST", killer.within_post, wanted.kills_within_post),
        ("edits and clears", outcome.people.done.total(), wanted.edits_and_clears),
    ]
    none = [
        ("leads lost", accounts.leads_lost),
        ("leads bought twice", accounts.bought_twice),
        ("errors without a typed class", len(outcome.endings.untyped)),
        ("tasks told to do what was just done", len(outcome.people.repeated)),
        ("tasks without success", len(outcome.unfinished)),
        ("files missing or incomplete", accounts.batches - accounts.complete_files),
    ]
    found = [f"{name}: {count}, wanted at least {least}" for name, count, least in at_least if count < least]
    found += [f"{name}: {count}, wanted none" for name, count in none if count]
    if accounts.credits != accounts.leads_delivered:
        found.append(f"credits ÷ leads delivered: {accounts.price:.3f}, wanted 1.000")
    return [*found, *accounts.problems, *outcome.people.repeated, *outcome.unfinished]


def _by_target(outcome: Outcome, name: str) -> str:
    targets = {target: count for (each, target), count in outcome.injector.by_target.items() if each == name}
    return f"{outcome.injector.by_name[name]:>3}  {_counted(Counter(targets))}"


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"
