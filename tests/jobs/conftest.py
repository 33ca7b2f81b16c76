"""A real Airflow with the DAGs of the documentation for its five jobs, which sends mails, metrics and spans."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from airflow import __version__ as airflow_version
from packaging.version import Version
from sqlalchemy import text
from sqlalchemy.engine import Engine

from machfive_provider.api import protocol
from machfive_provider.api.client import MachFiveClient
from machfive_provider.api.client_settings import ClientSettings
from machfive_provider.api.models import Lead
from machfive_provider.sandbox import Sandbox, SandboxSettings
from scripts.live_airflow import LiveAirflow
from tests.database_servers import postgres_engine
from tests.docs.pages import DAGS, blocks, write_dags
from tests.jobs.mail_sink import MailSink, running_sink
from tests.telemetry.receivers import Collector, StatsdServer, collector, statsd_server

EXAMPLES = Path(__file__).parents[2] / "example_dags"
MAIL_DAG = "machfive_notifications"
TELEMETRY_DAG = "telemetry"


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SandboxSettings(processing_seconds=5, concurrency=20)) as running:
        yield running


@pytest.fixture(scope="session")
def warehouse() -> Iterator[Engine | None]:
    """Make the database of docs/warehouse.md, whose people came yesterday, because a run is of the day before."""
    with postgres_engine() as engine:
        if engine:
            with engine.begin() as crm:
                crm.exec_driver_sql(blocks("docs/warehouse.md", "sql")[0].text)
                crm.execute(text("UPDATE contacts SET created_at = created_at - interval '1 day'"))
        yield engine


@pytest.fixture(scope="session")
def mails() -> Iterator[MailSink]:
    with running_sink() as sink:
        yield sink


@pytest.fixture(scope="session")
def statsd() -> Iterator[StatsdServer]:
    with statsd_server() as server:
        yield server


@pytest.fixture(scope="session")
def traces() -> Iterator[Collector]:
    with collector() as server:
        yield server


@pytest.fixture(scope="session")
def monitoring(statsd: StatsdServer, traces: Collector) -> dict[str, str]:
    """Return the environment that makes Airflow send metrics with tags, and spans where its tasks have them."""
    metrics = {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(statsd.port),
        "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
    }
    if Version(airflow_version).release < (3, 2):
        return metrics
    return metrics | {
        "AIRFLOW__TRACES__OTEL_ON": "True",
        "OTEL_TRACES_EXPORTER": "otlp_proto_http",
        "OTEL_EXPORTER_OTLP_ENDPOINT": traces.url,
    }


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that stands in place of /data, with the leads of docs/file.md."""
    folder = tmp_path_factory.mktemp("data")
    (csv,) = blocks("docs/file.md", "csv")
    (folder / "leads.csv").write_text(csv.text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def known_list(sandbox: Sandbox) -> str:
    """Buy a list that exists when the DAGs are parsed."""
    with closing(MachFiveClient(ClientSettings(sandbox.base_url, sandbox.api_key))) as client:
        call = protocol.generate_batch(sandbox.campaign_id, [Lead("known@example.com")], None)
        return client.send(call).list_id


@pytest.fixture(scope="session")
def live(
    sandbox: Sandbox,
    data: Path,
    warehouse: Engine | None,
    mails: MailSink,
    monitoring: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LiveAirflow]:
    machfive = json.dumps({"conn_type": "machfive", "host": sandbox.base_url, "password": sandbox.api_key})
    # Loopback, so without TLS.
    without_tls = {"disable_ssl": True, "disable_tls": True}
    smtp = {"conn_type": "smtp", "host": "127.0.0.1", "port": mails.port, "extra": without_tls}
    env = monitoring | {
        "AIRFLOW_CONN_MACHFIVE_DEFAULT": machfive,
        "AIRFLOW_CONN_MACHFIVE_TELEMETRY": machfive,
        "AIRFLOW_CONN_SMTP_DEFAULT": json.dumps(smtp),
        "MACHFIVE_RESULTS": str(data),
    }
    if warehouse:
        server = {"host": warehouse.url.host, "port": warehouse.url.port, "login": "airflow", "schema": "postgres"}
        env["AIRFLOW_CONN_WAREHOUSE"] = json.dumps({"conn_type": "postgres", **server})
    dags = tmp_path_factory.mktemp("dags")
    write_dags(dags, data)
    shutil.copy(EXAMPLES / f"{MAIL_DAG}.py", dags)
    shutil.copytree(EXAMPLES / "data", dags / "data")
    airflow = LiveAirflow(
        tmp_path_factory.mktemp("airflow"),
        [Path(__file__).parent / "dags", dags],
        wanted=(*DAGS, MAIL_DAG, TELEMETRY_DAG),
        env=env,
    )
    with airflow:
        yield airflow
