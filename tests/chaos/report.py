"""The table at the end, and what in it is not as it must be."""

from __future__ import annotations

from collections import Counter

from tests.chaos.deck import HTTP_KINDS
from tests.chaos.world import Outcome


def table(outcome: Outcome) -> str:
    """Return all figures of a run, a line each."""
    books, feeder, killer = outcome.books, outcome.feeder, outcome.killer
    sorts = ", ".join(f"{count} {what} ({why})" for (what, why), count in sorted(killer.by_sort.items()))
    lines = [
        ("mode", " and ".join(outcome.plan.modes)),
        ("seed", str(outcome.plan.seed)),
        ("seconds", f"{outcome.seconds:.0f}"),
        ("batches, successful", f"{books.batches}, {books.batches - len(outcome.unfinished)}"),
        ("complete export files", str(books.complete_files)),
        ("faults that hit", str(len(feeder.hits))),
        ("kinds of faults", str(len(feeder.by_name))),
        *((f"  {name}", _families(outcome, name)) for name in sorted(feeder.by_name)),
        ("SIGKILLs", f"{len(killer.kills)}: {sorts}"),
        ("  within a POST", str(killer.within_post)),
        ("  appointments missed", str(killer.escaped)),
        *((f"{name} restarted", str(count)) for name, count in outcome.deaths.items() if count),
        ("POSTs refused for want of room", str(books.refused)),
        ("tries", str(outcome.endings.tries)),
        ("errors that ended a try", _counted(outcome.endings.typed)),
        ("  without a typed class", str(len(outcome.endings.untyped))),
        ("  Airflow's own", str(len(outcome.endings.infrastructure))),
        ("leads lost", str(books.leads_lost)),
        ("leads bought twice", str(books.bought_twice)),
        ("credits ÷ leads delivered", f"{books.credits} ÷ {books.leads_delivered} = {books.price:.3f}"),
        ("credits of failed lists", f"{books.credits_failed}, {books.lists_failed} lists"),
    ]
    width = max(len(name) for name, _ in lines)
    details = [*outcome.endings.infrastructure, *outcome.endings.untyped]
    return "\n".join([*(f"{name:<{width}}  {value}" for name, value in lines), *(f"  {each}" for each in details)])


def shortcomings(outcome: Outcome) -> list[str]:
    """Say what is missing or wrong; nothing if the run is a success."""
    wanted, books, feeder, killer = outcome.plan.wanted, outcome.books, outcome.feeder, outcome.killer
    at_least = [
        ("batches", books.batches, wanted.batches),
        ("faults", len(feeder.hits), wanted.faults),
        ("kinds of faults", len(feeder.by_name), wanted.kinds),
        *((f"faults {name!r}", feeder.by_name[name], wanted.each_http_kind) for name in HTTP_KINDS),
        ("SIGKILLs", len(killer.kills), wanted.kills),
        ("SIGKILLs within a POST", killer.within_post, wanted.kills_within_post),
    ]
    none = [
        ("leads lost", books.leads_lost),
        ("leads bought twice", books.bought_twice),
        ("errors without a typed class", len(outcome.endings.untyped)),
        ("tasks without success", len(outcome.unfinished)),
        ("files missing or incomplete", books.batches - books.complete_files),
    ]
    found = [f"{name}: {count}, wanted at least {least}" for name, count, least in at_least if count < least]
    found += [f"{name}: {count}, wanted none" for name, count in none if count]
    if books.credits != books.leads_delivered:
        found.append(f"credits ÷ leads delivered: {books.price:.3f}, wanted 1.000")
    return [*found, *books.problems, *outcome.unfinished]


def _families(outcome: Outcome, name: str) -> str:
    families = {family: count for (each, family), count in outcome.feeder.by_family.items() if each == name}
    return f"{outcome.feeder.by_name[name]:>3}  {_counted(Counter(families))}"


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"
