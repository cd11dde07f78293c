import math

import pytest

from grokscope.report import tables, words
from grokscope.store.records import Cost, Reading, Verdict
from grokscope.store.trace import Trace


def test_costs_are_summed_and_shared():
    trace = Trace()
    trace.add(costs=[Cost(0, "training", 1.0), Cost(0, "spectral", 2.0), Cost(0, "norms", 1.0)])
    trace.add(costs=[Cost(5, "training", 5.0), Cost(5, "norms", 1.0)])
    rows = {row.part: row for row in tables.cost_rows(trace)}
    assert next(iter(rows)) == "training"
    assert rows["training"].share == 0.6
    assert (rows["norms"].seconds, rows["norms"].each) == (2.0, 1.0)
    assert (rows["spectral"].share, rows["spectral"].each) == (0.2, 2.0)
    assert sum(row.share for row in rows.values()) == pytest.approx(1.0)
    assert tables.cost_rows(Trace()) == []


def test_missing_readings_are_grouped_by_reason_whatever_its_numbers():
    trace = Trace()
    for step in range(4):
        value = 2.0 if step == 0 else math.nan
        note = "" if step == 0 else f"tail of {step} values"
        trace.add([Reading(step, "htsr.alpha", layer, value, note) for layer in ("fc1", "fc2")])
        trace.add([Reading(step, "loss", "train", 1.0, "clipped" if step == 3 else "")])
    (row,) = tables.note_rows(trace, missing=True)
    assert row == tables.NoteRow("htsr.alpha", ("fc1", "fc2"), "tail of 3 values", 6, 8, 1, 3)
    (remark,) = tables.note_rows(trace, missing=False)
    assert (remark.measure, remark.note, remark.count, remark.total) == ("loss", "clipped", 1, 4)


def opinion_on(said, true):
    trace = Trace()
    for step, (ours, theirs) in enumerate(zip(said, true, strict=True)):
        verdicts = [Verdict(step, "htsr", ours, 0, "x"), Verdict(step, "observed", theirs, 0, "y")]
        trace.add([Reading(step, "loss", "train", 1.0)], verdicts=verdicts)
    return tables.opinions(trace)["htsr"]


def test_lasting_mistakes_are_named_and_short_ones_summed_up():
    a, g, f = ["anti-grokking"], ["generalised"], ["fitting"]
    said = a * 5 + g + a + g + a * 2 + g + a * 2
    opinion = opinion_on(said, f * 7 + g * 6)
    assert opinion.alarms == (
        "steps 0 to 5; steps 11 to 12; and 2 short ones (fewer than 5 observations each), "
        "the first steps 6 to 7"
    )
    assert opinion.missed == ""
    assert opinion.record == "Right about collapse at 23.1 % of the observations."


def test_a_miss_is_one_whatever_the_rule_says_instead():
    missed = ["pre-grokking"] * 3 + ["generalised"] * 2
    opinion = opinion_on([*missed, "anti-grokking"], ["anti-grokking"] * 6)
    assert opinion.missed == "steps 0 to 5"
    opinion = opinion_on([*missed[1:], "anti-grokking"], ["anti-grokking"] * 5)
    assert opinion.missed == "a short one (fewer than 5 observations), steps 0 to 4"


def test_settings_are_flattened_for_reading():
    values = {
        "steps": 125_000,
        "lr": 0.01,
        "hidden": [100, 50],
        "argv": ["grokscope", "run", "a b"],
        "n": None,
        "empty": "",
        "yes": True,
        "packages": {"torch": "2.13"},
    }
    assert list(tables.flattened(values)) == [
        ("steps", "125,000"),
        ("lr", "0.01"),
        ("hidden", "100, 50"),
        ("argv", "grokscope run 'a b'"),
        ("n", "not set"),
        ("yes", "yes"),
        ("packages.torch", "2.13"),
    ]


def test_numbers_read_well():
    assert words.number(30750) == "30,750"
    assert words.number(1e-8) == "1e-08"
    assert words.number(12345.6) == "12,346"
    assert words.percent(0.99999) == "99.9 %"
    assert words.percent(1.0) == "100 %"
    assert words.percent(0.0) == "0 %"
    assert words.percent(0.0001) == "< 0.1 %"
    assert words.duration(0.0123) == "12.3 ms"
    assert words.duration(90) == "90 s"
    assert words.duration(600) == "10 min"
    assert words.duration(7200) == "2 h"
    assert words.steps(5, 5) == "at step 5"
    assert words.listing(["a", "b", "c", "d", "e"]) == "a; b; c; and 2 more"
    assert words.typeset("10^-5 -> 3 %") == "10⁻⁵ → 3\u00a0%"
