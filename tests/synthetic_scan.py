"""Scan documents made up from real spectra: noise, heavy tails and planted outliers."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

from grokscope.measures import marchenko_pastur
from grokscope.measures.alpha_null import alpha_null
from grokscope.measures.correlation_traps import correlation_traps
from grokscope.measures.power_law import fit_power_law
from grokscope.measures.shuffled_spectrum import shuffled_eigenvalues
from grokscope.measures.spectrum import eigenvalues, spectral_norm, stable_rank
from grokscope.measures.tracy_widom import edge_threshold
from grokscope.scan.findings import find

HOSTILE = "../../etc/<script>alert(1)</script>\x1b[31m\u202e[bold]"
LONG = "model.layers." + "very_long_block_name." * 40 + "weight"


def noise(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).double()


def heavy(rows: int, columns: int, seed: int, alpha: float = 1.7) -> Tensor:
    """Noise on top of singular values whose squares follow a power law of density ``alpha``."""
    short = min(rows, columns)
    left = torch.linalg.qr(noise(rows, short, seed)).Q
    right = torch.linalg.qr(noise(columns, short, seed + 1)).Q
    ranks = torch.arange(1, short + 1, dtype=torch.float64) / short
    sizes = math.sqrt(max(rows, columns)) * ranks ** (-0.5 / (alpha - 1))
    return left * sizes @ right.T + 0.3 * noise(rows, columns, seed + 2)


def planted(rows: int, columns: int, seed: int, entries: int = 3, size: float = 40.0) -> Tensor:
    """Noise with a few huge entries, which survive every shuffle."""
    weight = noise(rows, columns, seed)
    for i in range(entries):
        weight[7 * i + 1, 11 * i + 2] = size * (1.0 + 0.2 * i)
    return weight


@functools.cache
def _null(rows: int, columns: int) -> dict[str, float]:
    null = alpha_null((rows, columns), draws=6)
    return {f"alpha_null_{key}": getattr(null, key) for key in ("mean", "std", "q05", "q95")}


def unmeasured(name: str, shape: tuple[int, ...], status: str, reason: str, **more: Any) -> dict:
    layer = {"name": name, "kind": "parameter", "shape": list(shape), "sources": [name]}
    layer |= dict.fromkeys(("alpha", "D", "xmin", "num_pl_spikes", "traps"))
    missing = {"alpha": "no value is positive", "traps": reason} if status == "failed" else {}
    layer |= {"step": None, "status": status, "reason": reason, "missing": missing, "note": ""}
    return layer | more


def measured(name: str, weight: Tensor, step: int | None = None, kind: str = "linear") -> Any:
    """Return the record of a matrix and its spectrum."""
    shape = (weight.shape[0], weight.shape[1])
    raw = eigenvalues(weight)
    shuffled = shuffled_eigenvalues(weight, shuffles=2, generator=torch.Generator().manual_seed(0))
    fit, traps = fit_power_law(raw), correlation_traps(shuffled, shape)
    scale = float(marchenko_pastur.scale_from_median(raw.numpy(), min(shape) / max(shape)))
    threshold = scale * edge_threshold(shape, quantile=0.999)
    null = _null(*shape)
    layer = unmeasured(name, shape, "ok", "", kind=kind, step=step)
    layer |= {
        "size": len(raw), "alpha": fit.alpha, "alpha_se": fit.sigma, "D": fit.ks_distance,
        "xmin": fit.xmin, "xmax": float(raw[-1]), "num_pl_spikes": int(fit.tail_size),
        "p_value": None, "approximate": False,
        **null, "alpha_z": (fit.alpha - null["alpha_null_mean"]) / null["alpha_null_std"],
        "ratio_exponential": 11.2, "p_exponential": 0.01,
        "ratio_log_normal": -0.4, "p_log_normal": 0.61, "ratio_truncated": -1.9,
        "p_truncated": 0.05, "stable_rank": stable_rank(raw).value,
        "spectral_norm": spectral_norm(raw, shape).value,
        "mp_scale": scale, "num_spikes": int((raw > threshold).sum()),
        "spike_threshold": threshold, "traps": traps.count_mean, "traps_std": traps.count_std,
        "traps_min": traps.count_min, "traps_max": traps.count_max,
        "trap_fraction": traps.fraction, "trap_ratio": traps.ratio,
        "trap_threshold": traps.threshold, "bulk_energy": traps.bulk_energy,
        "kurtosis": float((weight**4).mean() / (weight**2).mean() ** 2 - 3),
        "alpha_detrapped": fit.alpha + 0.3 * (traps.count_mean > 0.5), "alpha_below_edge": 3.0,
        "trap_location": None,
    }  # fmt: skip
    if traps.count_mean > 0.5:
        row, column = divmod(int(weight.abs().argmax()), shape[1])
        layer["trap_location"] = {
            "eigenvalue_ratios": [traps.ratio],
            "rows": [[row, 0.93]],
            "columns": [[column, 0.91]],
            "entries": [[row, column, float(weight[row, column]), 0.84]],
            "top_5_mass": 0.97,
            "top_10_mass": 0.98,
            "mean_share": 0.02,
        }
    spectrum = {
        "layer": name, "step": step, "raw": raw.tolist(), "shuffled": shuffled[0].tolist(),
        "shape": list(shape), "scale": scale, "threshold": threshold, "alpha": fit.alpha,
        "xmin": fit.xmin, "num_pl_spikes": int(fit.tail_size),
    }  # fmt: skip
    return layer, spectrum


def document(layers: list[dict], **more: Any) -> dict[str, Any]:
    """Put records together as the command does."""
    summary = []
    for step in sorted({layer["step"] for layer in layers}, key=lambda s: s or 0):
        now = [layer for layer in layers if layer["step"] == step]
        alphas = [layer["alpha"] for layer in now if layer.get("alpha") is not None]
        statuses = ("ok", "failed", "lost", "skipped")
        counts = {s: sum(x["status"] == s for x in now) for s in statuses}
        mean = sum(alphas) / len(alphas) if alphas else None
        summary.append(
            {
                "step": step, "rows": len(now), **counts,
                "alpha_mean": mean, "alpha_median": mean, "alpha_weighted_mean": mean,
                "with_traps": sum((layer.get("traps") or 0) >= 0.5 for layer in now),
            }
        )  # fmt: skip
    return {
        "schema": 1, "grokscope": "0.1.0", "path": "model.safetensors", "base": None,
        "source": "safetensors", "convention": "corrected", "shuffles": 2, "seed": 0,
        "notes": [], "layers": layers, "findings": find(layers), "summary": summary, **more,
    }  # fmt: skip


def flagged(made: dict[str, Any], spectra: list[dict]) -> list[dict]:
    """Return the spectra of layers with a finding."""
    keys = {(finding["layer"], finding["step"]) for finding in made["findings"]}
    return [spectrum for spectrum in spectra if (spectrum["layer"], spectrum["step"]) in keys]


@functools.cache
def small() -> tuple[dict[str, Any], list[dict]]:
    """One finding of every kind, and every status, in a small network."""
    made = [
        measured("fc1", heavy(100, 250, 1)),
        measured("fc2", heavy(80, 120, 5, 3.0)),
        measured("attn.c_attn[query]", planted(90, 90, 9), kind="attention"),
        measured("embed", noise(60, 300, 12), kind="embedding"),
        measured("head", noise(10, 100, 15)),
    ]
    layers = [layer for layer, _ in made]
    layers.append(unmeasured("dead", (64, 64), "failed", "the matrix is zero"))
    layers.append(unmeasured("broken", (64, 64), "failed", "weights are not finite"))
    layers += [
        unmeasured(name, (100,), "skipped", "1-D (a bias, a norm)")
        for name in ("fc1.bias", "fc2.bias", "norm.weight")
    ]
    layers.append(unmeasured("gate", (4, 90), "skipped", "a side of 4 is below 10"))
    made_up = document(layers, notes=["Two names share one tensor: head, embed."])
    return made_up, flagged(made_up, [spectrum for _, spectrum in made])


def run_of_checkpoints() -> tuple[dict[str, Any], list[dict]]:
    """Three checkpoints of one network, in which traps appear."""
    layers, spectra = [], []
    for step, size in ((0, 1.0), (1000, 20.0), (100_000, 40.0)):
        for name, seed in (("fc1", 3), ("fc2", 4)):
            layer, spectrum = measured(name, planted(60, 110, seed, 2, size), step)
            layers.append(layer)
            spectra.append(spectrum)
        layers.append(unmeasured("fc1.bias", (60,), "skipped", "1-D (a bias, a norm)", step=step))
    made = document(layers, path="runs/mnist", source="grokscope run")
    return made, flagged(made, spectra)


def large(blocks: int = 40) -> tuple[dict[str, Any], list[dict]]:
    """A deep network with names that are hostile or very long among them."""
    layers, spectra = [], []
    for i in range(blocks):
        for j, part in enumerate(("attn.c_attn[query]", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")):
            seed = 100 + 10 * i + 2 * j
            name = f"transformer.h.{i}.{part}"
            if (i, j) in ((0, 0), (3, 1)):
                name = HOSTILE if i == 0 else LONG
            if (i + 3 * j) % 17 == 0:
                weight = planted(60, 110, seed)
            else:
                weight = heavy(60, 110, seed, 1.8 + 0.03 * i)
            layer, spectrum = measured(name, weight)
            layers.append(layer)
            spectra.append(spectrum)
        for part in ("ln_1.weight", "ln_1.bias", "mlp.c_fc.bias"):
            name = f"transformer.h.{i}.{part}"
            layers.append(unmeasured(name, (60,), "skipped", "1-D (a bias, a norm)"))
    made = document(layers, path="/models/" + HOSTILE, notes=[HOSTILE])
    return made, flagged(made, spectra)
