"""Names and plans of whole models, and that what is taken is what the layers compute with."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from grokscope.probes.matrices import (
    Cut,
    Heads,
    Matrix,
    Parameter,
    Skipped,
    layer_names,
    matrix_from_json,
    matrix_to_json,
    parameters_of,
    plan_matrices,
    take_matrix,
)

_GATES = ("input", "forget", "cell", "output")


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.rand(12, 14))
        self.stack = nn.Parameter(torch.rand(2, 12, 14))
        self.scale = nn.Parameter(torch.rand(()))
        self.embed = nn.Embedding(30, 12)
        self.head = nn.Linear(12, 30, bias=False)
        self.head.weight = self.embed.weight
        self.narrow = nn.Linear(12, 3)


class Adapted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base_layer = nn.Linear(20, 30, bias=False)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(20, 11, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(11, 30, bias=False)})


def recurrent(path: str, kind: str, gates: tuple[str, ...], shapes: dict[str, tuple[int, int]]):
    return [
        (f"{path}{name}[{gate}]" if gate else f"{path}{name}", kind, shape)
        for name, shape in shapes.items()
        for gate in (gates if "hr" not in name else ("",))
    ]


ZOO: dict[str, tuple[Callable[[], nn.Module], list[tuple[str, str, tuple[int, int]]]]] = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(20, 15), nn.LayerNorm(15), nn.Linear(15, 11)),
        [("0", "linear", (15, 20)), ("2", "linear", (11, 15))],
    ),
    "embedding": (
        lambda: nn.ModuleDict({"embed": nn.Embedding(60_000, 12)}),
        [("embed", "embedding", (60_000, 12))],
    ),
    "convolutions": (
        lambda: nn.ModuleList(
            [
                nn.Conv1d(12, 16, 3),
                nn.Conv2d(12, 16, (2, 5)),
                nn.Conv3d(12, 16, 2),
                nn.Conv1d(16, 16, 12, groups=16),
            ]
        ),
        [
            ("0[flattened]", "conv1d", (16, 36)),
            ("0[slices]", "conv1d", (16, 12)),
            ("1[flattened]", "conv2d", (16, 120)),
            ("1[slices]", "conv2d", (16, 12)),
            ("2[flattened]", "conv3d", (16, 96)),
            ("2[slices]", "conv3d", (16, 12)),
            ("3[flattened]", "conv1d", (16, 12)),
        ],
    ),
    "lstm": (
        lambda: nn.ModuleDict({"lstm": nn.LSTM(12, 20)}),
        recurrent("lstm.", "lstm", _GATES, {"weight_ih_l0": (20, 12), "weight_hh_l0": (20, 20)}),
    ),
    "two-way lstm with projection": (
        lambda: nn.LSTM(12, 20, bidirectional=True, proj_size=15),
        [
            row
            for way in ("", "_reverse")
            for row in recurrent(
                "",
                "lstm",
                _GATES,
                {
                    f"weight_ih_l0{way}": (20, 12),
                    f"weight_hh_l0{way}": (20, 15),
                    f"weight_hr_l0{way}": (15, 20),
                },
            )
        ],
    ),
    "gru": (
        lambda: nn.GRU(12, 20, num_layers=2, bidirectional=True),
        [
            row
            for layer, width in ((0, 12), (1, 40))
            for way in ("", "_reverse")
            for row in recurrent(
                "",
                "gru",
                ("reset", "update", "new"),
                {
                    f"weight_ih_l{layer}{way}": (20, width),
                    f"weight_hh_l{layer}{way}": (20, 20),
                },
            )
        ],
    ),
    "rnn": (
        lambda: nn.RNNCell(12, 20),
        [("weight_ih", "rnn", (20, 12)), ("weight_hh", "rnn", (20, 20))],
    ),
    "attention with widths of its own": (
        lambda: nn.MultiheadAttention(20, 4, kdim=16, vdim=12, add_bias_kv=True),
        [
            ("q_proj_weight", "attention", (20, 20)),
            ("k_proj_weight", "attention", (20, 16)),
            ("v_proj_weight", "attention", (20, 12)),
            ("out_proj", "attention", (20, 20)),
        ],
    ),
    "transformer layer": (
        lambda: nn.TransformerEncoderLayer(20, 4, 30),
        [
            ("self_attn.in_proj_weight[query]", "attention", (20, 20)),
            ("self_attn.in_proj_weight[key]", "attention", (20, 20)),
            ("self_attn.in_proj_weight[value]", "attention", (20, 20)),
            ("self_attn.out_proj", "attention", (20, 20)),
            ("linear1", "linear", (30, 20)),
            ("linear2", "linear", (20, 30)),
        ],
    ),
    "raw, tied and small": (
        Odd,
        [
            ("raw", "parameter", (12, 14)),
            ("stack[0]", "parameter", (12, 14)),
            ("stack[1]", "parameter", (12, 14)),
            ("embed", "embedding", (30, 12)),
            ("head", "linear", (30, 12)),
        ],
    ),
    "adapter": (
        lambda: nn.ModuleDict({"q_proj": Adapted()}),
        [("q_proj.base_layer", "linear", (30, 20)), ("q_proj[lora]", "lora", (30, 20))],
    ),
}


@pytest.mark.parametrize("case", ZOO)
def test_a_model_and_its_state_dict_have_the_same_plan_and_every_parameter_is_in_it(
    case: str,
) -> None:
    build, expected = ZOO[case]
    model = build()
    state = model.state_dict()
    plan = plan_matrices(parameters_of(state.items()))
    live = parameters_of(model.named_parameters(remove_duplicate=False))
    assert plan_matrices(live) == plan
    matrices = [m for m in plan if isinstance(m, Matrix)]
    assert [(m.name, m.kind, m.shape) for m in matrices] == expected
    assert {source for entry in plan for source in entry.sources} == state.keys()
    for matrix in matrices:
        sources = [state[name] for name in matrix.sources]
        taken = take_matrix(matrix, sources)
        assert taken.shape == (matrix.shape if matrix.count == 1 else (matrix.count, *matrix.shape))
        if matrix.kind != "lora":
            shared = taken.untyped_storage().data_ptr() == sources[0].untyped_storage().data_ptr()
            assert shared, "a view"
            assert matrix_from_json(json.loads(json.dumps(matrix_to_json(matrix)))) == matrix


def test_a_compiled_model_and_its_checkpoint_are_named_as_if_it_were_not() -> None:
    model = nn.Sequential(nn.Linear(20, 15), nn.ModuleDict({"attn": nn.MultiheadAttention(12, 2)}))
    plain = plan_matrices(parameters_of(model.state_dict().items()))
    model[1]["attn"] = torch.compile(model[1]["attn"])
    compiled = torch.compile(model).state_dict()
    plan = plan_matrices(parameters_of(compiled.items()))
    assert [(e.name, e.kind) for e in plan] == [(e.name, e.kind) for e in plain]
    assert [e.name for e in plan if isinstance(e, Matrix)][-1] == "1.attn.out_proj"
    assert {source for entry in plan for source in entry.sources} == compiled.keys()


def test_a_weight_and_a_parameter_called_as_its_layer_stay_apart() -> None:
    names = ["fc1", "fc1.weight", "fc1.weight.weight", "fc2.weight", "weight", ".weight", "a[0]"]
    assert layer_names(names) == {
        "fc1": "fc1",
        "fc1.weight": "fc1.weight",
        "fc1.weight.weight": "fc1.weight.weight",
        "fc2.weight": "fc2",
        "weight": "weight",
        ".weight": ".weight",
        "a[0]": "a[[0]",
    }


_MEANING = ["weight", "weight_hh_l0", "lora_A", "lora_B", "lora_embedding_A", "lora_up", "qkv"]
_SPECIAL = [
    "lora",
    "up",
    "down",
    "query_key_value",
    "experts",
    "conv",
    "q_proj",
    "bias",
    "x",
    "_orig_mod",
    "",
]
_BRACKETS = ["a[query]", "a[0]", "weight[lora]", "[", "x[", "a[head"]
_PARTS = st.sampled_from([*_MEANING, *_SPECIAL, *_BRACKETS])
_NAMES = st.lists(_PARTS, min_size=1, max_size=4).map(".".join)
_SHAPES = st.lists(st.sampled_from([0, 1, 2, 4, 6, 12]), max_size=4).map(tuple)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(_NAMES, _SHAPES, max_size=12),
    st.sampled_from([None, Heads(2, 2), Heads(2, 1)]),
    st.booleans(),
    st.sampled_from([1, 2, 10]),
)
def test_every_parameter_is_in_the_plan_and_names_are_unique(
    shapes: dict[str, tuple[int, ...]], heads: Heads | None, by_head: bool, min_side: int
) -> None:
    parameters = [Parameter(name, shape, "float32") for name, shape in shapes.items()]
    by_head = by_head and heads is not None
    plan = plan_matrices(parameters, heads=heads, by_head=by_head, min_side=min_side)
    assert len({entry.name for entry in plan}) == len(plan)
    assert {source for entry in plan for source in entry.sources} == shapes.keys()
    for entry in plan:
        if isinstance(entry, Matrix):
            assert min(entry.shape) >= min_side
            tensors = [torch.zeros(shapes[source]) for source in entry.sources]
            take_matrix(entry, tensors)  # checks the shape
        else:
            assert entry.reason


def test_whole_parameters_are_covered_once() -> None:
    # Numbered entries: what is taken of a layer, other than its slices, is each entry once.
    for build, _ in ZOO.values():
        model = build()
        for name, tensor in model.state_dict().items():
            numbered = torch.arange(tensor.numel(), dtype=torch.float64).reshape(tensor.shape)
            plan = plan_matrices(parameters_of(model.state_dict().items()), min_side=1)
            of_it = [
                m for m in plan if isinstance(m, Matrix) and m.sources == (name,) and m.count == 1
            ]
            if of_it:
                taken = torch.cat([take_matrix(m, [numbered]).flatten() for m in of_it])
                assert torch.equal(taken.sort().values, numbered.flatten())


def taken_from(model: nn.Module, heads: Heads | None = None) -> dict[str, Tensor]:
    state = model.state_dict()
    by_head = heads is not None
    plan = plan_matrices(parameters_of(state.items()), heads=heads, by_head=by_head, min_side=1)
    return {
        m.name: take_matrix(m, [state[source] for source in m.sources])
        for m in plan
        if isinstance(m, Matrix)
    }


@pytest.mark.parametrize("proj_size", [0, 3])
def test_gates_of_an_lstm_are_what_their_names_say(proj_size: int) -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(4, 5, bias=False, proj_size=proj_size).double()
    w = taken_from(lstm)
    inputs = torch.rand(3, 4, dtype=torch.float64)
    hidden = torch.zeros(proj_size or 5, dtype=torch.float64)
    cell = torch.zeros(5, dtype=torch.float64)
    for x in inputs:
        i, f, g, o = (
            w[f"weight_ih_l0[{gate}]"] @ x + w[f"weight_hh_l0[{gate}]"] @ hidden for gate in _GATES
        )
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        if proj_size:
            hidden = w["weight_hr_l0"] @ hidden
    torch.testing.assert_close(hidden, lstm(inputs)[0][-1])


def test_gates_of_a_gru_are_what_their_names_say() -> None:
    torch.manual_seed(0)
    gru = nn.GRU(4, 5, bias=False).double()
    w = taken_from(gru)
    x, h = torch.rand(1, 4, dtype=torch.float64), torch.rand(1, 5, dtype=torch.float64)
    of_x = {gate: w[f"weight_ih_l0[{gate}]"] @ x[0] for gate in ("reset", "update", "new")}
    of_h = {gate: w[f"weight_hh_l0[{gate}]"] @ h[0] for gate in of_x}
    reset = (of_x["reset"] + of_h["reset"]).sigmoid()
    update = (of_x["update"] + of_h["update"]).sigmoid()
    new = (of_x["new"] + reset * of_h["new"]).tanh()
    torch.testing.assert_close((1 - update) * new + update * h[0], gru(x, h)[0][0])


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.T / q.shape[1] ** 0.5).softmax(1) @ v


def test_heads_of_torch_attention_add_up_to_its_output() -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(12, 3, bias=False).double()
    w = taken_from(attention, Heads(3, 3))
    x = torch.rand(5, 12, dtype=torch.float64)
    output = torch.zeros(5, 12, dtype=torch.float64)
    for head in range(3):
        q, k, v = (
            x @ w[f"in_proj_weight[{part}, head {head}]"].T for part in ("query", "key", "value")
        )
        output += attend(q, k, v) @ w[f"out_proj[head {head}]"].T
    torch.testing.assert_close(output, attention(x, x, x, need_weights=False)[0])


def test_transposed_matrices_are_cut_as_gpt2_does() -> None:
    torch.manual_seed(0)
    c_attn, c_proj = torch.rand(12, 36), torch.rand(12, 12)
    model = nn.ParameterDict({"weight": c_attn})
    model = nn.ModuleDict(
        {"attn": nn.ModuleDict({"c_attn": model, "c_proj": nn.ParameterDict({"weight": c_proj})})}
    )
    x = torch.rand(5, 12)
    # transformers, GPT2Attention: `split` of the last dimension, then heads of each.
    q, k, v = (part.view(5, 3, 4).transpose(0, 1) for part in (x @ c_attn).split(12, dim=1))
    whole = torch.stack([attend(*parts) for parts in zip(q, k, v, strict=True)])
    expected = whole.transpose(0, 1).reshape(5, 12) @ c_proj
    w = taken_from(model, Heads(3, 3))
    output = sum(
        attend(*(x @ w[f"attn.c_attn[{p}, head {h}]"] for p in ("query", "key", "value")))
        @ w[f"attn.c_proj[head {h}]"]
        for h in range(3)
    )
    torch.testing.assert_close(output, expected)


def test_neox_rows_go_by_head_first() -> None:
    weight = torch.rand(36, 12)
    name = "attention.query_key_value"
    parameters = [Parameter(f"{name}.weight", (36, 12), "float32")]
    plan = plan_matrices(parameters, heads=Heads(3, 3), by_head=True, min_side=1)
    by_head = weight.reshape(3, 3, 4, 12)
    for matrix in plan:
        assert isinstance(matrix, Matrix)
        part, head = matrix.name.removeprefix(f"{name}[").removesuffix("]").split(", head ")
        expected = by_head[int(head), ("query", "key", "value").index(part)]
        assert torch.equal(take_matrix(matrix, [weight]), expected)
    assert len(plan) == 9
    thirds = plan_matrices(parameters, heads=Heads(3, 3))
    assert [m.name for m in thirds] == [f"{name}[{part}]" for part in ("query", "key", "value")]
    for i, matrix in enumerate(thirds):
        assert isinstance(matrix, Matrix)
        assert torch.equal(take_matrix(matrix, [weight]), by_head[:, i].reshape(12, 12))


def test_convolutions_are_their_matrices() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, (2, 3), bias=False).double()
    image = torch.rand(1, 3, 6, 7, dtype=torch.float64)
    w = taken_from(conv)
    patches = nn.functional.unfold(image, (2, 3))[0]
    torch.testing.assert_close(w["weight[flattened]"] @ patches, conv(image)[0].flatten(1))
    shifted = [image[0, :, i : i + 5, j : j + 5].flatten(1) for i in range(2) for j in range(3)]
    by_position = sum(m @ x for m, x in zip(w["weight[slices]"], shifted, strict=True))
    torch.testing.assert_close(by_position, conv(image)[0].flatten(1))


def lora(**shapes: tuple[int, ...]) -> list[Matrix | Skipped]:
    return plan_matrices(
        [Parameter(name.replace("__", "."), s, "float32") for name, s in shapes.items()]
    )


def test_an_adapter_is_its_product_in_double_precision() -> None:
    a, b = torch.rand(12, 20), torch.rand(30, 12)
    (matrix,) = lora(q__lora_A__weight=(12, 20), q__lora_B__weight=(30, 12))
    assert matrix == Matrix(
        "q[lora]",
        "lora",
        (30, 20),
        ("q.lora_A.weight", "q.lora_B.weight"),
        note="product of rank 12, without the adapter's scale",
    )
    assert torch.equal(take_matrix(matrix, [a, b]), b.double() @ a.double())


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("q.lora_A.default.weight", "q.lora_B.default.weight"),
        ("q.lora_embedding_A", "q.lora_embedding_B"),
        ("q.lora_embedding_A.default", "q.lora_embedding_B.default"),
        ("q.lora_down.weight", "q.lora_up.weight"),
        ("q.lora.down.weight", "q.lora.up.weight"),
    ],
)
def test_adapters_by_other_names(a: str, b: str) -> None:
    shapes = {b: (30, 12), "fc.weight": (20, 20), a: (12, 20)}
    plan = plan_matrices([Parameter(name, shape, "float16") for name, shape in shapes.items()])
    # At the place of the half that comes first; the factor that is applied first is named first.
    assert [(m.name, m.shape, m.sources) for m in plan] == [
        ("q[lora]", (30, 20), (a, b)),
        ("fc", (20, 20), ("fc.weight",)),
    ]


def test_several_adapters_of_a_layer_are_told_apart() -> None:
    plan = lora(
        q__lora_A__one__weight=(12, 20),
        q__lora_A__two__weight=(8, 20),
        q__lora_B__two__weight=(30, 8),
        q__lora_B__one__weight=(30, 12),
    )
    assert [m.name for m in plan] == ["q[lora one]", "q[lora two]"]
    assert plan[1] == Skipped(
        "q[lora two]",
        "lora",
        (30, 20),
        ("q.lora_A.two.weight", "q.lora_B.two.weight"),
        "rank 8 is below 10",
    )


def test_halves_of_adapters_without_a_match_are_matrices_of_their_own() -> None:
    plan = lora(q__lora_A__weight=(12, 20), v__lora_A__weight=(12, 20), v__lora_B__weight=(30, 11))
    assert [(m.name, m.kind) for m in plan] == [
        ("q.lora_A", "linear"),
        ("v.lora_A", "linear"),
        ("v.lora_B", "linear"),
    ]


def test_wrong_calls() -> None:
    twice = [Parameter("a", (12, 12), "float32")] * 2
    with pytest.raises(ValueError, match="expected parameters with different names"):
        plan_matrices(twice)
    with pytest.raises(ValueError, match=r"expected heads with by_head"):
        plan_matrices([], by_head=True)
    matrix = Matrix("a[1]", "parameter", (12, 14), ("a",), (Cut("index", 1),))
    with pytest.raises(ValueError, match=r"expected 1 tensors for a\[1\], got 2"):
        take_matrix(matrix, [torch.zeros(2, 12, 14)] * 2)
    with pytest.raises(ValueError, match=r"expected a\[1\] of shape \(12, 14\), got \(13, 14\)"):
        take_matrix(matrix, [torch.zeros(2, 13, 14)])
