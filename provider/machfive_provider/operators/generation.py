"""The parameters that buying one lead and buying many have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import conf

from machfive_provider import exceptions
from machfive_provider.operators.link import MachFiveCampaignLink
from machfive_provider.operators.purchase import PurchasingOperator
from machfive_provider.operators.waiting import seconds

if TYPE_CHECKING:
    from machfive_provider.hooks.machfive import MachFiveHook
    from machfive_provider.leads.prepare import PreparedLeads

__all__ = ["OPTION_FIELDS", "GenerateOperator"]

OPTION_FIELDS = (
    "list_name",
    "email_count",
    "email_signature",
    "signature_id",
    "additional_details",
    "approved_ctas",
    "enrichment_enabled",
    "notification_email",
)


class GenerateOperator(PurchasingOperator):
    """What buying one lead and buying many have in common."""

    operator_extra_links = (MachFiveCampaignLink(),)
    ui_color = "#fdf1e3"
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "leads": "json",
        "lead": "json",
        "options": "json",
        "approved_ctas": "json",
    }

    def __init__(
        self,
        *,
        campaign_id: str | None = None,
        campaign_name: str | None = None,
        list_name: str | None = None,
        email_count: int | None = None,
        email_signature: str | None = None,
        signature_id: str | None = None,
        additional_details: str | None = None,
        approved_ctas: Sequence[str] | str | None = None,
        enrichment_enabled: bool | None = None,
        options: Mapping[str, Any] | None = None,
        on_existing_list: str = "adopt",
        max_resubmissions: int = 1,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 20,
        timeout: float | timedelta = 86400,
        capacity_timeout: float | timedelta = 86400,
        machfive_conn_id: str = "machfive_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.campaign_id = campaign_id
        self.campaign_name = campaign_name
        self.list_name = list_name
        self.email_count = email_count
        self.email_signature = email_signature
        self.signature_id = signature_id
        self.additional_details = additional_details
        self.approved_ctas = approved_ctas
        self.enrichment_enabled = enrichment_enabled
        self.options = options
        self.on_existing_list = on_existing_list
        self.max_resubmissions = max_resubmissions
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.capacity_timeout = capacity_timeout
        self.machfive_conn_id = machfive_conn_id

    def check_common(self) -> None:
        """Check the parameters both operators have; raises ``ConfigurationError``."""
        from machfive_provider.leads.prepare import check_policy
        from machfive_provider.purchase.decision import EXISTING_POLICIES

        check_policy("on_existing_list", self.on_existing_list, EXISTING_POLICIES)
        if not isinstance(self.max_resubmissions, int) or self.max_resubmissions < 0:
            raise exceptions.ConfigurationError(f"max_resubmissions must be 0 or more, not {self.max_resubmissions!r}.")
        if bool(self.campaign_id) == bool(self.campaign_name):
            which = "both" if self.campaign_id else "neither"
            raise exceptions.ConfigurationError(
                f"campaign_id and campaign_name: {which} given; give exactly one of them."
            )
        seconds("poll_interval", self.poll_interval)
        seconds("timeout", self.timeout)
        seconds("capacity_timeout", self.capacity_timeout)

    def campaign(self, hook: MachFiveHook) -> str:
        """Return the campaign's id; asks the API if only its name is given."""
        from machfive_provider.api.protocol import check_uuid

        if self.campaign_id:
            return check_uuid("campaign_id", self.campaign_id)
        return hook.resolve_campaign(str(self.campaign_name)).id

    def warn_of_unknown_fields(self, source: str, prepared: PreparedLeads) -> None:
        """Name what was given and MachFive has no field for: once, whatever the number of leads."""
        if prepared.unknown_fields:
            names = ", ".join(map(repr, prepared.unknown_fields))
            self.log.warning("%s: MachFive has no fields for %s; left out.", source, names)

    def named_options(self) -> dict[str, Any]:
        """Return the options given as arguments; None means not set."""
        return {name: getattr(self, name, None) for name in OPTION_FIELDS}
