"""Anti-grokking: a small ReLU network memorises, generalises late, and then loses it again.

Prakash & Martin (arXiv 2506.04434, 2602.02859, 2605.12394) train Omnigrok's MNIST network
(2210.01117) without weight decay far past generalisation; Golechha (2405.12755) measures the same
network. All are presets of one recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

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
from grokscope.experiments.experiment import Claim, Experiment, Preset
from grokscope.training.config import ClassifierConfig

if TYPE_CHECKING:
    from grokscope.probes import Probe
    from grokscope.training.classifier import Classifier

# --- Recipe ---------------------------------------------------------------------------------------

_DIGITS = ClassifierConfig(
    data="digits",
    n_train=200,
    hidden=(100, 100),
    init_scale=8.0,
    lr=1e-2,
    batch_size=100,
    replacement=True,
    steps=125_000,
)
_MNIST = ClassifierConfig(
    data="mnist",
    n_train=1000,
    hidden=(200, 200),
    init_scale=8.0,
    lr=5e-4,
    batch_size=200,
    dtype="float64",
    steps=10_000_000,
    observations=300,
)
_QUICK = _MNIST.model_copy(
    update={"lr": 5e-3, "dtype": "float32", "steps": 100_000, "observations": 160}
)
_OMNIGROK = _MNIST.model_copy(
    update={"subset": "first", "lr": 1e-3, "weight_decay": 0.01, "steps": 100_000}
)
_GOLECHHA = _OMNIGROK.model_copy(update={"batch_size": 1000, "n_test": 1000})

_NOT_STATED = (
    "Not stated in the paper, and chosen as in Omnigrok's notebook: pixels in [0, 1] without "
    "normalisation, batches by reshuffling every epoch, MSE as the mean over batch and outputs."
)

# What one run cannot show. The figures are those of docs/findings.md.
_CONTEXT = (
    "One collapsing run cannot show whether an alarm means collapse; that takes controls. Over six "
    "seeds of digits with weight decay, where nothing collapses, the htsr rule raised a lasting "
    "alarm in all six, and the neighbourhood rule in none. On permuted labels, where there is "
    "nothing to learn, neighbourhood alarmed in three of three runs, htsr in two. Both alarmed in "
    "all six collapsing runs. See for yourself: grokscope run anti-grokking --preset digits-decay."
)

PRESETS = {
    "digits": Preset(
        "All three phases on 8x8 digits in about a minute on one core.",
        _DIGITS,
        (
            "Our own setting, not the paper's: 8x8 digits, a smaller network, a larger learning "
            "rate; it shows the same three phases in a thousandth of the work.",
        ),
        context=_CONTEXT,
    ),
    "digits-decay": Preset(
        "The control: weight decay keeps what was generalised. Does any alarm fire?",
        _DIGITS.model_copy(update={"weight_decay": 0.1}),
        ("Our own setting; the paper's control is MNIST with weight decay 0.01.",),
        control=True,
        context=_CONTEXT,
    ),
    "digits-permuted": Preset(
        "A second control: permuted labels, which a network can only memorise.",
        _DIGITS.model_copy(update={"permuted_labels": True}),
        ("Our own setting: nothing can generalise here, so no rule should speak of collapse.",),
        control=True,
        context=_CONTEXT,
    ),
    "mnist-quick": Preset(
        "MNIST with a larger learning rate: all three phases within 100,000 steps.",
        _QUICK,
        ("Learning rate 5e-3 rather than 5e-4, float32 rather than float64, 1e5 steps not 1e7.",),
    ),
    "mnist-quick-decay": Preset(
        "The control of mnist-quick, with weight decay 0.01.",
        _QUICK.model_copy(update={"weight_decay": 0.01}),
        ("Learning rate 5e-3 rather than 5e-4, float32 rather than float64, 1e5 steps not 1e7.",),
        control=True,
    ),
    "mnist": Preset(
        "As published: 10^7 steps in float64; half a day and more on one core.",
        _MNIST,
        (
            _NOT_STATED,
            'The paper says "seed 0" and gives mean and deviation over an unstated number of '
            "seeds; this is one seed.",
        ),
    ),
    "mnist-decay": Preset(
        "The published control, with weight decay 0.01.",
        _MNIST.model_copy(update={"weight_decay": 0.01}),
        (_NOT_STATED,),
        control=True,
    ),
    "omnigrok": Preset(
        "Omnigrok's MNIST run (arXiv 2210.01117, figure 3d, its notebook).",
        _OMNIGROK,
        (
            "Training points are the first 1,000 images, as in the code; the paper says random.",
            "The code logs ten times the loss that it minimises; the minimised one is shown here.",
        ),
        control=True,
    ),
    "golechha": Preset(
        "Golechha's run (arXiv 2405.12755): full batch, weight decay 0.01.",
        _GOLECHHA,
        (
            "MSE as in its table 1; the text says cross-entropy, which does not grok at scale 8.",
            "Not stated, our choice: the first 1,000 images of each split, float64, scaled biases.",
        ),
        control=True,
    ),
    "golechha-growing-norm": Preset(
        "Golechha's variant whose loss rewards a large norm (delta = 2e-10).",
        _GOLECHHA.model_copy(update={"norm_growth": 2e-10}),
        (
            "Weight decay 0.01 stays on, as in the paper. The norm grows only where 2 delta / eps "
            "exceeds the decay: the result hangs on Adam's epsilon.",
        ),
        control=True,
    ),
}


def build(config: BaseModel, data_dir: Path | None, device: str) -> Classifier:
    """Build the system of a configuration."""
    from grokscope.training.classifier import Classifier  # torch only when something is trained

    assert isinstance(config, ClassifierConfig)
    return Classifier(config, data_dir, device)


def probes(config: BaseModel) -> Sequence[Probe]:
    """Return the probes of a configuration: all of the first set."""
    from grokscope.probes import Golechha, Logits, Neighbourhood, Norms, Performance, Spectral

    assert isinstance(config, ClassifierConfig)
    return (
        Performance(),
        Norms(),
        Logits(softmax=config.loss == "cross-entropy"),
        Spectral(),
        Golechha(),
        Neighbourhood(),
    )


# --- Claims ---------------------------------------------------------------------------------------

_PHASES = frozenset(
    ("digits", "digits-decay", "mnist-quick", "mnist-quick-decay", "mnist", "mnist-decay")
)
_CONTROLS = frozenset(name for name in _PHASES if PRESETS[name].control)
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
        _PHASES - _CONTROLS,
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
        _PHASES - _CONTROLS,
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
        _PHASES - _CONTROLS,
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
        frozenset(name for name in PRESETS if not name.startswith("digits")),
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


EXPERIMENT = Experiment(
    id="anti-grokking",
    title="Anti-grokking: generalisation that comes late, and is lost again",
    source="arXiv 2506.04434, 2602.02859, 2605.12394, 2210.01117, 2405.12755",
    summary=(
        "A small ReLU network memorises its training set, generalises long after, and, without "
        "weight decay, loses it again while train accuracy stays perfect."
    ),
    presets=PRESETS,
    default="digits",
    claims=CLAIMS,
    build=build,
    probes=probes,
)
