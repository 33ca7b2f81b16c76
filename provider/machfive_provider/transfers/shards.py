"""The shards of a run: files of leads that a query has returned, kept so that a retry reads the same people.

They are ``<leads_folder>/<dag>/<task>/<run>/[<map index>/]<time>/leads-00001.jsonl``. Beside them ``manifest.json`` is
written last: shards without it were left by a killed try and are never read.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import ObjectStoragePath

from machfive_provider.api.models import Lead
from machfive_provider.delivery.destination import Destination
from machfive_provider.exceptions import ConfigurationError
from machfive_provider.formatting import absolute, kind_of

__all__ = ["Shards", "folder_name"]

_LONGEST_NAME = 150  # characters; file systems take 255 bytes
_STAMP = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
_MANIFEST = "manifest.json"


def folder_name(name: str) -> str:
    """Return an id of Airflow as the name of a folder: run ids hold colons and plus signs, and custom ones anything.

    Different ids have different names. ``=`` takes the place of the ``%`` of URLs, which some stores decode.
    """
    quoted = quote(name, safe="").replace("~", "%7E").replace("%", "=")
    quoted = f"=2E{quoted[1:]}" if quoted.startswith(".") else quoted
    if len(quoted) <= _LONGEST_NAME:
        return quoted
    return f"{quoted[:_LONGEST_NAME]}={blake2b(name.encode(), digest_size=8).hexdigest()}"


class Shards:
    """The shards of one task instance.

    :param leads_folder: path or URL that ObjectStoragePath reaches
    :param ti: the task instance
    :raises ConfigurationError: if the folder is no path, or its file system is not installed or configured
    """

    def __init__(self, leads_folder: Any, ti: Any) -> None:
        if not isinstance(leads_folder, str) or not leads_folder.strip():
            raise ConfigurationError(f"leads_folder must be a path or URL, not {kind_of(leads_folder)}.")
        self._of_task = "/".join(
            (absolute(leads_folder.strip()).rstrip("/"), folder_name(ti.dag_id), folder_name(ti.task_id))
        )
        self._run = folder_name(ti.run_id)
        self._mine = self._run if ti.map_index < 0 else f"{self._run}/{ti.map_index}"
        self._given = leads_folder
        try:
            path = ObjectStoragePath(self._of_task)
            self._fs, self._root = path.fs, path.path
        except Exception as error:
            raise self._unusable(error) from error

    def read_manifest(self) -> dict[str, Any] | None:
        """Return the manifest of the shards that this task instance wrote last, None if there is none.

        :raises ConfigurationError: if the folder cannot be read
        """
        try:
            names = [name.split("/") for name in self._files(self._mine)]
            stamps = [parts[0] for parts in names if parts[1:] == [_MANIFEST] and _STAMP.fullmatch(parts[0])]
            if not stamps:
                return None
            content = self._fs.cat_file(f"{self._root}/{self._mine}/{max(stamps)}/{_MANIFEST}")
            found: dict[str, Any] = json.loads(content)
        except Exception as error:
            raise self._unusable(error) from error
        return found

    def write(self, leads: Sequence[Lead], size: int, facts: dict[str, Any]) -> dict[str, Any]:
        """Write leads as shards, then the manifest; return it.

        :param size: leads in each shard
        :param facts: what else the manifest tells, as plain JSON
        :raises ConfigurationError: if the folder cannot be written to
        """
        folder = f"{self._of_task}/{self._mine}/{_stamp(time.time())}"
        paths = []
        try:
            for number, begin in enumerate(range(0, len(leads), size), 1):
                paths.append(f"{folder}/leads-{number:05}.jsonl")
                _write(paths[-1], map(_as_line, leads[begin : begin + size]))
            manifest = {**facts, "paths": paths}
            _write(f"{folder}/{_MANIFEST}", [json.dumps(manifest).encode()])
        except OSError as error:
            raise self._unusable(error) from error
        return manifest

    def remove_older(self, seconds: float) -> list[str]:
        """Remove the folders of this task's other runs in which nothing has been written for so long; return them."""
        newest: dict[str, str] = {}
        for name in self._files():
            parts = name.split("/")
            if len(parts) in (3, 4) and _STAMP.fullmatch(parts[-2]):
                newest[parts[0]] = max(newest.get(parts[0], ""), parts[-2])
        limit = _stamp(time.time() - seconds)
        old = [f"{self._root}/{run}" for run, stamp in newest.items() if run != self._run and stamp < limit]
        for folder in old:
            self._fs.rm(folder, recursive=True)
        return old

    def _files(self, folder: str = "") -> Iterator[str]:
        """Yield the files below a folder of the task, by their names from there."""
        root = f"{self._root}/{folder}".strip("/") + "/"
        self._fs.invalidate_cache()
        for found in self._fs.find(f"{self._root}/{folder}".rstrip("/")):
            if (name := found.lstrip("/")).startswith(root):
                yield name.removeprefix(root)

    def _unusable(self, error: Exception) -> ConfigurationError:
        return ConfigurationError(
            f"leads_folder {self._given!r} cannot be used ({type(error).__name__}: {error}). Check the path, the "
            "permissions, the connection it names and that its file system's package is installed."
        )


def _stamp(moment: float) -> str:
    """Write epoch seconds so that the texts sort as the times do."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def _write(url: str, lines: Iterable[bytes]) -> None:
    with Destination(url).open() as writer:
        for line in lines:
            writer.write(line)


def _as_line(lead: Lead) -> bytes:
    return json.dumps(lead.to_json(), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
