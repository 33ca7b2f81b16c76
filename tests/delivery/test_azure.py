"""Azure: adlfs discards nothing, and an aborted write must leave no blob behind all the same.

Runs where azurite, Microsoft's stand-in for Azure Storage, and adlfs are installed: ``make test-azure`` installs both.
"""

from __future__ import annotations

import gc
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.sdk.io import attach

from machfive_provider.delivery.destination import Destination

adlfs = pytest.importorskip("adlfs", reason="adlfs is not installed: see make test-azure")
AZURITE = shutil.which("azurite-blob")
pytestmark = pytest.mark.skipif(not AZURITE, reason="azurite is not installed: see make test-azure")

# The account that azurite makes for everybody (its documentation, "Default storage account").
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
BLOCK = 2**20  # adlfs sends so many bytes at once


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Run azurite and attach its blobs as ``abfs://``."""
    command = [AZURITE, "--blobPort", "0", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    home = tmp_path_factory.mktemp("azurite")
    process = subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, text=True)
    try:
        # Its first line names port 0, the one after it says where it listens.
        found = (re.search(r"http://127\.0\.0\.1:[1-9]\d*", line) for line in process.stdout)
        url = next(match[0] for match in found if match)
        text = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={url}/{ACCOUNT};"
        fs = adlfs.AzureBlobFileSystem(connection_string=text, blocksize=BLOCK, skip_instance_cache=True)
        fs.mkdir("crm")
        attach(protocol="abfs", fs=fs)
        yield fs
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def content(store: Any, path: str) -> bytes | None:
    store.invalidate_cache()
    assert store.exists(path) == (path in store.find("crm"))
    return store.cat(path) if store.exists(path) else None


def break_off(url: str, size: int, error: type[BaseException]) -> None:
    with Destination(url).open() as writer:
        writer.write(b"x" * size)
        raise error


@pytest.mark.parametrize("before", [None, b"before"], ids=["new", "existing"])
@pytest.mark.parametrize("size", [1, 3 * BLOCK], ids=["small", "large"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_aborted_write_commits_nothing(store: Any, before: bytes | None, size: int, error: type[BaseException]):
    path = f"crm/{error.__name__}-{size}-{before is None}.csv"
    url = f"abfs://{path}"
    if before:
        with Destination(url).open() as writer:
            writer.write(before)
    with pytest.raises(error):
        break_off(url, size, error)
    # A forgotten upload is closed at the latest when the process ends, which would commit it or wait for ever.
    for left in [each for each in gc.get_objects() if isinstance(each, adlfs.AzureBlobFile)]:
        left.close()
    assert content(store, path) == before
    with Destination(url).open() as writer:
        writer.write(b"whole")
    assert content(store, path) == b"whole"
