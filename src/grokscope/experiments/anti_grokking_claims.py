"""The claims of the anti-grokking papers, each with its figure and our test of it.

P1 is Prakash & Martin, arXiv 2506.04434; its successors are 2602.02859 and 2605.12394.
"""

from __future__ import annotations

from grokscope.experiments.claim_measures import (
    alarms,
    alpha_before_collapse,
    alpha_falls,
    collapse,
    delay,
    does_not_turn,
    falls_while_generalising,
    final_accuracy,
    initial_norm,
    keeps,
    neighbourhood_follows,
    plateau_before_grokking,
    silent,
    traps_after_peak,
    traps_only_in_collapse,
)
from grokscope.experiments.experiment import Claim
from grokscope.training.config import ClassifierConfig

_COLLAPSING = frozenset({"digits", "mnist-quick", "mnist"})
_CONTROLS = frozenset({"digits-decay", "mnist-quick-decay", "mnist-decay"})
_PHASES = _COLLAPSING | _CONTROLS
_GOLECHHAS = frozenset({"golechha", "golechha-growing-norm"})
_P1 = "arXiv 2506.04434"

CLAIMS = (
    Claim(
        "delayed-generalisation",
        "Train accuracy saturates long before test accuracy rises.",
        f"{_P1}, figure 1",
        "train near 10^5 steps, test maximum near 10^6: about 10 times as many",
        "test accuracy takes at least 3 times as many steps to close a quarter of its gap to 1",
        delay,
    ),
    Claim(
        "late-collapse",
        "Test accuracy collapses later while train accuracy stays perfect.",
        f"{_P1}, figure 1",
        "test about 0.85 at 10^6 steps, 0.5 at 10^7; train 1.0",
        "a fall of 0.10 or more with train accuracy at least 0.99; from 0.05 on inconclusive",
        collapse,
        _COLLAPSING,
    ),
    Claim(
        "control-keeps",
        "With weight decay, test accuracy does not collapse.",
        f"{_P1}, appendix C",
        "test about 0.88 near 3 * 10^5 steps, 0.83-0.85 to the end",
        "it ends less than 0.10 below its maximum",
        keeps,
        _CONTROLS,
    ),
    Claim(
        "alpha-fc1",
        "The exponent of the first layer falls from phase to phase, below 2 in the collapse.",
        f"{_P1}, table 1",
        "5.0 -> 3.6 -> 0.9 (an estimate below 1 is impossible for this estimator)",
        "each figure below the one before, the last below 2",
        alpha_falls("fc1"),
        _PHASES,
    ),
    Claim(
        "alpha-fc2",
        "The exponent of the second layer falls from phase to phase, below 2 in the collapse.",
        f"{_P1}, table 1",
        "2.9 -> 2.3 -> 1.3",
        "each figure below the one before, the last below 2",
        alpha_falls("fc2"),
        _PHASES,
    ),
    Claim(
        "traps",
        "There are no correlation traps before the collapse, and there are some in it.",
        f"{_P1}, table 2",
        "fc1: 0 / 0-1 / 7.5; fc2: 0 / 0-1 / 1.0 (before / grokked / collapsed)",
        "mean count below 0.5 in both layers up to the peak, at least 0.5 in both at the end",
        traps_only_in_collapse,
        _PHASES,
    ),
    Claim(
        "alpha-warns",
        "An exponent below 2 comes before the collapse.",
        f"{_P1}; arXiv 2602.02859 says just after",
        "alpha falls below 2 before test accuracy drops",
        "alpha below 2 in some layer for five observations, earlier than the collapse",
        alpha_before_collapse,
        _PHASES,
    ),
    Claim(
        "traps-warn",
        "Traps come with the collapse, not before it.",
        "arXiv 2602.02859, 2605.12394",
        "0 before and at the test maximum, then rising",
        "first lasting traps not before the test maximum",
        traps_after_peak,
        _PHASES,
    ),
    *(
        Claim(
            f"blind-{name}",
            f"{title} does not tell the collapse from the generalisation.",
            f"{_P1}, figures 4-7",
            published,
            "it does not turn round at the test maximum (trends of opposite sign, both of size 0.5 "
            "or more, and a change afterwards of a tenth or more of that before)",
            does_not_turn(measure, subject),
            _PHASES,
        )
        for name, title, published, measure, subject in (
            ("norm", "The l2 norm", "rises throughout", "weights.l2_norm", "model"),
            (
                "sparsity",
                "Activation sparsity",
                "keeps rising through the collapse",
                "golechha.activation_sparsity",
                "fc1",
            ),
            (
                "entropy",
                "Absolute weight entropy",
                "falls sharply in the collapse too",
                "golechha.absolute_weight_entropy",
                "fc1",
            ),
            (
                "complexity",
                "Local circuit complexity",
                "stays low",
                "golechha.local_circuit_complexity",
                "model",
            ),
        )
    ),
    Claim(
        "htsr-alarms",
        "Where test accuracy collapses, exponents below 2 with traps say so.",
        f"{_P1}, arXiv 2602.02859",
        "alpha 0.9 and 1.3, traps 7.5 and 1.0 in the collapse",
        "the htsr rule raises a lasting alarm after the test maximum",
        alarms("htsr"),
        _COLLAPSING,
    ),
    Claim(
        "htsr-silent",
        "Where nothing collapses, there are no exponents below 2 with traps.",
        f'{_P1} ("invariably heralds collapse")',
        "no figure; its own control has alpha near 1.2 and traps without a collapse",
        "the htsr rule raises no lasting alarm",
        silent("htsr"),
        _CONTROLS | {"digits-permuted"},
    ),
    Claim(
        "neighbourhood-alarms",
        "Where test accuracy collapses, neighbourhood consistency says so.",
        "grokscope",
        "no published figure",
        "the neighbourhood rule raises a lasting alarm after the test maximum (its threshold was "
        "chosen on digits seeds 0-3 and mnist-quick seed 0)",
        alarms("neighbourhood"),
        _COLLAPSING,
    ),
    Claim(
        "neighbourhood-silent",
        "Where nothing collapses, neighbourhood consistency does not fall.",
        "grokscope",
        "no published figure",
        "the neighbourhood rule raises no lasting alarm",
        silent("neighbourhood"),
        _CONTROLS | {"digits-permuted"},
    ),
    Claim(
        "neighbourhood-follows",
        "From its peak on, neighbourhood consistency ranks the network as test accuracy does.",
        "grokscope",
        "no published figure",
        "rank correlation with test accuracy after the peak of 0.5 or more",
        neighbourhood_follows,
        _PHASES,
    ),
    Claim(
        "initial-norm",
        "The initial l2 norm of all parameters.",
        "arXiv 2210.01117, notebook",
        "93.67",
        "within 1 %",
        initial_norm,
        frozenset({"mnist-quick", "mnist-quick-decay", "mnist", "mnist-decay", "omnigrok"})
        | _GOLECHHAS,
        needs_end=False,
        settings=frozenset({"data", "hidden", "init_scale"}),
    ),
    Claim(
        "final-accuracy",
        "Test accuracy after 10^5 steps.",
        "arXiv 2405.20233 (rerun of 2210.01117)",
        "0.898",
        "within 0.03",
        final_accuracy,
        frozenset({"omnigrok"}),
        settings=frozenset(ClassifierConfig.model_fields) - {"seed", "observations"},
    ),
    Claim(
        "sparsity-plateau",
        "Activation sparsity plateaus right before the network starts to grok.",
        "arXiv 2405.12755",
        "a plateau; no figure given",
        "in the octave before grokking it varies by at most a tenth of its range over the run",
        plateau_before_grokking,
        _GOLECHHAS,
    ),
    Claim(
        "entropy-falls",
        "Absolute weight entropy decreases sharply with generalisation.",
        "arXiv 2405.12755",
        "decreases sharply, with growing and with shrinking norm; no figure given",
        "it falls by a fifth of itself or more from before grokking to the test maximum",
        falls_while_generalising("golechha.absolute_weight_entropy", "model", 0.2),
        _GOLECHHAS,
    ),
    Claim(
        "complexity-falls",
        "Local circuit complexity falls with generalisation.",
        "arXiv 2405.12755",
        "falls; no figure given",
        "it falls by a fifth of itself or more from before grokking to the test maximum",
        falls_while_generalising("golechha.local_circuit_complexity", "model", 0.2),
        _GOLECHHAS,
    ),
)
