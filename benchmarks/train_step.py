"""How fast the training step is, against the loop that a user would write and against the floor.

    python benchmarks/train_step.py [--json]

Compared, on one thread, in one process, interleaved: the plain eager loop (autograd, an unfused
`torch.optim.AdamW`, `zero_grad`, `backward`, `step`) and grokscope's written-out step, on the same
batches from the same initial weights. Equal results in float64 are asserted first. The floor is the
floating-point work of one step over the rate that matrix products of the same shapes reach.

Printed besides: what one observation with all probes costs, and its share of the run's wall time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from grokscope.data.batches import batch_indices
from grokscope.data.seeds import derive_seed
from grokscope.errors import MissingResource
from grokscope.experiments import get_experiment
from grokscope.experiments.anti_grokking import probes
from grokscope.training.classifier import Classifier
from grokscope.training.config import ClassifierConfig
from grokscope.watch import Watch, log_spaced

ROUNDS = 7


def batches_of(config: ClassifierConfig, start: int, stop: int) -> torch.Tensor:
    indices = batch_indices(
        config.n_train,
        config.batch_size,
        seed=derive_seed(config.seed, "batches"),
        start=start,
        stop=stop,
        replacement=config.replacement,
    )
    return torch.from_numpy(indices)


def plain(system: Classifier, config: ClassifierConfig) -> tuple[nn.Module, Callable[[int], None]]:
    """Return the eager loop on a copy of the system's network, as a function of steps to take."""
    layers: list[nn.Module] = []
    for source in system.model.layers():
        layer = nn.Linear(source.in_features, source.out_features, dtype=source.weight.dtype)
        layer.load_state_dict(source.state_dict())
        layers += [layer, nn.ReLU()]
    net = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    inputs = system.data.inputs
    targets = nn.functional.one_hot(system.data.labels, 10).to(inputs.dtype)
    taken = 0

    def advance(steps: int) -> None:
        nonlocal taken
        for batch in batches_of(config, taken, taken + steps):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(net(inputs[batch]), targets[batch])
            loss.backward()
            optimizer.step()
        taken += steps

    return net, advance


def seconds(action: Callable[[], None]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def gemm_seconds(system: Classifier, config: ClassifierConfig, every_input: bool) -> float:
    """Return the time of the matrix products of one step alone, the floor of any implementation.

    With ``every_input``, inputs that are zero in every training point are counted too.
    """
    inputs, dtype = system.data.inputs, system.data.inputs.dtype
    width = inputs.shape[1] if every_input else int((inputs != 0).any(0).sum())
    widths = [width, *config.hidden, 10]
    products = []
    rows = config.batch_size
    for i, (below, above) in enumerate(itertools.pairwise(widths)):
        x, w = torch.rand(rows, below, dtype=dtype), torch.rand(above, below, dtype=dtype)
        e = torch.rand(rows, above, dtype=dtype)
        products.append((x, w.t(), torch.empty(rows, above, dtype=dtype)))
        products.append((e.t(), x, torch.empty(above, below, dtype=dtype)))
        if i:
            products.append((e, w, torch.empty(rows, below, dtype=dtype)))

    def once() -> None:
        for a, b, out in products:
            torch.mm(a, b, out=out)

    once()

    def twenty_times() -> None:
        for _ in range(20):
            once()

    return min(seconds(twenty_times) for _ in range(ROUNDS)) / 20


def assert_equal_results(config: ClassifierConfig, data_dir: Path | None) -> None:
    double = config.model_copy(update={"dtype": "float64"})
    system = Classifier(double, data_dir)
    net, advance = plain(system, double)
    advance(50)
    system.advance(50)
    for ours, theirs in zip(system.model.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def measure(preset: str, steps: int, data_dir: Path | None) -> dict[str, float | str]:
    config = get_experiment("anti-grokking").presets[preset].config
    assert isinstance(config, ClassifierConfig)
    assert_equal_results(config, data_dir)
    system = Classifier(config, data_dir)
    _, advance = plain(system, config)
    advance(steps)
    system.advance(steps)
    eager, ours = [], []
    for _ in range(ROUNDS):
        eager.append(seconds(lambda: advance(steps)) / steps)
        ours.append(seconds(lambda: system.advance(system.step + steps)) / steps)
    floor = gemm_seconds(system, config, every_input=True)
    reached = gemm_seconds(system, config, every_input=False)
    watch = Watch(system.model, probes=probes(config), data=system.data, budget=None, strict=True)
    watch.observe(0)  # draws the Monte-Carlo null of each shape, once
    look = statistics.median(seconds(partial(watch.observe, i)) for i in range(1, 6))
    count = len(log_spaced(config.steps, config.observations))
    step = statistics.median(ours)
    return {
        "preset": preset,
        "dtype": config.dtype,
        "speed-up over eager": statistics.median(eager) / step,
        "times the GEMM floor": step / floor,
        "times the GEMM floor of the inputs that are ever non-zero": step / reached,
        "steps that one observation costs": look / step,
        "share of the run spent watching": count * look / (count * look + config.steps * step),
    }


def peak_memory() -> float:
    """Return the largest resident size of this process so far, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data-dir", type=Path, help="folder with the MNIST files")
    parser.add_argument("presets", nargs="*", default=["digits", "mnist-quick", "mnist"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for preset in arguments.presets:
        steps = 1000 if preset.startswith("digits") else 60
        try:
            rows.append(measure(preset, steps, arguments.data_dir))
        except MissingResource as error:
            print(f"{preset}: left out. {error}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"peak memory of this process: {peak_memory():.0f} MiB")
    for row in rows:
        print(f"{row.pop('preset')} ({row.pop('dtype')})")
        for name, value in row.items():
            print(f"  {name}: {value:.3g}")


if __name__ == "__main__":
    main()
