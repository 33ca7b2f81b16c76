"""Runs gcp-storage-emulator with the one response of Google's that it lacks: to a DELETE, which cancels an upload."""

import sys
from types import SimpleNamespace
from typing import Any

from gcp_storage_emulator.__main__ import main
from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.server import HANDLERS


def cancel(request: Any, response: Any, storage: Any) -> None:
    """Forget an upload; 499 is the status of an upload that was cancelled (Google's page "Resumable uploads")."""
    del storage.resumable[request.query["upload_id"][0]]
    response.status = SimpleNamespace(value=499, phrase="Client Closed Request")


for _, methods in HANDLERS:
    if objects.upload_partial in methods.values():
        methods["DELETE"] = cancel

if __name__ == "__main__":
    main(sys.argv[1:])
