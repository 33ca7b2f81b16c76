"""The base of all triggers: their arguments are plain values, which Airflow keeps in its database."""

from __future__ import annotations

import inspect
from typing import Any

from airflow.triggers.base import BaseTrigger

__all__ = ["PlainTrigger"]


class PlainTrigger(BaseTrigger):
    """Keeps each argument in an attribute of the same name, from which it is serialised. No API key, no lead."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of the class and its arguments, from which Airflow makes the trigger again."""
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {name: getattr(self, name) for name in names},
        )
