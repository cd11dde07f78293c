"""What deserves a look in a scan: a word for each layer, with the numbers behind it.

The ranges of alpha are those that their authors publish for layers of any shape
(arXiv:2002.06716, arXiv:2506.04434). They are heuristics; each finding therefore says what noise of
the same shape gives, how uncertain the exponent is, and whether traps explain it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from grokscope.phases.rules import THRESHOLDS, Thresholds, has_traps
from grokscope.scan import words

_SIGNIFICANT = 0.1  # p-value of a likelihood ratio, as Clauset et al. (arXiv:0706.1062) recommend

NO_SPREAD = 1000.0  # exponent above which a tail is one value
_MOST = 0.5  # share of the energy from which one place is named as the carrier

Layer = Mapping[str, Any]


def _alpha(layer: Layer) -> str:
    text = f"alpha {words.alpha(layer)} from a tail of {words.tail(layer)} eigenvalues"
    text += f", D {layer['D']:.3f}"
    if noise := words.noise(layer):
        text += f"; noise of this shape gives {noise}"
    if layer.get("p_value") is not None and layer["p_value"] < _SIGNIFICANT:
        text += f"; a power law is rejected (p {layer['p_value']:.2f})"
    better = [
        name.replace("_", "-")
        for name in ("exponential", "log_normal")
        if (layer.get(f"ratio_{name}") or 0.0) < 0.0 and layer[f"p_{name}"] < _SIGNIFICANT
    ]
    if better:
        text += f"; {' and '.join(better)} fit{'s' if len(better) == 1 else ''} the tail better"
    return text


def _judged(layer: Layer, limits: Thresholds) -> bool:
    if layer.get("alpha") is None:
        return False
    rank = layer.get("rank")
    judged: bool = (layer["size"] if rank is None else rank) >= limits.minimum_rank
    return judged


def _not_finite(layer: Layer, limits: Thresholds) -> str:
    return layer["reason"] if layer["reason"] == "weights are not finite" else ""


def _failed(layer: Layer, limits: Thresholds) -> str:
    if layer["status"] != "failed" or _not_finite(layer, limits):
        return ""
    return f"no exponent: {layer['reason']}"


def _not_measured(layer: Layer, limits: Thresholds) -> str:
    return layer["reason"] if layer["status"] == "lost" else ""


def _below_two(layer: Layer, limits: Thresholds) -> str:
    if not _judged(layer, limits) or layer["alpha"] >= limits.alpha_overfit:
        return ""
    text = _alpha(layer)
    se, detrapped = layer.get("alpha_se"), layer.get("alpha_detrapped")
    if se is not None and layer["alpha"] + se >= limits.alpha_overfit:
        text += f"; within one standard error of {limits.alpha_overfit:g}"
    if detrapped is not None and detrapped >= limits.alpha_overfit and layer.get("traps"):
        without = words.spread(detrapped, layer.get("alpha_detrapped_std"))
        text += f"; driven by traps: {without} without them"
    return text


def _under_trained(layer: Layer, limits: Thresholds) -> str:
    if not _judged(layer, limits) or layer["alpha"] <= limits.alpha_random:
        return ""
    if layer["alpha"] > NO_SPREAD:
        return f"alpha {words.alpha(layer)}: all eigenvalues are nearly equal, as of a rotation"
    return _alpha(layer)


def shows_traps(layer: Layer, limits: Thresholds = THRESHOLDS) -> bool:
    """Say whether a layer has correlation traps; tables of positions have them by design."""
    count, ratio = layer.get("traps"), layer.get("trap_ratio")
    if count is None or layer["kind"] == "positional embedding":
        return False
    # The package's count knows no distance from the edge.
    return bool(count >= 1 if ratio is None else has_traps(count, ratio, limits))


def _traps(layer: Layer, limits: Thresholds) -> str:
    if not shows_traps(layer, limits):
        return ""
    count, ratio = layer["traps"], layer.get("trap_ratio")
    if ratio is None:
        return f"{count:.0f} in its shuffles, as the package counts"
    text = (
        f"{count:.1f} ± {layer['traps_std']:.1f} a shuffle, the largest {ratio:.2f} times the edge"
    )
    if layer.get("trap_location"):
        text += f"; {_carrier(layer['trap_location'])}"
    return text


def _carrier(location: Mapping[str, Any]) -> str:
    """Say what carries most of the energy of the traps."""
    row, column, weight, share = location["entries"][0]
    entry = f"row {row}, column {column} (weight {weight:.3g}, {share:.0%})"
    if location["mean_share"] >= _MOST:
        return f"the mean of all weights carries {location['mean_share']:.0%}"
    if share >= _MOST:
        return f"most of it at {entry}"
    for line, shares in (("row", location["rows"]), ("column", location["columns"])):
        if shares[0][1] >= _MOST:
            return f"{line} {shares[0][0]} carries {shares[0][1]:.0%}"
    return f"spread over many entries, the largest at {entry}"


# In the order in which they are shown.
FINDINGS: dict[str, Callable[[Layer, Thresholds], str]] = {
    "not-finite": _not_finite,
    "not-measured": _not_measured,
    "alpha-below-2": _below_two,
    "traps": _traps,
    "under-trained": _under_trained,
    "failed-fit": _failed,
}

_NUMBERS = (
    "alpha", "alpha_se", "D", "num_pl_spikes", "size", "alpha_null_q05", "alpha_null_q95",
    "alpha_detrapped", "traps", "traps_std", "trap_ratio",
)  # fmt: skip


def find(layers: list[dict[str, Any]], limits: Thresholds = THRESHOLDS) -> list[dict[str, Any]]:
    """Return the findings of a scan, in the order of `FINDINGS`, then of the layers.

    Layers with fewer eigenvalues than ``limits.minimum_rank`` are not judged by alpha: a spectrum
    of ten values has no tail to speak of.

    Args:
        layers: Records of the document.
        limits: The thresholds, those of the ``htsr`` rule.

    Returns:
        One object each: ``finding``, ``layer``, ``step``, ``text``, ``numbers``.
    """
    return [
        {
            "finding": name,
            "layer": layer["name"],
            "step": layer["step"],
            "text": text,
            "numbers": {key: layer[key] for key in _NUMBERS if layer.get(key) is not None},
        }
        for name, decide in FINDINGS.items()
        for layer in layers
        if layer["status"] != "skipped" and (text := decide(layer, limits))
    ]
