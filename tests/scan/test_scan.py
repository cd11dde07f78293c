"""Whole scans, through child processes, of files as users have them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from grokscope import Watch
from grokscope.errors import InputError, UsageError
from grokscope.measures.power_law import fit_power_law
from grokscope.measures.spectrum import eigenvalues
from grokscope.probes import Spectral
from grokscope.probes.matrices import Heads
from grokscope.scan import Limits, Scan, Settings, scan
from grokscope.scan.children import Children
from grokscope.store.checkpoints import save_checkpoint
from grokscope.store.run_directory import RunDirectory

QUICK = Settings(shuffles=2, null_draws=5)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def decaying(seed: int = 2) -> Tensor:
    """Return a 60x60 matrix whose eigenvalues fall as the cube of their rank: alpha 4/3."""
    left, right = (torch.linalg.qr(noise(60, 60, seed=seed + i)).Q for i in (0, 1))
    return left * torch.arange(1.0, 61.0) ** -1.5 @ right


def saved(path: Path, tensors: dict[str, Tensor]) -> Path:
    safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    return path


def quick(path: Path, **options: Any) -> Scan:
    return scan(path, **{"settings": QUICK, "workers": 1, **options})


def layers(found: Scan) -> dict[str, dict[str, Any]]:
    return {layer["name"]: layer for layer in found.document["layers"]}


def findings(found: Scan) -> set[tuple[str, str]]:
    return {(each["finding"], each["layer"]) for each in found.document["findings"]}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """A file with one tensor of every fate."""
    planted = noise(60, 80, seed=1)
    planted[7, 3] = 60.0
    poisoned = noise(60, 60, seed=3)
    poisoned[0, 0] = math.nan
    tensors = {
        "noise.weight": noise(60, 80),
        "planted.weight": planted,
        "heavy.weight": decaying(),
        "poisoned.weight": poisoned,
        "zero.weight": torch.zeros(60, 60),
        "half.weight": noise(60, 64, seed=4, dtype=torch.bfloat16),
        "noise.bias": noise(60),
        "counter": torch.tensor(3),
        "packed.qweight": torch.ones(60, 60, dtype=torch.int8),
        "small.weight": noise(3, 60),
        "conv.weight": noise(16, 12, 3, 3, seed=5),
        "tied.weight": noise(60, 80),
    }
    return saved(tmp_path_factory.mktemp("zoo") / "zoo.safetensors", tensors), tensors


@pytest.fixture(scope="module")
def scanned(zoo: tuple[Path, dict[str, Tensor]]) -> Scan:
    return quick(zoo[0], workers=2)


def test_every_tensor_is_in_the_table(zoo, scanned) -> None:
    sources = {source for each in scanned.document["layers"] for source in each["sources"]}
    assert sources == set(zoo[1])
    statuses = {name: each["status"] for name, each in layers(scanned).items()}
    assert statuses == {
        "conv[flattened]": "ok",
        "conv[slices]": "ok",
        "counter": "skipped",
        "half": "ok",
        "heavy": "ok",
        "noise": "ok",
        "noise.bias": "skipped",
        "packed.qweight": "skipped",
        "planted": "ok",
        "poisoned": "failed",
        "small": "skipped",
        "tied": "skipped",
        "zero": "failed",
    }
    assert all(each["reason"] for each in scanned.document["layers"] if each["status"] != "ok")
    assert layers(scanned)["tied"]["reason"] == "the same numbers as noise"


def test_the_document_is_plain_json_and_says_why_numbers_are_missing(scanned) -> None:
    json.dumps(scanned.document, allow_nan=False)
    for layer in scanned.document["layers"]:
        for name in ("name", "kind", "shape", "alpha", "D", "xmin", "num_pl_spikes", "traps"):
            assert name in layer
        if layer["status"] == "ok":
            absent = {k for k, v in layer.items() if v is None} - {"step", "trap_location"}
            assert absent == set(layer["missing"])
            assert all(layer["missing"].values())


def test_numbers_are_those_of_the_measures(zoo, scanned) -> None:
    for name in ("noise", "heavy", "half"):
        fit = fit_power_law(eigenvalues(zoo[1][f"{name}.weight"]))
        layer = layers(scanned)[name]
        assert layer["alpha"] == pytest.approx(fit.alpha, rel=1e-9)
        assert layer["num_pl_spikes"] == fit.tail_size
    pooled = eigenvalues(zoo[1]["conv.weight"].flatten(2).permute(2, 0, 1)).flatten()
    assert layers(scanned)["conv[slices]"]["alpha"] == pytest.approx(fit_power_law(pooled).alpha)


def test_findings_name_the_planted_and_nothing_sound(scanned) -> None:
    found = findings(scanned)
    assert ("traps", "planted") in found
    assert ("alpha-below-2", "heavy") in found
    assert ("not-finite", "poisoned") in found
    assert ("failed-fit", "zero") in found
    assert not {layer for _, layer in found} & {"noise", "half", "counter", "tied", "small"}
    row, column, weight, _ = layers(scanned)["planted"]["trap_location"]["entries"][0]
    assert (row, column, weight) == (7, 3, 60.0)


def test_flagged_layers_come_with_their_spectrum(scanned) -> None:
    spectra = {each["layer"]: each for each in scanned.spectra}
    assert set(spectra) == {layer for _, layer in findings(scanned)}
    assert len(spectra["planted"]["raw"]) == len(spectra["planted"]["shuffled"]) == 60


def test_summary_leaves_failed_fits_out_of_means(scanned) -> None:
    (summary,) = scanned.document["summary"]
    assert (summary["ok"], summary["failed"], summary["skipped"]) == (6, 2, 5)
    judged = [layers(scanned)[name]["alpha"] for name in ("half", "heavy", "noise", "planted")]
    assert summary["alpha_layers"] == 4
    assert summary["alpha_mean"] == pytest.approx(np.mean(judged))
    slices = layers(scanned)["conv[slices]"]["alpha"]
    assert summary["families"]["slices"]["alpha_mean"] == slices


def test_heads_and_experts_are_averaged_apart(tmp_path) -> None:
    tensors = {
        "fc.weight": noise(60, 80),
        "layers.0.self_attn.q_proj.weight": noise(120, 120, seed=1),
        "layers.0.experts.w1": noise(2, 60, 64, seed=2),
        "rotation.weight": torch.linalg.qr(noise(60, 60, seed=3)).Q,
        "position_embeddings.weight": noise(60, 60, seed=4),
    }
    path = saved(tmp_path / "model.safetensors", tensors)
    found = quick(path, heads=Heads(2, 2))
    (summary,) = found.document["summary"]
    assert {name: means["alpha_layers"] for name, means in summary["families"].items()} == {
        "matrices": 1,
        "experts": 2,
        "heads": 2,
    }
    assert summary["alpha_mean"] == layers(found)["fc"]["alpha"]


def test_number_of_workers_changes_nothing(zoo, scanned) -> None:
    assert quick(zoo[0], workers=1).document == scanned.document


def test_a_torch_file_gives_the_same_as_safetensors(zoo, scanned, tmp_path) -> None:
    torch.save({"epoch": 3, "state_dict": zoo[1]}, tmp_path / "training.pt")
    found = quick(tmp_path / "training.pt")
    assert found.document["layers"] == scanned.document["layers"]


def test_names_of_one_memory_are_measured_once(tmp_path) -> None:
    shared = noise(20, 30)
    torch.save({"head.weight": shared, "embed.weight": shared}, tmp_path / "tied.pt")
    found = layers(quick(tmp_path / "tied.pt"))
    assert found["embed"]["status"] == "ok"
    assert found["head.weight"]["reason"] == "the same tensor as embed.weight"


def test_kept_results_are_used_and_a_changed_tensor_is_not_mistaken(zoo, scanned, tmp_path) -> None:
    stages: list[str] = []
    kept = tmp_path / "cache"
    first = quick(zoo[0], cache=kept)
    again = quick(zoo[0], cache=kept, progress=lambda stage, _: stages.append(stage))
    assert first.document == again.document == scanned.document
    assert again.spectra == first.spectra
    assert "measuring" not in stages
    changed = dict(zoo[1])
    changed["heavy.weight"] = changed["heavy.weight"] * torch.linspace(1, 2, 60)
    found = quick(saved(tmp_path / "changed.safetensors", changed), cache=kept)
    assert layers(found)["heavy"]["alpha"] != layers(first)["heavy"]["alpha"]
    assert layers(found)["noise"] == layers(first)["noise"]


@pytest.mark.parametrize(
    "other",
    [
        {"settings": Settings(shuffles=3, null_draws=5)},
        {"settings": Settings(shuffles=2, null_draws=5, seed=1)},
        {"settings": Settings(shuffles=2, null_draws=5, bootstrap=3)},
        {"settings": Settings(shuffles=2, null_draws=5, convention="weightwatcher")},
        {"base": "base.safetensors"},
    ],
    ids=str,
)
def test_another_question_is_not_answered_from_what_is_kept(tmp_path, other) -> None:
    path = saved(tmp_path / "m.safetensors", {"fc.weight": noise(30, 40)})
    saved(tmp_path / "base.safetensors", {"fc.weight": noise(30, 40, seed=1)})
    if "base" in other:
        other = {"base": tmp_path / other["base"]}
    fresh = quick(path, **other).document["layers"]
    kept = quick(path, cache=tmp_path / "cache").document["layers"]
    assert fresh != kept
    assert quick(path, cache=tmp_path / "cache", **other).document["layers"] == fresh


def test_what_is_kept_and_damaged_is_measured_again(tmp_path) -> None:
    path = saved(tmp_path / "m.safetensors", {"fc.weight": noise(30, 40)})
    fresh = quick(path, cache=tmp_path / "cache").document
    for file in (tmp_path / "cache").rglob("*.json"):
        if b"record" in file.read_bytes():
            file.write_text('{"record": 5}')
    assert quick(path, cache=tmp_path / "cache").document == fresh


def test_a_file_that_changes_meanwhile_is_refused_and_nothing_of_it_kept(tmp_path) -> None:
    path = saved(tmp_path / "m.safetensors", {"fc.weight": noise(30, 40)})
    data = bytearray(path.read_bytes())

    def change(stage: str, share: float) -> None:
        if stage == "reading":
            data[-4:] = b"\x00\x00\x80\x41"
            path.write_bytes(data)

    with pytest.raises(InputError, match="changed while it was read"):
        quick(path, cache=tmp_path / "cache", progress=change)
    kept = [json.loads(file.read_bytes()) for file in (tmp_path / "cache").rglob("*.json")]
    assert not any("record" in each for each in kept)


def test_of_a_stack_only_what_is_asked_for_is_read(tmp_path) -> None:
    stack = noise(4, 30, 40)
    path = saved(tmp_path / "m.safetensors", {"experts.w1": stack})
    found = layers(quick(path, layers=r"\[2\]"))
    assert list(found) == ["experts.w1[2]"]
    assert found["experts.w1[2]"]["alpha"] == fit_power_law(eigenvalues(stack[2])).alpha
    thirds = saved(tmp_path / "qkv.safetensors", {"attn.in_proj_weight": noise(90, 30)})
    key = layers(quick(thirds))["attn.in_proj_weight[key]"]
    assert key["alpha"] == fit_power_law(eigenvalues(noise(90, 30)[30:60])).alpha


def test_too_many_matrices_are_refused_before_they_are_listed(tmp_path) -> None:
    path = saved(tmp_path / "m.safetensors", {"w": torch.zeros(4000, 10, 10)})
    with pytest.raises(InputError, match="--limit matrices=4000"):
        quick(path, limits=Limits(matrices=3999))


def test_a_run_that_is_a_link_or_too_large_is_refused(tmp_path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_bytes(b" " * 20)
    with pytest.raises(InputError, match="larger than the limit"):
        quick(run, limits=Limits(header_bytes=19))
    (run / "checkpoints").symlink_to(tmp_path)
    with pytest.raises(InputError, match="is a link"):
        quick(run)


def test_an_interrupted_scan_goes_on_where_it_was(zoo, scanned, tmp_path) -> None:
    def interrupt(stage: str, share: float) -> None:
        if stage == "measuring":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick(zoo[0], cache=tmp_path, progress=interrupt)
    kept = [json.loads(file.read_bytes()) for file in tmp_path.rglob("*.json")]
    assert sum("record" in each for each in kept) == 1
    assert quick(zoo[0], cache=tmp_path).document == scanned.document


def test_the_difference_of_two_models(tmp_path) -> None:
    base, change = noise(60, 80), noise(60, 80, seed=9).pow(5)
    tuned = {"fc.weight": base + change, "same.weight": base}
    path = saved(tmp_path / "tuned.safetensors", tuned)
    origin = saved(tmp_path / "base.safetensors", {"fc.weight": base, "same.weight": base.clone()})
    found = layers(quick(path, base=origin))
    difference = (base + change).double() - base.double()
    assert found["fc"]["alpha"] == pytest.approx(fit_power_law(eigenvalues(difference)).alpha)
    assert found["same"]["reason"] == "the same numbers as in the base"
    lacking = saved(tmp_path / "lacking.safetensors", {"fc.weight": base})
    with pytest.raises(InputError, match=r"1 of 2 tensors .* 'same.weight'"):
        quick(path, base=lacking)
    assert layers(quick(path, base=lacking, layers="^fc$")).keys() == {"fc"}


def test_a_low_rank_adapter_is_its_product(tmp_path) -> None:
    a, b = noise(12, 80), noise(60, 12, seed=1)
    path = saved(tmp_path / "lora.safetensors", {"q.lora_A.weight": a, "q.lora_B.weight": b})
    (layer,) = quick(path).document["layers"]
    assert (layer["name"], layer["kind"], layer["shape"]) == ("q[lora]", "lora", [60, 80])
    assert layer["rank"] == layer["size"] == 12
    assert layer.get("alpha_null_mean") is None
    exact = eigenvalues(b.double() @ a.double(), method="svd")[-12:]
    assert layer["alpha"] == pytest.approx(fit_power_law(exact).alpha, rel=1e-9)


def test_heads_from_the_configuration_beside(tmp_path) -> None:
    tensors = {"layers.0.self_attn.q_proj.weight": noise(64, 64)}
    saved(tmp_path / "model.safetensors", tensors)
    with pytest.raises(UsageError, match="--heads auto"):
        quick(tmp_path, heads="auto")
    (tmp_path / "config.json").write_text('{"num_attention_heads": 4}')
    auto = quick(tmp_path, heads="auto")
    assert len(auto.document["layers"]) == 4
    assert auto.document["layers"] == quick(tmp_path, heads=Heads(4, 4)).document["layers"]


def test_layers_are_sorted_as_people_count(tmp_path) -> None:
    names = [f"layers.{i}.weight" for i in (10, 2, 1)]
    path = saved(
        tmp_path / "m.safetensors", {n: noise(12, 12, seed=i) for i, n in enumerate(names)}
    )
    assert list(layers(quick(path))) == ["layers.1", "layers.2", "layers.10"]


def test_patterns_and_their_faults(zoo) -> None:
    assert set(layers(quick(zoo[0], layers=r"conv\[|half"))) == {
        "conv[flattened]",
        "conv[slices]",
        "half",
    }
    with pytest.raises(UsageError, match="no regular expression"):
        quick(zoo[0], layers="*")
    with pytest.raises(UsageError, match="matches no layer"):
        quick(zoo[0], layers="fc1")


def test_the_packages_convention_has_its_columns(zoo) -> None:
    found = quick(zoo[0], settings=Settings(convention="weightwatcher"), layers="noise|zero")
    noisy = layers(found)["noise"]
    assert noisy["weightwatcher_status"] == "success"
    assert noisy["traps"] == noisy["rand_num_spikes"]
    assert noisy["num_evals"] == 60
    assert layers(found)["zero"]["status"] == "failed"
    json.dumps(found.document, allow_nan=False)


def test_a_watch_and_a_scan_of_its_run_read_the_same(tmp_path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(12, 16, 3), nn.Flatten(), nn.Linear(16, 60), nn.LSTM(60, 20)
    ).double()
    run = RunDirectory.open_or_create(
        tmp_path / "run", experiment="none", preset="none", config={"seed": 5}
    )
    with run.lock():
        watch = Watch(
            model,
            probes=[Spectral(shuffles=3)],
            run=run,
            schedule=lambda _: True,
            budget=None,
            seed=5,
        )
        for step in (0, 7):
            watch.step(step)
            tensors = {f"model.{k}": v.numpy().copy() for k, v in model.state_dict().items()}
            save_checkpoint(run.path, step, tensors, {})
            model[2].weight.data *= 1 + torch.rand(60, dtype=torch.float64)[:, None] ** 4
        watch.close()
    found = quick(run.path, settings=Settings(shuffles=3, null_draws=5))
    assert found.document["seed"] == 5
    compared = 0
    for layer in found.document["layers"]:
        if layer["status"] != "ok" or layer["name"].endswith("[slices]"):
            continue
        for ours, theirs in (("alpha", "htsr.alpha"), ("D", "htsr.ks_distance")):
            series = watch.trace.series(theirs, layer["name"])
            assert layer[ours] == pytest.approx(series.at(layer["step"]), rel=1e-9)
        assert layer["traps"] == watch.trace.series("traps.count", layer["name"]).at(layer["step"])
        compared += 1
    assert compared == 2 * 10  # the kernel, the linear layer, and eight gates
    one = quick(
        run.path / "checkpoints" / "step-000000000007", settings=Settings(shuffles=3, null_draws=5)
    )
    assert one.document["layers"] == [x for x in found.document["layers"] if x["step"] == 7]


def test_what_takes_too_much_memory_is_said_and_the_rest_goes_on(tmp_path) -> None:
    path = saved(
        tmp_path / "m.safetensors", {"big.weight": noise(2000, 400), "small.weight": noise(20, 20)}
    )
    found = layers(quick(path, memory=2**23))
    assert found["big"]["status"] == "lost"
    assert "--memory" in found["big"]["reason"]
    assert found["small"]["status"] == "ok"


def test_one_faulty_answer_costs_one_matrix(tmp_path, monkeypatch) -> None:
    path = saved(tmp_path / "m.safetensors", {"a.weight": noise(20, 20), "b.weight": noise(20, 30)})
    run = Children.run

    def faulty(self: Children, tasks: Any, memory: int) -> Any:
        for index, answer in run(self, tasks, memory):
            bad = "measured" in answer and "b" in str(tasks[index].body["matrices"][0]["matrix"])
            yield index, {"defect": "Traceback\nValueError: wrong"} if bad else answer

    monkeypatch.setattr(Children, "run", faulty)
    found = quick(path)
    assert layers(found)["a"]["status"] == "ok"
    assert layers(found)["b"]["status"] == "lost"
    assert "ValueError: wrong" in layers(found)["b"]["reason"]
    assert findings(found) >= {("not-measured", "b")}


def test_numbers_whose_squares_leave_the_range_are_not_called_something_else(tmp_path) -> None:
    tensors = {
        "huge.weight": 1e300 * noise(20, 20).double(),
        "tiny.weight": 1e-300 * noise(20, 20).double(),
    }
    found = layers(quick(saved(tmp_path / "m.safetensors", tensors)))
    assert found["huge"]["reason"] == "the squares of the weights overflow"
    assert found["tiny"]["reason"] == "the squares of all weights underflow"


def test_a_base_that_is_a_run(tmp_path, zoo) -> None:
    RunDirectory.open_or_create(tmp_path / "run", experiment="none", preset="none", config={})
    with pytest.raises(UsageError, match="is a run; name one of the folders"):
        quick(zoo[0], base=tmp_path / "run")


def test_a_run_without_checkpoints(tmp_path) -> None:
    RunDirectory.open_or_create(tmp_path / "run", experiment="none", preset="none", config={})
    with pytest.raises(InputError, match="holds no checkpoint"):
        quick(tmp_path / "run")
