"""How fast the columns of WeightWatcher are computed, against the package and against the floor.

    python benchmarks/spectra.py [--json] [mlp] [layer] [layer-unshuffled] [transformer] [gpu]

Compared, on one thread, in one process, interleaved, on the same float32 weights and the same
shuffles: `weightwatcher.WeightWatcher(model).analyze(randomize=True, mp_fit=True, detX=True)` and
`grokscope.measures.weightwatcher`. Equal results are asserted first. The floor is the time of the
Gram matrices and symmetric eigenvalues that the columns need, and of nothing else, as numpy does
them: one spectrum of each layer, and one of each of its shuffles (two; six for a layer with fewer
than 100 eigenvalues). Drawing the shuffles, which has to be numpy's own loop for equal results, is
not part of it, though it takes half as long again for a large layer. Peak memory is what each of
the two adds to a process that holds the model.

``transformer`` scans a checkpoint of half a billion weights, as `grokscope scan` does, and prints
the memory of its processes beside the bound that they must keep and what the package takes; both
use all cores. ``gpu`` needs one.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import logging
import math
import multiprocessing
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from threadpoolctl import threadpool_limits
from torch import nn

from grokscope.measures.spectrum import eigenvalues
from grokscope.measures.weightwatcher import WeightWatcherColumns, weightwatcher

SEED = 0
REPEATS = 5  # of ours for each of the package's
SIMPLEX = 2e-4  # the package fits the scale of square layers by a simplex search, ours is exact
BASE = 500.0  # MiB of a process that has loaded torch and scipy, and of blocks of 64 MiB
LAYERS, WIDTH, VOCABULARY = 16, 1536, 32_000
PATIENCE = 300.0  # seconds that the package is given
OF_THE_SCALE = ("sigma_mp", "mp_softrank", "bulk_max", "bulk_min")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the package's prints, log lines and warnings from the terminal."""
    logging.disable(logging.CRITICAL)
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


with quiet():
    from weightwatcher import WeightWatcher


def theirs(model: nn.Module, shuffles: bool) -> list[dict[str, Any]]:
    np.random.seed(SEED)
    with quiet():
        table = WeightWatcher(model).analyze(plot=False, randomize=shuffles, mp_fit=True, detX=True)
    return table.to_dict("records")


def ours(model: nn.Module, shuffles: bool) -> list[WeightWatcherColumns]:
    random_state = np.random.RandomState(SEED) if shuffles else None
    return [weightwatcher(w, random_state=random_state) for w in weights(model)]


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [module.weight for module in model.modules() if isinstance(module, nn.Linear)]


def assert_equal_results(model: nn.Module, shuffles: bool) -> None:
    for found, expected in zip(ours(model, shuffles), theirs(model, shuffles), strict=True):
        for name, value in dataclasses.asdict(found).items():
            if name.endswith("reason"):
                assert value == "", value
            elif name not in expected:
                assert not shuffles
                assert math.isnan(value), name
            elif isinstance(value, str):
                assert value == expected[name], name
            else:
                near = SIMPLEX if name.removeprefix("rand_") in OF_THE_SCALE else 1e-6
                assert math.isclose(value, expected[name], rel_tol=near), name


def floor(model: nn.Module, shuffles: bool) -> Callable[[], None]:
    """Return the linear algebra that the columns of a model need, as a function."""
    matrices = []
    for weight in weights(model):
        wide = weight if weight.shape[0] <= weight.shape[1] else weight.T
        spectra = 1 + shuffles * (6 if len(wide) < 100 else 2)
        matrices += spectra * [wide.detach().double().numpy()]

    def run() -> None:
        for matrix in matrices:
            np.linalg.eigvalsh(matrix @ matrix.T)

    return run


def seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def peak_memory() -> float:
    """Return the largest resident size of this process so far, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def added_memory(action: Callable[[], object]) -> float:
    """Return what an action adds to the peak memory of a child of this process, in MiB."""

    def child(connection: Any) -> None:
        before = peak_memory()
        action()
        connection.send(peak_memory() - before)

    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(sender,))
    process.start()
    added: float = receiver.recv()
    process.join()
    return added


def against_the_package(
    model: nn.Module, *, rounds: int, shuffles: bool = True
) -> dict[str, float]:
    bare = floor(model, shuffles)

    def package() -> None:
        theirs(model, shuffles)

    def own() -> None:
        ours(model, shuffles)

    memory = added_memory(own), added_memory(package)
    assert_equal_results(model, shuffles)
    bare()
    slow, fast, least = [], [], []
    for _ in range(rounds):
        slow.append(seconds(package))
        fast += [seconds(own) for _ in range(REPEATS)]
        least += [seconds(bare) for _ in range(REPEATS)]
    ratios = [t / statistics.median(fast) for t in slow]
    return {
        "speed-up over WeightWatcher": statistics.median(ratios),
        "least speed-up of a round": min(ratios),
        "times the floor": statistics.median(fast) / statistics.median(least),
        "WeightWatcher, times the floor": statistics.median(slow) / statistics.median(least),
        "milliseconds": 1e3 * statistics.median(fast),
        "MiB added at the peak": memory[0],
        "WeightWatcher, MiB added at the peak": memory[1],
    }


def mlp() -> Mapping[str, float]:
    """Measure the network of the anti-grokking experiment, 784-200-200-10."""
    torch.manual_seed(SEED)
    layers = (nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10))
    return against_the_package(nn.Sequential(*layers), rounds=7)


def layer(shuffles: bool = True) -> Mapping[str, float]:
    """Measure one layer of 1024 x 4096."""
    torch.manual_seed(SEED)
    model = nn.Sequential(nn.Linear(4096, 1024))
    return against_the_package(model, rounds=3, shuffles=shuffles)


def layer_unshuffled() -> Mapping[str, float]:
    """Measure the same layer without the columns of its shuffles."""
    return layer(shuffles=False)


# What the transformer section runs in processes of their own, so that each has its own peak.
SCAN = """
import json, resource, sys, time
from pathlib import Path
from grokscope.scan import Settings, scan
settings = Settings(shuffles=int(sys.argv[2]), null_draws=0)
begin = time.perf_counter()
found = scan(Path(sys.argv[1]), settings=settings, workers=int(sys.argv[3]))
seconds = time.perf_counter() - begin
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
(summary,) = found.document["summary"]
print(json.dumps([seconds, children * 1024, summary["ok"]]))
"""
PACKAGE = """
import sys
import weightwatcher
weightwatcher.WeightWatcher(model=sys.argv[1]).analyze(plot=False)
"""


def write_transformer(folder: Path) -> dict[str, tuple[int, int]]:
    """Write a model of about half a billion float32 weights in four shards; return its shapes."""
    shapes = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    for i in range(LAYERS):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"model.layers.{i}.self_attn.{name}.weight"] = (WIDTH, WIDTH)
        shapes[f"model.layers.{i}.mlp.up_proj.weight"] = (4 * WIDTH, WIDTH)
        shapes[f"model.layers.{i}.mlp.down_proj.weight"] = (WIDTH, 4 * WIDTH)
    names, weight_map = list(shapes), {}
    generator = torch.Generator().manual_seed(SEED)
    for shard in range(4):
        file = f"model-{shard + 1:05}-of-00004.safetensors"
        kept = names[shard::4]
        save_file({n: torch.randn(shapes[n], generator=generator) for n in kept}, folder / file)
        weight_map |= dict.fromkeys(kept, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return shapes


def package_on(folder: Path) -> tuple[float, float]:
    """Return the peak of the package in MiB, and its seconds; nan if it took over `PATIENCE`."""
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", PACKAGE, str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    peak = 0.0
    while process.poll() is None and time.monotonic() < begin + PATIENCE:
        status = Path(f"/proc/{process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        peak = max(peak, int(found[1]) / 1024 if found else 0.0)
        time.sleep(0.2)
    taken = time.monotonic() - begin if process.poll() == 0 else math.nan
    process.kill()
    process.wait()
    return peak, taken


def scanned(folder: Path, shuffles: int, workers: int) -> tuple[float, float, int]:
    """Return the seconds of a scan, the MiB of its largest process, and how much it measured."""
    arguments = [sys.executable, "-c", SCAN, str(folder), str(shuffles), str(workers)]
    answer = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    taken, peak, measured = json.loads(answer)
    return taken, peak / 2**20, measured


def transformer() -> Mapping[str, float]:
    """Scan 16 layers, half a billion float32 weights in four shards."""
    workers = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        shapes = write_transformer(Path(name))
        plain, plain_peak, measured = scanned(Path(name), 0, workers)
        assert measured == len(shapes)
        shuffled, shuffled_peak, _ = scanned(Path(name), 1, workers)
        package_peak, package = package_on(Path(name))
    least = 0.0
    for shape in set(shapes.values()):
        model = nn.Sequential(nn.Linear(*shape))
        spectrum = min(seconds(floor(model, shuffles=False)) for _ in range(2))
        least += spectrum * list(shapes.values()).count(shape) / workers
    # A process with torch and scipy, and three float64 copies of the largest tensor.
    bound = BASE + 3 * 8 * max(math.prod(shape) for shape in shapes.values()) / 2**20
    peak = max(plain_peak, shuffled_peak)
    assert peak <= bound, (peak, bound)
    return {
        "million weights": sum(math.prod(shape) for shape in shapes.values()) / 1e6,
        "processes": workers,
        "without shuffles, speed-up over WeightWatcher": package / plain,
        "without shuffles, times the floor": plain / least,
        "with one shuffle, times the floor": shuffled / (2 * least),
        "MiB of the largest process": peak,
        "MiB of all processes at most": peak * workers,
        "MiB it may take": bound,
        "WeightWatcher, MiB": package_peak,
    }


def gpu() -> Mapping[str, float]:
    """Take the spectra of 16 matrices of 4096 x 4096 at once, on a GPU and on this CPU."""
    stack = torch.randn(16, 4096, 4096, generator=torch.Generator().manual_seed(SEED))
    one = seconds(lambda: eigenvalues(stack[0]))
    on_gpu = stack.cuda()
    torch.testing.assert_close(eigenvalues(on_gpu[:1]).cpu(), eigenvalues(stack[:1]))

    def batch() -> None:
        eigenvalues(on_gpu)
        torch.cuda.synchronize()

    taken = min(seconds(batch) for _ in range(3))
    return {"matrices a second": 16 / taken, "speed-up over one core": 16 * one / taken}


SECTIONS = {
    "mlp": mlp,
    "layer": layer,
    "layer-unshuffled": layer_unshuffled,
    "transformer": transformer,
    "gpu": gpu,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    arguments = parser.parse_args()
    unknown = set(arguments.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    with threadpool_limits(1):
        chosen = arguments.sections or [
            n for n in SECTIONS if n != "gpu" or torch.cuda.is_available()
        ]
        results = {name: SECTIONS[name]() for name in chosen}
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    for name, values in results.items():
        print(f"{name}: {SECTIONS[name].__doc__}")
        for what, value in values.items():
            print(f"  {what}: {value:.3g}")


if __name__ == "__main__":
    main()
