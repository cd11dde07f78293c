"""The spectral measures of heavy-tailed self-regularisation on every weight matrix."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from grokscope.measures.correlation_traps import correlation_traps
from grokscope.measures.ks_marchenko_pastur import ks_marchenko_pastur
from grokscope.measures.power_law import fit_power_law
from grokscope.measures.shuffled_spectrum import shuffled_eigenvalues
from grokscope.measures.spectrum import spectral_norm, stable_rank
from grokscope.probes.probe import Cost, Need
from grokscope.probes.view import View
from grokscope.store.records import ArrayReading, Reading


@dataclass(frozen=True)
class Spectral:
    """Record exponent, norms, correlation traps and the spectra themselves, layer by layer.

    All of them come from one spectrum of the matrix and one batch of shuffled ones. Convolution
    kernels are read flattened (``conv1[flattened]``).

    Attributes:
        shuffles: Element-wise shuffles that traps are looked for in.
        null_draws: Gaussian matrices behind the p-value of the Marchenko-Pastur distance, drawn
            once for each shape.
        null_limit: Longest shorter side of a matrix that gets this p-value; the time to draw its
            null grows as the cube of that side.
    """

    shuffles: int = 10
    null_draws: int = 200
    null_limit: int = 1024
    name: str = "spectral"
    needs: frozenset[Need] = frozenset({"weights"})
    cost: Cost = "heavy"

    def observe(self, view: View) -> Iterable[Reading | ArrayReading]:
        """Yield the readings of every weight matrix."""
        for layer, weight in view.weights.items():
            shape = (weight.shape[0], weight.shape[1])
            raw = view.eigenvalues(layer)
            fit = fit_power_law(raw)
            yield view.reading("htsr.alpha", layer, fit.alpha, fit.reason)
            yield view.reading("htsr.ks_distance", layer, fit.ks_distance, fit.reason)
            yield view.reading("htsr.tail_size", layer, fit.tail_size, fit.reason)
            yield view.reading("spectrum.size", layer, len(raw))
            yield view.reading("spectrum.stable_rank", layer, stable_rank(raw))
            yield view.reading("spectrum.spectral_norm", layer, spectral_norm(raw, shape))

            shuffled = shuffled_eigenvalues(
                weight, shuffles=self.shuffles, generator=view.generator(self.name, layer)
            )
            traps = correlation_traps(shuffled, shape)
            yield view.reading("traps.count", layer, traps.count_mean, traps.reason)
            yield view.reading("traps.count_std", layer, traps.count_std, traps.reason)
            yield view.reading("traps.ratio", layer, traps.ratio, traps.reason)
            yield view.reading("marchenko_pastur.scale", layer, traps.scale, traps.reason)
            large = min(shape) > self.null_limit
            law = ks_marchenko_pastur(shuffled, shape, draws=0 if large else self.null_draws)
            unfit = law.reason if math.isnan(law.distance) else ""
            untested = law.reason
            if large and not unfit:
                untested += f": the shorter side, {min(shape)}, is over {self.null_limit}"
            yield view.reading("marchenko_pastur.ks_distance", layer, law.distance, unfit)
            yield view.reading("marchenko_pastur.ks_p_value", layer, law.p_value, untested)

            for name, values in (("eigenvalues", raw), ("shuffled_eigenvalues", shuffled)):
                yield ArrayReading(view.step, f"spectrum.{name}", layer, values.cpu().numpy())
