"""The pipeline as a task group: from a file or query of leads to one file, a table or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import TaskGroup, task_group

from machfive_provider.delivery.format import ExportFormat, ExportShape, MissingPolicy, format_for
from machfive_provider.delivery.merge import part_format
from machfive_provider.exceptions import ConfigurationError
from machfive_provider.operators import parameters
from machfive_provider.operators.generate import MachFiveGenerateBatchOperator
from machfive_provider.operators.parameters import DuplicatePolicy, InvalidPolicy
from machfive_provider.pipeline.tasks import PipelineCheckOperator, PipelineSummaryOperator
from machfive_provider.transfers.file_to_leads import FileToMachFiveLeadsOperator
from machfive_provider.transfers.list_to_sql import MachFiveToSqlOperator, RowPolicy
from machfive_provider.transfers.sharding import ShardingOperator
from machfive_provider.transfers.sql_to_leads import SqlToMachFiveLeadsOperator

__all__ = ["machfive_pipeline"]

# Skipped are an approval that nobody is asked for, and batches of which nobody is left. If a task before the group was
# skipped, so is all of the group.
_RUN_AFTER_SKIPS = "none_failed_min_one_success"
_BUY, _SAVE = "write_emails", "save_emails"


def machfive_pipeline(
    group_id: str = "machfive",
    *,
    leads_folder: str,
    leads_path: str | Any = None,
    sql: str | None = None,
    sql_conn_id: str | None = None,
    sql_parameters: Mapping[str, Any] | Sequence[Any] | None = None,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    batch_size: int = 1000,
    keep_for: timedelta = timedelta(days=30),
    on_invalid_lead: InvalidPolicy = "fail",
    on_duplicate_lead: DuplicatePolicy = "fail",
    suppress: str | Sequence[str] | Any = None,
    skip_already_written: str | Sequence[str] | Any = None,
    campaign_id: str | None = None,
    campaign_name: str | None = None,
    list_name: str | None = None,
    email_count: int | str | None = None,
    email_signature: str | None = None,
    signature_id: str | None = None,
    additional_details: str | None = None,
    approved_ctas: Sequence[str] | str | None = None,
    enrichment_enabled: bool | None = None,
    options: Mapping[str, Any] | None = None,
    max_credits: int | None = None,
    max_resubmissions: int = 1,
    approval: bool = False,
    approval_timeout: float | timedelta | None = None,
    deferrable: bool = True,
    poll_interval: float = 20,
    timeout: float | timedelta = 86400,
    capacity_timeout: float | timedelta = 86400,
    to_table: str | None = None,
    to_sql_conn_id: str | None = None,
    one_row_per: RowPolicy = "email",
    create_table: bool = True,
    export_to: str | None = None,
    export_format: ExportFormat | None = None,
    export_shape: ExportShape = "api",
    escape_formulas: bool = False,
    on_missing_leads: MissingPolicy = "fail",
    wait_for_previous_run: bool = False,
    machfive_conn_id: str = "machfive_default",
    default_args: Mapping[str, Any] | None = None,
) -> TaskGroup:
    """Add the pipeline to the DAG: leads are frozen, checked, approved, bought and delivered.

    Its tasks are ``freeze_leads``, ``check_leads``, ``approve`` (with ``approval``), ``batch.write_emails`` and, with
    ``to_table``, ``batch.save_emails`` for each batch, and ``summary``. What was checked binds: the batches refuse to
    buy other leads or for more credits. A batch that fails holds back its own emails and the summary; the others are
    delivered. A clear of the run finds its lists again, delivers them again and buys nothing.

    ``summary`` pushes the XCom ``machfive_summary``: ``leads_given``, ``skipped`` (invalid, duplicate), ``suppressed``
    and ``already_written`` (both as of the check), ``credits`` (what the lists cost), ``bought`` (how many lists this
    time), ``leads_written``, ``emails``, ``missing``, ``suppressed_later``, ``lists`` (their ids), ``paths``, ``table``
    and ``missing_path``. A figure is None where it is not known. If nobody is left to write to, nothing is written and
    the group ends well.

    :param group_id: the name of the group. It is part of the tasks' ids, so of what they recognise their lists by:
        renamed, a clear of an older run buys again
    :param leads_folder: path or URL of a folder that all workers reach. It holds the leads and emails of each run
    :param leads_path: a file of leads, as for FileToMachFiveLeadsOperator; either this or ``sql``
    :param sql: a query, as for SqlToMachFiveLeadsOperator, with ``sql_conn_id`` and ``sql_parameters``, the values of
        its placeholders
    :param columns, batch_size, keep_for, on_invalid_lead, on_duplicate_lead: as for either of them
    :param suppress: who must never be written to, as for MachFiveGenerateBatchOperator
    :param skip_already_written: whose emails there are already. With ``sql`` a table on the same connection, with
        ``leads_path`` the paths of earlier results. Default: none, nobody is left out
    :param campaign_id, campaign_name, list_name, email_count, email_signature, signature_id, additional_details,
        approved_ctas, enrichment_enabled, options, max_resubmissions: as for MachFiveGenerateBatchOperator
    :param max_credits: more credits than this, for all batches together, and nothing is bought. Default: no limit
    :param approval: ask a person in Airflow's UI before anything is bought. A rejection fails the task ``approve``.
        Nobody is asked if nothing would be spent. Default: False. docs/approval.md
    :param approval_timeout: seconds, or a ``timedelta``, after which no answer is a rejection. Default: none
    :param deferrable: wait in the triggerer and hold no worker. Default: True
    :param poll_interval, timeout, capacity_timeout: in seconds, as for MachFiveGenerateBatchOperator
    :param to_table: write the emails to this table as well, with ``to_sql_conn_id`` (default: ``sql_conn_id``),
        ``one_row_per`` and ``create_table`` as for MachFiveToSqlOperator
    :param export_to: path or URL of one file with the emails of all batches; it appears whole or not at all, and
        missing leads are listed beside it. Default: none; without ``to_table`` there is then a file for each batch
    :param export_format, export_shape, escape_formulas: of that file, as for MachFiveGenerateBatchOperator
    :param on_missing_leads: if leads that were bought are missing, ``fail`` (default) fails ``summary``, after
        everything was delivered; or ``warn``, ``ignore``
    :param wait_for_previous_run: begin only when the pipeline of the run before has ended well: who was bought there
        has a row by then. Default: False
    :param machfive_conn_id: the Airflow connection of MachFive. Default: ``machfive_default``
    :param default_args: further arguments of all tasks of the group, such as ``retries``. Default: the DAG's
    :return: the group, to be put behind and before other tasks
    :raises ConfigurationError: when the DAG is parsed, for parameters that are known to be wrong or do not go together
    """
    _check_together(
        source=(leads_path, sql, sql_conn_id, sql_parameters),
        file=(export_to, export_format, export_shape, escape_formulas),
        table=(to_table, to_sql_conn_id, sql_conn_id),
        approval=(approval, approval_timeout),
    )
    freezing: dict[str, Any] = {
        "leads_folder": leads_folder,
        "columns": columns,
        "batch_size": batch_size,
        "keep_for": keep_for,
        "on_invalid_lead": on_invalid_lead,
        "on_duplicate_lead": on_duplicate_lead,
    }
    if wait_for_previous_run:
        # wait_for_downstream looks at the tasks right behind this one: summary, which is the last, is one of them.
        freezing |= {"depends_on_past": True, "wait_for_downstream": True}
    what: dict[str, Any] = {
        "campaign_id": campaign_id,
        "campaign_name": campaign_name,
        "email_count": email_count,
        "email_signature": email_signature,
        "signature_id": signature_id,
        "additional_details": additional_details,
        "approved_ctas": approved_ctas,
        "enrichment_enabled": enrichment_enabled,
        "options": options,
        "suppress": suppress,
        "skip_already_written": None if sql else skip_already_written,
        "machfive_conn_id": machfive_conn_id,
    }
    file: dict[str, Any] = {
        "export_to": export_to,
        "export_format": export_format,
        "export_shape": export_shape,
        "escape_formulas": escape_formulas,
    }
    table: dict[str, Any] = {
        "table": to_table,
        "sql_conn_id": to_sql_conn_id or sql_conn_id,
        "one_row_per": one_row_per,
        "create_table": create_table,
    }
    waiting: dict[str, Any] = {
        "deferrable": deferrable,
        "poll_interval": poll_interval,
        "timeout": timeout,
        # If any are missing the summary fails, after everything was delivered.
        "on_missing_leads": "warn" if on_missing_leads == "fail" else on_missing_leads,
    }
    arguments: Any = dict(default_args or {})
    with TaskGroup(group_id, default_args=arguments) as group:
        source: ShardingOperator
        if sql:
            freezing |= {"sql": sql, "sql_conn_id": sql_conn_id, "parameters": sql_parameters}
            freezing |= {"skip_already_written": skip_already_written}
            source = SqlToMachFiveLeadsOperator(task_id="freeze_leads", **freezing)
        else:
            source = FileToMachFiveLeadsOperator(task_id="freeze_leads", leads_path=leads_path, **freezing)
        check = PipelineCheckOperator(
            task_id="check_leads",
            leads_path=source.output,
            max_credits=max_credits,
            to_table=table if to_table else None,
            **what,
            **file,
        )
        buying = {**what, **waiting, "approved": check.output, "list_name": list_name}
        buying |= {"max_resubmissions": max_resubmissions, "capacity_timeout": capacity_timeout}
        if approval:
            from machfive_provider.pipeline.approval import ask_for_approval

            approve = ask_for_approval(check, "approve", approval_timeout)
            buying["trigger_rule"] = _RUN_AFTER_SKIPS
        if export_to or not to_table:  # a table alone needs no files
            form = format_for(export_to, export_format) if export_to else "jsonl"
            buying["export_format"] = part_format(form, export_shape)
        saving = {**waiting, **table, "suppress": suppress, "machfive_conn_id": machfive_conn_id} if to_table else None
        batches = _batches(source, buying, saving)
        if approval:
            check >> approve >> batches
        summary = PipelineSummaryOperator(
            task_id="summary",
            trigger_rule=_RUN_AFTER_SKIPS,
            source_id=source.task_id,
            check_id=check.task_id,
            batch_id=f"{batches.group_id}.{_BUY}",
            delivery_id=f"{batches.group_id}.{_BUY if 'export_format' in buying else _SAVE}",
            table=to_table,
            suppress=suppress,
            on_missing_leads=on_missing_leads,
            **file,
        )
        [source, check, batches] >> summary
    return group


def _batches(source: ShardingOperator, buying: Mapping[str, Any], saving: Mapping[str, Any] | None) -> Any:
    """Return the group that is mapped over the shards: a batch that fails holds back its own emails only.

    It is a group also where a batch is all there is in it, so that the tasks keep their ids when a table is added.

    :param buying, saving: arguments of the two operators; without ``saving`` nothing is written to a table
    """
    ending = buying.get("export_format")

    def files_of(leads_path: str) -> dict[str, str | None]:
        folder, _, name = leads_path.rpartition("/")
        emails = name.replace("leads-", "emails-").replace(".jsonl", f".{ending}")
        return {"leads_path": leads_path, "export_to": f"{folder}/{emails}" if ending else None}

    @task_group(group_id="batch")
    def batch(leads_path: Any, export_to: Any) -> None:
        bought = MachFiveGenerateBatchOperator(
            task_id=_BUY, leads_path=leads_path, export_to=export_to if ending else None, **buying
        )
        if saving is not None:
            list_id: Any = bought.output
            MachFiveToSqlOperator(task_id=_SAVE, list_id=list_id, **saving)

    return batch.expand_kwargs(source.output.map(files_of))


def _check_together(
    source: tuple[Any, Any, Any, Any],
    file: tuple[Any, Any, str, bool],
    table: tuple[Any, Any, Any],
    approval: tuple[bool, Any],
) -> None:
    """Refuse parameters that do not go together; each operator checks its own.

    :raises ConfigurationError: naming the parameters and the fix
    """
    leads_path, sql, sql_conn_id, sql_parameters = source
    parameters.check_one_of("leads_path", leads_path, "sql", sql, rendered=True)
    export_to, export_format, export_shape, escape_formulas = file
    to_table, to_sql_conn_id, _ = table
    asked, approval_timeout = approval
    for wrong, message in (
        (sql and not sql_conn_id, "sql needs sql_conn_id, the connection of the database."),
        (
            not sql and (sql_conn_id or sql_parameters),
            "sql_conn_id and sql_parameters are for sql. The connection of to_table is to_sql_conn_id.",
        ),
        (to_table and not (to_sql_conn_id or sql_conn_id), "to_table needs to_sql_conn_id."),
        (to_sql_conn_id and not to_table, "to_sql_conn_id needs to_table, the table to write to."),
        (
            not export_to and (export_format or export_shape != "api" or escape_formulas),
            "export_format, export_shape and escape_formulas need export_to, the file to write.",
        ),
        (approval_timeout is not None and not asked, "approval_timeout needs approval=True."),
    ):
        if wrong:
            raise ConfigurationError(message)
    if approval_timeout is not None:
        parameters.check_seconds("approval_timeout", approval_timeout)
