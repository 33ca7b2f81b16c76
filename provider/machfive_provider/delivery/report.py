"""Tells what an export holds: in the task's log, in XCom, and by failing the task if leads are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from machfive_provider import exceptions, telemetry
from machfive_provider.delivery import count
from machfive_provider.formatting import counted

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.delivery.destination import Destination

__all__ = ["report_export", "report_table"]


def report_export(
    task: Any,
    context: Context,
    list_id: str,
    destination: Destination,
    figures: count.Figures,
    expected: count.Expected,
) -> None:
    """Compare a written export with what was bought, and report the result.

    Logs and pushes (``machfive_export``) what was written. Writes the missing leads to a file beside the result, under
    every policy.

    :param task: the operator, for its log, connection and ``on_missing_leads``
    :raises IncompleteExportError: if leads are missing, under ``fail``
    """
    log, path, emails = task.log, destination.url, "emails not counted"
    if figures.emails is not None:
        emails = counted(figures.emails, "email")
    log.info("Wrote %s: %s, %s, %d bytes.", path, counted(figures.leads, "lead"), emails, figures.bytes)
    comparison = count.compare(figures, expected)
    missing_path = _write_missing(log, destination, comparison)
    telemetry.delivered(task.machfive_conn_id, figures.leads, comparison.missing)
    _push(log, context, path, figures, comparison, missing_path, figures.bytes)
    for warning in count.warnings(figures, comparison, list_id, path):
        log.warning("%s", warning)
    said = count.missing_message(comparison, list_id, missing_path, task.on_missing_leads)
    _report_missing(log, comparison, said, missing_path, task.on_missing_leads)


def report_table(
    task: Any,
    context: Context,
    list_id: str,
    path: str,
    figures: count.Figures,
    expected: count.Expected,
) -> None:
    """Do for a table what :func:`report_export` does for a file. Missing leads are not written anywhere.

    :param path: the connection and the table
    :raises IncompleteExportError: if leads are missing, under ``fail``
    """
    log = task.log
    log.info("Wrote %s: %s, %s.", path, counted(figures.leads, "lead"), counted(figures.emails, "email"))
    comparison = count.compare(figures, expected)
    telemetry.delivered(task.machfive_conn_id, figures.leads, comparison.missing)
    _push(log, context, path, figures, comparison)
    for warning in count.warnings(figures, comparison, list_id, path, is_table=True):
        log.warning("%s", warning)
    said = count.missing_message(comparison, list_id, None, task.on_missing_leads, table=path)
    _report_missing(log, comparison, said, None, task.on_missing_leads)


def _push(
    log: Any,
    context: Context,
    path: str,
    figures: count.Figures,
    comparison: count.Comparison,
    missing_path: str | None = None,
    size: int | None = None,
) -> None:
    if figures.suppressed:
        log.info("%s left out: suppressed since they were bought.", counted(len(figures.suppressed), "lead"))
    context["ti"].xcom_push(
        key="machfive_export",
        value={
            "path": path,
            "bytes": size,
            "leads": figures.leads,
            "emails": figures.emails,
            "missing": comparison.missing,
            "extra": comparison.extra,
            "short": comparison.short,
            "odd": len(figures.odd),
            "suppressed_later": len(figures.suppressed),
            "missing_path": missing_path,
        },
    )


def _write_missing(log: Any, destination: Destination, comparison: count.Comparison) -> str | None:
    """Write the missing leads beside the result, as a CSV that ``leads_path`` takes; return its path or URL, if any.

    Without any, the file of an earlier attempt is removed: submitting it would pay again for leads that are there.
    """
    beside = destination.for_missing_leads()
    if comparison.missing_leads:
        with beside.open() as writer:
            writer.write(count.leads_as_csv(comparison.missing_leads))
        return beside.url
    try:
        beside.remove()
    except exceptions.ConfigurationError as error:
        log.warning("%s", error.message)
    return None


def _report_missing(
    log: Any, comparison: count.Comparison, said: tuple[str, str] | None, missing_path: str | None, policy: str
) -> None:
    if said is None:
        if comparison.missing is None:
            log.info("How many leads were bought is not known, so nothing can be counted as missing.")
        else:
            log.info("Nothing is missing: %s expected, all delivered.", counted(comparison.expected.number, "lead"))
    elif policy == "fail":
        raise exceptions.IncompleteExportError(said[0], remedy=said[1])
    elif policy == "warn":
        log.warning("%s %s", *said)
    else:
        where = f", listed in {missing_path}" if missing_path else ""
        log.info(
            "%d of %s missing%s: ignored by on_missing_leads.",
            comparison.missing,
            counted(comparison.expected.number, "lead"),
            where,
        )
