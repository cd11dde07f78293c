import json
import re
import subprocess
import sys

import pytest
from looking import Elements
from pydantic import BaseModel
from synthetic_run import MANIFEST, build_trace

from grokscope.errors import InputError
from grokscope.experiments.experiment import Claim, Finding, Preset
from grokscope.phases import find_milestones
from grokscope.report import build_page, charts, write_report
from grokscope.report.multiples import small_multiples
from grokscope.report.spectra import spectra
from grokscope.report.theme import PAGE
from grokscope.store.records import ArrayReading, Event, Reading, Verdict
from grokscope.store.run_directory import RunDirectory
from grokscope.store.trace import Trace


@pytest.fixture(scope="module")
def full():
    """The page of a run that has everything, and a claim of each kind."""
    found = [claim(outcome) for outcome in ("holds", "fails", "inconclusive", "inconclusive")]
    return build_page(build_trace(), MANIFEST, found, preset_with("Batch 5 <b>not</b> 6."))


class Settings(BaseModel):
    pass


def preset_with(*differences, control=False):
    return Preset("", Settings(), differences, control)


def claim(outcome):
    made = Claim("c", "It falls by 10^2 % -> 0.", "arXiv 2506.04434, figure 1", "1 -> 0",
                 "it falls", lambda trace, at: None)  # fmt: skip
    return made, Finding(outcome, f"measured {outcome}", {})


def test_nothing_is_loaded_from_anywhere(full):
    text, found = full, Elements(full)
    loading = {"src", "srcset", "action", "data", "poster", "background", "formaction"}
    for tag, attributes in found.tags:
        assert tag not in ("link", "iframe", "img", "object", "embed", "base", "form")
        assert not loading & attributes.keys()
        target = attributes.get("href", "")
        assert (
            target.startswith("#")
            or re.fullmatch(r"https://arxiv.org/abs/[\d.]+", target)
            or (tag not in ("a", "use") and not target)
        ), target
    assert not re.search(r"@import|url\(", "".join(re.findall(r"<style>.*?</style>", text, re.S)))
    policy = next(a["content"] for t, a in found.tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "http" not in policy
    # What addresses the chart library holds are names (of SVG, of schemas) and the link to an
    # editor that is switched off.
    addresses = set(re.findall(r"https?://([\w.]+)", text)) - {"arxiv.org"}
    assert addresses <= {"www.w3.org", "vega.github.io", "github.com"}
    assert '"$schema"' not in text.split('id="specs">')[1].split("</script>")[0]
    assert len(text) < 2_000_000


def test_every_chart_has_a_place_and_every_place_a_chart(full):
    specs = json.loads(full.split('id="specs">')[1].split("</script>")[0])
    places = [a["data-chart"] for _, a in Elements(full).tags if "data-chart" in a]
    assert sorted(places) == sorted(specs)
    assert len(places) > 15
    assert all(spec["width"] == "container" for spec in specs.values())


def test_charts_are_the_same_with_the_checks_of_altair(full):
    trace = build_trace()
    at = find_milestones(trace)
    made = [charts.main_chart(trace, at, PAGE), charts.alpha_chart(trace, at, PAGE)]
    made.append(charts.traps_chart(trace, at, PAGE))
    made += [
        found.chart for found in (*small_multiples(trace, at, PAGE), *spectra(trace, at, PAGE))
    ]
    checked = [{k: v for k, v in chart.to_dict().items() if k != "$schema"} for chart in made]
    specs = json.loads(full.split('id="specs">')[1].split("</script>")[0])
    assert [specs[f"chart-{i}"] for i in range(len(specs))] == json.loads(json.dumps(checked))


def test_verdict_evidence_and_misses_are_told(full):
    text = Elements(full).text
    assert "anti-grokking since step 8,000. Generalisation came and is being lost" in text
    assert "Evidence: test accuracy 60.0 %, down from 90.0 % at step 3,000" in text
    assert "Missed the collapse : steps 8,000 to 20,000" in text
    assert "disagrees with the observed verdict" in text
    assert "False alarm" not in text
    assert "20,000 steps" in text


def test_false_alarms_are_told():
    trace = Trace()
    for step, (ours, true) in enumerate([("generalised",) * 2, ("anti-grokking", "generalised")]):
        verdicts = [Verdict(step, "htsr", ours, step, "x"), Verdict(step, "observed", true, 0, "y")]
        trace.add([Reading(step, "loss", "train", 1.0)], verdicts=verdicts)
    text = Elements(build_page(trace, MANIFEST)).text
    assert "False alarm : at step 1" in text
    assert "disagrees with the observed verdict" in text
    assert "Right about collapse at 50.0 % of the observations" in text


def test_claims_show_both_figures_and_a_mark_that_is_no_colour(full):
    seen = Elements(full)
    assert "1 holds, 1 fails, 2 inconclusive" in seen.text
    assert "It falls by 10² % → 0." in seen.text
    for outcome in ("holds", "fails", "inconclusive"):
        assert f"measured {outcome}" in seen.text
        assert ("use", {"href": f"#{outcome}"}) in seen.tags
        assert any(tag == "symbol" and a["id"] == outcome for tag, a in seen.tags)
    assert "Batch 5 <b>not</b> 6." in seen.text
    assert "(control)" not in seen.text


def test_hostile_names_stay_text():
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    trace = Trace()
    trace.add(
        [
            Reading(0, "accuracy", "train", 0.5),
            Reading(0, "htsr.alpha", evil, 3.0),
            Reading(0, evil, evil, 3.0),
            Reading(0, "loss", "train", float("nan"), evil),
        ],
        events=[Event(0, evil, evil)],
    )
    trace.add([ArrayReading(0, "spectrum.eigenvalues", evil, trace.steps() + 2.0)])
    wild = {**MANIFEST, "experiment": evil, "preset": evil, "message": evil, "status": "failed",
            "config": {evil: evil}, "environment": {"argv": [evil]}}  # fmt: skip
    text = build_page(trace, wild, [], preset_with(evil))
    seen = Elements(text)
    assert sum(tag == "script" for tag, _ in seen.tags) == 3
    assert not any(tag == "img" or "onerror" in attributes for tag, attributes in seen.tags)
    assert seen.text.count("alert(1)") >= 8
    specs = json.loads(text.split('id="specs">')[1].split("</script>")[0])
    assert evil in json.dumps(specs)


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ("running", "still going"),
        ("stopped", "the process that worked on it is gone"),
        ("interrupted", "was interrupted. It can be resumed."),
        ("failed", "training broke down. What it reached is shown. loss is nan"),
        ("finished", None),
    ],
)
def test_the_state_of_the_run_is_told(status, sentence):
    trace = build_trace(steps=(0,), layers=("fc1",), spectral=False)
    manifest = {**MANIFEST, "experiment": "anti-grokking", "status": status}
    manifest["message"] = "" if status == "interrupted" else "loss is nan"
    text = Elements(build_page(trace, manifest)).text
    if sentence is None:
        assert "loss is nan" not in text
    else:
        assert sentence in text
    assert "0 of 20,000 steps" in text
    assert "1 observation " in text


def test_a_run_without_test_data_says_so():
    text = Elements(build_page(build_trace(test_data=False, spectral=False), MANIFEST)).text
    assert "not-determined" in text
    assert "needs train accuracy and test accuracy; neither may be missing" in text
    assert "cannot be compared" in text
    assert "nothing can be said of its reliability" in text


def test_sections_of_what_was_not_recorded_vanish():
    trace = Trace()
    trace.add([Reading(0, "grad.noise", "model", 1.0), Reading(0, "x", "model", float("nan"))])
    text = Elements(build_page(trace, {**MANIFEST, "config": {}})).text
    for heading in ("Published claims", "Exponent", "Spectra", "What watching cost", "Events"):
        assert heading not in text
    assert "No verdict was recorded" in text
    assert "No accuracy was recorded" in text
    assert "no reason was recorded" in text
    assert "grad.noise" in text
    with pytest.raises(ValueError, match="holds no observation"):
        build_page(Trace(), MANIFEST)


def test_a_run_is_written_from_its_folder(tmp_path):
    run = RunDirectory.create(
        tmp_path / "run", experiment="anti-grokking", preset="digits", config={"steps": 20000}
    )
    trace = build_trace(steps=(0, 100), layers=("fc1",))
    with run.trace(readonly=False) as database:
        with pytest.raises(InputError, match="holds no observation yet"):
            write_report(run)
        for step in (0, 100):
            database.record(
                [
                    Reading(step, m, s, trace.series(m, s).at(step))
                    for m, s in trace.keys()  # noqa: SIM118
                ],
                verdicts=[v for v in trace.verdicts if v.step == step],
            )
    path = write_report(run)
    text = path.read_text(encoding="utf-8")
    assert path == run.report_path
    assert "the process that worked on it is gone" in text  # its status is running, none holds it
    assert "Train accuracy saturates long before test accuracy rises." in text
    assert "Our own setting, not the paper" in text
    assert [p.name for p in run.path.iterdir() if "partial" in p.name] == []


def test_a_control_is_called_one():
    trace = build_trace(steps=(0,), layers=("fc1",), spectral=False)
    page = build_page(trace, MANIFEST, preset=preset_with(control=True))
    assert "my-own, preset none (control)" in Elements(page).text


def test_a_loop_of_ones_own_reads_well(tmp_path):
    config = {"probes": ["norms", "spectral"], "budget": 0.02, "seed": 0}
    run = RunDirectory.create(tmp_path / "run", experiment="watch", preset="", config=config)
    with run.trace(readonly=False) as database:
        database.record([Reading(5, "weights.l2_norm", "model", 1.0)])
    run.update(status="interrupted", reached_step=5)
    text = Elements(write_report(run).read_text(encoding="utf-8")).text
    assert "This run was interrupted." in text
    assert text.startswith("A training loop of your own A training loop of your own 5 steps")
    assert "norms, spectral" in text
    assert text.count("seed 0") == 1  # among the settings: it is not the seed of the training
    for word in ("preset", "claims", "not finished", "resumed", "of None"):
        assert word not in text


def test_a_report_needs_no_torch():
    code = "import sys, grokscope.report; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
