"""Exports hold every reading once, in order, as other programs read it."""

import csv
import io
import json
import math
import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grokscope.errors import MissingResource, UsageError
from grokscope.store.export import export_readings
from grokscope.store.records import ArrayReading, Reading
from grokscope.store.trace import Trace

READINGS = [
    Reading(0, "loss", "train", 0.1 + 0.2),
    Reading(0, "htsr.alpha", "fc1", math.nan, 'tail, of 3\nand "more"'),
    Reading(10, "loss", "train", -0.0),
    Reading(10, "late", "größe", math.inf, "overflow"),
    Reading(10, "early", "x", -math.inf),
    Reading(5, "rare", "model", 1e-300),
]
ORDER = [0, 1, 5, 2, 3, 4]  # by step; within a step as the series began


def make(readings=READINGS):
    trace = Trace()
    trace.add(readings)
    trace.add([ArrayReading(0, "spectrum.eigenvalues", "fc1", None)])
    return trace


def export(trace, format):
    stream = io.BytesIO()
    export_readings(trace, format, stream)
    assert not stream.closed
    return stream.getvalue()


def same(a, b):
    return (math.isnan(a) and math.isnan(b)) or struct.pack("d", a) == struct.pack("d", b)


def refuse_constant(name):
    raise AssertionError(f"{name} is not JSON")


def parse_lines(data):
    return [json.loads(line, parse_constant=refuse_constant) for line in data.split(b"\n")[:-1]]


def test_json_lines():
    rows = parse_lines(export(make(), "jsonl"))
    assert all(list(row) == ["step", "measure", "subject", "value", "note"] for row in rows)
    expected = [READINGS[i] for i in ORDER]
    assert [(r["step"], r["measure"], r["subject"]) for r in rows] == [
        (r.step, r.measure, r.subject) for r in expected
    ]
    assert [row["value"] for row in rows] == [0.1 + 0.2, None, 1e-300, -0.0, None, None]
    assert math.copysign(1, rows[3]["value"]) == -1
    assert rows[1]["note"] == READINGS[1].note
    assert [row["note"] for row in rows[4:]] == ["inf; overflow", "-inf"]
    assert export(make([]), "jsonl") == b""


def test_csv():
    data = export(make(), "csv").decode()
    assert data.startswith("step,measure,subject,value,note\n")
    assert "\r" not in data
    rows = list(csv.DictReader(io.StringIO(data, newline="")))
    for row, reading in zip(rows, [READINGS[i] for i in ORDER], strict=True):
        assert int(row["step"]) == reading.step
        assert (row["measure"], row["subject"]) == (reading.measure, reading.subject)
        assert row["note"] == reading.note
        assert same(float(row["value"] or "nan"), reading.value)
    assert rows[1]["value"] == ""
    assert export(make([]), "csv") == b"step,measure,subject,value,note\n"


def test_parquet():
    parquet = pytest.importorskip("pyarrow.parquet")
    for trace, expected in ((make(), [READINGS[i] for i in ORDER]), (make([]), [])):
        table = parquet.read_table(io.BytesIO(export(trace, "parquet")))
        assert table.column_names == ["step", "measure", "subject", "value", "note"]
        assert str(table.schema.field("step").type) == "int64"
        assert str(table.schema.field("value").type) == "double"
        rows = table.to_pylist()
        for row, reading in zip(rows, expected, strict=True):
            value = row.pop("value")
            assert same(value, reading.value)
            assert row == {
                "step": reading.step,
                "measure": reading.measure,
                "subject": reading.subject,
                "note": reading.note,
            }


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(
        st.tuples(st.integers(0, 10**9), st.text(max_size=5), st.text(max_size=5)),
        st.tuples(st.floats(), st.text(max_size=8)),
        max_size=12,
    )
)
def test_every_reading_is_there_once(readings):
    trace = make([Reading(*key, *value) for key, value in sorted(readings.items())])
    rows = parse_lines(export(trace, "jsonl"))
    assert [row["step"] for row in rows] == sorted(step for step, _, _ in readings)
    assert {(row["step"], row["measure"], row["subject"]) for row in rows} == readings.keys()
    for row in rows:
        value, note = readings[row["step"], row["measure"], row["subject"]]
        if math.isfinite(value):
            assert same(row["value"], value)
            assert row["note"] == note
        else:
            assert row["value"] is None
            assert row["note"].endswith(note)


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingResource, match=r"pip install 'grokscope\[parquet\]'"):
        export(make(), "parquet")


def test_an_unknown_format_is_told_with_the_nearest():
    with pytest.raises(
        UsageError, match=r"Unknown format 'json'\. Did you mean 'jsonl'\?.*parquet"
    ):
        export(make(), "json")
