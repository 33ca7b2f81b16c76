"""Reads the addresses of people who have a sequence in earlier results: exports in any of the formats."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from machfive_provider.api.models import usable_emails
from machfive_provider.delivery.destination import MISSING_LEADS
from machfive_provider.delivery.export import BOM, TEXT_HEADERS, column_of_addresses, iter_leads, lines_of
from machfive_provider.exceptions import ConfigurationError
from machfive_provider.formatting import absolute, kind_of

__all__ = ["find_results", "written_addresses"]

_CHUNK = 65536  # bytes
_READERS = (".csv", ".json", ".jsonl", ".parquet")


def find_results(results: Any, own: str | None = None) -> list[str]:
    """Return the files of earlier results that exist.

    :param results: a path, a pattern with ``*``, or several; what does not exist is left out: the first run has none
    :param own: the task's own destination, which is never an earlier result
    :raises ConfigurationError: for anything else, and for a file whose ending is no format of an export
    """
    listed = [results] if isinstance(results, str) else results
    if not isinstance(listed, Sequence) or not all(isinstance(each, str) and each.strip() for each in listed):
        raise ConfigurationError(
            f"skip_already_written must be a path, a pattern, or a list of them, not {kind_of(results)}."
        )
    found = {path: None for each in listed for path in _matching(each.strip())}
    mine = str(_path(own)) if own else None
    return [path for path in found if path != mine and not path.endswith(MISSING_LEADS)]


def written_addresses(paths: Iterable[str]) -> Iterator[str]:
    """Yield the address of each lead that has a usable email in one of these files; some may come several times.

    :raises ConfigurationError: if a file cannot be read: without it people would be bought again
    """
    for path in paths:
        try:
            yield from _addresses(path)
        except Exception as error:
            raise ConfigurationError(
                f"skip_already_written: {path!r} cannot be read ({type(error).__name__}: {error}). Nothing was sent, "
                "because its people would be paid for again. Correct or move the file."
            ) from error


def _path(path: str) -> Any:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    return ObjectStoragePath(absolute(path))


def _fresh(path: str) -> Any:
    """Return a path whose file systems forget their listings, which hide results written since."""
    found = _path(path)
    # Without a connection ObjectStoragePath lists by another file system than its `fs` (airflow/sdk/io/path.py, 3.3.2).
    for fs in (found.fs, getattr(found, "__wrapped__", found).fs):
        fs.invalidate_cache()
    return found


def _matching(pattern: str) -> Iterator[str]:
    if not pattern.lower().endswith(_READERS):
        raise ConfigurationError(
            f"skip_already_written {pattern!r} has no ending of an export: use one of {', '.join(_READERS)}."
        )
    try:
        base, star, rest = pattern.partition("*")
        if not star:
            yield from (str(each) for each in (_fresh(pattern),) if each.is_file())
            return
        folder, slash, begun = base.rpartition("/")
        root = _fresh(folder + slash or ".")
        at = root.path.rstrip("/")
        # Not by the path's own glob and joins: in Airflow 3.1 they raise deprecation warnings.
        found = root.fs.glob(f"{at}/{begun}{star}{rest}", detail=True)
        names = sorted(name for name, about in found.items() if about["type"] != "directory")
        below = (name.lstrip("/").removeprefix(at.lstrip("/")).lstrip("/") for name in names)
        yield from (f"{str(root).rstrip('/')}/{each}" for each in below)
    except Exception as error:
        raise ConfigurationError(
            f"skip_already_written {pattern!r} cannot be looked up ({type(error).__name__}: {error}). Nothing was sent."
        ) from error


def _addresses(path: str) -> Iterator[str]:
    with _path(path).open("rb") as file:
        if path.lower().endswith(".parquet"):
            yield from _of_parquet(file)
            return
        chunks = iter(lambda: file.read(_CHUNK), b"")
        if path.lower().endswith(".csv"):
            yield from _of_csv(chunks)
        elif path.lower().endswith(".json"):
            yield from _of_leads(iter_leads(chunks))
        else:
            yield from _of_leads(json.loads(line) for line in lines_of(chunks) if line.strip())


def _of_leads(leads: Iterable[Any]) -> Iterator[str]:
    for lead in leads:
        if isinstance(lead, dict) and isinstance(lead.get("email"), str):
            # A flat line has subject_1, body_1 and so on in place of a sequence.
            flat = [str(lead[name] or "") for name in lead if name.startswith(("subject_", "body_"))]
            if usable_emails(lead.get("sequence")) or any(map(str.strip, flat)):
                yield lead["email"]


def _of_csv(chunks: Iterable[bytes]) -> Iterator[str]:
    """Yield the addresses of rows with a text; the columns of MachFive's CSV are undocumented."""
    rows = csv.reader(lines_of(chunks))
    header = [cell.removeprefix(BOM).strip().casefold() for cell in next(rows, [])]
    texts = [index for index, cell in enumerate(header) if any(each in cell for each in TEXT_HEADERS)]
    column = None
    for row in filter(None, rows):
        column = column_of_addresses(header, row) if column is None else column
        if column is not None and len(row) > column and row[column].strip():
            written = [row[index].strip() for index in texts if index < len(row)]
            if not texts or any(written):
                yield row[column]


def _of_parquet(file: Any) -> Iterator[str]:
    from pyarrow.parquet import ParquetFile

    for batch in ParquetFile(file).iter_batches(columns=["email", "subject", "body"]):
        for row in batch.to_pylist():
            if row["email"] and (row["subject"] or row["body"]):
                yield row["email"]
