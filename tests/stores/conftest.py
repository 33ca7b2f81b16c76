"""Object stores on this machine, each reached by an Airflow connection, as a DAG reaches it.

S3 is moto's server, Google Cloud Storage is gcp-storage-emulator, Azure is Microsoft's azurite. ``make test-stores``
installs them; without them the tests are skipped.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

BUCKET = "crm"
_FOLDERS = count(1)
# Read when gcsfs is imported. Else gcsfs asks for the type of each bucket by gRPC, which the emulator does not speak.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
# The account that azurite makes for everybody (its documentation, "Default storage account").
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass
class Server:
    """A running store.

    :param kind: s3, gcs or azure
    :param root: the start of a URL, with a connection
    :param connection: name and content of that Airflow connection
    :param environment: the variables by which the store is found without a connection
    :param fs: a file system of its own, without a cache of listings: it sees what is really there
    """

    kind: str
    root: str
    connection: tuple[str, dict[str, Any]]
    environment: dict[str, str]
    fs: Any


class Store:
    """One folder of a bucket, for one test."""

    def __init__(self, server: Server, folder: str) -> None:
        self.kind, self._fs, self._folder = server.kind, server.fs, f"{BUCKET}/{folder}"
        self.folder = f"{server.root}{self._folder}"
        self.without_connection = f"{server.root.partition('://')[0]}://{self._folder}"

    def url(self, name: str) -> str:
        """Return the URL that an operator is given."""
        return f"{self.folder}/{name}"

    def put(self, name: str, data: bytes | str) -> str:
        """Put an object there, by another client than Airflow's; return its URL."""
        self._fs.pipe_file(f"{self._folder}/{name}", data.encode() if isinstance(data, str) else data)
        return self.url(name)

    def names(self) -> list[str]:
        """Return the names of the objects in the folder."""
        self._fs.invalidate_cache()
        found = self._fs.find(self._folder) if self._fs.exists(self._folder) else []
        return sorted(each.strip("/").removeprefix(f"{self._folder}/") for each in found)

    def read(self, name: str) -> bytes | None:
        """Return an object's content, None if there is none."""
        return self._fs.cat_file(f"{self._folder}/{name}") if name in self.names() else None

    def open_uploads(self) -> int | None:
        """Return how many uploads have been begun and neither completed nor aborted; None if the store cannot tell."""
        if self.kind != "s3":
            return None
        listed = self._fs.call_s3("list_multipart_uploads", Bucket=BUCKET).get("Uploads", [])
        return sum(f"{BUCKET}/{each['Key']}".startswith(f"{self._folder}/") for each in listed)


@pytest.fixture(scope="session", params=["s3", "gcs", "azure"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run each of the stores in turn."""
    with (
        _SERVERS[request.param](tmp_path_factory.mktemp(request.param)) as running,
        pytest.MonkeyPatch.context() as set_,
    ):
        name, fields = running.connection
        set_.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(fields))
        for each in running.environment.items():
            set_.setenv(*each)
        yield running


@pytest.fixture
def store(server: Server) -> Store:
    """Give an empty folder of a bucket."""
    return Store(server, f"folder-{next(_FOLDERS)}")


@contextmanager
def _s3(home: Path) -> Iterator[Server]:
    _need("s3", "moto.server", "s3fs", "airflow.providers.amazon.aws.fs.s3")
    import s3fs

    port = _free_port()
    with _running([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], home):
        url = _answering(port)
        keys = {"login": "key", "password": "secret"}
        fs = s3fs.S3FileSystem(
            key="key", secret="secret", endpoint_url=url, use_listings_cache=False, skip_instance_cache=True
        )
        fs.mkdir(BUCKET)
        extra = {"endpoint_url": url, "region_name": "us-east-1"}
        connection = {"conn_type": "aws", **keys, "extra": extra}
        found = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        yield Server("s3", "s3://store_s3@", ("store_s3", connection), found, fs)


@contextmanager
def _gcs(home: Path) -> Iterator[Server]:
    _need("gcs", "gcp_storage_emulator", "gcsfs", "airflow.providers.google.cloud.fs.gcs")
    import gcsfs

    port = _free_port()
    options = ["--host=127.0.0.1", f"--port={port}", "--in-memory", f"--default-bucket={BUCKET}"]
    with _running([sys.executable, "-m", "tests.stores.gcs_emulator", "start", *options], home):
        url = _answering(port)
        fs = gcsfs.GCSFileSystem(
            project="test", token="anon", endpoint_url=url, use_listings_cache=False, skip_instance_cache=True
        )
        extra = {"project": "test", "is_anonymous": True, "gcs.endpoint": url}
        connection = {"conn_type": "google_cloud_platform", "extra": extra}
        yield Server("gcs", "gs://store_gcs@", ("store_gcs", connection), {"STORAGE_EMULATOR_HOST": url}, fs)


@contextmanager
def _azure(home: Path) -> Iterator[Server]:
    _need("azure", "adlfs", "airflow.providers.microsoft.azure.fs.adls")
    import adlfs

    azurite = shutil.which("azurite-blob")
    if not azurite:
        _skip("azure", "azurite is not installed, which needs npm")
    port = _free_port()
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--skipApiVersionCheck"]
    with _running([azurite, *options, "--disableTelemetry"], home):
        url = _answering(port)
        text = f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={_KEY};BlobEndpoint={url}/{_ACCOUNT};"
        fs = adlfs.AzureBlobFileSystem(connection_string=text, use_listings_cache=False, skip_instance_cache=True)
        fs.mkdir(BUCKET)
        connection = {"conn_type": "wasb", "extra": {"connection_string": text}}
        found = {"AZURE_STORAGE_CONNECTION_STRING": text}
        yield Server("azure", "abfs://store_azure@", ("store_azure", connection), found, fs)


_SERVERS = {"s3": _s3, "gcs": _gcs, "azure": _azure}


def _need(kind: str, *modules: str) -> None:
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            _skip(kind, f"{error.name} is not installed")


def _skip(kind: str, why: str) -> None:
    assert kind not in os.environ.get("NEEDED_STORES", "").split(), why  # set by make test-stores
    pytest.skip(f"{why}: see make test-stores")


def child_environment() -> dict[str, str]:
    """Return the environment of a process that imports what this one can."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def _running(command: list[str], home: Path) -> Iterator[None]:
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=home, stdout=log, stderr=log, env=child_environment())
        try:
            yield
        finally:
            process.kill()
            process.wait()


def _answering(port: int) -> str:
    """Return the URL of a server once it accepts connections."""
    for _ in range(300):
        try:
            with socket.create_connection(("127.0.0.1", port)):
                return f"http://127.0.0.1:{port}"
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise TimeoutError(f"no server at port {port}")
