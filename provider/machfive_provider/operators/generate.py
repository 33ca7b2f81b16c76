"""The operators that buy emails: a batch of leads, or a single one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from machfive_provider import exceptions
from machfive_provider.formatting import counted
from machfive_provider.operators.generation import OPTION_FIELDS, GenerateOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from machfive_provider.api.models import GenerationOptions, LeadList
    from machfive_provider.delivery.count import Expected
    from machfive_provider.delivery.destination import Destination
    from machfive_provider.hooks.machfive import MachFiveHook
    from machfive_provider.leads.prepare import PreparedLeads
    from machfive_provider.operators.purchase import Attempt
    from machfive_provider.purchase.tag import Intent

__all__ = ["MachFiveGenerateBatchOperator", "MachFiveGenerateOperator"]


class MachFiveGenerateBatchOperator(GenerateOperator):
    """Submits leads as one batch, waits until their emails are written and, if asked, exports them.

    Returns the ``list_id``. Pushes ``machfive_batch`` after the submission and again at the end, and
    ``machfive_export`` with ``export_to``. One credit is spent for each lead.

    :param leads: a list of mappings, an XComArg or a JSON array as text; or ``leads_path``
    :param leads_path: a CSV, JSON or JSONL file anywhere ObjectStoragePath reaches
    :param campaign_id: the campaign's UUID; or ``campaign_name``
    :param campaign_name: its exact name, whatever the case
    :param list_name: shown in the MachFive app, before a tag of our own
    :param email_count: emails for each lead, 1-5 (API.md; the newer generation: 1-4)
    :param email_signature: appended to each email
    :param signature_id: UUID of a saved signature instead (newer generation)
    :param additional_details: context for the writer (newer; ``campaign_angle`` in ``options`` for the older)
    :param approved_ctas: calls to action the writer may use
    :param enrichment_enabled: research each lead further, for two credits instead of one
    :param notification_email: told by MachFive when the list has completed
    :param options: further options, passed through as given
    :param max_leads: refuse to submit more leads than this, duplicates not counted
    :param on_invalid_lead: ``fail``, or ``skip`` to leave bad leads out
    :param on_duplicate_lead: ``fail``, or ``first`` to keep the first
    :param on_existing_list: what to do when this very batch is already bought: ``adopt`` it, ``resubmit`` and pay
        again once for each clear, or ``fail``
    :param max_resubmissions: how often a batch whose list failed is bought again
    :param wait_for_completion: False returns right after the submission, whatever ``deferrable`` says
    :param capacity_timeout: seconds to wait for room when the workspace runs too many batches
    :param export_to: path or URL to write the emails to
    :param export_format: ``jsonl``, ``json`` or ``csv``
    :param overwrite: False refuses an existing destination before anything is bought
    :param on_missing_leads: when leads are missing from the result: ``fail``, ``warn`` or ``ignore``
    :param deferrable: wait in the triggerer and hold no worker
    :param poll_interval: seconds between looks; MachFive asks for 10-30
    :param timeout: seconds after which this attempt stops waiting; MachFive keeps working, a retry re-attaches
    :param machfive_conn_id: the Airflow connection
    :raises MachFiveError: see ``machfive_provider.exceptions`` for what each class does to the task
    """

    template_fields: Sequence[str] = (
        "leads",
        "leads_path",
        "campaign_id",
        "campaign_name",
        *OPTION_FIELDS,
        "options",
        "export_to",
        "export_format",
        "machfive_conn_id",
    )

    def __init__(
        self,
        *,
        leads: Any = None,
        leads_path: str | None = None,
        notification_email: str | None = None,
        max_leads: int | None = None,
        on_invalid_lead: str = "fail",
        on_duplicate_lead: str = "fail",
        wait_for_completion: bool = True,
        export_to: str | None = None,
        export_format: str = "jsonl",
        overwrite: bool = True,
        on_missing_leads: str = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.leads = leads
        self.leads_path = leads_path
        self.notification_email = notification_email
        self.max_leads = max_leads
        self.on_invalid_lead = on_invalid_lead
        self.on_duplicate_lead = on_duplicate_lead
        self.wait_for_completion = wait_for_completion
        self.export_to = export_to
        self.export_format = export_format
        self.overwrite = overwrite
        self.on_missing_leads = on_missing_leads

    def on_list_ended(self, context: Context, lead_list: LeadList) -> Any:
        """Report, export and count a list that has ended."""
        if lead_list.is_failed:
            raise exceptions.BatchFailedError(
                f"list {lead_list.id} ended failed on MachFive's side and can never be exported. Its leads have to be "
                f"bought again: a retry does so, up to {counted(self.max_resubmissions, 'time')} (max_resubmissions)."
            )
        self.log.info(
            "List %s has completed: %s, %s.",
            lead_list.id,
            counted(lead_list.leads_count, "lead"),
            counted(lead_list.emails_created, "email"),
        )
        batch = self._batch(context)
        context["ti"].xcom_push(key="machfive_batch", value={**batch, **_end_of(lead_list)})
        if self.export_to is not None:
            self._export(context, lead_list, batch)
        return lead_list.id

    def has_work_left(self) -> bool:
        """Whether there is a file to write or an XCom to push."""
        return self.export_to is not None or self.do_xcom_push

    def submit(self, context: Context, attempt: Attempt) -> Any:
        """Submit the batch, unless an earlier attempt has, and wait for it."""
        from machfive_provider.purchase.options import build_options

        self._check()
        prepared, options = self._prepare(), build_options(self.named_options(), self.options)
        self._guard_spending(prepared, options)
        destination = self._destination()
        self._warn_of_another_ending()
        intent, bought = self.buy(
            context,
            prepared,
            options,
            lambda hook, intent, given: hook.generate_batch(intent.campaign_id, intent.leads, given),
            attempt,
            before_paying=lambda: destination.check(must_be_new=True) if destination else None,
        )
        batch = {
            "list_id": bought.list_id,
            "list_name": bought.list_name,
            "tag": bought.tag,
            "generation": bought.generation,
            "campaign_id": intent.campaign_id,
            "leads_submitted": len(prepared.leads),
            "leads_skipped": prepared.skipped,
            "bought": bought.bought,
            **({"duplicates": list(bought.duplicates)} if bought.duplicates else {}),
        }
        context["ti"].xcom_push(key="machfive_batch", value=batch)
        if not self.wait_for_completion:
            return bought.list_id
        return self.wait_for(context, bought.list_id, submitted_at=bought.submitted_at, seen=bought.seen)

    def _check(self) -> None:
        from machfive_provider.delivery import export
        from machfive_provider.leads.prepare import check_policy

        self.check_common()
        check_policy("on_missing_leads", self.on_missing_leads, export.MISSING_POLICIES)
        check_policy("export_format", self.export_format, export.FORMATS)
        if self.export_to is not None and not self.wait_for_completion:
            raise exceptions.ConfigurationError(
                "export_to needs wait_for_completion=True: there is nothing to export before the list has completed. "
                "Drop one of them, or export later with MachFiveExportListOperator."
            )
        limit = self.max_leads
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise exceptions.ConfigurationError(f"max_leads must be a whole number of at least 1, not {limit!r}.")

    def _prepare(self) -> PreparedLeads:
        from machfive_provider.leads.prepare import prepare, read_leads

        source = "leads" if self.leads_path is None else f"leads_path {self.leads_path!r}"
        rows = read_leads(self.leads, self.leads_path)
        prepared = prepare(rows, self.on_invalid_lead, self.on_duplicate_lead, source)
        self.warn_of_unknown_fields(source, prepared)
        if prepared.skipped:
            shown = "; ".join((*prepared.invalid, *prepared.duplicates)[:10])
            self.log.warning("%s: %d of %d leads skipped: %s.", source, prepared.skipped, len(rows), shown)
        return prepared

    def _guard_spending(self, prepared: PreparedLeads, options: GenerationOptions) -> None:
        from machfive_provider.purchase.buy import credits_needed

        cost = credits_needed(prepared.leads, options)
        if self.max_leads is not None and cost > self.max_leads:
            doubled = " (enrichment_enabled counts each lead twice)" if cost > len(prepared.leads) else ""
            raise exceptions.InvalidLeadsError(
                f"{len(prepared.leads)} leads cost {cost} credits{doubled}, more than max_leads={self.max_leads} "
                "allows. Nothing was sent. Submit fewer leads or raise max_leads."
            )

    def _destination(self) -> Destination | None:
        if self.export_to is None:
            return None
        from machfive_provider.delivery.destination import Destination

        destination = Destination(self.export_to, overwrite=self.overwrite)
        destination.check(must_be_new=False)
        return destination

    def _warn_of_another_ending(self) -> None:
        from machfive_provider.delivery.export import FORMATS

        ending = str(self.export_to).rpartition(".")[2].lower()
        if ending in FORMATS and ending != self.export_format:
            self.log.warning(
                "%s will hold %s: set export_format=%r if you want that.", self.export_to, self.export_format, ending
            )

    def _export(self, context: Context, lead_list: LeadList, batch: Mapping[str, Any]) -> None:
        from machfive_provider.delivery import export
        from machfive_provider.delivery.report import report_export

        destination = self._destination()
        if destination is None:
            return
        expected = self._expected(context, batch)
        with self.hook() as hook:
            figures = export.write_export(hook, lead_list, destination, self.export_format, expected.email_count)
        report_export(self.log, context, lead_list.id, destination, figures, expected, self.on_missing_leads)

    @staticmethod
    def _batch(context: Context) -> dict[str, Any]:
        """Return what this attempt noted right after the submission; attributes do not survive a deferral."""
        ti = context["ti"]
        batch = ti.xcom_pull(task_ids=ti.task_id, key="machfive_batch", map_indexes=ti.map_index)
        return batch if isinstance(batch, dict) else {}

    def _expected(self, context: Context, batch: Mapping[str, Any]) -> Expected:
        """Return what was bought; only the number of leads if they cannot be read alike again."""
        from machfive_provider.delivery.count import Expected
        from machfive_provider.leads.prepare import prepare, read_leads
        from machfive_provider.purchase.options import build_options

        try:
            rows = read_leads(self.leads, self.leads_path)
            prepared = prepare(rows, self.on_invalid_lead, self.on_duplicate_lead)
            options = build_options(self.named_options(), self.options)
            intent = self.intent_of(context, str(batch["campaign_id"]), None, prepared, options)
            same = intent.is_tagged(str(batch["tag"]))
        except (exceptions.MachFivePermanentError, KeyError):
            same = False
        if same:
            return Expected.of(prepared.leads, options.get("email_count"))
        self.log.warning("The leads are not those that were submitted any more: they are counted, not compared.")
        return Expected(batch.get("leads_submitted"))


class MachFiveGenerateOperator(GenerateOperator):
    """Writes the emails of a single lead and returns them.

    On a worker it uses the synchronous ``generate`` call, which takes 3-10 minutes; deferrable, it submits a batch
    of one and waits in the triggerer. Returns ``lead_id``, ``list_id``, ``sequence`` and ``credits_remaining``; a
    sequence that was fetched from its list has neither the first nor the last.

    :param lead: a mapping, an XComArg or a JSON object as text

    The other parameters are those of :class:`MachFiveGenerateBatchOperator`.
    """

    template_fields: Sequence[str] = (
        "lead",
        "campaign_id",
        "campaign_name",
        *(name for name in OPTION_FIELDS if name != "notification_email"),
        "options",
        "machfive_conn_id",
    )

    def __init__(self, *, lead: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lead = lead

    def submit(self, context: Context, attempt: Attempt) -> Any:
        """Buy the sequence, unless an earlier attempt has, and return it."""
        from machfive_provider.delivery.count import short_sequence
        from machfive_provider.leads.prepare import single_lead
        from machfive_provider.purchase.options import build_options

        self.check_common()
        prepared, options = single_lead(self.lead), build_options(self.named_options(), self.options)
        self.warn_of_unknown_fields("lead", prepared)
        _, bought = self.buy(context, prepared, options, self._send, attempt)
        if bought.answer is not None:
            written, left = counted(len(bought.answer.sequence), "email"), bought.answer.credits_remaining
            self.log.info(
                "%s written. Credits left in the workspace: %s.", written, "unknown" if left is None else left
            )
            if warning := short_sequence(bought.list_id, len(bought.answer.sequence), options.get("email_count")):
                self.log.warning("%s", warning)
            return bought.answer.to_json()
        return self.wait_for(context, bought.list_id, submitted_at=bought.submitted_at, seen=bought.seen)

    def on_list_ended(self, context: Context, lead_list: LeadList) -> Any:  # noqa: ARG002 - the base's signature
        """Fetch the sequence of a list that has ended."""
        from machfive_provider.delivery import export
        from machfive_provider.delivery.count import short_sequence
        from machfive_provider.leads.prepare import single_lead
        from machfive_provider.purchase.options import build_options

        if lead_list.is_failed:
            raise exceptions.BatchFailedError(
                f"list {lead_list.id} of this lead ended failed on MachFive's side; a retry buys it again, up to "
                f"{counted(self.max_resubmissions, 'time')} (max_resubmissions)."
            )
        wanted = single_lead(self.lead).leads[0].key
        asked = build_options(self.named_options(), self.options).get("email_count")
        with self.hook() as hook:
            for lead in export.iter_leads(hook.stream_export(lead_list.id, "json")):
                if lead["email"].casefold() == wanted:
                    written = len(lead["sequence"])
                    self.log.info("List %s has %s for the lead.", lead_list.id, counted(written, "email"))
                    if warning := short_sequence(lead_list.id, written, asked):
                        self.log.warning("%s", warning)
                    return {"list_id": lead_list.id, "sequence": lead["sequence"]}
        raise exceptions.IncompleteExportError(f"list {lead_list.id} has completed without the emails of its lead")

    def shows_within(self) -> float:
        """Return for how many seconds the list of an unanswered ``generate`` may stay invisible: it takes minutes."""
        from machfive_provider.purchase.decision import BATCH_SHOWS_WITHIN, GENERATE_SHOWS_WITHIN

        return BATCH_SHOWS_WITHIN if self.deferrable else GENERATE_SHOWS_WITHIN

    def _send(self, hook: MachFiveHook, intent: Intent, options: GenerationOptions) -> Any:
        if self.deferrable:
            return hook.generate_batch(intent.campaign_id, intent.leads, options)
        return hook.generate(intent.campaign_id, intent.leads[0], options)


def _end_of(lead_list: LeadList) -> dict[str, Any]:
    completed_at = lead_list.completed_at.to_iso8601_string() if lead_list.completed_at else None
    return {
        "leads_count": lead_list.leads_count,
        "emails_created": lead_list.emails_created,
        "completed_at": completed_at,
    }
