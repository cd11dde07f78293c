"""The words of a scan, for people: what each finding is called and means, and its numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from grokscope._text import visible
from grokscope.phases import THRESHOLDS

Layer = Mapping[str, Any]

LABELS = {
    "not-finite": "not finite",
    "not-measured": "not measured",
    "alpha-below-2": "alpha below 2",
    "traps": "traps",
    "under-trained": "under-trained",
    "failed-fit": "no power law",
}

MEANINGS = {
    "not-finite": "Weights that are NaN or infinite: nothing can be measured on them.",
    "not-measured": "It should have been measured and could not be: too little memory, too little "
    "time, or a fault. That says nothing about the training.",
    "alpha-below-2": "The tail of the spectrum is very heavy, which is read as over-fit.",
    "traps": "Eigenvalues that stand out of the noise even after the entries of the matrix are "
    "shuffled: a few huge entries, or a mean that is not zero.",
    "under-trained": "The tail of the spectrum is as light as that of a random matrix.",
    "failed-fit": "No power law could be fitted. That says nothing about the training.",
}

_BY_ALPHA = ("alpha-below-2", "under-trained")
_MAIN = ("alpha", "traps")  # numbers whose absence is explained
_FEW = 3  # names that are all shown

_CAUTION = (
    f"The ranges of alpha ({THRESHOLDS.alpha_overfit:g} to {THRESHOLDS.alpha_random:g}: well "
    "trained; less: over-fit; more: under-trained) are heuristics of their authors and not "
    "corrected for the shape of a matrix."
)
_COMPARE = (
    " Compare each exponent with the range that noise of equal shape gives (0.05 to 0.95 quantile)."
)


def caution(layers: Iterable[Layer]) -> str:
    """Say what the ranges of alpha are, and what to compare it with where that was computed."""
    known = any(noise(layer) for layer in layers)
    return _CAUTION + (_COMPARE if known else "")


def name(of: object, most: int = 160) -> str:
    """Return the name of a layer, safe to show; words where it is empty."""
    shown = visible(of, most)
    return shown if shown.strip() else "(no name)"


def some(names: Sequence[str]) -> str:
    """Return all of a few names; of more, the first two and how many are left."""
    if len(names) <= _FEW:
        return ", ".join(names)
    return f"{', '.join(names[:2])} and {len(names) - 2:,} more"


def value_of(layer: Layer, *fields: str) -> float | None:
    """Return the first of some fields that holds a finite number; None if none does."""
    for field in fields:
        value = layer.get(field)
        if isinstance(value, (int, float)) and math.isfinite(value):
            return float(value)
    return None


def decimal(value: float) -> str:
    """Return an exponent with two decimals; a very large one, of equal eigenvalues, in short."""
    return f"{value:.2f}" if abs(value) < 1000 else f"{value:.3g}"


def spread(value: float | None, error: float | None) -> str:
    """Return ``1.62 ± 0.09``, the value alone where its error is not known, else nothing."""
    if value is None:
        return ""
    return decimal(value) + ("" if error is None else f" ± {decimal(error)}")


def alpha(layer: Layer) -> str:
    """Return the exponent and its standard error; the package's columns call that ``sigma``."""
    return spread(value_of(layer, "alpha"), value_of(layer, "alpha_se", "sigma"))


def noise(layer: Layer) -> str:
    """Return the range of the exponents of noise of equal shape, 0.05 to 0.95 quantile."""
    low, high = value_of(layer, "alpha_null_q05"), value_of(layer, "alpha_null_q95")
    return "" if low is None or high is None else f"{decimal(low)} to {decimal(high)}"


def traps(layer: Layer) -> str:
    """Return the mean number of correlation traps per shuffle."""
    count = value_of(layer, "traps")
    return "" if count is None else f"{count:.3g}"


def tail(layer: Layer) -> str:
    """Return how many of the eigenvalues are in the tail."""
    of, every = value_of(layer, "num_pl_spikes"), value_of(layer, "size")
    if of is None:
        return ""
    return f"{of:,.0f}" if every is None else f"{of:,.0f} of {every:,.0f}"


def size(layer: Layer) -> str:
    """Return the shape as ``200 x 784``."""
    return " × ".join(str(side) for side in layer.get("shape") or ())


def count(number: int, noun: str) -> str:
    """Return ``1 layer``, ``2 layers``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def newest_step(document: Mapping[str, Any]) -> int | None:
    """Return the last step of a document of several checkpoints; None if it knows no steps."""
    steps = [layer["step"] for layer in document["layers"] if layer.get("step") is not None]
    return max(steps, default=None)


def at_step(entries: Iterable[Layer], step: int | None) -> list[Layer]:
    """Return the layers or findings of one step."""
    return [entry for entry in entries if entry.get("step") == step]


def by(findings: Iterable[Layer], field: str) -> dict[str, list[Layer]]:
    """Group findings by their word or their layer (``finding``, ``layer``), in their order."""
    groups: dict[str, list[Layer]] = {}
    for finding in findings:
        groups.setdefault(finding[field], []).append(finding)
    return groups


def grouped(layers: Iterable[Layer], field: str) -> dict[str, list[str]]:
    """Group the names of layers by a text of theirs, ``reason`` or ``note``, where there is one.

    Returns:
        Names that are safe to show by text that is, the most common text first.
    """
    groups: dict[str, list[str]] = {}
    for layer in layers:
        if layer.get(field):
            groups.setdefault(visible(layer[field], 300), []).append(name(layer["name"]))
    return _largest_first(groups)


def not_computed(layers: Iterable[Layer]) -> dict[str, list[str]]:
    """Group the names of layers without an exponent or a count of traps by what is missing and why.

    Returns:
        As `grouped`.
    """
    groups: dict[str, list[str]] = {}
    for layer in layers:
        missing = dict(layer.get("missing") or {})
        if layer["status"] == "failed":
            missing["alpha"] = layer["reason"]  # what is wrong with the weights, not with the fit
        for reason in dict.fromkeys(missing[field] for field in _MAIN if field in missing):
            what = " and ".join(field for field in _MAIN if missing.get(field) == reason)
            told = f"{what}, because {visible(reason, 300)}"
            groups.setdefault(told, []).append(name(layer["name"]))
    return _largest_first(groups)


def _largest_first(groups: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return dict(sorted(groups.items(), key=lambda group: -len(group[1])))


def counts(layers: Sequence[Layer]) -> str:
    """Return how many matrices were analysed, and how many were not."""
    of = Counter(layer["status"] for layer in layers)
    analysed = f"{of['ok']:,} matri{'x' if of['ok'] == 1 else 'ces'} analysed"
    others = {"failed": "failed", "lost": "not measured", "skipped": "skipped"}
    return ", ".join(
        [analysed, *(f"{of[status]:,} {word}" for status, word in others.items() if of[status])]
    )


def headline(findings: Sequence[Layer]) -> str:
    """Return how much was found, in a few words."""
    layers = len({finding["layer"] for finding in findings})
    if not findings:
        return "No findings"
    return f"{count(len(findings), 'finding')} in {count(layers, 'layer')}"


def proportion(findings: Iterable[Layer]) -> str:
    """Say how many of the exponents found are such as noise of equal shape has them.

    Returns:
        A clause; empty if no exponent was found, or none was compared with noise.
    """
    found = [finding["numbers"] for finding in findings if finding["finding"] in _BY_ALPHA]
    compared = [each for each in found if noise(each)]
    if not compared:
        return ""
    inside = sum(x["alpha_null_q05"] <= x["alpha"] <= x["alpha_null_q95"] for x in compared)
    return (
        f"of those by alpha, {inside:,} of {len(compared):,} lie within what noise of equal shape "
        "gives"
    )


def label(finding: str) -> str:
    """Return what a finding is called."""
    return LABELS.get(finding, finding)
