"""The numbers of a scan as rows of text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grokscope._text import visible
from grokscope.report.words import listing, number, percent
from grokscope.scan import words

_PACKAGE = "weightwatcher"  # the convention
_SIGNIFICANT = 0.1  # p-value of a likelihood ratio (Clauset et al., arXiv:0706.1062, section 5)

Layer = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One entry of the table.

    Attributes:
        text: What is shown; empty where the value is missing.
        value: What it is sorted by; empty where it is missing.
    """

    text: str
    value: float | str = ""


def _plain(field: str) -> Callable[[Layer], Cell]:
    def cell(layer: Layer) -> Cell:
        value = words.value_of(layer, field)
        return Cell("") if value is None else Cell(number(value), value)

    return cell


def _worded(field: str, text: Callable[[Layer], str]) -> Callable[[Layer], Cell]:
    def cell(layer: Layer) -> Cell:
        value = words.value_of(layer, field)
        return Cell("") if value is None else Cell(text(layer), value)

    return cell


_COLUMNS: dict[str, Callable[[Layer], Cell]] = {
    "alpha": _worded("alpha", words.alpha),
    "of noise": _worded("alpha_null_q05", words.noise),
    "D": _plain("D"),
    "tail": _worded("num_pl_spikes", words.tail),
    "traps": _worded("traps", words.traps),
    "trap size": _plain("trap_ratio"),
    "spikes": _plain("num_spikes"),
    "alpha-hat": _plain("alpha_hat"),
    "alpha weighted": _plain("alpha_weighted"),
    "stable rank": _plain("stable_rank"),
    "spectral norm": _plain("spectral_norm"),
}


def columns(layers: Sequence[Layer]) -> list[str]:
    """Return the columns for which at least one layer has a value."""
    return [name for name, cell in _COLUMNS.items() if any(cell(layer).text for layer in layers)]


def rows(layers: Sequence[Layer], findings: Sequence[Layer]) -> list[dict[str, Any]]:
    """Return one row for each layer that was to be measured, in the order of the model."""
    shown = columns(layers)
    found = {
        name: [visible(words.label(finding["finding"])) for finding in group]
        for name, group in words.by(findings, "layer").items()
    }
    return [
        {
            "number": i,
            "name": words.name(layer["name"]),
            "kind": visible(layer["kind"]),
            "size": words.size(layer),
            "entries": math.prod(layer["shape"]),
            "found": ", ".join(found.get(layer["name"], ())),
            "remark": "; ".join(
                visible(layer[key], 300) for key in ("reason", "note") if layer.get(key)
            ),
            "cells": [(name, _COLUMNS[name](layer)) for name in shown],
        }
        for i, layer in enumerate(layers, 1)
    ]


def facts(layer: Layer, convention: str) -> list[tuple[str, str]]:
    """Return the numbers of one layer that stand beside its spectrum, those that are known.

    Args:
        layer: Its record.
        convention: Of the document; the units of weightwatcher are not those of the charts.
    """
    p = words.value_of(layer, "p_value")
    traps, deviation = words.traps(layer), words.value_of(layer, "traps_std")
    if deviation:
        traps += f" ± {deviation:.2g}"
    few, many = (words.value_of(layer, f"traps_{end}") for end in ("min", "max"))
    if few is not None and many is not None and few != many:
        traps += f" ({few:.0f} to {many:.0f})"
    trapped = bool(words.value_of(layer, "traps"))
    pairs = [
        ("alpha", words.alpha(layer)),
        ("noise of equal shape", words.noise(layer)),
        ("tail", words.tail(layer)),
        ("xmin, of W^T W" if convention == _PACKAGE else "xmin", _short(layer, "xmin")),
        ("distance D of the fit", _short(layer, "D")),
        ("p-value of the power law", "" if p is None else f"{p:.2g}"),
        *((f"against {name}", _better(layer, field, name)) for field, name in _RIVALS),
        ("alpha without traps", _short(layer, "alpha_detrapped") if trapped else ""),
        ("alpha below the edge of noise", _short(layer, "alpha_below_edge") if trapped else ""),
        ("traps" if deviation is None else "traps per shuffle", traps),
        ("largest trap over the edge", _short(layer, "trap_ratio") if trapped else ""),
        ("energy in the bulk", _share(layer, "bulk_energy")),
        ("excess kurtosis of the entries", _short(layer, "kurtosis")),
        ("eigenvalues beyond the edge", _short(layer, "num_spikes")),
        ("stable rank", _short(layer, "stable_rank")),
        ("traps carried by", _location(layer)),
    ]
    return [(name, text) for name, text in pairs if text]


_RIVALS = (
    ("exponential", "exponential"),
    ("log_normal", "log-normal"),
    ("truncated", "truncated"),
)


def _short(layer: Layer, field: str) -> str:
    value = words.value_of(layer, field)
    return "" if value is None else f"{value:.3g}"


def _share(layer: Layer, field: str) -> str:
    value = words.value_of(layer, field)
    return "" if value is None else f"{100 * value:.0f} %"


def _better(layer: Layer, field: str, name: str) -> str:
    """Say which of two laws the log-likelihood ratio favours, with that ratio."""
    ratio, p = words.value_of(layer, f"ratio_{field}"), words.value_of(layer, f"p_{field}")
    if ratio is None or p is None:
        return ""
    favoured = "undecided" if p >= _SIGNIFICANT else "power law" if ratio > 0 else name
    return f"{favoured} ({ratio:.3g}, p {p:.2g})"


def _location(layer: Layer) -> str:
    """Say which row, column and entry carry the traps, and how much of them."""
    where = layer.get("trap_location")
    if not where:
        return ""
    parts = [
        f"{side} {where[side + 's'][0][0]} ({percent(where[side + 's'][0][1])})"
        for side in ("row", "column")
        if where.get(side + "s")
    ]
    if where.get("entries"):
        row, column, weight, share = where["entries"][0]
        parts.append(f"entry {row}, {column} of {weight:.3g} ({percent(share)})")
    if where.get("mean_share"):
        parts.append(f"the mean of all entries ({percent(where['mean_share'])})")
    return "; ".join(parts)


def about(document: Mapping[str, Any], layers: Sequence[Layer]) -> list[str]:
    """Return what was scanned, and how, in a few words each."""
    base = document.get("base")
    return [
        words.counts(layers),
        *([f"minus {visible(base)}"] if base else []),
        visible(document["source"]),
        f"convention {visible(document['convention'])}",
        _shuffles(document),
    ]


def _shuffles(document: Mapping[str, Any]) -> str:
    if not document["shuffles"]:
        return "no shuffles"
    if document["convention"] == _PACKAGE:
        return "shuffles as the package makes them"
    return words.count(document["shuffles"], "shuffle")


def summary_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the exponents of the model as a whole."""
    names = {
        "alpha_mean": "mean alpha",
        "alpha_median": "median alpha",
        "alpha_weighted_mean": "mean alpha, weighted by entries",
    }
    found = ((name, words.value_of(summary, key)) for key, name in names.items())
    return [(name, words.decimal(value)) for name, value in found if value is not None]


def history_rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row for each step, the newest first."""
    found = []
    for entry in sorted(document["summary"], key=lambda entry: -int(entry["step"])):
        groups = words.by(words.at_step(document["findings"], entry["step"]), "finding")
        told = [
            f"{words.label(kind)}: {listing([words.name(f['layer'], 60) for f in group], 6)}"
            for kind, group in groups.items()
        ]
        found.append(
            {
                **entry,
                "alpha": words.spread(words.value_of(entry, "alpha_mean"), None),
                "found": told,
            }
        )
    return found


def settings(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what was asked, as pairs of name and value."""
    names = ("path", "base", "source", "convention", "shuffles", "seed", "grokscope")
    known = {name: document[name] for name in names if document.get(name) is not None}
    if document["convention"] == _PACKAGE and document["shuffles"]:
        known["shuffles"] = "as the package makes them"
    return [(name, visible(value, 300)) for name, value in known.items()]
