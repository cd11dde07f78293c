"""The record of one matrix: every spectral measure of it, with the work shared between them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grokscope.data.seeds import derive_seed
from grokscope.measures import marchenko_pastur
from grokscope.measures._spectra import ALL_ZERO, unfit
from grokscope.measures._value import Value
from grokscope.measures.alpha_norms import alpha_hat, log_alpha_norm
from grokscope.measures.alpha_null import AlphaNull
from grokscope.measures.correlation_traps import CorrelationTraps, correlation_traps
from grokscope.measures.effective_rank import effective_rank, participation_ratio, spectral_entropy
from grokscope.measures.erg import erg
from grokscope.measures.excess_kurtosis import excess_kurtosis
from grokscope.measures.ks_marchenko_pastur import ks_marchenko_pastur
from grokscope.measures.power_law import PowerLawFit, fit_power_law
from grokscope.measures.power_law_p_value import power_law_p_value
from grokscope.measures.shuffled_spectrum import shuffled_eigenvalues
from grokscope.measures.spectral_distance import spectral_distance
from grokscope.measures.spectral_spikes import spectral_spikes
from grokscope.measures.spectrum import eigenvalues, spectral_norm, stable_rank, unresolved
from grokscope.measures.tail_alternatives import tail_alternatives
from grokscope.measures.trap_modes import trap_modes
from grokscope.measures.weightwatcher import weightwatcher
from grokscope.probes.matrices import Matrix
from grokscope.probes.spectral import Spectral
from grokscope.scan.settings import Settings

# A watch and a scan of its checkpoints shuffle alike: same root, same names, same step.
_PROBE = Spectral()
_COUNTS = frozenset(
    {"size", "num_pl_spikes", "rank", "num_spikes", "traps_min", "traps_max", "erg_size"}
    | {"erg_gap", "M", "N", "rf", "num_evals", "matrix_rank", "rank_loss", "weak_rank_loss"}
    | {"detX_num", "num_ERG_spikes", "ERG_gap", "rand_num_spikes", "num_traps"}
)
_POOLED = "several matrices are pooled; see the flattened kernel"
_OF_SHUFFLES = ("max_rand_eval", "ww_softrank", "ww_maxdist", "num_traps")
_DIGITS = 7  # of the eigenvalues that are kept for drawing


class _Record:
    """Numbers by name, and why some of them are missing."""

    def __init__(self) -> None:
        self.numbers: dict[str, Any] = {}
        self.missing: dict[str, str] = {}

    def put(self, name: str, value: Value | float, reason: str = "") -> None:
        """Add a number; one that JSON cannot hold is None, with the reason."""
        number, reason = (
            (value.value, value.reason) if isinstance(value, Value) else (float(value), reason)
        )
        whole = name in _COUNTS and math.isfinite(number)
        self.numbers[name] = int(number) if whole else number if math.isfinite(number) else None
        if not math.isfinite(number):
            self.missing[name] = reason or f"it is {number}"

    def put_all(self, values: Mapping[str, float], reason: str = "") -> None:
        """Add several numbers that are missing for one reason, if they are."""
        for name, value in values.items():
            self.put(name, value, reason)


def measure(
    weights: Sequence[Tensor],
    matrices: Sequence[Matrix],
    settings: Settings,
    steps: Sequence[int | None],
    null: AlphaNull | None = None,
    *,
    locate: bool = True,
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Measure matrices of one shape.

    Args:
        weights: Real floating point, each of shape ``matrix.shape``, or ``(count, *matrix.shape)``
            where several are pooled. Any one device.
        matrices: What they are.
        settings: How they are measured.
        steps: Of their checkpoints, None where there is none; part of the seed of the shuffles.
        null: What alpha is compared with: `alpha_null` of their shape.
        locate: Whether there is memory to locate traps in: seven float64 copies of a matrix.

    Returns:
        For each, the record (``status`` and numbers by name, None and a reason in ``missing`` where
        one could not be computed), and its spectrum for drawing. Plain JSON.
    """
    spectra = _spectra(weights, matrices, settings)
    found = []
    for weight, (raw, method), matrix, step in zip(weights, spectra, matrices, steps, strict=True):
        record = _Record()
        record.put("size", _size(raw, matrix))
        record.numbers["method"] = method
        if settings.convention == "weightwatcher":
            _weightwatcher(record, weight, matrix, settings, step)
            shuffled = raw[:0]
        else:
            shuffled = _corrected(record, weight, raw, matrix, settings, step, null, locate)
        reason = ""
        if "alpha" in record.missing:
            reason = _unmeasurable(weight, raw) or record.missing["alpha"]
        numbers = {"status": "failed" if reason else "ok", "reason": reason, **record.numbers}
        spectrum = _drawn(raw, shuffled, matrix, record.numbers, settings)
        found.append(({**numbers, "missing": record.missing}, spectrum))
    return found


def _spectra(
    weights: Sequence[Tensor], matrices: Sequence[Matrix], settings: Settings
) -> list[tuple[Tensor, str]]:
    """Return all eigenvalues of each, ascending, and the method that they come from."""
    if settings.convention == "weightwatcher":
        weights = [weight.to(torch.float32) for weight in weights]
    together = eigenvalues(torch.stack(tuple(weights)) if len(weights) > 1 else weights[0][None])
    found = []
    for weight, raw, matrix in zip(weights, together, matrices, strict=True):
        # A product of thin factors has true zeros, which singular values would not show any better.
        lost = matrix.kind != "lora" and any(
            0 < unresolved(each, matrix.shape).value < len(each)
            for each in raw.reshape(-1, raw.shape[-1])
        )
        every = eigenvalues(weight, method="svd") if lost else raw
        found.append((every.flatten().sort().values, "svd" if lost else "gram"))
    return found


def _size(raw: Tensor, matrix: Matrix) -> float:
    """Return the number of eigenvalues: of a product of thin factors, of those that can differ."""
    if matrix.kind != "lora" or unfit(raw):
        return len(raw)
    return len(raw) - unresolved(raw, matrix.shape).value


def _unmeasurable(weight: Tensor, raw: Tensor) -> str:
    """Return what is wrong with the weights themselves; an empty string if nothing is."""
    reason = unfit(raw)
    if reason == ALL_ZERO and bool(weight.any()):
        return "the squares of all weights underflow"
    if reason and bool(weight.isfinite().all()) and not bool(raw.isfinite().all()):
        return "the squares of the weights overflow"
    return reason


def _corrected(
    record: _Record,
    weight: Tensor,
    raw: Tensor,
    matrix: Matrix,
    settings: Settings,
    step: int | None,
    null: AlphaNull | None,
    locate: bool,
) -> Tensor:
    """Record every measure by its corrected definition; return one shuffled spectrum, or none."""
    fit = fit_power_law(raw)
    _power_law(record, raw, fit, matrix, settings, step)
    _sizes(record, raw, fit, matrix)
    if matrix.count > 1:
        for name in ("num_spikes", "traps", "alpha_null_mean"):
            record.put(name, math.nan, _POOLED)
        return raw[:0]
    spikes = spectral_spikes(raw, matrix.shape)
    record.put_all(
        {
            "num_spikes": spikes.count,
            "spike_threshold": spikes.threshold,
            "mp_scale": spikes.scale,
            "bulk_min": spikes.bulk_min,
            "bulk_max": spikes.bulk_max,
            "mp_softrank": spikes.softrank,
        },
        spikes.reason,
    )
    if null is not None:
        record.put_all(
            {
                "alpha_null_mean": null.mean,
                "alpha_null_std": null.std,
                "alpha_null_q05": null.q05,
                "alpha_null_q95": null.q95,
            },
            null.reason,
        )
        z = (fit.alpha - null.mean) / null.std if null.std else math.nan
        record.put("alpha_z", z, fit.reason or null.reason)
    if not settings.shuffles:
        record.put("traps", math.nan, "no shuffles were asked for")
        return raw[:0]
    return _shuffled(record, weight, raw, matrix, settings, step, locate)


def _power_law(
    record: _Record,
    raw: Tensor,
    fit: PowerLawFit,
    matrix: Matrix,
    settings: Settings,
    step: int | None,
) -> None:
    record.put_all(
        {
            "alpha": fit.alpha,
            "alpha_se": fit.sigma,
            "alpha_unbiased": fit.alpha_unbiased,
            "D": fit.ks_distance,
            "xmin": fit.xmin,
            "xmax": fit.xmax,
            "num_pl_spikes": fit.tail_size,
        },
        fit.reason,
    )
    if settings.bootstrap:
        generator = _generator(settings, "bootstrap", matrix.name, step)
        record.put(
            "p_value",
            power_law_p_value(raw, fit, draws=settings.bootstrap, generator=generator),
        )
    others = tail_alternatives(raw, fit)
    for name in ("exponential", "log_normal", "truncated_power_law"):
        other = getattr(others, name)
        short = name.removesuffix("_power_law")
        record.put(f"ratio_{short}", other.log_likelihood_ratio, other.reason)
        record.put(f"p_{short}", other.p_value, other.reason)


def _sizes(record: _Record, raw: Tensor, fit: PowerLawFit, matrix: Matrix) -> None:
    shape = matrix.shape
    squared = float(raw.sum()) * max(shape)
    record.put("frobenius_norm", math.sqrt(squared) if squared >= 0 else math.nan)
    record.put("log_norm", math.log10(squared) if squared > 0 else math.nan, "all weights are zero")
    record.put("participation_ratio", participation_ratio(raw))
    record.put("effective_rank", effective_rank(raw))
    record.put("spectral_entropy", spectral_entropy(raw))
    record.put("stable_rank", stable_rank(raw))
    ergodic = erg(raw, fit)
    record.put_all(
        {
            "erg_size": ergodic.size,
            "erg_gap": ergodic.gap,
            "erg_difference": ergodic.lambda_difference,
        },
        ergodic.reason,
    )
    if matrix.count == 1:
        lost = unresolved(raw, shape, method=record.numbers["method"])
        record.put("rank", len(raw) - lost.value, lost.reason)
        record.put("alpha_hat", alpha_hat(fit.alpha, raw, shape))
        record.put("log_alpha_norm", log_alpha_norm(fit.alpha, raw, shape))
        norm = spectral_norm(raw, shape)
        record.put("spectral_norm", norm)
        positive = norm.value > 0
        record.put(
            "log_spectral_norm",
            2 * math.log10(norm.value) if positive else math.nan,
            norm.reason or "all weights are zero",
        )


def _shuffled(
    record: _Record,
    weight: Tensor,
    raw: Tensor,
    matrix: Matrix,
    settings: Settings,
    step: int | None,
    locate: bool,
) -> Tensor:
    """Record what shuffles show, and return one shuffled spectrum."""
    shape = matrix.shape

    def generator() -> torch.Generator:
        return _generator(settings, _PROBE.name, matrix.name, step)

    shuffled = shuffled_eigenvalues(weight, shuffles=settings.shuffles, generator=generator())
    traps = correlation_traps(shuffled, shape)
    record.put_all(
        {
            "traps": traps.count_mean,
            "traps_std": traps.count_std,
            "traps_min": traps.count_min,
            "traps_max": traps.count_max,
            "trap_fraction": traps.fraction,
            "trap_ratio": traps.ratio,
            "trap_threshold": traps.threshold,
            "shuffled_scale": traps.scale,
            "bulk_energy": traps.bulk_energy,
        },
        traps.reason,
    )
    record.put("kurtosis", excess_kurtosis(weight))
    tested = settings.null_draws > 0 and min(shape) <= _PROBE.null_limit
    law = ks_marchenko_pastur(shuffled, shape, draws=_PROBE.null_draws if tested else 0)
    record.put_all({"mp_ks_distance": law.distance, "mp_ks_p_value": law.p_value}, law.reason)
    record.put("shuffled_distance", spectral_distance(raw, shuffled))
    if locate or not traps.count_mean >= 0.5:
        _trap_location(record, weight, raw, shuffled, traps, generator())
    else:
        reason = "there are traps, and not enough memory to locate them"
        record.numbers["trap_location"] = None
        record.put_all({"alpha_detrapped": math.nan, "alpha_below_edge": math.nan}, reason)
    return shuffled[0]


def _trap_location(
    record: _Record,
    weight: Tensor,
    raw: Tensor,
    shuffled: Tensor,
    traps: CorrelationTraps,
    generator: torch.Generator,
) -> None:
    """Record where traps are, and alpha without them; alpha itself where there are none."""
    record.numbers["trap_location"] = None
    alpha, reason = record.numbers["alpha"], record.missing.get("alpha", "")
    if not traps.count_mean >= 0.5:
        same = math.nan if alpha is None else alpha
        record.put_all({"alpha_detrapped": same, "alpha_below_edge": same}, reason)
        return
    modes = trap_modes(weight, raw, shuffled, generator=generator)
    record.put("alpha_detrapped", modes.alpha_detrapped, modes.detrapped_reason)
    record.put("alpha_detrapped_std", modes.alpha_detrapped_std, modes.detrapped_reason)
    record.put("alpha_below_edge", modes.alpha_below_edge, modes.below_edge_reason)
    if not modes.reason:
        record.numbers["trap_location"] = {
            "eigenvalue_ratios": list(modes.ratios),
            "rows": [[line.index, line.share] for line in modes.rows],
            "columns": [[line.index, line.share] for line in modes.columns],
            "entries": [dataclasses.astuple(entry) for entry in modes.entries],
            "top_5_mass": modes.top_5_mass,
            "top_10_mass": modes.top_10_mass,
            "mean_share": modes.mean_share,
        }


def _weightwatcher(
    record: _Record, weight: Tensor, matrix: Matrix, settings: Settings, step: int | None
) -> None:
    """Record the package's columns."""
    seed = derive_seed(settings.seed or 0, "weightwatcher", matrix.name, step or 0) % 2**32
    state = np.random.RandomState(seed) if settings.shuffles else None
    columns = dataclasses.asdict(weightwatcher(weight, random_state=state))
    record.numbers["weightwatcher_status"] = columns.pop("status")
    record.numbers["weightwatcher_warning"] = columns.pop("warning")
    reason, mp, shuffled_mp = (columns.pop(f"{x}reason") for x in ("", "mp_", "rand_mp_"))
    if state is None:
        shuffled_mp = "no shuffles were asked for"
    for name, value in columns.items():
        why = shuffled_mp if name.startswith("rand_") or name in _OF_SHUFFLES else mp
        record.put(name, value, reason or why)
    if settings.shuffles:
        record.put("traps", columns["rand_num_spikes"], reason or shuffled_mp)


def _generator(settings: Settings, purpose: str, name: str, step: int | None) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(settings.seed or 0, purpose, name, step or 0))


def _drawn(
    raw: Tensor,
    shuffled: Tensor,
    matrix: Matrix,
    numbers: Mapping[str, Any],
    settings: Settings,
) -> dict[str, Any]:
    """Return what drawing a spectrum takes, in units of eigenvalues of ``W^T W / N``."""

    def kept(values: Tensor) -> list[float]:
        return [float(f"{value:.{_DIGITS}g}") for value in values.tolist() if math.isfinite(value)]

    xmin, scale, threshold = (numbers.get(name) for name in ("xmin", "mp_scale", "spike_threshold"))
    if settings.convention == "weightwatcher":
        # The package's units are those of W^T W, and half of that where it pools slices.
        unit = max(matrix.shape) * (0.5 if matrix.count > 1 else 1.0)
        xmin = None if xmin is None else xmin / unit
        threshold = None if numbers.get("bulk_max") is None else numbers["bulk_max"] / unit
        edge = marchenko_pastur.edges(min(matrix.shape) / max(matrix.shape))[1]
        scale = None if threshold is None else threshold / edge
    return {
        "raw": kept(raw),
        "shuffled": kept(shuffled),
        "shape": list(matrix.shape),
        "scale": scale,
        "threshold": threshold,
        "alpha": numbers["alpha"],
        "xmin": xmin,
        "num_pl_spikes": numbers["num_pl_spikes"],
    }
