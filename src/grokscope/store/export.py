"""A trace as a table for other programs: one row per reading."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from typing import BinaryIO

from grokscope.errors import MissingResource, unknown
from grokscope.store.records import Reading
from grokscope.store.trace import Trace

FORMATS = ("csv", "jsonl", "parquet")
COLUMNS = ("step", "measure", "subject", "value", "note")


def export_readings(trace: Trace, format: str, stream: BinaryIO) -> None:
    """Write every reading of ``trace``, in the order of steps.

    Within a step the order is that in which the series began. Every number comes back exactly.
    The columns are ``step, measure, subject, value, note``. A missing value is null in JSON, an
    empty field in CSV and NaN in Parquet. JSON has no infinity either: it becomes null, and the
    note begins with ``inf`` or ``-inf``.

    Args:
        trace: The run's readings; its arrays are not exported.
        format: ``"jsonl"`` (one object a line), ``"csv"`` (with a header) or ``"parquet"``.
        stream: Where to, opened for bytes (``sys.stdout.buffer``); text is UTF-8.

    Raises:
        UsageError: A format that is not known.
        MissingResource: Parquet without pyarrow.
    """
    if format == "jsonl":
        for reading in _readings(trace):
            stream.write(_json_line(reading))
    elif format == "csv":
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        try:
            rows = csv.writer(text, lineterminator="\n")
            rows.writerow(COLUMNS)
            rows.writerows(
                (r.step, r.measure, r.subject, "" if math.isnan(r.value) else r.value, r.note)
                for r in _readings(trace)
            )
        finally:
            text.detach()  # or the wrapper would close the caller's stream
    elif format == "parquet":
        _write_parquet(trace, stream)
    else:
        raise unknown("format", format, FORMATS)


def _readings(trace: Trace) -> Iterator[Reading]:
    rows = [
        (step, order, Reading(step, measure, subject, value, note))
        for order, (measure, subject) in enumerate(trace.keys())
        for series in [trace.series(measure, subject)]
        for step, value, note in zip(
            series.steps.tolist(), series.values.tolist(), series.notes, strict=True
        )
    ]
    rows.sort(key=lambda row: row[:2])
    return (row[2] for row in rows)


def _json_line(reading: Reading) -> bytes:
    value: float | None = reading.value
    note = reading.note
    if not math.isfinite(reading.value):
        value = None
    if math.isinf(reading.value):
        note = f"{reading.value}; {note}" if note else str(reading.value)
    row = dict(
        zip(COLUMNS, (reading.step, reading.measure, reading.subject, value, note), strict=True)
    )
    return json.dumps(row).encode() + b"\n"


def _write_parquet(trace: Trace, stream: BinaryIO) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingResource(
            "Export to Parquet needs pyarrow: pip install 'grokscope[parquet]'. Or export as csv "
            "or jsonl."
        ) from error
    names = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    types = (pyarrow.int64(), names, names, pyarrow.float64(), pyarrow.string())
    readings = list(_readings(trace))
    columns = [
        pyarrow.array([getattr(reading, name) for reading in readings], kind)
        for name, kind in zip(COLUMNS, types, strict=True)
    ]
    table = pyarrow.Table.from_arrays(columns, names=list(COLUMNS))
    pyarrow.parquet.write_table(table, stream, compression="zstd")
