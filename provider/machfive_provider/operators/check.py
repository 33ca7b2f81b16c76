"""The operator that says what a purchase would be, for somebody to approve it. It buys nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

from machfive_provider import exceptions
from machfive_provider.formatting import counted, kind_of
from machfive_provider.operators import parameters
from machfive_provider.operators.filters import check_filters, select_leads
from machfive_provider.operators.parameters import DuplicatePolicy, InvalidPolicy
from machfive_provider.operators.prepared import prepare_leads
from machfive_provider.operators.private import PrivateParameter

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

__all__ = ["MachFiveCheckLeadsOperator", "check_approved"]


class MachFiveCheckLeadsOperator(BaseOperator):
    """Checks leads as ``MachFiveGenerateBatchOperator`` does, and returns what it would send and spend. Spends nothing.

    Give both the same leads, campaign and options. What is returned, given to the batch operator as ``approved``, binds
    it: another batch, or one that costs more, is refused.

    Returns a dictionary: ``leads`` and ``credits`` that would be sent and spent; ``skipped`` (invalid, duplicates),
    ``suppressed`` and ``already_written`` that are left out; ``campaign_id`` and ``campaign_name``; ``summary``,
    all of it in a sentence; ``batches``, the credits of each batch by its digest.

    :param leads: a list of mappings, an XComArg or a JSON array as text; either this or ``leads_path``
    :param leads_path: a file of leads, or several: each is one batch
    :param columns, suppress, skip_already_written, campaign_id, campaign_name: as for the batch operator
    :param email_count, email_signature, signature_id, additional_details, approved_ctas, enrichment_enabled, options:
        as for the batch operator; they are part of the digest
    :param max_credits: more credits than this, for all batches together, fail the task. Default: no limit
    :param on_invalid_lead: ``fail`` (default), or ``skip`` to leave invalid leads out
    :param on_duplicate_lead: ``fail`` (default), or ``first`` to keep the first of those with the same email
    :param machfive_conn_id: the Airflow connection. Default: ``machfive_default``
    :raises ConfigurationError: when the DAG is parsed, for parameters that are known to be wrong by then
    :raises InvalidLeadsError: for leads that the batch operator would refuse, and above ``max_credits``
    """

    template_fields: Sequence[str] = (
        "leads",
        "leads_path",
        "suppress",
        "skip_already_written",
        "campaign_id",
        "campaign_name",
        "email_count",
        "email_signature",
        "signature_id",
        "additional_details",
        "approved_ctas",
        "enrichment_enabled",
        "options",
        "machfive_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"leads": "json", "options": "json", "approved_ctas": "json"}
    ui_color = "#e8eef9"
    leads = PrivateParameter()
    suppress = PrivateParameter()

    def __init__(
        self,
        *,
        leads: Any = None,
        leads_path: str | Sequence[str] | Any = None,
        columns: Mapping[str, str | Sequence[str]] | None = None,
        suppress: str | Sequence[str] | Any = None,
        skip_already_written: str | Sequence[str] | Any = None,
        campaign_id: str | None = None,
        campaign_name: str | None = None,
        email_count: int | str | None = None,
        email_signature: str | None = None,
        signature_id: str | None = None,
        additional_details: str | None = None,
        approved_ctas: Sequence[str] | str | None = None,
        enrichment_enabled: bool | None = None,
        options: Mapping[str, Any] | None = None,
        max_credits: int | None = None,
        on_invalid_lead: InvalidPolicy = "fail",
        on_duplicate_lead: DuplicatePolicy = "fail",
        machfive_conn_id: str = "machfive_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.leads = leads
        self.leads_path = leads_path
        self.columns = columns
        self.suppress = suppress
        self.suppress_is_given = suppress is not None
        self.skip_already_written = skip_already_written
        self.campaign_id = campaign_id
        self.campaign_name = campaign_name
        self.email_count = email_count
        self.email_signature = email_signature
        self.signature_id = signature_id
        self.additional_details = additional_details
        self.approved_ctas = approved_ctas
        self.enrichment_enabled = enrichment_enabled
        self.options = options
        self.max_credits = max_credits
        self.on_invalid_lead = on_invalid_lead
        self.on_duplicate_lead = on_duplicate_lead
        self.machfive_conn_id = machfive_conn_id
        self._check(rendered=False)

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """Check the leads and return what would be sent and spent."""
        from machfive_provider.hooks.machfive import MachFiveHook
        from machfive_provider.operators.buying import find_campaign
        from machfive_provider.purchase.options import build_options
        from machfive_provider.purchase.purchase import credits_needed
        from machfive_provider.purchase.tag import digest_of_what, sorted_leads

        self._check(rendered=True)
        options = build_options(parameters.named_options(self), self.options)
        found = {"leads": 0, "credits": 0, "skipped": 0, "suppressed": 0, "already_written": 0}
        batches: dict[str, int] = {}
        with MachFiveHook(self.machfive_conn_id) as hook:
            campaign_id, campaign_name = find_campaign(hook, self.campaign_id, self.campaign_name)
        for path in self._sources():
            prepared = prepare_leads(self, path)
            selection = select_leads(self, prepared.leads, self.log)
            cost = credits_needed(len(selection.leads), options)
            batches[digest_of_what(campaign_id, sorted_leads(prepared.leads), options)] = cost
            found["leads"] += len(selection.leads)
            found["credits"] += cost
            found["skipped"] += prepared.skipped
            found["suppressed"] += selection.suppressed
            found["already_written"] += selection.already_written
        if self.max_credits is not None and found["credits"] > self.max_credits:
            raise exceptions.InvalidLeadsError(
                f"{counted(found['leads'], 'lead')} would cost {counted(found['credits'], 'credit')}, more than "
                f"max_credits={self.max_credits} allows. Nothing was sent. Submit fewer leads or raise max_credits."
            )
        summary = _summary(found, len(batches), campaign_name or campaign_id)
        self.log.info("%s", summary)
        return {
            **found,
            "campaign_id": campaign_id,
            "campaign_name": campaign_name,
            "summary": summary,
            "batches": batches,
        }

    def _check(self, *, rendered: bool) -> None:
        """Check the parameters; ``rendered=False`` leaves templates and XComArgs out."""
        parameters.check_one_of("leads", self.leads, "leads_path", self.leads_path, rendered=rendered)
        parameters.check_campaign_and_count(self, rendered=rendered)
        parameters.check_columns(self.columns)
        check_filters(self)
        parameters.check_choice("on_invalid_lead", self.on_invalid_lead, InvalidPolicy)
        parameters.check_choice("on_duplicate_lead", self.on_duplicate_lead, DuplicatePolicy)
        if self.max_credits is not None:
            parameters.check_whole_number("max_credits", self.max_credits, least=1)

    def _sources(self) -> list[str | None]:
        """Return the files, each of which is a batch; None for the leads given."""
        if self.leads_path is None or isinstance(self.leads_path, str):
            return [self.leads_path]
        return list(self.leads_path)


def _summary(found: Mapping[str, int], batches: int, campaign: str) -> str:
    left_out = [
        f"{found[name]} {words}"
        for name, words in (
            ("skipped", "invalid or duplicate"),
            ("suppressed", "suppressed"),
            ("already_written", "already written"),
        )
        if found[name]
    ]
    what = f"Write to {counted(found['leads'], 'lead')} for {counted(found['credits'], 'credit')}"
    where = f"in {counted(batches, 'batch', 'batches')}, campaign {campaign!r}."
    return f"{what} {where}{' Left out: ' + ', '.join(left_out) + '.' if left_out else ''}"


def check_approved(approved: Any, digest: str, cost: int) -> None:
    """Check that a purchase is the one that was approved.

    :param approved: what a ``MachFiveCheckLeadsOperator`` has returned
    :param digest: of the batch, as in its tag
    :param cost: the credits that it costs now
    :raises ConfigurationError: if ``approved`` is something else
    :raises MachFivePermanentError: if another batch was approved, or fewer credits
    """
    batches = approved.get("batches") if isinstance(approved, Mapping) else None
    if not isinstance(batches, Mapping):
        raise exceptions.ConfigurationError(
            f"approved must be what a MachFiveCheckLeadsOperator returns, not {kind_of(approved)}. Nothing was sent."
        )
    # After a clear Airflow would ask a person the old question (docs/approval.md).
    remedy = "Start a new run; where no person is asked, clearing the task that checks the leads is enough."
    if digest not in batches:
        raise exceptions.MachFivePermanentError(
            "Leads, options or campaign differ from what was approved. Nothing was spent.", remedy=remedy
        )
    if cost > batches[digest]:
        raise exceptions.MachFivePermanentError(
            f"The batch costs {counted(cost, 'credit')} now, and {batches[digest]} were approved. Nothing was spent.",
            remedy=remedy,
        )
