"""Which column means which field of the API: the user's own mapping first, then guesses by name and content."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from machfive_provider.exceptions import ConfigurationError, InvalidLeadsError
from machfive_provider.formatting import kind_of
from machfive_provider.leads.spellings import COMPANIONS, FIRST_NAME, LAST_NAME, NAME_PARTICLE, SPELLINGS, plain

__all__ = ["Choice", "Columns", "check_columns", "fits", "is_profile", "shown"]

_MOST_SHOWN, _LONGEST_SHOWN = 30, 40
_MOST_CHOICES = 1000  # kept at a time, for leads of which each has other keys
_MEANINGS = {spelling: meaning for meaning, spellings in SPELLINGS.items() for spelling in spellings}
# Outlook calls the form of address "Title".
_SALUTATIONS = frozenset(
    (
        *("mr", "mrs", "ms", "miss", "mx", "dr", "prof", "sir", "madam"),
        *("herr", "frau", "hr", "fr", "m", "mme", "mlle", "monsieur", "madame"),
        *("sr", "sra", "srta", "dhr", "mevr", "mw"),
    )
)
_CONTACT = ("contact", "kontakt", "contacto", "contato")  # a name, if first and last name are not there
_ADDRESS = re.compile(r"\S+@\S+\.\S+")


def check_columns(columns: Any) -> dict[str, tuple[str, ...]]:
    """Return the user's mapping of fields to columns, each as a tuple of names.

    :param columns: field of the API → a column's name, or several: ``name`` joins them, every other field takes the
        first one that is filled; None for no mapping
    :raises ConfigurationError: for another field, or for a column that is not named by a text
    """
    if columns is None:
        return {}
    if not isinstance(columns, Mapping):
        raise ConfigurationError(
            "columns must be a mapping of MachFive's fields to your columns, such as {'email': 'E-mail 1 - Value'}, "
            f"not {kind_of(columns)}."
        )
    if unknown := [each for each in columns if each not in SPELLINGS]:
        raise ConfigurationError(
            f"columns: MachFive has no field {', '.join(map(repr, unknown))}. Its fields are {', '.join(SPELLINGS)}; "
            "they stand before the colon, your column's name after it."
        )
    checked = {}
    for meaning, names in columns.items():
        several = (names,) if isinstance(names, str) else names
        texts = isinstance(several, Sequence) and all(isinstance(each, str) and each.strip() for each in several)
        if not texts or not several:
            raise ConfigurationError(f"columns[{meaning!r}] must be a column's name or a list of names.")
        checked[meaning] = tuple(several)
    return checked


def shown(names: Iterable[Any]) -> str:
    """Write names of columns for a message; what looks like an email address is not a name."""
    texts = [str(name) for name in names if str(name).strip()]
    some = ["(an email address)" if "@" in each else repr(each[:_LONGEST_SHOWN]) for each in texts[:_MOST_SHOWN]]
    more = f" and {len(texts) - _MOST_SHOWN} more" if len(texts) > _MOST_SHOWN else ""
    return f"{', '.join(some)}{more}" if some else "no names"


@dataclass(frozen=True, slots=True)
class Choice:
    """What the columns of one header or one object may be used for.

    :param email: the columns that may hold the address, best first
    :param candidates: for each further field the columns that may fill it, best first; several in one are joined
    :param twins: columns whose names mean the same, of which a row may fill one
    :param web: columns of web addresses, of which one may hold the person's LinkedIn page
    """

    email: tuple[Any, ...]
    candidates: tuple[tuple[str, tuple[tuple[Any, ...], ...]], ...]
    twins: tuple[tuple[Any, ...], ...]
    web: tuple[Any, ...]


@dataclass(slots=True)
class Columns:
    """Matches the columns of one source to fields, and remembers which columns it has seen.

    :param mapping: as :func:`check_columns` returns it
    """

    mapping: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seen: dict[str, None] = field(default_factory=dict)
    _choices: dict[tuple[Any, ...], Choice] = field(default_factory=dict)

    def choice(self, names: tuple[Any, ...]) -> Choice:
        """Return what these columns may be used for."""
        found = self._choices.get(names)
        if found is None:
            if len(self._choices) >= _MOST_CHOICES:
                self._choices.clear()
            found = self._choices[names] = self._choose(names)
            self.seen.update(dict.fromkeys(str(name) for name in names))
        return found

    def is_header(self, cells: Sequence[str]) -> bool:
        """Whether these cells name columns: one of them is the column of email addresses."""
        if "email" in self.mapping:
            wanted = {_folded(name) for name in self.mapping["email"]}
            return any(_folded(cell) in wanted for cell in cells)
        return any(_MEANINGS.get(plain(cell)) == "email" for cell in cells)

    def check_repeated(self, header: Sequence[str], source: str) -> None:
        """Refuse a header that repeats a column that would be used; raises :class:`InvalidLeadsError`."""
        wanted = {_folded(name) for names in self.mapping.values() for name in names}
        used = {*_MEANINGS, *FIRST_NAME, *LAST_NAME}
        twice = sorted({cell for cell in header if header.count(cell) > 1})
        if several := [cell for cell in twice if plain(cell) in used or _folded(cell) in wanted]:
            raise InvalidLeadsError(
                f"{source} has several columns called {shown(several)}: keep one of each, or rename the others."
            )

    def check_mapping(self, source: str) -> None:
        """Refuse a mapping to columns that have not been seen; raises :class:`InvalidLeadsError`."""
        seen = {_folded(name) for name in self.seen}
        absent = [name for names in self.mapping.values() for name in names if _folded(name) not in seen]
        if absent:
            raise InvalidLeadsError(
                f"columns names {shown(absent)}, which {source} does not have. Its columns are {shown(self.seen)}."
            )

    def has_email(self) -> bool:
        """Whether any column seen may hold the email address."""
        return self.is_header(tuple(self.seen))

    def _choose(self, names: tuple[Any, ...]) -> Choice:
        by_name = {**{_folded(name): name for name in names}, **{str(name): name for name in names}}
        chosen = {
            meaning: tuple(
                found for name in wanted if (found := by_name.get(name, by_name.get(_folded(name)))) is not None
            )
            for meaning, wanted in self.mapping.items()
        }
        taken = {name for each in chosen.values() for name in each}
        by_spelling: dict[str, list[Any]] = {}
        for name in names:
            if name not in taken:
                by_spelling.setdefault(plain(str(name)), []).append(name)
        parts = _name_parts(by_spelling)
        candidates: dict[str, tuple[tuple[Any, ...], ...]] = {}
        twins: list[tuple[Any, ...]] = []
        for meaning, spellings in SPELLINGS.items():
            if meaning in chosen:
                several = chosen[meaning]
                candidates[meaning] = (several,) if meaning == "name" else tuple((name,) for name in several)
                continue
            found = [by_spelling[each] for each in spellings if each in by_spelling]
            twins += [tuple(each) for each in found if len(each) > 1]
            candidates[meaning] = tuple((name,) for each in found for name in each)
            if meaning == "name":
                contact = tuple((name,) for each in _CONTACT for name in by_spelling.get(each, []))
                candidates[meaning] += (parts, *contact) if parts else contact
        email = tuple(name for (name,) in candidates.pop("email"))
        guessed = not chosen.keys() & {"company_website", "linkedin_url"}
        web = tuple(name for (name,) in candidates["company_website"]) if guessed else ()
        filled = tuple((meaning, columns) for meaning, columns in candidates.items() if any(columns))
        return Choice(email, filled, tuple(twins), web)


def _name_parts(by_spelling: dict[str, list[Any]]) -> tuple[Any, ...]:
    """Return the columns that together make a name; take those that are half a name out of the whole names."""

    def first_of(spellings: tuple[str, ...]) -> list[Any]:
        return next((by_spelling[each][:1] for each in spellings if each in by_spelling), [])

    first, last = first_of(FIRST_NAME), first_of(LAST_NAME)
    for beside, half in COMPANIONS:
        if beside in by_spelling and half in by_spelling and not (first and last):
            if first:
                last = by_spelling.pop(half)[:1]
            else:
                first = by_spelling.pop(half)[:1]
    return (*first, *by_spelling.get(NAME_PARTICLE, [])[:1], *last) if first or last else ()


def fits(meaning: str, text: str) -> bool:
    """Whether what a cell holds can be what the column's name says."""
    if meaning == "linkedin_url":
        return "://" not in text or "linkedin." in text.lower() or "lnkd.in" in text.lower()
    if "@" in text and _ADDRESS.fullmatch(text):
        return False
    if meaning == "company_website":
        return "linkedin.com" not in text.lower()
    return "://" not in text and (meaning != "title" or text.rstrip(".").lower() not in _SALUTATIONS)


def is_profile(text: str) -> bool:
    """Whether it is the LinkedIn page of a person, and not of a company or school."""
    text = text.lower()
    return "linkedin.com/" in text and "linkedin.com/company/" not in text and "linkedin.com/school/" not in text


def _folded(name: Any) -> str:
    return " ".join(str(name).split()).casefold()
