"""Parquet, behind the extra ``parquet``: rows of emails in row groups of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from machfive_provider.delivery.destination import Writer
from machfive_provider.delivery.shapes import EmailRow
from machfive_provider.exceptions import ConfigurationError

__all__ = ["load_pyarrow", "write_parquet"]

# Of text in a row group, whose rows are in memory until it is written; some 5,000 emails.
_GROUP = 4 * 1024 * 1024
_ROW = 200  # bytes that Python takes for a row beside its texts


def load_pyarrow() -> Any:
    """Import pyarrow and return it.

    :raises ConfigurationError: if that fails
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigurationError(
            f"pyarrow, which writes parquet, cannot be imported ({error}). Install "
            "'airflow-provider-machfive[parquet]' on the workers, or choose another export_format."
        ) from error
    return pyarrow


def write_parquet(rows: Iterable[EmailRow], writer: Writer) -> None:
    """Write rows in groups, so that no more than one group is in memory.

    :raises ConfigurationError: if pyarrow cannot be imported
    """
    pyarrow = load_pyarrow()
    numbers = {"position": pyarrow.int64(), "step": pyarrow.int32()}
    schema = pyarrow.schema([pyarrow.field(name, numbers.get(name, pyarrow.string())) for name in EmailRow._fields])
    sink = _Sink(writer.write)
    out = pyarrow.parquet.ParquetWriter(sink, schema)
    try:
        for group in _groups(rows):
            out.write_table(pyarrow.table([*zip(*group, strict=True)], schema=schema), row_group_size=len(group))
    except BaseException:
        sink.write = _ignore  # the writer writes an ending when it is closed or forgotten
        raise
    finally:
        out.close()


class _Sink:
    """The file that pyarrow writes to."""

    closed = False

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self.write = write

    def flush(self) -> None:
        pass


def _ignore(_: bytes) -> None:
    pass


def _groups(rows: Iterable[EmailRow]) -> Iterator[list[EmailRow]]:
    group: list[EmailRow] = []
    size = 0
    for row in rows:
        group.append(row)
        size += _ROW + sum(len(cell) for cell in row if isinstance(cell, str))
        if size >= _GROUP:
            yield group
            group.clear()  # the caller still holds it
            size = 0
    if group:
        yield group
