"""The table that the emails of lists are written to: its columns, its shape, and one list's rows in one transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, DateTime, Integer, MetaData, Table, Unicode, UnicodeText, inspect
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from machfive_provider.api.models import address_digest, usable_emails
from machfive_provider.delivery.count import Figures
from machfive_provider.exceptions import ConfigurationError
from machfive_provider.transfers.database import CHUNK, columns_of, failed_statement, split_name

__all__ = ["ResultsTable"]

_LONGEST_ADDRESS = 320  # characters: 64 before the @, 255 after it (RFC 5321)
_HIGHEST_STEP = 2**31 - 1
_MYSQL = ("mysql", "mariadb")
_WITHOUT_TIME_ZONES = (*_MYSQL, "sqlite")
_NEW, _UNUSABLE, _SHORT, _WHOLE = range(4)


class ResultsTable:
    """A table of results, in a database.

    :param name: ``table`` or ``schema.table``
    :param one_row_per: ``email`` or ``lead``
    :raises ConfigurationError: for a name that cannot be one
    """

    def __init__(self, engine: Engine, name: str, one_row_per: str) -> None:
        schema, table = split_name("table", name, engine.dialect.max_identifier_length)
        self._engine, self._name = engine, name
        columns = _columns(one_row_per)
        self._key = {each.name for each in columns if each.primary_key}
        # Transactions need InnoDB; the charset of older servers has no emoji.
        options: dict[str, Any] = {f"{each}_engine": "InnoDB" for each in _MYSQL}
        options |= {f"{each}_charset": "utf8mb4" for each in _MYSQL}
        self._table = Table(table, MetaData(), *columns, schema=schema, **options)

    def check(self, *, create: bool) -> bool:
        """Return whether the table exists. It must have the right shape then.

        :param create: whether a table that does not exist may be created
        :raises ConfigurationError: if it lacks columns or has another shape; or does not exist, unless ``create``
        """
        try:
            with self._engine.connect() as connection:
                found = columns_of(connection, self._table.schema, self._table.name)
                if found is not None:
                    self._check_shape(found, inspect(connection))
        except DBAPIError as error:
            raise failed_statement(f"Looking for the table {self._name!r}", error) from None
        if found is None and not create:
            raise ConfigurationError(
                f"The table {self._name!r} does not exist and create_table is False. Create it with the columns "
                f"{', '.join(self._table.columns.keys())}, or set create_table=True."
            )
        return found is not None

    def _check_shape(self, found: Mapping[str, Mapping[str, Any]], inspector: Any) -> None:
        wanted = self._table.columns.keys()
        advice = "Nothing was changed in it. Change the table, or name another."
        if lacking := [name for name in wanted if name not in found]:
            raise ConfigurationError(
                f"The table {self._name!r} has no {', '.join(lacking)}: one row per {self._unit} has the columns "
                f"{', '.join(wanted)}. {advice}"
            )
        if unfilled := [name for name, each in found.items() if name not in wanted and _must_be_filled(each)]:
            raise ConfigurationError(
                f"The table {self._name!r} has columns that must be filled and that MachFive has nothing for: "
                f"{', '.join(unfilled)}. Give them a default. {advice}"
            )
        key = set(inspector.get_pk_constraint(self._table.name, self._table.schema)["constrained_columns"])
        if key and key < self._key:
            raise ConfigurationError(
                f"The primary key of the table {self._name!r}, {', '.join(sorted(key))}, is too short for one row per "
                f"{self._unit}: it must have {', '.join(sorted(self._key))}. {advice}"
            )

    @property
    def _unit(self) -> str:
        return "email" if "step" in self._key else "lead"

    def create(self) -> None:
        """Create the table, unless another task has just done so.

        :raises MachFiveError: if the database does not allow it
        """
        try:
            with self._engine.begin() as connection:
                self._table.create(connection, checkfirst=True)
        except DBAPIError as error:
            # Two mapped tasks have both seen that there is no table.
            if not self.check(create=True):
                raise failed_statement(f"Creating the table {self._name!r}", error, says=True) from None

    def write(self, list_id: str, leads: Iterable[Any]) -> tuple[Figures, int]:
        """Replace the rows of a list, all in one transaction: whatever breaks it off, the table is as it was.

        :param leads: those of its JSON export, as they were sent
        :return: what was sent, and how many texts held characters that a database does not take
        :raises MachFiveError: if the database does not accept the rows
        """
        try:
            with self._engine.begin() as connection:
                writer = _Writer(connection, self._table, list_id)
                connection.execute(self._table.delete().where(self._table.c.list_id == list_id))
                for position, lead in enumerate(leads, 1):
                    writer.add(position, lead)
                writer.flush()
        except DBAPIError as error:
            raise failed_statement(f"Writing to the table {self._name!r}", error) from None
        return writer.figures, writer.texts.changed


class _Writer:
    """Writes the leads of one list in chunks.

    A lead that came before is left out, or takes the place of the earlier one if its sequence is better.
    """

    def __init__(self, connection: Connection, table: Table, list_id: str) -> None:
        self.figures, self.texts = Figures(), _Texts()
        self._connection, self._table = connection, table
        now = datetime.now(UTC).replace(microsecond=0)
        if connection.dialect.name in _WITHOUT_TIME_ZONES:
            now = now.replace(tzinfo=None)
        self._facts = {"list_id": list_id, "exported_at": now}
        self._rows: list[dict[str, Any]] = []
        self._improvable: dict[int, str] = {}  # the addresses of leads of which a better sequence may come

    def add(self, position: int, lead: Any) -> None:
        """Count a lead, and write its rows with the next chunk."""
        address = self._address(lead)
        if address is None:
            self.figures.count_sent(position, None)
            return
        key = address_digest(address)
        before = self._rank(key)
        self.figures.count_sent(position, {**lead, "email": address})
        rank = self._rank(key)
        if before != _NEW:
            if rank == before:
                return
            self._remove(self._improvable.pop(key))
        if rank < _WHOLE:
            self._improvable[key] = address
        self._rows += self._rows_of(address, lead)
        if len(self._rows) >= CHUNK:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait for their chunk."""
        if self._rows:
            self._connection.execute(self._table.insert(), self._rows)
            self._rows = []

    def _remove(self, address: str) -> None:
        self.flush()
        columns = self._table.c
        statement = self._table.delete().where(columns.list_id == self._facts["list_id"], columns.email == address)
        self._connection.execute(statement)

    def _address(self, lead: Any) -> str | None:
        """Return the address under which a lead is written, None if it has none that fits."""
        address = lead.get("email") if isinstance(lead, Mapping) else None
        if not isinstance(address, str):
            return None
        address = self.texts.storable(address).strip()
        return address if 0 < len(address) <= _LONGEST_ADDRESS else None

    def _rank(self, key: int) -> int:
        """Return how good the best sequence is that a lead has come with so far."""
        if key in self.figures.unwritten:
            return _UNUSABLE
        if key in self.figures.short:
            return _SHORT
        return _WHOLE if key in self.figures.delivered else _NEW

    def _rows_of(self, address: str, lead: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        known = {name: self.texts.text(lead.get(name)) for name in ("name", "company", "title")}
        facts = {**self._facts, **known, "email": address}
        sequence = lead.get("sequence")
        if "sequence" in self._table.c:
            written = json.dumps(self.texts.storable(sequence), ensure_ascii=False)
            yield {**facts, "emails": len(usable_emails(sequence)), "sequence": written}
            return
        emails = [each for each in sequence if isinstance(each, Mapping)] if isinstance(sequence, list) else []
        for step, each in zip(_steps(emails), emails, strict=True):
            texts = {name: self.texts.text(each.get(name)) for name in ("subject", "body")}
            yield {**facts, "step": step, **texts}


class _Texts:
    """Makes texts storable: PostgreSQL takes no zero byte, and half a surrogate pair has no UTF-8.

    :param changed: how many texts had one
    """

    def __init__(self) -> None:
        self.changed = 0

    def text(self, value: Any) -> str | None:
        """Return a text that can be stored, None for what is no text."""
        return self.storable(value) if isinstance(value, str) else None

    def storable(self, value: Any) -> Any:
        """Return JSON whose texts can all be stored."""
        if isinstance(value, list):
            return [self.storable(each) for each in value]
        if isinstance(value, dict):
            return {self.storable(name): self.storable(each) for name, each in value.items()}
        if not isinstance(value, str) or (value.isascii() and "\0" not in value):
            return value
        stored = value.replace("\0", "").encode("utf-8", "replace").decode()
        self.changed += stored != value
        return stored


def _steps(emails: list[Mapping[str, Any]]) -> Iterable[int]:
    """Return the steps of a sequence as they were sent; if they are no key, the emails are counted from 1."""
    sent = [_whole_number(email.get("step")) for email in emails]
    known = [step for step in sent if step is not None]
    return known if len(set(known)) == len(emails) else range(1, len(emails) + 1)


def _whole_number(step: Any) -> int | None:
    if isinstance(step, str) and step.isascii() and step.isdecimal() and len(step) < 10:
        step = int(step)
    if isinstance(step, int) and not isinstance(step, bool) and 0 <= step <= _HIGHEST_STEP:
        return step
    return None


def _columns(one_row_per: str) -> list[Column[Any]]:
    """Return the columns of a table of results, the key first."""
    long: TypeEngine[Any] = UnicodeText()
    for dialect in _MYSQL:  # where a TEXT ends after 64 KB
        long = long.with_variant(mysql.MEDIUMTEXT(), dialect)
    key: list[Column[Any]] = [
        Column("list_id", Unicode(36), primary_key=True),
        Column("email", _address_type(), primary_key=True),
    ]
    if one_row_per == "email":
        key.append(Column("step", Integer(), primary_key=True, autoincrement=False))
        written: list[Column[Any]] = [Column("subject", UnicodeText()), Column("body", long)]
    else:
        written = [Column("emails", Integer(), nullable=False), Column("sequence", long)]
    lead: list[Column[Any]] = [Column(name, UnicodeText()) for name in ("name", "company", "title")]
    return [*key, *written, *lead, Column("exported_at", DateTime(timezone=True), nullable=False)]


def _address_type() -> TypeEngine[Any]:
    """Return the type of addresses. MySQL takes o for ö in a key, unless its collation is a binary one."""
    found: TypeEngine[Any] = Unicode(_LONGEST_ADDRESS)
    for dialect in _MYSQL:
        binary = mysql.VARCHAR(_LONGEST_ADDRESS, charset="utf8mb4", collation="utf8mb4_bin")
        found = found.with_variant(binary, dialect)
    return found


def _must_be_filled(column: Mapping[str, Any]) -> bool:
    """Whether a row without this column is refused."""
    fills_itself = any(column.get(each) for each in ("default", "identity", "computed", "primary_key"))
    return not column["nullable"] and not fills_itself and column.get("autoincrement") is not True
