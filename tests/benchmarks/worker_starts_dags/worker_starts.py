"""The same wait three ways: the sensor mapped, the sensor started in the triggerer, and a task that resumes."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator
from airflow.sdk import DAG

from machfive_provider.sensors.lead_list import MachFiveListSensor

LISTS: dict[str, list[str]] = json.loads(os.environ["MACHFIVE_BENCH"])
INTERVAL = 5


class Usual(BaseOperator):
    """Airflow's usual deferral: a worker hands over to the trigger, and a worker takes its event."""

    def __init__(self, list_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.list_id = list_id

    def execute(self, context: Any) -> None:
        from machfive_provider.triggers.lead_list import MachFiveListTrigger

        now = time.time()
        trigger = MachFiveListTrigger([self.list_id], "machfive_default", INTERVAL, now, now + 3600)
        self.defer(trigger=trigger, method_name="finish")

    def finish(self, context: Any, event: Any) -> None:
        assert event["status"] == "ended"


with DAG("bench_usual", schedule=None):
    Usual.partial(task_id="wait", retries=0).expand(list_id=LISTS["usual"])

with DAG("bench_deferrable", schedule=None):
    MachFiveListSensor.partial(task_id="wait", deferrable=True, poke_interval=INTERVAL, retries=0).expand(
        list_id=LISTS["deferrable"]
    )

with DAG("bench_from_trigger", schedule=None, params={"lists": LISTS["from_trigger"]}):
    for number, list_id in enumerate(LISTS["from_trigger"]):
        MachFiveListSensor(
            task_id=f"wait_{number}",
            # Half of them plain, half of them rendered in the triggerer.
            list_id=list_id if number % 2 else f"{{{{ params.lists[{number}] }}}}",
            start_from_trigger=True,
            poke_interval=INTERVAL,
            retries=0,
        )
