import math
import re

import numpy as np
import pytest
from looking import tables_of
from synthetic_run import build_trace

from grokscope.phases import find_milestones, phase_spans
from grokscope.phases.rules import neighbourhood_score
from grokscope.report import charts
from grokscope.report.disagreements import stretches
from grokscope.report.multiples import small_multiples
from grokscope.report.panel import apart, linear_below
from grokscope.report.spectra import spectra
from grokscope.report.theme import DARK, LIGHT, PAGE, css_variables, mixed
from grokscope.report.value_scale import ValueScale, fitting_scale
from grokscope.store.records import ArrayReading, Reading, Verdict
from grokscope.store.trace import Series, Trace


def drawn_series(chart):
    """Return what the lines of a chart show: {name: (steps, values)}."""
    rows = next(t for t in tables_of(chart) if t and "value" in t[0])
    names = dict.fromkeys(row["name"] for row in rows)
    return {
        name: (
            [row["step"] for row in rows if row["name"] == name],
            [row["value"] for row in rows if row["name"] == name],
        )
        for name in names
    }


def assert_shows(drawn, series):
    steps, values = drawn
    assert steps == series.steps.tolist()
    np.testing.assert_allclose(values, series.values, rtol=1e-5)


def test_the_main_chart_shows_every_reading():
    trace = build_trace()
    drawn = drawn_series(charts.main_chart(trace, find_milestones(trace), LIGHT))
    assert list(drawn) == ["train", "test", "neighbourhood"]
    assert_shows(drawn["train"], trace.series("accuracy", "train"))
    assert_shows(drawn["test"], trace.series("accuracy", "test"))
    assert_shows(drawn["neighbourhood"], neighbourhood_score(trace))


def test_the_main_chart_shows_the_spans_of_every_rule():
    trace = build_trace()
    tables = tables_of(charts.main_chart(trace, find_milestones(trace), LIGHT))
    bands = [(r["phase"], r["step"], r["end"]) for r in tables[0]]
    assert bands == [(s.phase, s.start, s.end) for s in phase_spans(trace, "observed")]
    for rule in ("observed", "htsr", "neighbourhood"):
        strip = next(t for t in tables if t and t[0].get("rule") == rule and "phase" in t[0])
        drawn = [(r["phase"], r["wrong"], r["step"], r["end"]) for r in strip]
        assert drawn == [(s.phase, s.wrong, s.start, s.end) for s in stretches(trace, rule)]
    assert "missed" in {s.wrong for s in stretches(trace, "neighbourhood")}  # 0.92 is no alarm


def test_missing_exponents_leave_a_gap_and_are_not_dropped():
    trace = build_trace()
    drawn = drawn_series(charts.alpha_chart(trace, find_milestones(trace), LIGHT))
    assert list(drawn) == ["fc1", "fc2"]
    for layer in drawn:
        assert_shows(drawn[layer], trace.series("htsr.alpha", layer))
    assert math.isnan(drawn["fc1"][1][3])


def test_traps_show_mean_and_spread():
    trace = build_trace()
    chart = charts.traps_chart(trace, find_milestones(trace), LIGHT)
    assert_shows(drawn_series(chart)["fc2"], trace.series("traps.count", "fc2"))
    spread = next(t for t in tables_of(chart) if t and "high" in t[0])
    last = [row for row in spread if row["name"] == "fc2"][-1]
    assert (last["low"], last["high"]) == (4.75, 5.25)
    assert min(row["low"] for row in spread) == 0.0


def test_small_multiples_hold_every_other_measure_even_unknown_ones():
    trace = build_trace()
    trace.add([Reading(30000, "grad.noise", "model", 2.0), Reading(30000, "empty", "x", math.nan)])
    found = {m.title: m.chart for m in small_multiples(trace, find_milestones(trace), LIGHT)}
    assert_shows(drawn_series(found["grad.noise"])["model"], trace.series("grad.noise"))
    assert_shows(drawn_series(found["Loss"])["train"], trace.series("loss", "train"))
    assert_shows(
        drawn_series(found["Neighbourhood consistency"])["mixture"],
        trace.series("neighbourhood.mixture", "train"),
    )
    assert "empty" not in found
    assert not {"accuracy", "htsr.alpha", "spectrum.size"} & set(found)


def test_spectra_hold_every_eigenvalue_and_the_law_of_noise():
    trace = build_trace()
    found = spectra(trace, find_milestones(trace), LIGHT)
    assert [(s.layer, s.moment) for s in found] == [
        (layer, moment)
        for layer in ("fc1", "fc2")
        for moment in ("start", "memorised", "generalised", "collapsed")
    ]
    for cell in found:
        bars, shuffled, law = (tables_of(cell.chart)[i] for i in (0, 1, 2))
        widths = [math.log10(row["high"] / row["low"]) for row in bars]
        inside = sum(row["raw"] * w for row, w in zip(bars, widths, strict=True))
        assert inside == pytest.approx(1 - cell.below / 60, abs=1e-4)
        assert sum(r["shuffled"] * w for r, w in zip(shuffled, widths, strict=True)) <= 1.0001
        x, y = np.log10([row["low"] for row in law]), np.array([row["law"] for row in law])
        assert (np.diff(x) * (y[1:] + y[:-1]) / 2).sum() == pytest.approx(1, abs=0.01)
        raw = trace.array("spectrum.eigenvalues", cell.layer, cell.step)
        assert cell.beyond == (raw > (1 + math.sqrt(60 / 90)) ** 2).sum()


def test_spectra_without_scale_or_shuffles_still_draw():
    trace = Trace()
    trace.add([Reading(0, "spectrum.stable_rank", "fc1", 2.0)])
    assert spectra(trace, find_milestones(trace), LIGHT) == []
    trace.add([ArrayReading(0, "spectrum.eigenvalues", "fc1", np.array([0.0, 1e-9, 1.0, 4.0]))])
    (cell,) = spectra(trace, find_milestones(trace), LIGHT)
    assert (cell.moment, cell.beyond, cell.traps) == ("start", -1, None)


def test_charts_of_measures_that_were_not_read_are_none():
    trace = build_trace(spectral=False)
    assert charts.alpha_chart(trace, find_milestones(trace), LIGHT) is None
    assert charts.traps_chart(trace, find_milestones(trace), LIGHT) is None


def test_the_step_axis_is_linear_where_step_0_is():
    assert linear_below(find_milestones(build_trace())) == 10  # memorised at 100
    assert linear_below(find_milestones(build_trace(steps=(0, 1, 3, 50_000)))) == 1
    spec = charts.main_chart(build_trace(), find_milestones(build_trace()), LIGHT).to_dict()
    scale = spec["layer"][0]["encoding"]["x"]["scale"]
    assert (scale["type"], scale["constant"], scale["domain"]) == ("symlog", 10, [0, 20000])
    assert spec["layer"][0]["encoding"]["x"]["axis"]["values"] == [0, 10, 100, 1000, 10000]


def test_names_are_moved_apart_no_more_than_needed():
    assert apart([10, 50, 90], 100, 12) == [10, 50, 90]
    moved = apart([98, 99, 100], 100, 12)
    assert moved == [76, 88, 100]
    assert apart([], 100) == []


def test_long_names_are_cut_to_what_tells_them_apart():
    assert charts.short_names(["h.0.attn.out", "h.11.attn.out"]) == ["0", "11"]
    assert charts.short_names(["h.0.attn", "h.0.mlp.fc", "h.1.attn"]) == [
        "0.attn",
        "0.mlp.fc",
        "1.attn",
    ]
    assert charts.short_names(["a.b", "a.b.c"]) == ["a.b", "a.b.c"]
    assert charts.short_names(["fc1", "fc2"]) == ["fc1", "fc2"]
    assert charts.short_names(["block.fc1"]) == ["block.fc1"]
    assert charts.short_names([]) == []


def test_scales_place_values():
    assert ValueScale(0, 10).share(2.5) == 0.25
    assert ValueScale(1, 100, "log").share(10) == pytest.approx(0.5)
    assert ValueScale(0, math.e - 1, "symlog").share(math.sqrt(math.e) - 1) == pytest.approx(0.5)
    assert not ValueScale(1, 10, "log").shows(0.0)
    values = Series(np.arange(4), np.array([0.0, np.nan, 1e-4, 100.0]), ("",) * 4)
    scale = fitting_scale([values], "log")
    assert scale.low < 1e-4
    assert scale.high > 100
    assert fitting_scale([values], in_view=(0.0,)).low == 0.0
    flat = Series(np.arange(2), np.array([5.0, 5.0]), ("",) * 2)
    assert 0.2 < fitting_scale([flat]).share(5.0) < 0.8


def test_a_false_alarm_is_told_from_a_miss_and_from_an_abstention():
    trace = Trace()
    said = ["fitting", "anti-grokking", "generalised", "not-determined", "anti-grokking"]
    true = ["fitting", "generalised", "anti-grokking", "anti-grokking", "not-determined"]
    for step, (ours, theirs) in enumerate(zip(said, true, strict=True)):
        trace.add(
            verdicts=[
                Verdict(step, "htsr", ours, step, ""),
                Verdict(step, "observed", theirs, step, ""),
            ]
        )
    found = [(s.wrong, s.start, s.end) for s in stretches(trace, "htsr")]
    expected = [("", 0, 1), ("false alarm", 1, 2), ("missed", 2, 3), ("", 3, 4), ("", 4, 4)]
    assert found == expected
    assert {s.wrong for s in stretches(trace, "observed")} == {""}


def _luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def _contrast(a, b):
    dark, light = sorted([_luminance(a), _luminance(b)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_text_and_lines_can_be_read(palette):
    for colour in (palette.ink, palette.muted, palette.accent, palette.fit):
        assert _contrast(colour, palette.paper) >= 4.5
    for phase, fill in palette.phases.items():
        assert _contrast(fill, palette.on_phases[phase]) >= 4.5, phase
    for i in range(5):
        assert _contrast(palette.layer(i, 5), palette.paper) >= 3.0


def test_every_colour_of_the_page_is_defined_in_both_palettes():
    used = {PAGE.paper, PAGE.ink, PAGE.muted, PAGE.faint, PAGE.accent, PAGE.fit, *PAGE.ramp}
    used |= {*PAGE.neighbourhood, *PAGE.phases.values(), *PAGE.on_phases.values()}
    for palette in (LIGHT, DARK):
        defined = set(re.findall(r"(--[\w-]+):", css_variables(palette)))
        assert {f"var({name})" for name in defined} == used


def test_mixing_meets_its_ends():
    assert mixed("#000000", "#ffffff", 0) == "#000000"
    assert mixed("#000000", "#ffffff", 0.5) == "#808080"
    assert mixed("var(--a)", "var(--b)", 0.25) == "color-mix(in srgb, var(--b) 25.0%, var(--a))"
    assert LIGHT.layer(0, 1) == LIGHT.ramp[0]
    assert LIGHT.layer(2, 3) == LIGHT.ramp[2]
