"""A trace in memory: series over steps, and what it refuses."""

import math

import numpy as np
import pytest

from grokscope.store.records import ArrayReading, Event, Reading, Verdict
from grokscope.store.trace import Trace


@pytest.fixture
def trace():
    trace = Trace()
    for step, value in ((0, 1.0), (10, math.nan), (30, math.inf)):
        note = "why" if math.isnan(value) else ""
        trace.add(
            [Reading(step, "htsr.alpha", "fc1", value, note), Reading(step, "l2", "model", 2.0)]
        )
    trace.add([ArrayReading(30, "spectrum", "fc1", np.ones(3))])
    trace.add(
        [ArrayReading(10, "spectrum", "fc1", np.zeros(3))], [Verdict(10, "htsr", "p", 0, "e")]
    )
    trace.add(verdicts=[Verdict(30, "htsr", "q", 30, "e")], events=[Event(30, "kind", "message")])
    return trace


def test_series(trace):
    series = trace.series("htsr.alpha", "fc1")
    assert series.steps.tolist() == [0, 10, 30]
    assert series.steps.dtype == np.int64
    assert series.values.dtype == np.float64
    assert series.notes == ("", "why", "")
    assert len(series) == 3
    assert series.at(0) == 1.0
    assert math.isnan(series.at(5))
    finite = series.finite()
    assert (finite.steps.tolist(), finite.values.tolist(), finite.notes) == ([0], [1.0], ("",))


def test_names_and_steps(trace):
    assert trace.keys() == [("htsr.alpha", "fc1"), ("l2", "model")]
    assert trace.subjects("htsr.alpha") == ["fc1"]
    assert trace.steps().tolist() == [0, 10, 30]
    assert len(trace.series("nothing")) == 0
    assert len(trace.series("l2")) == 3
    assert Trace().steps().dtype == np.int64


def test_arrays(trace):
    assert trace.array_steps("spectrum", "fc1") == [10, 30]
    assert trace.array("spectrum", "fc1", 30).tolist() == [1.0, 1.0, 1.0]
    assert trace.array("spectrum", "fc1", 0) is None
    assert trace.array("spectrum", "fc2", 30) is None
    assert trace.array_steps("spectrum", "fc2") == []


def test_verdicts_and_events(trace):
    assert trace.verdict("htsr").phase == "q"
    assert trace.verdict("observed") is None
    assert trace.events == [Event(30, "kind", "message")]


def test_a_trace_only_grows(trace):
    for step in (30, 29):
        with pytest.raises(
            ValueError, match=rf"l2 of model: step {step} after step 30; .* only grows"
        ):
            trace.add([Reading(step, "l2", "model", 1.0)])
