"""Who must never be written to: addresses and domains that opted out, from files or a list.

A source that cannot be read, or an entry that cannot be understood, stops the task: nothing is sent rather than
something to a person who said no. Messages name sources and lines, never an address.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from machfive_provider.api.models import Lead, address_digest
from machfive_provider.exceptions import ConfigurationError, InvalidLeadsError
from machfive_provider.formatting import kind_of
from machfive_provider.leads.columns import Columns
from machfive_provider.leads.emails import InvalidAddressError, normalised
from machfive_provider.leads.files import SUFFIXES, is_empty, read_file, read_lines
from machfive_provider.leads.spellings import plain

__all__ = ["Selection", "Suppression", "read_suppression", "select"]

_TEXTS = (".txt", ".csv", ".tsv")
_LISTS = (".txt", *SUFFIXES)
_DOMAIN = re.compile(r"@?(\*\.)?((?:[^\s@.*/]+\.)+[^\s@.*/]+)")
_ADDRESSES = re.compile(r"[^\s<>()\[\],;:\"']+@[^\s<>()\[\],;:\"']+")
# Columns of domains, read where a file has no column of addresses.
_DOMAIN_COLUMNS = frozenset(map(plain, ("domain", "domains", "email domain", "suppressed domain")))


@dataclass(slots=True)
class Suppression:
    """Addresses and domains that must not be written to. Addresses are kept as digests of 7 bytes.

    ``example.org`` stands for the addresses of that domain, ``*.example.org`` for those of its subdomains as well.
    """

    _addresses: set[int] = field(default_factory=set)
    _domains: set[str] = field(default_factory=set)
    _with_subdomains: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._addresses) + len(self._domains) + len(self._with_subdomains)

    def covers(self, address: str) -> bool:
        """Whether this address must not be written to."""
        if address_digest(address) in self._addresses:
            return True
        if not (self._domains or self._with_subdomains):
            return False
        domain = address.strip().casefold().rpartition("@")[2]
        if domain in self._domains:
            return True
        labels = domain.split(".")
        return any(".".join(labels[at:]) in self._with_subdomains for at in range(len(labels)))

    def add(self, text: str) -> bool:
        """Add an entry as a person writes it; return False if it is neither an address nor a domain."""
        if "@" in text.strip().lstrip("@"):
            found = [each for each in map(_address, _ADDRESSES.findall(text)) if each]
            self._addresses.update(map(address_digest, found))
            return bool(found)
        domain = _DOMAIN.fullmatch(text.strip())
        # The library writes domains as it does in leads' addresses, internationalised ones too.
        address = _address(f"x@{domain[2]}") if domain else None
        if domain is None or address is None:
            return False
        (self._with_subdomains if domain[1] else self._domains).add(address.casefold().rpartition("@")[2])
        return True


@dataclass(frozen=True, slots=True)
class Selection:
    """The leads that may be sent, and how many are left out and why.

    :param suppressed: must not be written to
    :param already_written: have a sequence in earlier results
    """

    leads: tuple[Lead, ...]
    suppressed: int = 0
    already_written: int = 0


def select(leads: Sequence[Lead], suppression: Suppression | None, written: Iterable[str] = ()) -> Selection:
    """Leave out who must not be written to, and who has a sequence already.

    :param written: addresses of people with a sequence
    """
    known = set(map(address_digest, written))
    if not known and not suppression:
        return Selection(tuple(leads))
    kept: list[Lead] = []
    suppressed = 0
    for lead in leads:
        if suppression and suppression.covers(lead.email):
            suppressed += 1
        elif address_digest(lead.email) not in known:
            kept.append(lead)
    return Selection(tuple(kept), suppressed, len(leads) - suppressed - len(kept))


def read_suppression(sources: Any) -> Suppression | None:
    """Read who must not be written to.

    :param sources: a path, an address or a domain, or several of them; a JSON array as text is read as a list. Paths
        hold a ``/`` or end in one of ``SUFFIXES`` or ``.txt``: one entry a line, or a table with a column of addresses
        or domains. None for nobody
    :raises InvalidLeadsError: for a source that cannot be read or is empty, and for an entry that is neither an address
        nor a domain
    """
    if sources is None:
        return None
    suppression = Suppression()
    for number, source in enumerate(_listed(sources)):
        if _is_path(source):
            entries = _entries(source.strip())
        else:
            entries = iter([(f"suppress[{number}]", source)])
        for where, text in entries:
            if not suppression.add(text):
                raise InvalidLeadsError(
                    f"{where} is neither an email address nor a domain. Nothing was sent. Correct it, or take it out."
                )
    return suppression


def _listed(sources: Any) -> list[str]:
    if isinstance(sources, str) and sources.lstrip().startswith("["):
        try:
            sources = json.loads(sources)
        except (ValueError, RecursionError):
            raise ConfigurationError("suppress begins with '[' but is no JSON array. Give a list, or a path.") from None
    listed = [sources] if isinstance(sources, str) else sources
    if not isinstance(listed, Iterable) or isinstance(listed, (bytes, dict)):
        raise ConfigurationError(
            f"suppress must be a path, or a list of addresses and domains, not {kind_of(sources)}."
        )
    listed = list(listed)
    for number, each in enumerate(listed):
        if not isinstance(each, str) or not each.strip():
            what = "empty" if isinstance(each, str) else kind_of(each)
            raise ConfigurationError(
                f"suppress[{number}] is {what}, not a path, an address or a domain. Nothing was sent."
            )
    return listed


def _is_path(text: str) -> bool:
    return "/" in text or text.strip().lower().endswith(_LISTS)


def _entries(path: str) -> Iterator[tuple[str, str]]:
    """Yield where each entry of a file stands, and its text."""
    source = f"suppress {path!r}"
    if is_empty(path, "suppress"):
        raise InvalidLeadsError(f"{source} is empty: it has no bytes at all. Nothing was sent. Was its export cut off?")
    if not path.lower().endswith(_TEXTS):
        yield from _cells(path, source)
        return
    lines = (line.strip(" \t,;\"'") for line in read_lines(path, "suppress"))
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line]
    # A table has a header, which is no entry.
    if path.lower().endswith(".txt") or not numbered or Suppression().add(numbered[0][1]):
        yield from ((f"{source}, line {number},", line) for number, line in numbered)
    else:
        yield from _cells(path, source)


def _cells(path: str, source: str) -> Iterator[tuple[str, str]]:
    """Yield the addresses of a table, or the domains where it has no column of addresses."""
    columns = Columns()
    for row in read_file(path, columns, "suppress"):
        where = f"{source}, {row.position},"
        if isinstance(row.fields, str):  # a JSON array of texts
            yield where, row.fields
            continue
        if row.problem or not isinstance(row.fields, dict):
            raise InvalidLeadsError(f"{where} cannot be read ({row.problem or 'no object'}). Nothing was sent.")
        names = columns.choice(tuple(row.fields)).email
        names = names or tuple(name for name in row.fields if plain(str(name)) in _DOMAIN_COLUMNS)
        if not names:
            raise InvalidLeadsError(
                f"{source} has no column of email addresses or domains. Name one 'email' or 'domain'. Nothing was sent."
            )
        for name in names:
            if text := str(row.fields.get(name) or "").strip():
                yield where, text


def _address(text: str) -> str | None:
    try:
        return normalised(text.strip("."))
    except InvalidAddressError:
        return None
