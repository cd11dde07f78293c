import json
import math
import re
import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
from looking import Elements, tables_of

from grokscope.report import scan_page
from grokscope.report.scan_charts import overview_chart, spectrum_charts
from grokscope.report.scan_page import build_scan_page
from grokscope.report.theme import LIGHT, PAGE
from grokscope.scan.findings import FINDINGS
from grokscope.scan.words import LABELS, MEANINGS
from synthetic_scan import (
    HOSTILE,
    LONG,
    document,
    flagged,
    heavy,
    large,
    measured,
    noise,
    run_of_checkpoints,
    small,
    unmeasured,
)


@pytest.fixture(scope="module")
def page():
    return build_scan_page(*small())


def specs_of(text):
    return json.loads(text.split('id="specs">')[1].split("</script>")[0])


def test_nothing_is_loaded_from_anywhere(page):
    found = Elements(page)
    for tag, attributes in found.tags:
        assert tag not in ("link", "iframe", "img", "object", "embed", "base", "form", "a")
        assert not {"src", "srcset", "action", "href", "data"} & attributes.keys()
    policy = next(a["content"] for t, a in found.tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_every_chart_has_a_place_and_every_place_a_chart(page):
    places = [a["data-chart"] for _, a in Elements(page).tags if "data-chart" in a]
    assert sorted(places) == sorted(specs_of(page))
    assert len(places) == 2 * 3 + 1  # of three layers, and the overview


def test_charts_pass_the_checks_of_altair(page):
    made, spectra = small()
    layers = {layer["name"]: layer for layer in made["layers"]}
    drawn = [spectrum_charts(s, layers[s["layer"]], PAGE) for s in spectra]
    measured_layers = [layer for layer in made["layers"] if layer["status"] != "skipped"]
    found = {finding["layer"]: [finding["finding"]] for finding in made["findings"]}
    charts = [chart for d in drawn for chart in (d.density, d.survival)]
    charts.append(overview_chart(measured_layers, found, PAGE))
    checked = [{k: v for k, v in chart.to_dict().items() if k != "$schema"} for chart in charts]
    specs = specs_of(page)
    assert [specs[f"chart-{i}"] for i in range(len(specs))] == json.loads(json.dumps(checked))


def test_findings_come_first_then_everything_in_order(page):
    text = Elements(page).text
    headings = ["5 findings in 5 layers", "Layers that deserve a look", "Other findings",
                "Alpha of every layer", "Every layer", "Not computed", "Skipped",
                "Notes", "How this scan was made"]  # fmt: skip
    at = [text.index(heading) for heading in headings]
    assert at == sorted(at)
    for finding in small()[0]["findings"]:
        assert finding["text"].split(";")[0] in text
        assert f"{LABELS[finding['finding']]} 1 layer" in text
        assert MEANINGS[finding["finding"]] in text
    assert text.count("heuristics of their authors") == 1
    assert "3 fc1.bias, fc2.bias, norm.weight" in text
    assert "alpha and traps, because the matrix is zero 1 dead" in text
    assert "Two names share one tensor: head, embed." in text
    # The heavy tail is not what noise has; that of noise is.
    assert "Of those by alpha, 1 of 2 lie within what noise of equal shape gives." in text


def test_every_finding_has_its_words():
    assert list(LABELS) == list(MEANINGS) == list(FINDINGS)


def test_the_spectrum_is_drawn_as_it_is():
    layer, spectrum = measured("fc", heavy(100, 250, 1))
    drawn = spectrum_charts(spectrum, layer, LIGHT)
    raw = np.array(spectrum["raw"])
    bars = tables_of(drawn.density)[0]
    width = np.log10([bar["high"] / bar["low"] for bar in bars])
    inside = np.mean(raw >= bars[0]["low"])
    assert sum([bar["raw"] for bar in bars] * width) == pytest.approx(inside, abs=1e-4)
    assert drawn.beyond == layer["num_spikes"] > 10
    assert drawn.below == round(len(raw) * (1 - inside))
    shuffled, points = (t for t in tables_of(drawn.survival) if t and "rank" in t[0])
    for values, table in ((np.array(spectrum["shuffled"]), shuffled), (raw, points)):
        assert len(table) > 64
        for point in table:
            at_least = np.sum(values >= point["low"] * (1 - 1e-5))
            assert point["share"] * len(values) == pytest.approx(at_least)


def test_the_fitted_law_starts_at_xmin_with_the_share_of_its_tail():
    layer, spectrum = measured("fc", heavy(100, 250, 1))
    drawn = spectrum_charts(spectrum, layer, LIGHT)
    alpha, xmin, size = layer["alpha"], layer["xmin"], layer["num_pl_spikes"] / 100
    tables = tables_of(drawn.survival)
    line = next(t for t in tables if len(t) == 2 and "share" in t[0])
    assert (line[0]["low"], line[0]["share"]) == pytest.approx((xmin, size), rel=1e-4)
    slope = np.diff(np.log([p["share"] for p in line])) / np.diff(np.log([p["low"] for p in line]))
    assert slope == pytest.approx(1 - alpha, rel=1e-3)
    fit = next(t for t in tables_of(drawn.density) if "fit" in t[0])
    at, density = ([point[key] for point in fit] for key in ("low", "fit"))
    left = size * (at[-1] / xmin) ** (1 - alpha)  # of the tail beyond the axis
    assert np.trapezoid(density, np.log10(at)) == pytest.approx(size - left, rel=1e-3)
    named = [t[0]["label"] for t in tables_of(drawn.density) if t and "label" in t[0]]
    assert named == [f"α {alpha:.2f}"] * 2


def test_marks_stand_at_the_eigenvalues_beyond_the_edges():
    layer, spectrum = measured("fc", small_planted())
    drawn = spectrum_charts(spectrum, layer, LIGHT)
    raw, shuffled = tables_of(drawn.density)[-3:-1]
    assert [mark["low"] for mark in raw] == pytest.approx(
        [v for v in spectrum["raw"] if v > layer["spike_threshold"]], rel=1e-5
    )
    assert [mark["low"] for mark in shuffled] == pytest.approx(
        [v for v in spectrum["shuffled"] if v > layer["trap_threshold"]], rel=1e-5
    )
    assert len(shuffled) == layer["traps"] == 3


def small_planted():
    weight = noise(80, 120, 3)
    weight[3, 4], weight[30, 50], weight[60, 70] = 40.0, 50.0, 60.0
    return weight


@pytest.mark.parametrize("raw", [[], [0.0] * 60, [1.0, math.nan], [1.0, math.inf]])
def test_what_has_no_spectrum_is_not_drawn(raw):
    layer, spectrum = measured("fc", noise(60, 90, 1))
    spectrum["raw"] = raw
    assert spectrum_charts(spectrum, layer, LIGHT) is None
    made = document([unmeasured("fc", (60, 90), "failed", "the matrix is zero", size=60)])
    text = Elements(build_scan_page(made, [spectrum])).text
    assert "Findings Layer Kind Shape Finding fc parameter 60 × 90 no power law" in text
    assert "more layers" not in text


def test_extreme_fits_are_drawn():
    layer, spectrum = measured("fc", noise(60, 90, 1))
    for alpha, xmin in ((1e7, 1e-3), (1.0001, 1e-290), (1e3, spectrum["raw"][-1])):
        spectrum |= {"alpha": alpha, "xmin": xmin, "num_pl_spikes": 60}
        drawn = spectrum_charts(spectrum, layer, LIGHT)
        for table in (*tables_of(drawn.density), *tables_of(drawn.survival)):
            for row in table:
                assert all(math.isfinite(v) for k, v in row.items() if k != "label"), row


def test_the_overview_shows_every_exponent_beside_its_noise():
    layers = [layer for layer in small()[0]["layers"] if layer["status"] != "skipped"]
    found = {"fc1": ["alpha-below-2"], "attn.c_attn[query]": ["alpha-below-2", "traps"]}
    tables = tables_of(overview_chart(layers, found, LIGHT))
    rows = [row for table in tables for row in table if row.get("alpha")]
    seen = {row["name"]: row for row in rows}
    assert {name: row["alpha"] for name, row in seen.items()} == pytest.approx(
        {layer["name"]: layer["alpha"] for layer in layers if layer["alpha"]}, rel=1e-5
    )
    assert {name: row["mark"] for name, row in seen.items() if row["mark"] != "none"} == {
        "fc1": "finding",
        "attn.c_attn[query]": "traps",
    }
    for layer in layers[:5]:
        for end, quantile in (("low", "q05"), ("high", "q95")):
            drawn = seen[layer["name"]][f"noise_{end}"]
            assert drawn == pytest.approx(layer[f"alpha_null_{quantile}"], rel=1e-5)
    assert overview_chart(layers[-2:], {}, LIGHT) is None


@pytest.fixture(scope="module")
def deep():
    return build_scan_page(*large(blocks=9))


def test_many_layers_are_numbered(deep):
    specs = specs_of(deep)
    overview = specs[f"chart-{len(specs) - 1}"]
    axes = [layer["encoding"]["x"] for layer in overview["layer"] if "x" in layer["encoding"]]
    places = next(x for x in axes if x.get("field") == "place")
    assert places["scale"]["domain"] == [str(i) for i in range(1, 37)]
    assert places["axis"]["values"] == ["10", "20", "30"]


def test_hostile_names_stay_text(deep):
    seen = Elements(deep)
    assert sum(tag == "script" for tag, _ in seen.tags) == 3
    assert "../../etc/<script>alert(1)</script>\\x1b[31m\\u202e[bold]" in seen.text
    assert "<script>alert" not in deep.replace("&lt;", "")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", seen.text + json.dumps(specs_of(deep)))


def test_hostile_text_is_inert_wherever_it_stands():
    evil = HOSTILE + "\ud800\" onload='x' {{ 1 + 1 }}</style>"
    layers = [measured(evil, heavy(100, 250, 1), kind=evil)[0] | {"note": evil}]
    layers.append(unmeasured(evil + "2", (60, 60), "failed", evil, kind=evil))
    layers.append(unmeasured(evil + "3", (60, 60), "skipped", evil, kind=evil))
    made = document(layers, path=evil, base=evil, source=evil, convention=evil, notes=[evil])
    for finding in made["findings"]:
        finding["text"] = evil
    made["findings"].append({**made["findings"][0], "finding": evil})
    text = build_scan_page(made, [])
    text.encode()
    seen = Elements(text)
    assert sum(tag == "script" for tag, _ in seen.tags) == 3
    assert not any("onload" in attributes for _, attributes in seen.tags)
    assert seen.text.count("alert(1)") >= 12
    assert "{{ 1 + 1 }}" in seen.text


def test_long_names_are_cut_in_the_middle(deep):
    assert LONG not in deep
    assert "model.layers.very_long_block_name" in deep
    assert "…" in deep


def test_only_so_many_spectra_are_drawn(monkeypatch):
    monkeypatch.setattr(scan_page, "MOST_SPECTRA", 2)
    text = build_scan_page(*small())
    seen = Elements(text).text
    assert len(specs_of(text)) == 2 * 2 + 1
    assert "Drawn are the 2 of 3 spectra with the most serious findings." in seen
    assert "--layers PATTERN" in seen
    assert "Not drawn, but told below: embed " in seen
    assert "embed embedding 60 × 300 under-trained : alpha" in seen


def test_the_most_serious_findings_are_drawn_first(monkeypatch):
    monkeypatch.setattr(scan_page, "MOST_SPECTRA", 1)
    made, spectra = small()
    made = document(made["layers"][::-1])  # the under-trained layer before the over-fit one
    seen = Elements(build_scan_page(made, spectra)).text
    assert "Drawn are the 1 of 3 spectra" in seen
    assert re.search(r"below: attn\.c_attn\[query\], embed\s+fc1 ", seen)


def test_many_layers_that_are_not_drawn_are_named(monkeypatch):
    monkeypatch.setattr(scan_page, "MOST_SPECTRA", 1)
    layers, spectra = zip(*(measured(f"fc{i}", heavy(100, 250, 1)) for i in range(6)), strict=True)
    seen = Elements(build_scan_page(document(list(layers)), spectra)).text
    assert "told below: fc1, fc2 and 3 more fc1, fc2, fc3, fc4, fc5" in seen


def test_of_several_steps_the_newest_is_told_and_the_others_are_listed():
    made, spectra = run_of_checkpoints()
    text = build_scan_page(made, spectra)
    seen = Elements(text).text
    assert "At step 100,000, the last of 3 checkpoints 2 findings in 2 layers" in seen
    assert len(specs_of(text)) == 2 * 2 + 1 + 2
    rows = seen.split("With traps Findings ")[1].split("Every layer")[0]
    assert re.findall(r"([\d,]+) 2 0 \d", rows) == ["100,000", "1,000", "0"]
    older = [f for f in made["findings"] if f["step"] == 1000]
    assert older
    assert all(finding["layer"] in rows for finding in older)
    assert all(finding["text"] not in seen for finding in older)
    drawn = json.dumps(specs_of(text))
    for layer in made["layers"]:
        if layer["alpha"] is not None:
            assert f"{layer['step']},{layer['name']},{layer['alpha']:.6g}" in drawn


def test_the_columns_of_weightwatcher_are_enough():
    columns = (
        "name", "kind", "shape", "sources", "step", "status", "reason", "note", "size",
        "alpha", "D", "xmin", "xmax", "num_pl_spikes", "stable_rank", "num_spikes",
    )  # fmt: skip
    layers, spectra = [], []
    for name, weight in (("fc1", heavy(100, 250, 1)), ("fc2", noise(60, 90, 2))):
        layer, spectrum = measured(name, weight)
        theirs = {"sigma": layer["alpha_se"], "traps": 2, "alpha_weighted": 3.25}
        layers.append({key: layer[key] for key in columns} | theirs)
        spectra.append({**spectrum, "shuffled": [], "scale": None, "threshold": None})
    made = document(layers, convention="weightwatcher", shuffles=0)
    text = build_scan_page(made, spectra)
    seen = Elements(text).text
    assert f"{layers[0]['alpha']:.2f} ± {layers[0]['sigma']:.2f}" in seen
    assert "alpha weighted" in seen
    assert "3.25" in seen
    assert "no shuffles" in seen
    assert "the law of noise is not known here" in seen
    for absent in ("Marchenko-Pastur", "of noise", "noise of equal shape", "trap size"):
        assert absent not in seen.replace("the law of noise", "")


def test_the_package_has_its_own_units_and_shuffles():
    layer, spectrum = measured("fc1", heavy(100, 250, 1))
    layer["xmin"] *= 250  # of W^T W
    made = document([layer], convention="weightwatcher", shuffles=10)
    seen = Elements(build_scan_page(made, [{**spectrum, "shuffled": []}])).text
    assert f"xmin, of W^T W {layer['xmin']:.3g}" in seen
    assert "Marchenko-Pastur" in seen
    assert "not known" not in seen
    assert f"{layer['num_spikes']} beyond the edge" in seen
    assert "shuffles as the package makes them" in seen
    assert "10 shuffles" not in seen
    assert "shuffles as the package makes them" in seen.split("How this scan was made")[1]


def test_a_missing_number_is_a_dash_with_its_reason():
    pooled = measured("conv[slices]", heavy(100, 250, 1))[0]
    pooled |= {"traps": None, "missing": {"traps": "several matrices are pooled"}}
    lost = unmeasured("big", (60, 60), "lost", "it took more than 600 s")
    made = document([pooled, measured("", noise(60, 90, 1))[0], lost])
    seen = Elements(build_scan_page(made, [])).text
    assert "2 matrices analysed, 1 not measured" in seen
    assert "traps, because several matrices are pooled 1 conv[slices]" in seen
    row = seen.split("Every layer")[1].split("conv[slices] linear")[1].split("(no name)")[0]
    assert " – " in row
    assert "not measured : it took more than 600 s" in seen


def test_nothing_found_is_said_plainly():
    made = document([measured("fc", heavy(100, 250, 1, 3.0))[0]])
    seen = Elements(build_scan_page(made, [])).text
    assert "No findings" in seen
    assert "No layer has an exponent outside of the published range" in seen
    assert "deserve a look" not in seen
    assert "Alpha of every layer" in seen


def test_a_document_without_a_matrix_is_told():
    made = document([unmeasured("bias", (3,), "skipped", "1-D (a bias, a norm)")])
    seen = Elements(build_scan_page(made, [])).text
    assert "0 matrices analysed, 1 skipped" in seen
    assert "Every layer" not in seen
    assert "1-D (a bias, a norm)" in seen


def test_the_page_needs_no_torch():
    code = "import sys, grokscope.report.scan_page; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_document_is_left_alone():
    made, spectra = small()
    before = deepcopy((made, spectra))
    build_scan_page(made, spectra)
    assert (made, spectra) == before
    assert flagged(made, spectra) == spectra
