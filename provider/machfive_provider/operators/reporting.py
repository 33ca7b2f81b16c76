"""What a task says of an export it has written: to its log, to XCom, and by failing or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from machfive_provider import exports
from machfive_provider.texts import counted

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

__all__ = ["report_export"]


def report_export(
    log: Any,
    context: Context,
    list_id: str,
    path: str,
    figures: exports.Figures,
    expected: int | set[str] | None,
    on_missing_leads: str,
) -> None:
    """Log and push (``machfive_export``) what was written, then judge whether it is everything."""
    known = expected if isinstance(expected, int) or expected is None else len(expected)
    emails = "emails not counted" if figures.emails is None else counted(figures.emails, "email")
    log.info("Wrote %s: %s, %s, %d bytes.", path, counted(figures.leads, "lead"), emails, figures.bytes)
    missing, _ = exports.check_delivery(figures, expected, "ignore", path)
    context["ti"].xcom_push(
        key="machfive_export",
        value={
            "path": path,
            "bytes": figures.bytes,
            "leads": figures.leads,
            "emails": figures.emails,
            "missing": missing,
        },
    )
    _, warning = exports.check_delivery(figures, expected, on_missing_leads, f"the export of list {list_id} to {path}")
    if warning:
        log.warning("%s", warning)
    elif known is not None and not missing:
        log.info("Nothing is missing: %s expected, all delivered.", counted(known, "lead"))
