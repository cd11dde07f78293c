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
        unstable_train: Train accuracy below which a network that had memorised is ``unstable``.
        grokking_gap: Share of the gap between that lowest level and 1 which the score must have
            closed to leave ``pre-grokking``.
        generalised_gap: Share of the gap closed from which the network counts as ``generalised``
            once the score no longer rises; only then can it collapse.
        still_rising: Rise of the score since half as many steps that makes it ``grokking`` still.
        observed_fall: Fall of test accuracy below its maximum that is a collapse. Published edge
            of the third phase: test accuracy below its maximum less 0.05.
        neighbourhood_fall: Fall of neighbourhood consistency below its maximum that is a collapse.
            Ours: chosen on digits runs of
            seeds 0-3 and one MNIST run, without weight decay.
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
    unstable_train: float = 0.90
    grokking_gap: float = 0.25
    generalised_gap: float = 0.50
    still_rising: float = 0.05
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
    return np.array(
        [np.median(values[max(0, i + 1 - window) : i + 1]) for i in range(len(values))], np.float64
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _follow(
    trace: Trace, score: Series, name: str, fall: float, limits: Thresholds
) -> tuple[str, str]:
    """Place the newest observation in the sequence of phases that ``score`` goes through."""
    train = trace.series("accuracy", "train").finite()
    score = score.finite()
    if not len(train) or not len(score):
        return "not-determined", f"needs train accuracy and {name}; neither may be missing"

    now = train.values[-1]
    held = np.convolve(train.values >= limits.memorised, np.ones(limits.evaluations), "valid")
    memorised = bool((held == limits.evaluations).any())
    recent = float(np.median(train.values[-limits.evaluations :]))
    if not memorised:
        return "fitting", f"train accuracy {_percent(now)}: not all training points are learnt yet"
    if recent < limits.unstable_train:
        return "unstable", f"train accuracy fell to {_percent(recent)} after it had been full"

    since = train.steps[np.argmax(train.values >= limits.fitting)]
    later = score.steps >= since
    steps, smooth = score.steps[later], running_median(score.values[later], limits.evaluations)
    if not len(smooth):
        return "not-determined", f"no {name} since the training set was fitted"
    level, low, peak = smooth[-1], smooth.min(), smooth.max()

    def gap_closed(value: float) -> float:
        return (value - low) / (1 - low) if low < 1 else 1.0

    if gap_closed(peak) >= limits.generalised_gap and peak - level >= fall:
        return "anti-grokking", (
            f"{name} {_percent(level)}, down from {_percent(peak)} at step "
            f"{steps[np.argmax(smooth)]:,}, while train accuracy is {_percent(now)}"
        )
    if gap_closed(level) < limits.grokking_gap:
        return "pre-grokking", (
            f"{name} {_percent(level)}, lowest {_percent(low)}, with train accuracy {_percent(now)}"
        )
    # Time in this field is logarithmic: "still" means since half as many steps.
    before = smooth[max(0, int(np.searchsorted(steps, steps[-1] / 2, "right")) - 1)]
    if level - before >= limits.still_rising or gap_closed(level) < limits.generalised_gap:
        return "grokking", f"{name} {_percent(level)}, {_percent(before)} at half the steps"
    return "generalised", f"{name} {_percent(level)}, at most {_percent(peak)} so far"


def _observed(trace: Trace, limits: Thresholds) -> tuple[str, str]:
    score = trace.series("accuracy", "test")
    return _follow(trace, score, "test accuracy", limits.observed_fall, limits)


def _neighbourhood(trace: Trace, limits: Thresholds) -> tuple[str, str]:
    score = neighbourhood_score(trace)
    return _follow(trace, score, "mixture consistency", limits.neighbourhood_fall, limits)


def judged_layers(trace: Trace, limits: Thresholds = THRESHOLDS) -> list[str]:
    """Return the layers that are large enough for the ``htsr`` rule, in the order of the model."""
    return [
        layer
        for layer in trace.subjects("htsr.alpha")
        if trace.series("spectrum.size", layer).values[-1:].sum() >= limits.minimum_rank
    ]


def has_traps(count: float, ratio: float, limits: Thresholds = THRESHOLDS) -> bool:
    """Say whether a layer has correlation traps: enough of them, and far enough from the edge."""
    return count >= limits.trap_count and ratio >= limits.trap_ratio


def _htsr(trace: Trace, limits: Thresholds) -> tuple[str, str]:
    alphas: dict[str, float] = {}
    trapped: dict[str, float] = {}
    for layer in judged_layers(trace, limits):
        alphas[layer] = float(trace.series("htsr.alpha", layer).values[-1])
        count = trace.series("traps.count", layer).values[-1:]
        ratio = trace.series("traps.ratio", layer).values[-1:]
        if len(count) and len(ratio) and has_traps(float(count[0]), float(ratio[0]), limits):
            trapped[layer] = float(count[0])
    known = {layer: alpha for layer, alpha in alphas.items() if np.isfinite(alpha)}
    if not known or len(known) < len(alphas):
        return "not-determined", "an exponent of every layer is needed, and one is missing"
    words = ", ".join(f"alpha({layer}) {alpha:.2f}" for layer, alpha in known.items())
    words += "".join(f", {count:.1f} traps in {layer}" for layer, count in trapped.items())
    words += "" if trapped else ", no traps"
    if min(known.values()) < limits.alpha_overfit and trapped:
        return "anti-grokking", words
    if max(known.values()) > limits.alpha_random:
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
