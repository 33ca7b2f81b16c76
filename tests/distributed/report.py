"""The table at the end of a run, and what in it fails the requirements."""

from __future__ import annotations

from collections.abc import Mapping

from tests.distributed.plan import POSTS_A_BATCH
from tests.distributed.run import Half, Outcome

_NAMES = {"hint": "with max_concurrent_batches", "without": "without"}


def table(outcome: Outcome) -> str:
    """Return all figures of a run, a line each."""
    plan, accounts = outcome.plan, outcome.accounts
    lines = [
        ("seconds", f"{outcome.seconds:.0f}, after {outcome.startup:.0f} to start"),
        ("load average", ", ".join(f"{each:.1f}" for each in outcome.load)),
        ("batches, files complete", f"{accounts.batches}, {accounts.complete_files}"),
        ("slots of a workspace, list takes", f"{plan.concurrency}, {outcome.list_seconds:.0f} s"),
        ("tasks without success", str(len(outcome.unfinished))),
        ("SIGKILLs", str(len(outcome.kills))),
        *((f"  {each.component}", _kill(each.batches_done, each.processes, each.held)) for each in outcome.kills),
        ("ended and started again", _counted(outcome.ends)),
        ("leads lost", str(accounts.leads_lost)),
        ("leads bought twice", str(accounts.bought_twice)),
        ("credits ÷ leads delivered", f"{accounts.credits} ÷ {accounts.leads_delivered} = {accounts.price:.3f}"),
        *((f"POSTs a batch, {_NAMES[name]}", _posts(half, plan.batches)) for name, half in outcome.halves.items()),
        *(
            (f"worker starts a batch, {_NAMES[name]}", f"{half.worker_starts / plan.batches:.2f}")
            for name, half in outcome.halves.items()
        ),
        ("triggers run", _counted(outcome.triggers)),
        ("list ends not reported", _counted({name: len(left) for name, left in outcome.unreported.items()})),
        ("requests", _counted(outcome.requests)),
        ("errors that ended a try", _counted(outcome.endings.typed)),
        ("  without a typed class", str(len(outcome.endings.untyped))),
        ("  Airflow's own", str(len(outcome.endings.infrastructure))),
    ]
    width = max(len(name) for name, _ in lines)
    details = [*outcome.endings.infrastructure, *outcome.endings.untyped]
    return "\n".join([*(f"{name:<{width}}  {value}" for name, value in lines), *(f"  {each}" for each in details)])


def shortcomings(outcome: Outcome) -> list[str]:
    """Return a line for each requirement that is not met."""
    accounts, killed = outcome.accounts, {each.component for each in outcome.kills}
    none = [
        ("leads lost", accounts.leads_lost),
        ("leads bought twice", accounts.bought_twice),
        ("files missing or incomplete", accounts.batches - accounts.complete_files),
        ("tasks without success", len(outcome.unfinished)),
        ("errors without a typed class", len(outcome.endings.untyped)),
        *((f"list ends that watcher {name!r} missed", len(left)) for name, left in outcome.unreported.items()),
    ]
    found = [f"{name}: {count}, wanted none" for name, count in none if count]
    found += [f"{name} was not killed" for _, name in outcome.plan.kills if name not in killed]
    found += [f"{name} ran no trigger" for name in ("triggerer-1", "triggerer-2") if not outcome.triggers.get(name)]
    if accounts.credits != accounts.leads_wanted:
        found.append(f"credits: {accounts.credits}, wanted {accounts.leads_wanted}")
    for name, half in outcome.halves.items():
        posts, most = half.posts / outcome.plan.batches, POSTS_A_BATCH[name]
        if posts > most:
            found.append(f"POSTs a batch, {_NAMES[name]}: {posts:.2f}, wanted at most {most}")
    return [*found, *accounts.problems, *outcome.unfinished]


def _kill(done: int, processes: int, held: int | None) -> str:
    had = "" if held is None else f", {held} tasks or triggers on it"
    return f"after {done} batches, {processes} processes{had}"


def _posts(half: Half, batches: int) -> str:
    return f"{half.posts / batches:.2f} ({half.posts}, {half.refused} refused)"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()) if count) or "none"
