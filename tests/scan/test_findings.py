"""The words of a scan, and that each comes with its numbers."""

from __future__ import annotations

from typing import Any

from grokscope.phases.rules import THRESHOLDS
from grokscope.scan.findings import FINDINGS, find


def layer(**numbers: Any) -> dict[str, Any]:
    return {
        "name": "fc1",
        "kind": "linear",
        "step": None,
        "status": "ok",
        "reason": "",
        "alpha": 3.0,
        "alpha_se": 0.2,
        "D": 0.05,
        "num_pl_spikes": 40.0,
        "size": 200.0,
        "traps": 0.0,
        "traps_std": 0.0,
        "trap_ratio": 0.9,
        **numbers,
    }


def words(**numbers: Any) -> dict[str, str]:
    return {each["finding"]: each["text"] for each in find([layer(**numbers)])}


def test_a_sound_layer_has_no_finding() -> None:
    assert words() == {}
    assert words(alpha=THRESHOLDS.alpha_overfit) == {}
    assert words(alpha=THRESHOLDS.alpha_random) == {}


def test_alpha_below_two_says_how_certain_it_is() -> None:
    assert words(alpha=1.5) == {
        "alpha-below-2": "alpha 1.50 ± 0.20 from a tail of 40 of 200 eigenvalues, D 0.050"
    }
    near = words(alpha=1.9, alpha_null_q05=4.0, alpha_null_q95=7.0)["alpha-below-2"]
    assert "noise of this shape gives 4.00 to 7.00" in near
    assert near.endswith("within one standard error of 2")


def test_alpha_below_two_that_traps_make_is_said_to_be_theirs() -> None:
    driven = words(alpha=1.5, alpha_detrapped=3.1, traps=2.0)["alpha-below-2"]
    assert driven.endswith("driven by traps: 3.10 without them")
    assert "driven" not in words(alpha=1.5, alpha_detrapped=1.6, traps=2.0)["alpha-below-2"]


def test_rejected_power_laws_are_said() -> None:
    text = words(alpha=1.5, p_value=0.01, ratio_log_normal=-4.0, p_log_normal=0.02)["alpha-below-2"]
    assert "a power law is rejected (p 0.01)" in text
    assert "log-normal fits the tail better" in text
    weak = words(alpha=1.5, ratio_log_normal=-4.0, p_log_normal=0.2)["alpha-below-2"]
    assert "better" not in weak


def test_small_layers_are_not_judged_by_alpha() -> None:
    assert words(alpha=1.5, size=THRESHOLDS.minimum_rank - 1.0) == {}
    assert words(alpha=9.0, size=THRESHOLDS.minimum_rank - 1.0) == {}
    assert set(words(alpha=9.0)) == {"under-trained"}


def test_traps_need_number_and_distance() -> None:
    assert words(traps=3.0, trap_ratio=1.05) == {}
    assert words(traps=0.4, trap_ratio=2.0) == {}
    location = {
        "mean_share": 0.1,
        "entries": [[3, 5, -2.0, 0.8]],
        "rows": [[3, 0.8]],
        "columns": [[5, 0.8]],
    }
    text = words(traps=1.0, trap_ratio=2.0, trap_location=location)["traps"]
    assert text == (
        "1.0 ± 0.0 a shuffle, the largest 2.00 times the edge; "
        "most of it at row 3, column 5 (weight -2, 80%)"
    )
    location["entries"] = [[3, 5, -2.0, 0.03]]

    def carrier(**other: Any) -> str:
        text = words(traps=1.0, trap_ratio=2.0, trap_location={**location, **other})["traps"]
        return text.rpartition("; ")[2]

    assert carrier() == "row 3 carries 80%"
    assert carrier(rows=[[3, 0.1]]) == "column 5 carries 80%"
    assert carrier(rows=[[3, 0.1]], columns=[[5, 0.1]]) == (
        "spread over many entries, the largest at row 3, column 5 (weight -2, 3%)"
    )
    assert carrier(mean_share=0.9) == "the mean of all weights carries 90%"


def test_the_packages_count_of_traps_is_enough_in_its_convention() -> None:
    assert words(traps=2.0, trap_ratio=None)["traps"] == "2 in its shuffles, as the package counts"


def test_failed_fits_are_never_called_anything_else() -> None:
    failed = {"status": "failed", "alpha": None}
    assert words(**failed, reason="all weights are zero") == {
        "failed-fit": "no exponent: all weights are zero"
    }
    assert set(words(**failed, reason="weights are not finite", traps=None)) == {"not-finite"}


def test_order_is_by_finding_then_by_layer() -> None:
    found = find([layer(name="b", alpha=9.0), layer(name="c", alpha=1.0), layer(name="a", alpha=1)])
    assert [(each["finding"], each["layer"]) for each in found] == [
        ("alpha-below-2", "c"),
        ("alpha-below-2", "a"),
        ("under-trained", "b"),
    ]
    assert list(FINDINGS)[:2] == ["not-finite", "not-measured"]
    assert found[0]["numbers"]["alpha"] == 1.0


def test_skipped_layers_have_no_finding() -> None:
    assert words(status="skipped", alpha=None, reason="one-dimensional") == {}
