"""The one word, icon and colour for each state of a list or task, the same everywhere on the page."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ORIGINS", "STATUSES", "Status"]


@dataclass(frozen=True, slots=True)
class Status:
    """How a state is shown.

    :param word: for people; the key in ``STATUSES`` stands in URLs and is the name of the colour in the style sheet
    :param icon: beside the word, so that no state is told by its colour alone
    :param meaning: shown as a tooltip
    """

    word: str
    icon: str
    meaning: str


STATUSES = {
    "waiting": Status("Waiting", "◷", "The workspace runs as many batches as it may. Nothing has been bought yet."),
    "checking": Status("Checking", "⌕", "An earlier try may have bought it: its list is searched for before buying."),
    "running": Status("Running", "▶", "MachFive is writing the emails. MachFive tells no progress before the end."),
    "completed": Status("Completed", "✓", "The emails are written."),
    "undelivered": Status(
        "Task failed", "✕", "The emails are written, but the Airflow task has failed: see the reason."
    ),
    "failed": Status("Failed", "✕", "It has ended and will not go on by itself."),
    "skipped": Status("Skipped", "∅", "Nobody was left to write to, so nothing was bought."),
    "retrying": Status("Retrying", "↻", "A try has failed; Airflow will start the next one."),
}

# Where a list comes from, with what it means as a tooltip.
ORIGINS = {
    "bought": "An Airflow task submitted the leads and paid for them.",
    "adopted": "An Airflow task found this list, bought earlier, and took it over: nothing was paid again.",
    "bought, task unknown": "Bought by an Airflow task whose run has been deleted, or by another Airflow.",
    "made elsewhere": "Made in the MachFive app or by other software.",
    "not bought": "The task has bought nothing.",
}
