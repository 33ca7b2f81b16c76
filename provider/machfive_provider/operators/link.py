"""The button on a task instance that leads to its campaign in the MachFive app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context, TaskInstanceKey

__all__ = ["MachFiveCampaignLink"]


class MachFiveCampaignLink(BaseOperatorLink):
    """Links a task instance to its campaign.

    The address is stored as soon as the campaign is known, so the button works while the task is deferred.
    """

    name = "MachFive campaign"

    @classmethod
    def store(cls, context: Context, base_url: str, campaign_id: str) -> None:
        """Store the link of this task instance under the key from which the UI reads it."""
        context["ti"].xcom_push(key=cls().xcom_key, value=f"{base_url}/campaigns/{campaign_id}")

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        """Return the stored link, an empty text if there is none yet."""
        # Loaded by the UI's and the worker's processes, not by a DAG file.
        from airflow.providers.common.compat.sdk import XCom

        link: Any = XCom.get_value(ti_key=ti_key, key=self.xcom_key)
        return str(link or "")
