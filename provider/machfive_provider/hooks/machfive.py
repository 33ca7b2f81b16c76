"""MachFiveHook: the calls of the MachFive API, made through an Airflow connection."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

from machfive_provider.api import protocol
from machfive_provider.api.client import AsyncMachFiveClient, MachFiveClient
from machfive_provider.api.models import (
    AcceptedBatch,
    Campaign,
    GeneratedSequence,
    GenerationOptions,
    Lead,
    LeadList,
)
from machfive_provider.api.retries import QUICK, RetryPolicy
from machfive_provider.hooks.campaigns import named, refuse_name
from machfive_provider.hooks.connection import ConnectionSettings, diagnosis, greeting
from machfive_provider.hooks.form import CONNECTION_FIELDS, FIELD_BEHAVIOUR
from machfive_provider.hooks.lookup import load_settings, load_settings_async
from machfive_provider.telemetry import request_observer

if TYPE_CHECKING:
    from types import TracebackType

    from machfive_provider.foreground import ExportFigures, ExportFormat, OnExported, OnPolled

__all__ = ["MachFiveHook"]


class MachFiveHook(BaseHook):
    """Calls the API of one MachFive workspace through an Airflow connection.

    Reads are repeated after a failure that may pass. ``generate`` and ``generate_batch`` spend credits: they are
    not repeated once the request may have arrived. The operators also search for an earlier purchase first.
    Each read has a twin for event loops, with the prefix ``a``: ``await hook.aget_list(list_id)``. The paid calls
    have none: workers alone send them. The API is described in ``docs/api.md``, the exceptions in ``docs/errors.md``.

    :param machfive_conn_id: the connection: API key as password, base URL as host (empty for
        ``https://app.machfive.io``); ``machfive_default`` by default
    :param retry_policy: how reads are repeated; by default until they have failed for 30 seconds
    :raises MachFiveError: every method raises its subclasses; ``test_connection`` raises nothing
    """

    conn_name_attr = "machfive_conn_id"
    default_conn_name = "machfive_default"
    conn_type = "machfive"
    hook_name = "MachFive"

    def __init__(
        self,
        machfive_conn_id: str = default_conn_name,
        retry_policy: RetryPolicy | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.machfive_conn_id = machfive_conn_id
        self.retry_policy = retry_policy or RetryPolicy()
        self._settings: ConnectionSettings | None = None
        self._client: MachFiveClient | None = None
        self._aclient: AsyncMachFiveClient | None = None
        self._submitted_at: dict[str, float] = {}  # epoch seconds, by the id of the list

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the form's labels. Airflow 3.1 asks the hook; later ones read ``get_provider_info``."""
        return FIELD_BEHAVIOUR

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's extra fields, for Airflow 3.1; none where Flask's form packages are missing."""
        try:
            from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
            from flask_babel import lazy_gettext
            from wtforms import IntegerField, StringField
        except ImportError:
            return {}  # with an exception the form would lose its labels as well

        kinds = {"namespace": StringField, "max_concurrent_batches": IntegerField}
        return {
            name: kinds[name](
                lazy_gettext(field["label"]), description=field["description"], widget=BS3TextFieldWidget()
            )
            for name, field in CONNECTION_FIELDS.items()
        }

    @property
    def settings(self) -> ConnectionSettings:
        """The connection's settings, looked up once.

        :raises ConfigurationError: if the connection is missing or a field of it is wrong
        """
        if self._settings is None:
            self._settings = load_settings(self.machfive_conn_id, self.get_connection)
        return self._settings

    async def aget_settings(self) -> ConnectionSettings:
        """Return :attr:`settings` without blocking the event loop."""
        if self._settings is None:
            self._settings = await load_settings_async(self.machfive_conn_id)
        return self._settings

    def get_conn(self) -> MachFiveClient:
        """Return the client, made on first use."""
        if self._client is None:
            observe = request_observer(self.machfive_conn_id)
            self._client = MachFiveClient(self.settings.client, self.retry_policy, observe=observe)
        return self._client

    async def aget_conn(self) -> AsyncMachFiveClient:
        """Return the asynchronous client, made on first use."""
        if self._aclient is None:
            settings, observe = await self.aget_settings(), request_observer(self.machfive_conn_id)
            self._aclient = AsyncMachFiveClient(settings.client, self.retry_policy, observe=observe)
        return self._aclient

    def list_campaigns(self, query: str | None = None) -> list[Campaign]:
        """Return the workspace's campaigns (``GET /api/v1/campaigns``).

        :param query: a part of the name, in any case; all campaigns by default
        """
        return self.get_conn().send(protocol.list_campaigns(query))

    async def alist_campaigns(self, query: str | None = None) -> list[Campaign]:
        """Await :meth:`list_campaigns`."""
        return await (await self.aget_conn()).send(protocol.list_campaigns(query))

    def resolve_campaign(self, name: str) -> Campaign:
        """Return the campaign of that name.

        :param name: the whole name; case and white space around it do not matter
        :raises ConfigurationError: if no campaign or several have the name; the message lists the candidates
        """
        matches = named(name, self.list_campaigns(name.strip()))
        return matches[0] if len(matches) == 1 else refuse_name(name, matches, self.list_campaigns())

    async def aresolve_campaign(self, name: str) -> Campaign:
        """Await :meth:`resolve_campaign`."""
        matches = named(name, await self.alist_campaigns(name.strip()))
        return matches[0] if len(matches) == 1 else refuse_name(name, matches, await self.alist_campaigns())

    def generate(
        self, campaign_id: str, lead: Lead | Mapping[str, Any], options: GenerationOptions | None = None
    ) -> GeneratedSequence:
        """Write one lead's emails and return them; blocks for 3-10 minutes (``POST …/generate``).

        Spends a credit, two with the option ``enrichment_enabled`` (docs/api.md, "Two generations").

        :param campaign_id: UUID of the campaign
        :param lead: a ``Lead``, or a mapping of the API's field names with an ``email``
        :param options: the API's ``options``, sent as given; none by default
        :raises InvalidLeadsError: if the lead cannot be sent; nothing was spent
        :raises TransportError: if no response arrived; ``may_have_arrived`` says whether it may have been bought
        :raises ServerError: if MachFive failed; it may have been bought
        """
        return self.get_conn().send(protocol.generate(campaign_id, lead, options))

    def generate_batch(
        self,
        campaign_id: str,
        leads: Sequence[Lead | Mapping[str, Any]],
        options: GenerationOptions | None = None,
        columns: Mapping[str, str | Sequence[str]] | None = None,
    ) -> AcceptedBatch:
        """Submit leads as one list and return its id (``POST …/generate-batch``).

        Spends a credit a lead, two with the option ``enrichment_enabled`` (docs/api.md, "Two generations").

        :param campaign_id: UUID of the campaign
        :param leads: at least one ``Lead``, or mapping with the same spellings of fields as the operators take
        :param options: as for :meth:`generate`
        :param columns: fields of the API to keys of the leads, as for the operators; by default by the keys' names
        :raises InvalidLeadsError: if a lead cannot be sent, or two have the same email; nothing was spent
        :raises WorkspaceLimitError: if the workspace processes as many batches as it may; nothing was spent
        :raises MachFiveError: as for :meth:`generate`
        """
        from machfive_provider.leads.prepare import hook_leads

        call = protocol.generate_batch(campaign_id, hook_leads(leads, columns), options)
        accepted = self.get_conn().send(call)
        self._submitted_at[accepted.list_id] = time.time()
        return accepted

    def iter_lists(self, campaign_id: str | None = None, status: str | None = None) -> Iterator[LeadList]:
        """Yield the workspace's lists, newest first, page after page (``GET /api/v1/lists``).

        :param campaign_id: UUID of a campaign; all campaigns by default
        :param status: a ``processing_status``: pending, processing, completed or failed; any by default
        """
        pages = protocol.ListPages(campaign_id, status)
        while not pages.done:
            yield from pages.take(self.get_conn().send(pages.call()))

    async def aiter_lists(self, campaign_id: str | None = None, status: str | None = None) -> AsyncIterator[LeadList]:
        """Yield the same as :meth:`iter_lists`, on an event loop."""
        pages = protocol.ListPages(campaign_id, status)
        while not pages.done:
            for each in pages.take(await (await self.aget_conn()).send(pages.call())):
                yield each

    def get_list(self, list_id: str) -> LeadList:
        """Return one list with its status (``GET /api/v1/lists/{list_id}``).

        :raises NotFoundError: if the workspace has no such list
        """
        return self.get_conn().send(protocol.get_list(list_id))

    async def aget_list(self, list_id: str) -> LeadList:
        """Await :meth:`get_list`."""
        return await (await self.aget_conn()).send(protocol.get_list(list_id))

    def find_list(self, campaign_id: str, name: str, since: datetime) -> LeadList | None:
        """Return the newest list whose name contains ``name``; None if there is none.

        :param campaign_id: UUID of the campaign it was bought for
        :param since: a time with a zone; the search ends at the first list that is older
        """
        for each in self.iter_lists(campaign_id):
            if each.created_at and each.created_at < since:
                return None
            if name in (each.custom_name or ""):
                return each
        return None

    async def afind_list(self, campaign_id: str, name: str, since: datetime) -> LeadList | None:
        """Await :meth:`find_list`."""
        async for each in self.aiter_lists(campaign_id):
            if each.created_at and each.created_at < since:
                return None
            if name in (each.custom_name or ""):
                return each
        return None

    def stream_export(self, list_id: str, format: str = "csv") -> Iterator[bytes]:  # noqa: A002 - the API's word
        """Yield the written emails as the API sends them, in constant memory (``GET …/export``).

        :param format: ``csv`` (default) or ``json``
        :raises TransportError: if the response breaks off; what was yielded before is incomplete
        :raises NotReadyError: before the list has completed
        """
        return self.get_conn().stream(protocol.export(list_id, format))

    async def astream_export(self, list_id: str, format: str = "csv") -> AsyncIterator[bytes]:  # noqa: A002
        """Yield the same as :meth:`stream_export`, on an event loop."""
        async for chunk in (await self.aget_conn()).stream(protocol.export(list_id, format)):
            yield chunk

    def wait_for_list(self, list_id: str, timeout: float | timedelta, on_progress: OnPolled | None = None) -> LeadList:
        """Wait on the calling thread until a list has completed; return it. Polls every 20 seconds.

        :param timeout: seconds, or a ``timedelta``, after which the wait is given up; there is at least one poll
        :param on_progress: called with the ``LeadList`` after each poll that succeeded; by default a terminal shows the
            status and the time that has passed, and anything else nothing
        :raises ListFailedError: if the list ended failed
        :raises WaitTimeoutError: if it has not ended in time; MachFive keeps working on it
        :raises PollingError: if polls have failed for ten minutes
        :raises NotFoundError: if the workspace has no such list. One that this hook has just submitted has two minutes
            to become visible
        """
        from machfive_provider.foreground import wait_for_list

        return wait_for_list(self, list_id, timeout, on_progress, self._submitted_at.get(list_id))

    def export_list(
        self,
        list_id: str,
        path: str | os.PathLike[str],
        format: ExportFormat | None = None,  # noqa: A002 - the API's word
        on_progress: OnExported | None = None,
    ) -> ExportFigures:
        """Write a completed list's emails to a file or object, count them and return the figures.

        The file appears complete or not at all, and replaces what was there. Warnings in the figures are logged too.

        :param path: where to write: a path or URL that ObjectStoragePath reaches
        :param format: ``csv``, ``json``, ``jsonl`` (a lead a line) or ``parquet`` (a row an email, with the extra
            ``parquet``); by default by the ending of ``path``
        :param on_progress: called with the figures so far (``.leads``, ``.bytes``) after each 64 KiB; by default a
            terminal shows a bar, and anything else nothing
        :raises ConfigurationError: if ``path`` cannot be written, its ending contradicts ``format``, or pyarrow is
            missing for parquet
        :raises NotReadyError: before the list has completed
        :raises ListFailedError: if the list ended failed
        """
        from machfive_provider.foreground import export_list

        figures = export_list(self, list_id, path, format, on_progress)
        for warning in figures.warnings:
            self.log.warning("%s", warning)
        return figures

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the connection works, and a text: the workspace's campaigns, or what is wrong.

        Sends one request, which may take 3 seconds. Never raises and never shows the key.
        """
        try:
            with closing(MachFiveClient(self.settings.client, QUICK)) as client:
                campaigns = client.send(protocol.list_campaigns())
            return True, greeting(self.settings, campaigns)
        except Exception as error:  # noqa: BLE001 - Airflow shows the text to the user
            return False, diagnosis(error, self._settings)

    async def atest_connection(self) -> tuple[bool, str]:
        """Await :meth:`test_connection`."""
        try:
            settings = await self.aget_settings()
            client = AsyncMachFiveClient(settings.client, QUICK)
            try:
                campaigns = await client.send(protocol.list_campaigns())
            finally:
                await client.close()
            return True, greeting(settings, campaigns)
        except Exception as error:  # noqa: BLE001 - as above
            return False, diagnosis(error, self._settings)

    def forget_connection(self) -> None:
        """Drop client and settings, so that the next call reads the connection again: its key may have changed."""
        self.close()
        self._settings = None

    def close(self) -> None:
        """Close the synchronous client's connections; the next call opens new ones."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def aclose(self) -> None:
        """Close the asynchronous client's connections; the next call opens new ones."""
        if self._aclient is not None:
            await self._aclient.close()
            self._aclient = None

    def __enter__(self) -> MachFiveHook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
