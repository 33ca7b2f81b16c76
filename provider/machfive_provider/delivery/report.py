"""What a task says of an export it has written: to its log, to XCom, and by failing or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from machfive_provider import exceptions
from machfive_provider.delivery import count, export
from machfive_provider.formatting import counted

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.delivery.destination import Destination

__all__ = ["report_export"]


def report_export(
    log: Any,
    context: Context,
    list_id: str,
    destination: Destination,
    figures: count.Figures,
    expected: count.Expected,
    on_missing_leads: str,
) -> None:
    """Judge whether an export is everything that was bought, and say so.

    Logs and pushes (``machfive_export``) what was written, and writes the leads that are missing to a file of their
    own beside it, under every policy.

    :param on_missing_leads: ``fail``, ``warn`` or ``ignore``
    :raises IncompleteExportError: if leads are missing, under ``fail``
    """
    path, emails = destination.url, "emails not counted"
    if figures.emails is not None:
        emails = counted(figures.emails, "email")
    log.info("Wrote %s: %s, %s, %d bytes.", path, counted(figures.leads, "lead"), emails, figures.bytes)
    judged = count.judge(figures, expected)
    missing_path = _missing_file(log, destination, judged)
    context["ti"].xcom_push(
        key="machfive_export",
        value={
            "path": path,
            "bytes": figures.bytes,
            "leads": figures.leads,
            "emails": figures.emails,
            "missing": judged.missing,
            "extra": judged.extra,
            "short": judged.short,
            "missing_path": missing_path,
        },
    )
    for warning in count.warnings(judged, list_id, path):
        log.warning("%s", warning)
    _say_what_is_missing(log, judged, list_id, missing_path, on_missing_leads)


def _missing_file(log: Any, destination: Destination, judged: count.Delivery) -> str | None:
    try:
        return export.write_missing(destination, judged.missing_leads)
    except exceptions.ConfigurationError as error:
        log.warning("%s", error.message)
        return None


def _say_what_is_missing(log: Any, judged: count.Delivery, list_id: str, missing_path: str | None, policy: str) -> None:
    text = count.incomplete(judged, list_id, missing_path, policy)
    if text is None:
        if judged.missing is None:
            log.info("How many leads were bought is not known, so nothing can be counted as missing.")
        else:
            log.info("Nothing is missing: %s expected, all delivered.", counted(judged.expected.number, "lead"))
    elif policy == "fail":
        raise exceptions.IncompleteExportError(text)
    elif policy == "warn":
        log.warning("%s", text)
    else:
        where = f", listed in {missing_path}" if missing_path else ""
        log.info(
            "%d of %s missing%s: ignored by on_missing_leads.",
            judged.missing,
            counted(judged.expected.number, "lead"),
            where,
        )
