"""Makes a lead of a row: for each field the first column that is filled and whose content fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from machfive_provider.api.models import Lead
from machfive_provider.formatting import kind_of
from machfive_provider.leads.columns import Choice, Columns, fits, is_profile, shown
from machfive_provider.leads.emails import InvalidAddressError, normalised, plain_address
from machfive_provider.leads.values import NotTextError, is_filled, text_of

__all__ = ["Matcher", "UnusableError"]

_MOST_KNOWN = 50_000  # texts of a field


class UnusableError(ValueError):
    """A row is no lead; the message is the reason, without a part of the row."""


@dataclass(slots=True)
class Matcher:
    """Makes leads of the rows of one source.

    :param columns: what the columns mean
    """

    columns: Columns
    _used: set[Any] = field(default_factory=set)
    _filled: dict[Any, None] = field(default_factory=dict)
    # Texts that many leads have: judged once, and kept once in memory. Names differ from lead to lead.
    _known: dict[str, dict[str, str]] = field(
        default_factory=lambda: {each: {} for each in ("title", "company", "company_website", "linkedin_url")}
    )

    def lead(self, fields: Mapping[Any, Any]) -> Lead:
        """Return the lead; raises :class:`UnusableError`."""
        choice = self.columns.choice(tuple(fields))
        for twins in choice.twins:
            if sum(is_filled(fields[name]) for name in twins) > 1:
                raise UnusableError(f"the columns {shown(twins)} mean the same; keep one and rename the others")
        values = self._values(choice, fields)
        try:
            return Lead(self._email(choice, fields), **values)
        except NotTextError as error:
            raise UnusableError(f"email {error}") from None
        except InvalidAddressError as error:
            raise UnusableError(str(error)) from None
        finally:
            self._note_filled(fields)

    def unknown_fields(self) -> tuple[str, ...]:
        """Return the columns that are filled somewhere and used nowhere."""
        left = [str(name) for name in self._filled if name not in self._used and str(name)]
        return tuple("(an email address)" if "@" in name else name for name in left)

    def _email(self, choice: Choice, fields: Mapping[Any, Any]) -> str:
        """Return the first address. If there is none, the error tells what is wrong with the first text."""
        other = ""
        for name in choice.email:
            value = fields[name]
            if type(value) is str and (address := plain_address(value)):
                self._used.add(name)
                return address
            text = text_of(value)
            if text and not isinstance(value, str):
                raise NotTextError(f"is {kind_of(value)}, not a text")
            if "@" in text:
                self._used.add(name)
                return normalised(text)
            other = other or text
        if not other:
            raise UnusableError("email is missing")
        return normalised(other)

    def _values(self, choice: Choice, fields: Mapping[Any, Any]) -> dict[str, str]:
        """Return the text of each further field that this row fills."""
        values: dict[str, str] = {}
        meaning = ""
        try:
            for meaning, candidates in choice.candidates:
                for names in candidates:
                    if text := self._text(meaning, names, fields):
                        self._used.update(names)
                        values[meaning] = text
                        break
            if choice.web and "linkedin_url" not in values:
                self._add_profile(choice, fields, values)
        except NotTextError as error:
            raise UnusableError(f"{meaning} {error}") from None
        return values

    def _text(self, meaning: str, names: tuple[Any, ...], fields: Mapping[Any, Any]) -> str:
        """Return what these columns hold for a field, nothing if it does not fit."""
        if len(names) > 1:
            text = " ".join([each for each in [text_of(fields[name]) for name in names] if each])
            return text if self._fits(meaning, text) else ""
        value = fields[names[0]]
        known = self._known.get(meaning)
        if known is None or type(value) is not str:
            text = text_of(value)
            return text if self._fits(meaning, text) else ""
        text = known.get(value)  # type: ignore[assignment]
        if text is None:
            text = text_of(value)
            text = text if self._fits(meaning, text) else ""
            if len(known) < _MOST_KNOWN:
                known[value] = text
        return text

    def _fits(self, meaning: str, text: str) -> bool:
        return meaning in self.columns.mapping or fits(meaning, text)

    def _add_profile(self, choice: Choice, fields: Mapping[Any, Any], values: dict[str, str]) -> None:
        """Take a person's LinkedIn page from a column of web addresses."""
        for name in choice.web:
            value = fields[name]
            if isinstance(value, str) and "linkedin." in value and is_profile(text := text_of(value)):
                self._used.add(name)
                values["linkedin_url"] = text
                return

    def _note_filled(self, fields: Mapping[Any, Any]) -> None:
        for name in fields:
            if name not in self._used and name not in self._filled and is_filled(fields[name]):
                self._filled[name] = None
