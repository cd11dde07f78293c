"""What probes see, and that the shared work is shared."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from grokscope.measures.absolute_weight_entropy import absolute_weight_entropy
from grokscope.measures.activation_sparsity import activation_sparsity
from grokscope.models.mlp import mlp
from grokscope.probes import Golechha, Neighbourhood, Performance, ProbeData, Spectral, View
from grokscope.probes.matrices import Matrix, Skipped, plan_matrices
from grokscope.probes.view import undisturbed, unwrapped, weight_matrices
from grokscope.store.records import ArrayReading, Reading


def small() -> tuple[nn.Module, ProbeData]:
    g = torch.Generator().manual_seed(0)
    data = ProbeData(
        torch.rand(30, 16, generator=g, dtype=torch.float64),
        torch.randint(0, 3, (30,), generator=g),
        (torch.rand(9, 16, generator=g, dtype=torch.float64), torch.zeros(9, dtype=torch.int64)),
        image_shape=(4, 4),
    )
    return mlp([16, 14, 12, 3], seed=1, init_scale=2.0, dtype=torch.float64), data


def values(probe: object, view: View) -> dict[tuple[str, str], float]:
    return {
        (r.measure, r.subject): r.value
        for r in probe.observe(view)  # type: ignore[attr-defined]
        if isinstance(r, Reading)
    }


def test_one_forward_pass_serves_all_probes() -> None:
    model, data = small()
    calls: list[int] = []
    model.register_forward_hook(lambda _module, inputs, _output: calls.append(len(inputs[0])))
    with undisturbed(model):
        view = View(model, 0, data, seed=0)
        first, second = view.train, view.train
        list(Performance().observe(view))
    assert first is second
    assert calls == [30, 9]


def test_activations_are_those_that_enter_the_next_layer() -> None:
    model, data = small()
    with undisturbed(model):
        view = View(model, 0, data, seed=0)
        hidden = torch.relu(model.fc1(data.inputs))
        assert torch.equal(view.train.activations["fc1"], hidden)
        assert list(view.train.activations) == ["fc1", "fc2"]
        seen = values(Golechha(threshold=0.2), view)
        expected = activation_sparsity(hidden, threshold=0.2).value
    assert seen["golechha.activation_sparsity", "fc1"] == expected


def test_other_weights_are_used_without_touching_the_model() -> None:
    model, data = small()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with undisturbed(model):
        view = View(model, 0, data, seed=0)
        zeroed = {name: torch.zeros_like(weight) for name, weight in view.weights.items()}
        assert torch.equal(view.logits_with(zeroed), model.fc3.bias.expand(30, 3))
        assert torch.equal(view.logits_with(view.weights), view.train.logits)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_matrices_are_named_by_their_layers_and_shared_ones_appear_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(7, 5)
            self.head = nn.Linear(5, 7)
            self.head.weight = self.embed.weight
            self.free = nn.Parameter(torch.rand(4, 3))
            self.conv = nn.Conv1d(2, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.embed(x))

    assert list(weight_matrices(Tied())) == ["free", "embed", "conv[flattened]"]


class Several(nn.Module):
    """A layer of several kinds each, and one model for them all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 12, 5)
        self.lstm = nn.LSTM(12, 11, batch_first=True, bias=False)
        self.lora_A = nn.Linear(11, 2, bias=False)
        self.lora_B = nn.Linear(2, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(self.conv(x[:, None]).relu().mT)
        return self.lora_B(self.lora_A(states[:, -1]))


def several() -> tuple[nn.Module, ProbeData]:
    g = torch.Generator().manual_seed(0)
    model = Several().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=g) - 0.5)
    inputs = torch.rand(8, 16, generator=g, dtype=torch.float64)
    return model, ProbeData(inputs, torch.zeros(8, dtype=torch.int64))


def test_matrices_of_other_layers_are_views_with_the_names_that_files_have() -> None:
    model, data = several()
    weights = View(model, 0, data, seed=0).weights
    gates = ("input", "forget", "cell", "output")
    assert list(weights) == [
        "conv[flattened]",
        *(f"lstm.weight_ih_l0[{gate}]" for gate in gates),
        *(f"lstm.weight_hh_l0[{gate}]" for gate in gates),
        "[lora]",
    ]
    assert len(weights) == 10
    forget = weights["lstm.weight_hh_l0[forget]"]
    assert forget.data_ptr() == model.lstm.weight_hh_l0[11:].data_ptr()
    assert not forget.requires_grad
    product = model.lora_B.weight @ model.lora_A.weight
    assert torch.equal(weights["[lora]"], product.detach())


def test_a_model_is_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(17, 23), nn.Linear(23, 19))
    calls: list[int] = []

    def counted(*args: object, **kwargs: object) -> list[Matrix | Skipped]:
        calls.append(1)
        return plan_matrices(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr("grokscope.probes.view.plan_matrices", counted)
    for step in range(3):
        assert list(View(model, step, None, seed=0).weights) == ["0", "1"]
    assert len(calls) == 1
    model.append(nn.Linear(19, 17))
    assert list(View(model, 3, None, seed=0).weights) == ["0", "1", "2"]


def test_all_kinds_of_layers_are_read() -> None:
    model, data = several()
    with undisturbed(model):
        view = View(model, 0, data, seed=0)
        spectral = values(Spectral(shuffles=2, null_draws=0), view)
        golechha = values(Golechha(), view)
    subjects = {subject for measure, subject in spectral if measure == "spectrum.size"}
    assert subjects == set(view.weights)
    assert spectral["spectrum.size", "conv[flattened]"] == 5
    gate = torch.linalg.matrix_norm(model.lstm.weight_ih_l0[22:33].detach(), 2)
    norm = spectral["spectrum.spectral_norm", "lstm.weight_ih_l0[cell]"]
    assert norm == pytest.approx(float(gate), rel=1e-12)
    # What asks for entries and not for matrices sees each entry once.
    entropy = "golechha.absolute_weight_entropy"
    layers = ["conv", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "lora_A", "lora_B"]
    assert [subject for measure, subject in golechha if measure == entropy] == [*layers, "model"]
    weights = [p.detach() for p in model.parameters() if p.ndim > 1]
    total = sum(absolute_weight_entropy(weight).value for weight in weights)
    assert golechha[entropy, "model"] == pytest.approx(total, rel=1e-12)
    assert golechha["golechha.local_circuit_complexity", "model"] > 0


def test_other_weights_of_any_layer_are_used() -> None:
    model, data = several()
    with undisturbed(model):
        view = View(model, 0, data, seed=0)
        assert torch.equal(view.logits_with(view.layers), view.train.logits)
        other = view.logits_with({"conv": torch.zeros(12, 1, 5, dtype=torch.float64)})
        model.conv.weight.zero_()
        assert torch.equal(other, view.logits_of(data.inputs))


def test_generators_are_private_and_depend_on_name_and_step() -> None:
    model, data = small()

    def draw(step: int, *names: str) -> float:
        return float(torch.rand((), generator=View(model, step, data, seed=3).generator(*names)))

    assert draw(1, "a") == draw(1, "a")
    assert len({draw(1, "a"), draw(2, "a"), draw(1, "b"), draw(1, "a", "b")}) == 4


def test_spectral_probe_reads_every_layer_and_keeps_its_spectra() -> None:
    model, data = small()
    with undisturbed(model):
        view = View(model, 5, data, seed=0)
        readings = list(Spectral(shuffles=3, null_draws=20).observe(view))
    arrays = [r for r in readings if isinstance(r, ArrayReading)]
    shapes = {(r.measure, r.subject): r.values.shape for r in arrays}
    assert shapes["spectrum.eigenvalues", "fc1"] == (14,)
    assert shapes["spectrum.shuffled_eigenvalues", "fc2"] == (3, 12)
    seen = {(r.measure, r.subject): r for r in readings if isinstance(r, Reading)}
    norm = torch.linalg.matrix_norm(model.fc2.weight.detach(), 2)
    assert seen["spectrum.spectral_norm", "fc2"].value == pytest.approx(float(norm), rel=1e-12)
    assert seen["spectrum.size", "fc3"].value == 3
    # Three eigenvalues have no tail to fit: missing, with the reason.
    assert seen["htsr.alpha", "fc3"].value != seen["htsr.alpha", "fc3"].value
    assert seen["htsr.alpha", "fc3"].note


def test_large_matrices_are_not_tested_against_simulated_noise() -> None:
    model, data = small()
    with undisturbed(model):
        view = View(model, 0, data, seed=0)
        readings = list(Spectral(shuffles=2, null_draws=20, null_limit=12).observe(view))
    seen = {(r.measure, r.subject): r for r in readings if isinstance(r, Reading)}
    p_value, distance = (
        seen[f"marchenko_pastur.ks_{name}", "fc1"] for name in ("p_value", "distance")
    )
    assert math.isnan(p_value.value)
    assert p_value.note == "no null was simulated: the shorter side, 14, is over 12"
    assert 0 < distance.value < 1
    assert distance.note == ""
    assert 0 < seen["marchenko_pastur.ks_p_value", "fc2"].value <= 1


def test_an_unfit_matrix_has_neither_distance_nor_p_value_and_the_reason_is_its_own() -> None:
    model, data = small()
    with torch.no_grad():
        model.fc1.weight.zero_()
    with undisturbed(model):
        readings = list(Spectral(null_limit=12).observe(View(model, 0, data, seed=0)))
    seen = {(r.measure, r.subject): r for r in readings if isinstance(r, Reading)}
    for name in ("p_value", "distance"):
        assert seen[f"marchenko_pastur.ks_{name}", "fc1"].note == "all weights are zero"


class Counting(nn.Module):
    """Changes its buffers in evaluation mode: in place, by another one, and by new ones."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("cache", None)
        self.register_buffer("constant", torch.tensor([1.0, math.nan]))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.mean = self.mean + x.mean(0)
        self.cache = x
        self.register_buffer("late", x)
        return self.layer(x)


def test_buffers_are_left_as_they_were() -> None:
    model = Counting()
    mean, constant = model.mean, model.constant
    with undisturbed(model):
        model(torch.rand(5, 4))
        assert model.calls == 1
    assert model.calls == 0
    assert model.mean is mean
    assert torch.equal(mean, torch.zeros(4))
    assert model.cache is None
    assert list(model._buffers) == ["calls", "mean", "cache", "constant"]
    # What did not change is not written to: a graph that holds it could not run backward.
    assert model.constant is constant
    assert constant._version == 0


class Names(nn.Module):
    """Names that contain what wrappers are called."""

    def __init__(self) -> None:
        super().__init__()
        self.submodule = nn.Linear(4, 4)
        self.module = nn.Linear(4, 4)
        self.free = nn.Parameter(torch.eye(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.module(self.submodule(x)) @ self.free


def test_names_that_look_like_wrappers_are_kept() -> None:
    model = Names()
    data = ProbeData(torch.rand(5, 4), torch.zeros(5, dtype=torch.int64))
    assert list(weight_matrices(model)) == ["free", "submodule", "module"]
    with undisturbed(model):
        view = View(model, 0, data, seed=0)
        assert list(view.train.activations) == ["submodule"]
        assert torch.equal(view.logits_with(view.weights), view.train.logits)
        zero = torch.zeros(4, 4)
        without = view.logits_with({"submodule": zero, "free": zero})
    assert torch.equal(without, torch.zeros(5, 4))


def test_wrappers_are_taken_off_by_what_they_are_and_not_by_name() -> None:
    class OwnDataParallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(4, 4)

    model = OwnDataParallel()
    assert unwrapped(model) is model
    compiled = torch.compile(nn.DataParallel(model), backend="eager")
    assert unwrapped(nn.DataParallel(compiled)) is model


def test_a_compiled_submodule_is_seen_as_if_it_were_not_and_is_not_recompiled() -> None:
    graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            body = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Dropout(0.5))
            self.body = torch.compile(body, backend=backend)
            self.head = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x))

    model = Part()
    data = ProbeData(torch.rand(7, 4), torch.zeros(7, dtype=torch.int64))
    model(data.inputs)
    compiled = len(graphs)
    assert compiled > 0
    with undisturbed(model):
        view = View(model, 0, data, seed=0)
        assert list(view.weights) == ["body.0", "body.2", "head"]
        assert list(view.train.activations) == ["body.0", "body.2"]
        assert torch.equal(view.logits_with(view.weights), view.train.logits)
        zeroed = view.logits_with({"body.0": torch.zeros(6, 4), "head": torch.zeros(3, 5)})
    assert torch.equal(zeroed, model.head.bias.expand(7, 3))
    model(data.inputs)
    assert len(graphs) == compiled


def test_layers_called_by_keyword_are_seen() -> None:
    class Keywords(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(input=self.first(input=x).relu())

    model = Keywords()
    data = ProbeData(torch.rand(5, 4), torch.zeros(5, dtype=torch.int64))
    with undisturbed(model):
        seen = View(model, 0, data, seed=0).train.activations
        assert torch.equal(seen["first"], model.first(data.inputs).relu())


def test_neighbourhood_of_a_network_that_ignores_its_input_is_its_accuracy() -> None:
    model, data = small()
    with torch.no_grad():
        model.fc3.weight.zero_()
    with undisturbed(model):
        view = View(model, 0, data, seed=0)
        seen = values(Neighbourhood(sigmas=(0.1,)), view)
        accuracy = values(Performance(), view)["accuracy", "train"]
    assert len(seen) == 3
    assert all(value == pytest.approx(accuracy) for value in seen.values())
