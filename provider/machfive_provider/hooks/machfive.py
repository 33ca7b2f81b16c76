"""MachFiveHook: what a DAG author can ask of MachFive, synchronously or awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from machfive_provider import exceptions
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
from machfive_provider.api.retries import RetryPolicy
from machfive_provider.hooks.connection import ConnectionSettings
from machfive_provider.hooks.diagnosis import diagnosis, greeting
from machfive_provider.hooks.form import CONNECTION_FIELDS, FIELD_BEHAVIOUR

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["MachFiveHook", "load_settings_async"]

_CANDIDATES = 10


class MachFiveHook(BaseHook):
    """Talks to one MachFive workspace through an Airflow connection.

    Reads repeat themselves on passing failures. ``generate`` and ``generate_batch`` spend credits and
    are never repeated once the request may have arrived; operators add the look for an earlier
    purchase. Every method has an awaitable twin prefixed ``a``. All raise
    :class:`~machfive_provider.exceptions.MachFiveError`.

    :param machfive_conn_id: the connection: API key as password, base URL as host (empty for MachFive)
    :param retry_policy: how reads repeat themselves
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

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the form's labels, for Airflow before 3.2."""
        return FIELD_BEHAVIOUR

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's extra fields, for Airflow before 3.2; none where Flask's form packages are missing."""
        try:
            from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
            from flask_babel import lazy_gettext
            from wtforms import IntegerField, StringField
        except ImportError:
            return {}  # raising would cost the form its labels as well

        kinds = {"namespace": StringField, "max_concurrent_batches": IntegerField}
        return {
            name: kinds[name](
                lazy_gettext(field["label"]), description=field["description"], widget=BS3TextFieldWidget()
            )
            for name, field in CONNECTION_FIELDS.items()
        }

    @property
    def settings(self) -> ConnectionSettings:
        """What the connection says; looked up once."""
        if self._settings is None:
            from airflow.sdk.log import mask_secret

            self._settings = ConnectionSettings.from_connection(_found(self.machfive_conn_id, self.get_connection))
            # Airflow masks the password as it is stored; the key is that without white space around it.
            mask_secret(self._settings.client.api_key)
        return self._settings

    async def aget_settings(self) -> ConnectionSettings:
        """Return what the connection says, without blocking the event loop."""
        if self._settings is None:
            self._settings = await load_settings_async(self.machfive_conn_id)
        return self._settings

    def get_conn(self) -> MachFiveClient:
        """Return the client, made on first use."""
        if self._client is None:
            self._client = MachFiveClient(self.settings.client, self.retry_policy)
        return self._client

    async def aget_conn(self) -> AsyncMachFiveClient:
        """Return the asynchronous client, made on first use."""
        if self._aclient is None:
            self._aclient = AsyncMachFiveClient((await self.aget_settings()).client, self.retry_policy)
        return self._aclient

    def list_campaigns(self, query: str | None = None) -> list[Campaign]:
        """Return the workspace's campaigns whose name contains ``query``, whatever the case."""
        return self.get_conn().send(protocol.list_campaigns(query))

    async def alist_campaigns(self, query: str | None = None) -> list[Campaign]:
        """Await :meth:`list_campaigns`."""
        return await (await self.aget_conn()).send(protocol.list_campaigns(query))

    def resolve_campaign(self, name: str) -> Campaign:
        """Return the one campaign of that name (exact but for case).

        :raises ConfigurationError: if none or several have it; the message lists the candidates
        """
        matches = _named(name, self.list_campaigns(name.strip()))
        return matches[0] if len(matches) == 1 else _refuse(name, matches, self.list_campaigns())

    async def aresolve_campaign(self, name: str) -> Campaign:
        """Await :meth:`resolve_campaign`."""
        matches = _named(name, await self.alist_campaigns(name.strip()))
        return matches[0] if len(matches) == 1 else _refuse(name, matches, await self.alist_campaigns())

    def generate(
        self, campaign_id: str, lead: Lead | Mapping[str, Any], options: GenerationOptions | None = None
    ) -> GeneratedSequence:
        """Write one lead's emails and return them: spends a credit and takes minutes."""
        return self.get_conn().send(protocol.generate(campaign_id, lead, options))

    async def agenerate(
        self, campaign_id: str, lead: Lead | Mapping[str, Any], options: GenerationOptions | None = None
    ) -> GeneratedSequence:
        """Await :meth:`generate`."""
        return await (await self.aget_conn()).send(protocol.generate(campaign_id, lead, options))

    def generate_batch(
        self, campaign_id: str, leads: Sequence[Lead | Mapping[str, Any]], options: GenerationOptions | None = None
    ) -> AcceptedBatch:
        """Submit leads as one list: spends a credit a lead."""
        return self.get_conn().send(protocol.generate_batch(campaign_id, leads, options))

    async def agenerate_batch(
        self, campaign_id: str, leads: Sequence[Lead | Mapping[str, Any]], options: GenerationOptions | None = None
    ) -> AcceptedBatch:
        """Await :meth:`generate_batch`."""
        return await (await self.aget_conn()).send(protocol.generate_batch(campaign_id, leads, options))

    def iter_lists(self, campaign_id: str | None = None, status: str | None = None) -> Iterator[LeadList]:
        """Yield the workspace's lists, newest first, page after page."""
        pages = protocol.ListPages(campaign_id, status)
        while not pages.done:
            yield from pages.take(self.get_conn().send(pages.call()))

    async def aiter_lists(self, campaign_id: str | None = None, status: str | None = None) -> AsyncIterator[LeadList]:
        """Yield what :meth:`iter_lists` yields, awaited."""
        pages = protocol.ListPages(campaign_id, status)
        while not pages.done:
            for each in pages.take(await (await self.aget_conn()).send(pages.call())):
                yield each

    def get_list(self, list_id: str) -> LeadList:
        """Return one list and how far it is."""
        return self.get_conn().send(protocol.get_list(list_id))

    async def aget_list(self, list_id: str) -> LeadList:
        """Await :meth:`get_list`."""
        return await (await self.aget_conn()).send(protocol.get_list(list_id))

    def find_list(self, campaign_id: str, name: str, since: datetime) -> LeadList | None:
        """Return the newest list whose name contains ``name``, created at ``since`` or later; None if there is none."""
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
        """Yield the written emails as the API sends them, in constant memory.

        :param format: ``csv`` or ``json``
        :raises NotReadyError: before the list has completed
        """
        return self.get_conn().stream(protocol.export(list_id, format))

    async def astream_export(self, list_id: str, format: str = "csv") -> AsyncIterator[bytes]:  # noqa: A002
        """Yield what :meth:`stream_export` yields, awaited."""
        async for chunk in (await self.aget_conn()).stream(protocol.export(list_id, format)):
            yield chunk

    def test_connection(self) -> tuple[bool, str]:
        """Say which campaigns the key sees, or exactly what is wrong; never raises, never shows the key."""
        try:
            return True, greeting(self.settings, self.list_campaigns())
        except Exception as error:  # noqa: BLE001 - Airflow shows the text; an exception would be a blank page
            return False, diagnosis(error, self._settings)

    async def atest_connection(self) -> tuple[bool, str]:
        """Await :meth:`test_connection`."""
        try:
            return True, greeting(await self.aget_settings(), await self.alist_campaigns())
        except Exception as error:  # noqa: BLE001 - as above
            return False, diagnosis(error, self._settings)

    def forget_connection(self) -> None:
        """Drop client and settings, so that the next call reads the connection anew: keys are rotated."""
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


async def load_settings_async(conn_id: str) -> ConnectionSettings:
    """Read a connection on an event loop; raises ``ConfigurationError``.

    Through common-compat alone: any other way blocks or kills the triggerer on one Airflow or another.
    """
    from airflow.providers.common.compat.connection import get_async_connection

    try:
        connection = await get_async_connection(conn_id)
    except Exception as error:
        raise _unreadable(conn_id, error) from error
    return ConnectionSettings.from_connection(connection)


def _found(conn_id: str, look_up: Any) -> Any:
    try:
        return look_up(conn_id)
    except Exception as error:
        raise _unreadable(conn_id, error) from error


def _unreadable(conn_id: str, error: Exception) -> exceptions.MachFiveError:
    """Tell a connection that is not there from one that cannot be read now: the second is worth a retry."""
    if isinstance(error, AirflowNotFoundException) or "CONNECTION_NOT_FOUND" in str(error).upper():
        return exceptions.ConfigurationError(
            f"The Airflow connection {conn_id!r} does not exist. Add one of type MachFive with the API key as its "
            "password, or name another in machfive_conn_id."
        )
    return exceptions.MachFiveTransientError(
        f"the Airflow connection {conn_id!r} could not be read ({type(error).__name__}); Airflow may be busy"
    )


def _named(name: str, campaigns: Sequence[Campaign]) -> list[Campaign]:
    return [each for each in campaigns if each.name.strip().casefold() == name.strip().casefold()]


def _refuse(name: str, matches: Sequence[Campaign], campaigns: Sequence[Campaign]) -> Campaign:
    what, among = ("several campaigns are", matches) if matches else ("no campaign is", campaigns)
    listed = ", ".join(f"{each.name!r} ({each.id})" for each in among[:_CANDIDATES]) or "none at all"
    more = f" and {len(among) - _CANDIDATES} more" if len(among) > _CANDIDATES else ""
    raise exceptions.ConfigurationError(
        f"campaign_name: {what} called {name!r} in this workspace. Give one of these names, or campaign_id: "
        f"{listed}{more}."
    )
