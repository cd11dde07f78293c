"""The rules that turn a trace into a phase, and every threshold they use.

Three rules look at the same run with different eyes:

``observed``
    Uses test accuracy: the ground truth that the others are judged against.
``htsr``
    Weights only: the reading of layer exponents and correlation traps that is published for
    anti-grokking (arXiv 2506.04434, 2602.02859). It has no state: each observation by itself.
``neighbourhood``
    Training inputs and labels, no test data: how much of the neighbourhood of its training points
    the network labels as the points themselves.

``observed`` and ``neighbourhood`` follow a score through the same sequence of phases; they differ
in the score and in the fall that they call a collapse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from grokscope.store.records import Verdict
from grokscope.store.trace import Series, Trace

PHASES = (
    "fitting",
    "pre-grokking",
    "grokking",
    "generalised",
    "anti-grokking",
    "unstable",
    "not-determined",
)


@dataclass(frozen=True)
class Thresholds:
    """Every constant of the three rules.

    The accuracies of `memorised`, `unstable_train` and the five evaluations are the recommended
    labels for the three kinds of failure (late collapse, instability, never generalised). The
    ranges of alpha are the ones their authors publish for all layers alike; they are heuristics,
    and are not corrected for the shape of a matrix.

    Attributes:
        evaluations: Observations that a condition must hold for; scores are medians over as many.
        memorised: Train accuracy from which the training set counts as learnt.
        fitting: Train accuracy from which the lowest level of the score is looked for: the level
            that generalisation starts from. Half, and not ``memorised``, since some seeds learn
            their last training points only while they generalise.
        fitted: Train accuracy from which the maximum of the score is looked for. A score that is
            at its best before that, and falls while the last points are learnt, is ordinary
            overfitting.
        unstable_train: Train accuracy below which a network that had memorised is ``unstable``.
        grokking_gap: Share of the gap between that lowest level and 1 which the score must have
            closed to leave ``pre-grokking``.
        generalised_gap: Share of the gap closed from which the network counts as ``generalised``
            once the score no longer rises; only then can it collapse.
        near_train: Distance of the score from train accuracy within which the network counts as
            generalised however it came there.
        still_rising: Rise of the score since half as many steps that makes it ``grokking`` still.
        recent: Factor in steps within which it must have reached its maximum to be ``grokking``.
        observed_fall: Fall of test accuracy below its maximum that is a collapse. Published edge
            of the third phase: test accuracy below its maximum less 0.05.
        neighbourhood_fall: Fall of neighbourhood consistency below its maximum that is a collapse.
            Ours: chosen while looking at
            digits runs of seeds 0-3, with and without weight decay, and one MNIST run without.
        alpha_overfit: Exponent below which a layer counts as over-fit (arXiv 2506.04434).
        alpha_random: Exponent above which a layer counts as under-trained (weightwatcher).
        trap_count: Mean number of correlation traps over shuffles that counts as having traps.
        trap_ratio: Largest shuffled eigenvalue over the edge that traps need besides.
        minimum_rank: Layers with a shorter side than this are not judged by ``htsr``: a spectrum
            of ten eigenvalues has no tail to fit.
    """

    evaluations: int = 5
    memorised: float = 0.99
    fitting: float = 0.50
    fitted: float = 0.90
    unstable_train: float = 0.90
    grokking_gap: float = 0.25
    generalised_gap: float = 0.50
    near_train: float = 0.10
    still_rising: float = 0.05
    recent: float = 1.25
    observed_fall: float = 0.05
    neighbourhood_fall: float = 0.10
    alpha_overfit: float = 2.0
    alpha_random: float = 6.0
    trap_count: float = 0.5
    trap_ratio: float = 1.1
    minimum_rank: int = 50


THRESHOLDS = Thresholds()


def neighbourhood_score(trace: Trace) -> Series:
    """Return the measure that the ``neighbourhood`` rule follows: mixture consistency, in [0, 1].

    Of the neighbourhood measures it ranks networks after their peak most like test accuracy does.
    """
    return trace.series("neighbourhood.mixture", "train")


def running_median(values: np.ndarray, window: int) -> np.ndarray:
    """Return the median of each value and those before it, ``window`` at most, shape (n,)."""
    first = [np.median(values[: i + 1]) for i in range(min(window - 1, len(values)))]
    if len(values) < window:
        return np.array(first, np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(values, window)
    return np.concatenate([first, np.median(windows, axis=1)])


def first_lasting(condition: np.ndarray, window: int = THRESHOLDS.evaluations) -> int | None:
    """Return the index from which ``condition`` holds ``window`` times in a row, None if never.

    Args:
        condition: Booleans, shape (n,).
        window: How often.
    """
    held = np.convolve(condition, np.ones(window), "valid") if len(condition) else np.empty(0)
    found = np.flatnonzero(held == window)
    return int(found[0]) if len(condition) >= window and len(found) else None


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _follow(
    trace: Trace, score: Series, name: str, fall: float, limits: Thresholds
) -> tuple[str, str]:
    """Place the newest observation in the sequence of phases that ``score`` goes through."""
    train, score = trace.series("accuracy", "train").finite(), score.finite()
    if not _is_new(trace, train) or not _is_new(trace, score):
        return "not-determined", f"needs train accuracy and {name}; neither may be missing"

    now = train.values[-1]
    recent = float(np.median(train.values[-limits.evaluations :]))
    if first_lasting(train.values >= limits.memorised, limits.evaluations) is None:
        if now >= limits.memorised:
            held = f"for fewer than {limits.evaluations} observations in a row so far"
            return "fitting", f"train accuracy {_percent(now)}, {held}"
        return "fitting", f"train accuracy {_percent(now)}: not all training points are learnt yet"
    if recent < limits.unstable_train:
        return "unstable", f"train accuracy fell to {_percent(recent)} after it had been full"

    since = train.steps[np.argmax(train.values >= limits.fitting)]
    later = score.steps >= since
    steps, smooth = score.steps[later], running_median(score.values[later], limits.evaluations)
    fitted = steps >= train.steps[np.argmax(train.values >= limits.fitted)]
    at_peak = int(np.argmax(np.where(fitted, smooth, -1.0)))
    level, peak, low = smooth[-1], smooth[at_peak], smooth[: at_peak + 1].min()

    def gap_closed(value: float) -> float:
        return (value - low) / (1 - low) if low < 1 else 1.0

    near = recent - level <= limits.near_train
    had = gap_closed(peak) >= limits.generalised_gap or recent - peak <= limits.near_train
    if had and peak - level >= fall:
        return "anti-grokking", (
            f"{name} {_percent(level)}, down from {_percent(peak)} at step "
            f"{steps[at_peak]:,}, while train accuracy is {_percent(now)}"
        )
    if gap_closed(level) < limits.grokking_gap and not near:
        return "pre-grokking", (
            f"{name} {_percent(level)}, lowest {_percent(low)}, with train accuracy {_percent(now)}"
        )
    # Time in this field is logarithmic: "still" means since half as many steps, and lately.
    before = smooth[max(0, int(np.searchsorted(steps, steps[-1] / 2, "right")) - 1)]
    risen = gap_closed(level) >= limits.generalised_gap or near
    rising = level - before >= limits.still_rising and steps[-1] <= limits.recent * steps[at_peak]
    if rising or not risen:
        return "grokking", f"{name} {_percent(level)}, {_percent(before)} at half the steps"
    return "generalised", f"{name} {_percent(level)}, at most {_percent(peak)} so far"


def _is_new(trace: Trace, series: Series) -> bool:
    """Say whether a series was read at the newest observation; an older reading proves nothing."""
    return len(series) > 0 and series.steps[-1] == trace.steps()[-1]


def _observed(trace: Trace, limits: Thresholds) -> tuple[str, str]:
    score = trace.series("accuracy", "test")
    return _follow(trace, score, "test accuracy", limits.observed_fall, limits)


def _neighbourhood(trace: Trace, limits: Thresholds) -> tuple[str, str]:
    score = neighbourhood_score(trace)
    return _follow(trace, score, "mixture consistency", limits.neighbourhood_fall, limits)


def judged_layers(trace: Trace, limits: Thresholds = THRESHOLDS) -> list[str]:
    """Return the layers that are large enough for the ``htsr`` rule, in the order of the model."""
    sizes = {layer: trace.series("spectrum.size", layer) for layer in trace.subjects("htsr.alpha")}
    return [
        layer
        for layer, size in sizes.items()
        if len(size) and size.values[-1] >= limits.minimum_rank
    ]


def has_traps(count: float, ratio: float, limits: Thresholds = THRESHOLDS) -> bool:
    """Say whether a layer has correlation traps: enough of them, and far enough from the edge."""
    return count >= limits.trap_count and ratio >= limits.trap_ratio


def _htsr(trace: Trace, limits: Thresholds) -> tuple[str, str]:
    alphas: dict[str, float] = {}
    trapped: dict[str, float] = {}
    for layer in judged_layers(trace, limits):
        names = ("htsr.alpha", "traps.count", "traps.ratio")
        read = [trace.series(measure, layer).finite() for measure in names]
        if not all(_is_new(trace, series) for series in read):
            return "not-determined", f"exponent or traps of {layer} are missing"
        alphas[layer], count, ratio = (float(series.values[-1]) for series in read)
        if has_traps(count, ratio, limits):
            trapped[layer] = count
    if not alphas:
        return "not-determined", "no layer is large enough for its spectrum to be judged"
    words = ", ".join(f"alpha({layer}) {alpha:.2f}" for layer, alpha in alphas.items())
    words += "".join(f", {count:.1f} traps in {layer}" for layer, count in trapped.items())
    words += "" if trapped else ", no traps"
    if min(alphas.values()) < limits.alpha_overfit and trapped:
        return "anti-grokking", words
    if max(alphas.values()) > limits.alpha_random:
        return "pre-grokking", words
    return "generalised", words


RULES: dict[str, Callable[[Trace, Thresholds], tuple[str, str]]] = {
    "observed": _observed,
    "htsr": _htsr,
    "neighbourhood": _neighbourhood,
}


def judge(trace: Trace, thresholds: Thresholds = THRESHOLDS) -> list[Verdict]:
    """Return what each rule says at the newest observation of ``trace``.

    A rule whose inputs are missing abstains with ``not-determined``; one verdict per rule always
    comes back. ``since`` continues the rule's last recorded verdict where the phase is the same.

    Args:
        trace: At least one observation; its recorded verdicts are those of the earlier ones.
        thresholds: The constants of the rules.
    """
    step = int(trace.steps()[-1])
    verdicts = []
    for rule, decide in RULES.items():
        phase, evidence = decide(trace, thresholds)
        last = trace.verdict(rule)
        since = last.since if last is not None and last.phase == phase else step
        verdicts.append(Verdict(step, rule, phase, since, evidence))
    return verdicts
