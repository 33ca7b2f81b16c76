"""Parameters that hold people's addresses: Airflow's pages show how many entries they have, not the entries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

__all__ = ["PrivateList", "PrivateParameter"]


class PrivateList(Sequence[Any]):
    """A list that Airflow shows as its number of entries, for example under *Rendered Templates*."""

    # Airflow renders the templates within any object that names its fields here.
    template_fields = ("entries",)

    def __init__(self, entries: Iterable[Any]) -> None:
        self.entries = list(entries)

    def __getitem__(self, index: Any) -> Any:
        """Return an entry, or several."""
        return self.entries[index]

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.entries)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the entries."""
        return iter(self.entries)

    def __eq__(self, other: object) -> bool:
        """Compare with any list of the same entries."""
        return isinstance(other, (PrivateList, list)) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return what Airflow shows."""
        return self.serialize()

    def serialize(self) -> str:
        """Return what Airflow shows."""
        return f"{len(self)} entries, which are not shown"


class PrivateParameter:
    """A parameter of an operator, of which every list becomes a :class:`PrivateList`: given, rendered or mapped."""

    def __set_name__(self, owner: type, name: str) -> None:
        """Remember the parameter's name."""
        self._name = f"_{name}"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Return the value."""
        return self if instance is None else instance.__dict__.get(self._name)

    def __set__(self, instance: Any, value: Any) -> None:
        """Keep the value, a list as a :class:`PrivateList`."""
        instance.__dict__[self._name] = PrivateList(value) if isinstance(value, (list, tuple)) else value
