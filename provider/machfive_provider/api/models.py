"""The objects of the API: campaigns, leads, lists and sequences (``docs/api.md``).

Unknown fields are ignored; an optional field that is missing or of another type is None. A required field
that is missing is a :class:`ShapeError`: nothing is guessed. Two readers are lenient: that of a sequence, since
it is paid for, and that of an entry in a page of lists, since an odd one must not stop every purchase of its campaign.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import pendulum

__all__ = [
    "RUNNING",
    "AcceptedBatch",
    "Campaign",
    "Email",
    "GeneratedSequence",
    "GenerationOptions",
    "Lead",
    "LeadList",
    "ShapeError",
    "address_digest",
    "array",
    "id_and_status",
    "usable_emails",
]

RUNNING = ("pending", "processing")
"""The statuses of a list in work, in this order: it moves from the first to the second (docs/api.md, "Endpoints")."""

UNKNOWN = "unknown"
"""Our word for the status of a list whose entry in a page shows none: neither completed nor failed, so it runs."""

_TAG_BEGINS = "[af1:"  # as in machfive_provider.purchase.tag

GenerationOptions = dict[str, Any]
"""The ``options`` object of both generate calls, built by :func:`machfive_provider.purchase.options.build_options`."""


class ShapeError(ValueError):
    """A response lacks what the contract requires; the text says what, without quoting the response."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign of the workspace."""

    id: str
    name: str
    created_at: pendulum.DateTime | None = None

    @classmethod
    def from_json(cls, data: Any) -> Campaign:
        """Read one campaign; raises :class:`ShapeError`."""
        item = _mapping(data, "a campaign")
        return cls(_text(item, "id"), _text(item, "name"), _time(item, "created_at"))


@dataclass(frozen=True, slots=True)
class Lead:
    """A person to write to.

    Only ``email`` is required; results are matched to leads by it (docs/api.md, "Endpoints").
    """

    email: str
    name: str | None = None
    title: str | None = None
    company: str | None = None
    company_website: str | None = None
    linkedin_url: str | None = None

    def to_json(self) -> dict[str, str]:
        """Return the lead as the API takes it, without the fields that are not set."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def key(self) -> str:
        """What tells two leads apart: the email, whatever its case."""
        return self.email.casefold()


def address_digest(address: str) -> int:
    """Return a number that stands for an email address, in any case.

    Seven bytes, because Python keeps a number of up to 60 bits in 32 bytes and a longer one in 48. That two of 200,000
    leads share a number has a probability of one in three million.
    """
    # A JSON parser may return half a surrogate pair.
    key = address.strip().casefold().encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(key, digest_size=7).digest())


@dataclass(frozen=True, slots=True)
class LeadList:
    """A list: the leads of one accepted batch, and its status.

    ``processing_status`` is kept as sent. An unknown status means "still running" (docs/api.md, "Met in practice").
    """

    id: str
    processing_status: str
    campaign_id: str | None = None
    custom_name: str | None = None
    created_at: pendulum.DateTime | None = None
    updated_at: pendulum.DateTime | None = None
    completed_at: pendulum.DateTime | None = None
    failed_at: pendulum.DateTime | None = None
    leads_count: int | None = None
    emails_created: int | None = None

    @classmethod
    def from_json(cls, data: Any) -> LeadList:
        """Read a list, summary or detail; raises :class:`ShapeError`."""
        item = _mapping(data, "a list")
        return cls(
            id=_text(item, "id"),
            processing_status=_text(item, "processing_status"),
            campaign_id=_optional_text(item, "campaign_id"),
            custom_name=_optional_text(item, "custom_name"),
            created_at=_time(item, "created_at"),
            updated_at=_time(item, "updated_at"),
            completed_at=_time(item, "completed_at"),
            failed_at=_time(item, "failed_at"),
            leads_count=_count(item, "leads_count"),
            emails_created=_count(item, "emails_created"),
        )

    @classmethod
    def from_page(cls, entry: Any) -> LeadList | None:
        """Read an entry of ``GET /lists``; None if it cannot be read and cannot be ours.

        :raises ShapeError: if an entry with our tag has no id: passed over, its purchase would be made again
        """
        known = id_and_status(entry)
        return cls.from_json({**entry, "processing_status": known[1]}) if known else None

    def to_json(self) -> dict[str, Any]:
        """Return what :meth:`from_json` reads, without what is not known."""
        known = {name: getattr(self, name) for name in self.__slots__}
        return {
            name: value.to_iso8601_string() if isinstance(value, pendulum.DateTime) else value
            for name, value in known.items()
            if value is not None
        }

    @property
    def is_completed(self) -> bool:
        """Whether the emails are written. The only status that is success."""
        return self.processing_status == "completed"

    @property
    def is_failed(self) -> bool:
        """Whether the list failed. That is final: a failed list can never be exported (docs/api.md, "Endpoints")."""
        return self.processing_status == "failed"


@dataclass(frozen=True, slots=True)
class Email:
    """One written email of a sequence. ``step`` is as the API sent it: a whole number, says its contract."""

    step: int | str | None
    subject: str
    body: str

    @classmethod
    def from_json(cls, data: Any) -> Email:
        """Read one email; raises :class:`ShapeError`."""
        item = _mapping(data, "an email")
        return cls(item.get("step"), _text(item, "subject"), _text(item, "body"))

    def to_json(self) -> dict[str, Any]:
        """Return the email as plain JSON, as it goes into XCom."""
        return {"step": self.step, "subject": self.subject, "body": self.body}


@dataclass(frozen=True, slots=True)
class AcceptedBatch:
    """The response of ``generate-batch``: the list that was bought."""

    list_id: str
    status: str | None = None
    leads_count: int | None = None
    message: str | None = None

    @classmethod
    def from_json(cls, data: Any) -> AcceptedBatch:
        """Read the response; raises :class:`ShapeError` if it has no ``list_id``."""
        item = _mapping(data, "the response")
        return cls(
            list_id=_text(item, "list_id"),
            status=_optional_text(item, "status"),
            leads_count=_count(item, "leads_count"),
            message=_optional_text(item, "message"),
        )


@dataclass(frozen=True, slots=True)
class GeneratedSequence:
    """The emails of one lead, the response of ``generate``.

    A sequence recovered from its list has neither ``lead_id`` nor ``credits_remaining``.

    :param sequence: the emails that are usable: with a subject, which may be empty, and a body
    :param sent: the whole sequence as the API sent it; None if it sent none
    """

    list_id: str
    sequence: tuple[Email, ...]
    lead_id: str | None = None
    credits_remaining: int | None = None
    sent: Any = field(default=None, compare=False, repr=False)

    @classmethod
    def from_json(cls, data: Any) -> GeneratedSequence:
        """Read the response, whatever its sequence is; raises :class:`ShapeError` if it has no ``list_id``."""
        item = _mapping(data, "the response")
        sent = item.get("sequence")
        return cls(
            list_id=_text(item, "list_id"),
            sequence=tuple(Email.from_json(email) for email in usable_emails(sent)),
            lead_id=_optional_text(item, "lead_id"),
            credits_remaining=_count(item, "credits_remaining"),
            sent=sent,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, as it goes into XCom, with the sequence as it was sent; what is not known is left out."""
        known = {
            "lead_id": self.lead_id,
            "list_id": self.list_id,
            "credits_remaining": self.credits_remaining,
        }
        return {
            **{name: value for name, value in known.items() if value is not None},
            "sequence": [email.to_json() for email in self.sequence] if self.sent is None else self.sent,
        }


def array(data: Any, name: str) -> list[Any]:
    """Return the array under ``name``; raises :class:`ShapeError`."""
    value = _mapping(data, "the response").get(name)
    if not isinstance(value, list):
        raise ShapeError(f"{name!r} is not an array")
    return value


def id_and_status(entry: Any) -> tuple[str, str] | None:
    """Return the id and status of an entry of ``GET /lists``; a status that is no text is ``unknown``.

    Returns None if the entry has no id and cannot be ours.

    :raises ShapeError: if an entry with our tag has no id
    """
    item = entry if isinstance(entry, Mapping) else {}
    list_id, status = item.get("id"), item.get("processing_status")
    if isinstance(list_id, str) and list_id:
        return list_id, status if isinstance(status, str) else UNKNOWN
    # Anywhere in the entry: the API may have renamed its fields.
    if _TAG_BEGINS in json.dumps(entry):
        raise ShapeError("a list that an Airflow task bought has no 'id'")
    return None


def usable_emails(sequence: Any) -> list[dict[str, Any]]:
    """Return the emails of a sequence that can be sent: they have a subject, which may be empty, and a body."""
    if not isinstance(sequence, list):
        return []
    return [
        email
        for email in sequence
        if isinstance(email, dict)
        and isinstance(email.get("subject"), str)
        and isinstance(body := email.get("body"), str)
        and body.strip()
    ]


def _mapping(data: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise ShapeError(f"{what} is not an object")
    return data


def _text(item: Mapping[str, Any], name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str) or ((name == "id" or name.endswith("_id")) and not value):
        raise ShapeError(f"{name!r} is not a text")
    return value


def _optional_text(item: Mapping[str, Any], name: str) -> str | None:
    value = item.get(name)
    return value if isinstance(value, str) else None


def _count(item: Mapping[str, Any], name: str) -> int | None:
    value = item.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _time(item: Mapping[str, Any], name: str) -> pendulum.DateTime | None:
    value = item.get(name)
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return pendulum.instance((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC))
    except (ValueError, OverflowError):
        return None
