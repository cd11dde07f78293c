"""What names and shapes say of a parameter: exact plans of the layouts that are in use."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from grokscope.probes.layer_kinds import LARGEST_STACK, UNKNOWN_LAYOUT
from grokscope.probes.matrices import Cut, Heads, Matrix, Parameter, Skipped, plan_matrices

Shapes = Mapping[str, tuple[int, ...]]
Row = tuple[str, str, tuple[int, ...]]


def planned(
    shapes: Shapes,
    *,
    heads: Heads | None = None,
    by_head: bool | None = None,
    dtype: str = "float32",
) -> list[Matrix | Skipped]:
    """Return the plan; by head where heads are given, unless told otherwise."""
    by_head = heads is not None if by_head is None else by_head
    parameters = [Parameter(n, s, dtype) for n, s in shapes.items()]
    return plan_matrices(parameters, heads=heads, by_head=by_head)


def rows(shapes: Shapes, *, heads: Heads | None = None, by_head: bool | None = None) -> list[Row]:
    """Name, kind and shape of every matrix."""
    plan = planned(shapes, heads=heads, by_head=by_head)
    return [(m.name, m.kind, m.shape) for m in plan if isinstance(m, Matrix)]


def only(shapes: Shapes, *, heads: Heads | None = None) -> Matrix | Skipped:
    (entry,) = planned(shapes, heads=heads)
    return entry


GPT2 = {
    "wte.weight": (500, 24),
    "wpe.weight": (64, 24),
    "h.0.ln_1.weight": (24,),
    "h.0.attn.bias": (1, 1, 64, 64),
    "h.0.attn.c_attn.weight": (24, 72),
    "h.0.attn.c_attn.bias": (72,),
    "h.0.attn.c_proj.weight": (24, 24),
    "h.0.mlp.c_fc.weight": (24, 96),
    "h.0.mlp.c_proj.weight": (96, 24),
}


def test_gpt2_stores_transposed_matrices_and_is_cut_in_columns() -> None:
    assert rows(GPT2) == [
        ("wte", "embedding", (500, 24)),
        ("wpe", "positional embedding", (64, 24)),
        ("h.0.attn.c_attn[query]", "attention", (24, 24)),
        ("h.0.attn.c_attn[key]", "attention", (24, 24)),
        ("h.0.attn.c_attn[value]", "attention", (24, 24)),
        ("h.0.attn.c_proj", "attention", (24, 24)),
        ("h.0.mlp.c_fc", "linear", (24, 96)),
        ("h.0.mlp.c_proj", "linear", (96, 24)),
    ]
    plan = planned(GPT2)
    assert plan[5] == Matrix(
        "h.0.attn.c_attn[key]",
        "attention",
        (24, 24),
        ("h.0.attn.c_attn.weight",),
        (Cut("columns", 24, 48),),
    )
    assert [(e.name, e.reason) for e in plan if isinstance(e, Skipped)] == [
        ("h.0.ln_1", "one-dimensional, as biases and norms are"),
        ("h.0.attn.bias", "a bias, whatever its shape"),
        ("h.0.attn.c_attn.bias", "one-dimensional, as biases and norms are"),
    ]
    assert plan[1] == Matrix(
        "wpe", "positional embedding", (64, 24), ("wpe.weight",), note="positional table"
    )


def test_gpt2_heads_are_columns_of_c_attn_and_rows_of_c_proj() -> None:
    cuts = {m.name: m.cut for m in planned(GPT2, heads=Heads(2, 2)) if isinstance(m, Matrix)}
    assert cuts["h.0.attn.c_attn[query, head 1]"] == (Cut("columns", 12, 24),)
    assert cuts["h.0.attn.c_attn[value, head 0]"] == (Cut("columns", 48, 60),)
    assert cuts["h.0.attn.c_proj[head 1]"] == (Cut("rows", 12, 24),)
    assert cuts["h.0.mlp.c_proj"] == ()
    assert not cuts.keys() & {"h.0.attn.c_attn[query]", "h.0.attn.c_proj"}


LLAMA = {
    "model.embed_tokens.weight": (300, 48),
    "model.layers.0.self_attn.q_proj.weight": (48, 48),
    "model.layers.0.self_attn.k_proj.weight": (24, 48),
    "model.layers.0.self_attn.v_proj.weight": (24, 48),
    "model.layers.0.self_attn.o_proj.weight": (48, 48),
    "model.layers.0.mlp.down_proj.weight": (48, 100),
    "lm_head.weight": (300, 48),
}


def test_llama_is_whole_by_default() -> None:
    path = "model.layers.0.self_attn"
    assert rows(LLAMA) == [
        ("model.embed_tokens", "embedding", (300, 48)),
        (f"{path}.q_proj", "attention", (48, 48)),
        (f"{path}.k_proj", "attention", (24, 48)),
        (f"{path}.v_proj", "attention", (24, 48)),
        (f"{path}.o_proj", "attention", (48, 48)),
        ("model.layers.0.mlp.down_proj", "linear", (48, 100)),
        ("lm_head", "linear", (300, 48)),
    ]


def test_llama_by_head_has_fewer_key_heads() -> None:
    path = "model.layers.0.self_attn"
    attention = [row for row in rows(LLAMA, heads=Heads(4, 2)) if row[1] == "attention"]
    assert attention == [
        *((f"{path}.q_proj[head {i}]", "attention", (12, 48)) for i in range(4)),
        *((f"{path}.k_proj[head {i}]", "attention", (12, 48)) for i in range(2)),
        *((f"{path}.v_proj[head {i}]", "attention", (12, 48)) for i in range(2)),
        *((f"{path}.o_proj[head {i}]", "attention", (48, 12)) for i in range(4)),
    ]


def test_heads_that_do_not_fit_leave_a_layer_whole_and_say_so() -> None:
    entry = only({"attn.q_proj.weight": (50, 48)}, heads=Heads(4, 2))
    assert entry == Matrix(
        "attn.q_proj",
        "attention",
        (50, 48),
        ("attn.q_proj.weight",),
        note="4 query and 2 key heads do not fit: not cut by head",
    )


@pytest.mark.parametrize(
    "name", ["qkv.weight", "a.Wqkv.weight", "qkv_proj.weight", "in_proj_weight"]
)
def test_fused_projections_are_cut_in_thirds_if_they_are_thirds(name: str) -> None:
    path = name.removesuffix(".weight")
    assert rows({name: (60, 20)}) == [
        (f"{path}[{part}]", "attention", (20, 20)) for part in ("query", "key", "value")
    ]
    whole = only({name: (40, 20)})
    assert (whole.name, whole.shape) == (path, (40, 20))
    assert isinstance(whole, Matrix)
    assert whole.note == UNKNOWN_LAYOUT


def test_fused_projections_of_grouped_queries_need_heads() -> None:
    shapes = {"attn.qkv_proj.weight": (80, 40)}  # 4 query heads and 2 for keys and values, of 10
    assert rows(shapes, heads=Heads(4, 2)) == [
        *((f"attn.qkv_proj[query, head {i}]", "attention", (10, 40)) for i in range(4)),
        *((f"attn.qkv_proj[key, head {i}]", "attention", (10, 40)) for i in range(2)),
        *((f"attn.qkv_proj[value, head {i}]", "attention", (10, 40)) for i in range(2)),
    ]
    shapes = {"attn.c_attn.weight": (40, 80), "attn.c_proj.weight": (40, 40)}
    transposed = rows(shapes, heads=Heads(4, 2))
    assert transposed[7:9] == [
        ("attn.c_attn[value, head 1]", "attention", (40, 10)),
        ("attn.c_proj[head 0]", "attention", (10, 40)),
    ]
    # Wider than the model: only the number of heads tells.
    wide = rows({"attn.qkv_proj.weight": (160, 40)}, heads=Heads(4, 2))
    assert wide[0] == ("attn.qkv_proj[query, head 0]", "attention", (20, 40))
    odd = only({"attn.qkv_proj.weight": (81, 40)}, heads=Heads(4, 2))
    assert isinstance(odd, Matrix)
    assert odd.note == UNKNOWN_LAYOUT


def test_heads_alone_only_split_fused_projections() -> None:
    heads = Heads(4, 2)
    assert planned(LLAMA, heads=heads, by_head=False) == planned(LLAMA)
    assert planned(GPT2, heads=Heads(2, 2), by_head=False) == planned(GPT2)
    plan = planned({"attn.qkv_proj.weight": (80, 40)}, heads=heads, by_head=False)
    assert [(m.name, m.shape, m.cut) for m in plan if isinstance(m, Matrix)] == [
        ("attn.qkv_proj[query]", (40, 40), (Cut("rows", 0, 40),)),
        ("attn.qkv_proj[key]", (20, 40), (Cut("rows", 40, 60),)),
        ("attn.qkv_proj[value]", (20, 40), (Cut("rows", 60, 80),)),
    ]
    transposed = {"attn.c_attn.weight": (40, 80), "attn.c_proj.weight": (40, 40)}
    assert [row[2] for row in rows(transposed, heads=heads, by_head=False)] == [
        (40, 40),
        (40, 20),
        (40, 20),
        (40, 40),
    ]
    for name, shape, each in (
        ("attn.qkv_proj", (81, 40), heads),
        ("attn.query_key_value", (72, 24), Heads(5, 5)),
        ("attn.query_key_value", (48, 24), Heads(2, 1)),
    ):
        (whole,) = planned({f"{name}.weight": shape}, heads=each, by_head=False)
        assert isinstance(whole, Matrix)
        assert (whole.shape, whole.note) == (shape, UNKNOWN_LAYOUT)


def test_thirds_beside_heads_that_are_grouped_belong_to_another_tower() -> None:
    plan = planned({"vision.attn.qkv.weight": (120, 40)}, heads=Heads(4, 2))
    assert [m.shape for m in plan] == [(40, 40)] * 3
    assert {m.note for m in plan if isinstance(m, Matrix)} == {
        "4 query and 2 key heads do not fit: not cut by head"
    }
    alone = planned({"vision.attn.qkv.weight": (120, 40)}, heads=Heads(4, 2), by_head=False)
    assert {m.note for m in alone if isinstance(m, Matrix)} == {""}


def test_neox_is_interleaved_and_cut_only_with_heads() -> None:
    shapes = {"attention.query_key_value.weight": (72, 24), "attention.dense.weight": (24, 24)}
    whole, dense = planned(shapes)
    assert (whole.name, whole.shape) == ("attention.query_key_value", (72, 24))
    assert isinstance(whole, Matrix)
    assert whole.note == UNKNOWN_LAYOUT
    assert dense.kind == "attention"
    cuts = {m.name: m.cut for m in planned(shapes, heads=Heads(2, 2)) if isinstance(m, Matrix)}
    path = "attention.query_key_value"
    assert cuts == {
        f"{path}[query, head 0]": (Cut("rows", 0, 12),),
        f"{path}[key, head 0]": (Cut("rows", 12, 24),),
        f"{path}[value, head 0]": (Cut("rows", 24, 36),),
        f"{path}[query, head 1]": (Cut("rows", 36, 48),),
        f"{path}[key, head 1]": (Cut("rows", 48, 60),),
        f"{path}[value, head 1]": (Cut("rows", 60, 72),),
        "attention.dense[head 0]": (Cut("columns", 0, 12),),
        "attention.dense[head 1]": (Cut("columns", 12, 24),),
    }
    thirds = planned(shapes, heads=Heads(2, 2), by_head=False)
    assert {m.name: m.cut for m in thirds if isinstance(m, Matrix)} == {
        f"{path}[query]": (Cut("thirds", 0, 2),),
        f"{path}[key]": (Cut("thirds", 1, 2),),
        f"{path}[value]": (Cut("thirds", 2, 2),),
        "attention.dense": (),
    }
    grouped = only({f"{path}.weight": (48, 24)}, heads=Heads(2, 1))
    assert isinstance(grouped, Matrix)
    assert grouped.note == UNKNOWN_LAYOUT


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("encoder.layer.0.attention.self.value.weight", "attention"),
        ("encoder.layer.0.attention.output.dense.weight", "attention"),
        ("encoder.layer.0.output.dense.weight", "linear"),
        ("block.0.layer.0.SelfAttention.q.weight", "attention"),
        ("block.0.layer.1.DenseReluDense.wo.weight", "linear"),
        ("mixer.out_proj.weight", "linear"),
        ("mixer.in_proj.weight", "linear"),
        ("value.weight", "linear"),
        ("attn.W_O", "attention"),
        ("embeddings.position_embeddings.weight", "positional embedding"),
        ("embeddings.word_embeddings.weight", "embedding"),
        ("positional_embedding", "positional embedding"),
        ("tok_embeddings.weight", "embedding"),
        ("pos_emb.emb.weight", "positional embedding"),
        ("unembed.weight", "linear"),
        ("time_embed.0.weight", "linear"),
        ("router", "parameter"),
        ("moe.shared_expert.up_proj.weight", "linear"),
        ("moe.experts.3.up_proj.weight", "experts"),
    ],
)
def test_kinds_of_matrices(name: str, kind: str) -> None:
    assert only({name: (40, 20)}).kind == kind


def test_an_output_projection_is_known_by_its_neighbours() -> None:
    shapes = {"block.W_Q": (20, 20), "block.out_proj.weight": (20, 20), "out_proj.weight": (20, 20)}
    assert [m.kind for m in planned(shapes)] == ["attention", "attention", "linear"]


def test_stacks_of_experts_are_one_matrix_each() -> None:
    shapes = {
        "mlp.gate.weight": (3, 32),
        "mlp.experts.gate_up_proj": (3, 32, 64),
        "mlp.experts.gate_up_proj_bias": (3, 64),
        "mlp.experts.down_proj.weight": (3, 40, 12),
    }
    assert rows(shapes) == [
        *((f"mlp.experts.gate_up_proj[{i}]", "experts", (32, 64)) for i in range(3)),
        # Named so, it is no convolution, short as its last side is.
        *((f"mlp.experts.down_proj[{i}]", "experts", (40, 12)) for i in range(3)),
    ]
    gate, bias = (entry for entry in planned(shapes) if isinstance(entry, Skipped))
    assert gate.reason == "shorter side 3 is below 10"
    assert bias.reason == "a bias, whatever its shape"


def test_raw_parameters_of_three_dimensions_are_stacks() -> None:
    assert rows({"attn.W_K": (2, 16, 32)}) == [
        ("attn.W_K[0]", "parameter", (16, 32)),
        ("attn.W_K[1]", "parameter", (16, 32)),
    ]
    assert rows({"pos_embed": (1, 50, 32)}) == [("pos_embed[0]", "positional embedding", (50, 32))]
    for shape, reason in {
        (1, 1, 32): "a stack of vectors",
        (LARGEST_STACK + 1, 16, 16): "a stack of 4097 matrices is over the limit, 4096",
        (2, 9, 32): "shorter side 9 is below 10",
        (2, 2, 16, 16): "4 dimensions, and which two are a matrix's is open",
    }.items():
        assert only({"raw": shape}) == Skipped("raw", "parameter", shape, ("raw",), reason)


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("layers.0.weight", (24, 20, 3), "conv1d"),
        ("mixer.conv1d.weight", (24, 1, 40), "conv1d"),
        ("pos_conv.0.weight", (32, 16, 128), "conv1d"),
        ("moe.input_linear.weight", (4, 20, 32), "parameter"),  # a stack without its name
        ("bilinear.weight", (40, 30, 20), "conv1d"),  # the price of the rule
    ],
)
def test_three_dimensional_weights(name: str, shape: tuple[int, ...], kind: str) -> None:
    assert planned({name: shape})[0].kind == kind


def test_convolutions_are_read_in_two_ways() -> None:
    plan = planned({"conv.weight": (24, 20, 3, 5)})
    assert plan == [
        Matrix("conv[flattened]", "conv2d", (24, 300), ("conv.weight",), (Cut("flatten"),)),
        Matrix("conv[slices]", "conv2d", (24, 20), ("conv.weight",), (Cut("slices"),), 15),
    ]


@pytest.mark.parametrize(
    ("shape", "flattened", "reason"),
    [
        ((24, 20, 1, 1), (24, 20), "one position: the same matrix as [flattened]"),
        ((24, 1, 4, 4), (24, 16), "one input channel (of each group): vectors"),
        ((24, 4, 3, 3), (24, 36), "shorter side 4 is below 10"),
    ],
)
def test_slices_that_are_no_matrices_of_their_own_are_left_out(
    shape: tuple[int, ...], flattened: tuple[int, int], reason: str
) -> None:
    whole, slices = planned({"c.weight": shape})
    assert isinstance(whole, Matrix)
    assert (whole.name, whole.shape) == ("c[flattened]", flattened)
    assert slices == Skipped("c[slices]", "conv2d", shape[:2], ("c.weight",), reason)


def test_a_small_depthwise_kernel_is_skipped_as_a_whole() -> None:
    shape = (24, 1, 3, 3)
    reason = "shorter side 9 is below 10"
    assert only({"c.weight": shape}) == Skipped("c", "conv2d", shape, ("c.weight",), reason)


def test_gates_that_cannot_be_counted_are_analysed_whole() -> None:
    for shapes in (
        {"weight_ih_l0": (80, 12)},
        {"weight_hh_l0": (40, 20)},
        {"weight_hh_l0": (41, 20)},
    ):
        entry = only(shapes)
        assert isinstance(entry, Matrix)
        assert (entry.kind, entry.note) == ("recurrent", "number of gates unknown: analysed whole")
    odd = planned({"weight_ih_l0": (60, 12), "weight_hh_l0": (80, 20)})[0]
    assert (odd.name, odd.kind) == ("weight_ih_l0", "recurrent")


@pytest.mark.parametrize(
    ("dtype", "reason"),
    [
        ("int8", "int8 entries: quantised weights, or no weights"),
        ("qint8", "qint8 entries: quantised weights, or no weights"),
        ("bool", "bool entries: quantised weights, or no weights"),
        ("float8_e4m3fn", "float8_e4m3fn entries mean nothing without their scales"),
        ("complex64", "complex64 entries are not real"),
    ],
)
def test_entries_that_are_not_numbers_to_measure(dtype: str, reason: str) -> None:
    (entry,) = planned({"fc.weight": (40, 20)}, dtype=dtype)
    assert entry == Skipped("fc", "linear", (40, 20), ("fc.weight",), reason)


def test_scales_are_no_weights() -> None:
    floating = {"a.scales": (20, 40), "b.weight_scale_inv": (20, 40), "c.scales": (20, 40)}
    plan = plan_matrices(
        [
            *(Parameter(name, shape, "float16") for name, shape in floating.items()),
            Parameter("a.qweight", (40, 160), "int32"),
            Parameter("b.weight", (160, 160), "float8_e4m3fn"),
        ]
    )
    assert [(entry.name, entry.kind) for entry in plan] == [
        ("a.scales", "scales"),
        ("b.weight_scale_inv", "scales"),
        ("c.scales", "parameter"),
        ("a.qweight", "parameter"),
        ("b", "linear"),
    ]
    assert isinstance(plan[2], Matrix)


@pytest.mark.parametrize("shape", [(0,), (0, 20), (3, 0, 5), (2**62, 0)])
def test_empty_tensors(shape: tuple[int, ...]) -> None:
    assert only({"x.weight": shape}) == Skipped("x", "parameter", shape, ("x.weight",), "empty")


def test_heads_must_share_keys_evenly() -> None:
    with pytest.raises(ValueError, match=r"multiple of keys, both at least 1, got 6 and 4"):
        Heads(6, 4)
    with pytest.raises(ValueError, match=r"got 0 and 0"):
        Heads(0, 0)
