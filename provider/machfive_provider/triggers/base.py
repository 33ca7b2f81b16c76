"""What all triggers are: made of plain values, and of those alone."""

from __future__ import annotations

import inspect
from typing import Any

from airflow.triggers.base import BaseTrigger

__all__ = ["PlainTrigger"]


class PlainTrigger(BaseTrigger):
    """Base of the triggers. Each argument is kept in an attribute of its name: no key, no lead, nothing worked out."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the trigger is made of again: its class, and its arguments as plain values."""
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {name: getattr(self, name) for name in names},
        )
