"""The same from Airflow's own parts: COPY to CSV, HttpOperator, HttpSensor, download and COPY.

As its user would, having read their docs: the bodies lie in files, so that XComs stay small; a full workspace is met by
retries, a batch's time apart; the sensor asks as often as MachFive wants to be asked.
"""

from __future__ import annotations

import csv
import json
import os
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from airflow.providers.http.hooks.http import HttpHook
from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.providers.postgres.hooks.postgres import PostgresHook
from airflow.sdk import DAG, get_current_context, task, task_group

BENCH = json.loads(os.environ["MACHFIVE_BENCH"])
OPTIONS = {"email_count": 3, "email_signature": "Alex Morgan"}
QUERY = """
COPY (
    SELECT email, full_name AS name, job_title AS title, company FROM contacts
    WHERE NOT EXISTS (SELECT FROM {table} AS emails WHERE emails.email = contacts.email) ORDER BY email
) TO STDOUT WITH (FORMAT csv, HEADER)
"""


@task
def query_to_files(table: str) -> list[str]:
    """Write the CSV, then the body of a request for each batch."""
    folder = Path(BENCH["folder"]) / get_current_context()["run_id"]
    folder.mkdir()
    people, paths = folder / "people.csv", []
    PostgresHook("warehouse").copy_expert(QUERY.format(table=table), str(people))
    with people.open(newline="") as file:
        rows = csv.DictReader(file)
        while leads := list(islice(rows, BENCH["batch_size"])):
            path = folder / f"{len(paths)}.json"
            path.write_text(json.dumps({"leads": leads, "options": OPTIONS}))
            paths.append(str(path))
    return paths


@task
def save(list_id: str, connection: str, table: str) -> None:
    """Replace the rows of a list."""
    response = HttpHook("GET", http_conn_id=connection).run(f"api/v1/lists/{list_id}/export", {"format": "json"})
    now = datetime.now(UTC).isoformat()
    rows = Path(BENCH["folder"]) / f"{list_id}.csv"
    with rows.open("w", newline="") as file:
        writer = csv.writer(file)
        for lead in response.json()["leads"]:
            known = [lead.get(name) for name in ("name", "company", "title")]
            for each in lead["sequence"]:
                writer.writerow([list_id, lead["email"], each["step"], each["subject"], each["body"], *known, now])
    database = PostgresHook("warehouse")
    database.run(f"DELETE FROM {table} WHERE list_id = %s", parameters=[list_id])
    database.copy_expert(f"COPY {table} FROM STDIN WITH (FORMAT csv)", str(rows))


def content(path: str) -> str:
    """Return the body of a request, for the template."""
    return Path(path).read_text()


for mode in ("poke", "reschedule"):
    table, connection = f"emails_{mode}", f"http_{mode}"
    with DAG(
        f"bench_{mode}",
        schedule=None,
        user_defined_macros={"content": content},
        default_args={"pool": BENCH["pool"]},
    ):

        @task_group
        def batch(path: str, mode: str, table: str, connection: str) -> None:
            buy = HttpOperator(
                task_id="buy",
                http_conn_id=connection,
                method="POST",
                endpoint=f"api/v1/campaigns/{BENCH['campaigns'][mode]}/generate-batch",
                data="{{ content(ti.xcom_pull(task_ids='query_to_files')[ti.map_index]) }}",
                headers={"Content-Type": "application/json"},
                response_filter=lambda response: response.json()["list_id"],
                retries=100,
                retry_delay=timedelta(seconds=BENCH["seconds"]),
            )
            wait = HttpSensor(
                task_id="wait",
                http_conn_id=connection,
                endpoint="api/v1/lists/{{ ti.xcom_pull(task_ids='batch.buy', map_indexes=ti.map_index) }}",
                response_check=lambda response: response.json()["processing_status"] == "completed",
                poke_interval=BENCH["interval"],
                mode=mode,
                pool="default_pool",  # or the waiting ones would leave no slot to the others
            )
            buy >> wait >> save(buy.output, connection, table)

        batch.partial(mode=mode, table=table, connection=connection).expand(path=query_to_files(table))
