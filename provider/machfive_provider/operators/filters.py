"""Who is left out of a purchase, and of its result: the parameters ``suppress`` and ``skip_already_written``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from machfive_provider.exceptions import ConfigurationError
from machfive_provider.formatting import counted, kind_of

if TYPE_CHECKING:
    from machfive_provider.api.models import Lead
    from machfive_provider.leads.suppression import Selection, Suppression

__all__ = ["check_filters", "is_suppressed_by", "select_leads", "suppression_of"]


def check_filters(task: Any) -> None:
    """Check the kind of both parameters, as far as it is known when the DAG is parsed."""
    for name in ("suppress", "skip_already_written"):
        value = getattr(task, name, None)
        is_known = value is None or isinstance(value, (str, Sequence)) or hasattr(value, "iter_references")
        if not is_known or isinstance(value, bytes):
            raise ConfigurationError(f"{name} must be a path or a list, not {kind_of(value)}.")


def suppression_of(task: Any) -> Suppression | None:
    """Return who must not be written to; None if the task was given nobody.

    :raises MachFivePermanentError: if that cannot be read: then nothing may be sent
    """
    from machfive_provider.leads.suppression import read_suppression

    if task.suppress is None and task.suppress_is_given:
        raise ConfigurationError(
            "suppress is nothing: the task or template that it comes from gave None. Nothing was sent: somebody "
            "may have opted out. Let it give an empty list if nobody has."
        )
    return read_suppression(task.suppress)


def is_suppressed_by(suppression: Suppression | None) -> Callable[[str], bool] | None:
    """Return the question that an export asks of each address, None if nobody is suppressed."""
    return suppression.covers if suppression else None


def select_leads(task: Any, leads: Sequence[Lead], log: Any) -> Selection:
    """Return the leads to send, by both parameters as of now."""
    from machfive_provider.delivery.written import find_results, written_addresses
    from machfive_provider.leads.suppression import select

    suppression, results = suppression_of(task), []
    earlier = getattr(task, "skip_already_written", None)
    if earlier is not None:
        results = find_results(earlier, own=getattr(task, "export_to", None))
        log.info("skip_already_written: %s found.", counted(len(results), "earlier result"))
    return select(leads, suppression, written_addresses(results))
