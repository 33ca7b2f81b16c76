"""What every wait of this provider has in common: how long it and its deferral may last, and how it may end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator

from machfive_provider.exceptions import ConfigurationError

__all__ = ["DEFERRAL_MARGIN", "check_seconds", "needs_a_worker"]

# Seconds. Our own deadline has to pass before the deferral's, because our message says what happens to the list.
DEFERRAL_MARGIN = 300.0

_LONGEST = 10 * 365 * 86400.0  # seconds: a longer time is a typing error, and datetime cannot add all of them


def check_seconds(parameter: str, value: Any, *, allow_zero: bool = False) -> float:
    """Return a duration in seconds: a number or ``timedelta`` above 0, of at most ten years.

    :param allow_zero: whether 0 is a duration too, as for a sensor, which then polls once
    :raises ConfigurationError: for anything else, NaN and infinity among it
    """
    number = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
    if not is_number or not (0 < number <= _LONGEST or (allow_zero and number == 0)):
        what = "number of seconds from 0 to" if allow_zero else "positive number of seconds, at most"
        raise ConfigurationError(f"{parameter} must be a {what} ten years, not {value!r}.")
    return float(number)


def needs_a_worker(task: BaseOperator) -> bool:
    """Whether a success has effects that only a worker gives it: asset events, and what follows ``execute``.

    ``on_success_callback`` is among them: Airflow asks the DAG processor to run it, and that runs only the callbacks
    of failures.
    """
    own_post_execute = type(task).post_execute is not BaseOperator.post_execute
    hook = getattr(task, "_post_execute_hook", None)
    return bool(task.outlets or own_post_execute or hook or task.on_success_callback)
