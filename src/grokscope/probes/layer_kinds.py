"""What kind of layer a parameter belongs to, and which matrices it holds.

Everything is inferred from names and shapes, so that a live model and its state dict are read
alike. The rules, first match first:

==========================  ========================================================================
scalar, vector              Fewer than two dimensions: no matrix.
bias                        Named ``bias``, or ``..._bias`` of experts: no matrix, whatever its
                            shape.
lstm, gru, rnn              ``weight_ih``, ``weight_hh``, ``weight_hr``, as `torch.nn` names them.
                            The number of gates is rows over columns of ``weight_hh``, or over the
                            columns of ``weight_hr`` where hidden states are projected; gates are in
                            torch's order.
experts                     Below a module whose name has ``expert`` but not ``shared`` in it. A
                            three-dimensional one is a stack: one matrix for each first index.
attention                   Projections by their usual names (``q_proj``, ``wq``, ``to_q``, ...);
                            names that mean other things elsewhere (``dense``, ``value``, ...) only
                            in or beside attention. Fused ones are cut in thirds if one side is
                            three times the other; see `Heads` for more.
embedding                   Matrices whose last name is ``wte`` or ends in ``emb``, ``embed``,
                            ``embedding(s)``, ``embed_tokens``, ``embedding_table``, ...
positional embedding        An embedding with ``pos``, ``position(s)`` or ``positional`` in its name
                            or its parent's, and ``wpe``.
conv1d, conv2d, conv3d      A ``weight`` of 3, 4, 5 dimensions. With 3 it is a convolution if the
                            last side is shorter than both others, the middle one is 1 (depthwise)
                            or a name on its path has ``conv`` in it; else a stack. Transposed
                            convolutions look alike: their rows are input channels.
linear                      Any other two-dimensional ``weight``. Transposed ones (GPT-2's
                            ``Conv1D``) look alike.
parameter                   Any other of two dimensions, or of three: one matrix for each first
                            index.
==========================  ========================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

# A stack of more matrices than any model has experts is no stack of matrices.
LARGEST_STACK = 4096

UNKNOWN_LAYOUT = "layout of the fused projection unknown: analysed whole"

_GATES = {
    4: ("lstm", ("input", "forget", "cell", "output")),
    3: ("gru", ("reset", "update", "new")),
    1: ("rnn", ()),
}
_THIRDS = ("query", "key", "value")
_RECURRENT = re.compile(r"weight_(ih|hh|hr)((?:_l\d+)?(?:_reverse)?)")
_EMBEDDING = re.compile(r"(?:.*_)?emb(?:ed|edding)?s?(?:_in|_tokens|_positions|_table)?|wte|wpe")
_POSITION = re.compile(r"(?:^|[._])(?:wpe|pos|positions?|positional)(?:[._]|$)")

Role = Literal["query", "key", "value", "output", "fused", "fused by head", "fused somehow"]


def _by_name(names: Mapping[Role, str]) -> dict[str, Role]:
    return {name: role for role, several in names.items() for name in several.split()}


_ROLES = _by_name(
    {
        "query": "q_proj q_proj_weight wq W_Q to_q q_lin",
        "key": "k_proj k_proj_weight wk W_K to_k k_lin",
        "value": "v_proj v_proj_weight wv W_V to_v v_lin",
        "output": "o_proj W_O",
        "fused": "in_proj_weight qkv qkv_proj Wqkv to_qkv c_attn",
        "fused by head": "query_key_value",
        "fused somehow": "wqkv",
    }
)
_ROLES_IN_ATTENTION = _by_name(
    {
        "query": "q query",
        "key": "k key",
        "value": "v value",
        "output": "o wo out_proj out_lin c_proj proj dense",
    }
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """What planning knows of a tensor.

    Attributes:
        name: Its full path, ``"encoder.0.weight"``.
        shape: Its shape, any number of dimensions.
        dtype: Torch's name for its type, without ``"torch."``: ``"float32"``, ``"int8"``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Heads:
    """Attention heads, the same in every attention layer of a model.

    They settle where query, key and value lie in fused projections: their widths where queries are
    grouped, and the layout of GPT-NeoX and BLOOM, whose rows go by head first
    (``query_key_value``, shape ``(heads, 3, width, d)``).

    By head, query, key and value projections are cut into blocks of rows, one a head, output
    projections into blocks of columns (the other way round beside a ``c_attn`` of GPT-2's
    orientation), and fused ones by part and head.

    Attributes:
        queries: Number of query heads.
        keys: Number of key heads, and of value heads; fewer where queries share them.

    Raises:
        ValueError: If either is below 1, or queries cannot share keys evenly.
    """

    queries: int
    keys: int

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.keys < 1 or self.queries < 1 or self.queries % self.keys:
            raise ValueError(
                f"Heads: expected queries to be a multiple of keys, both at least 1, "
                f"got {self.queries} and {self.keys}."
            )


@dataclass(frozen=True, slots=True)
class Cut:
    """One step of taking a matrix from a tensor.

    Attributes:
        how: ``rows`` and ``columns`` keep ``start`` to ``stop`` of the first or second dimension;
            ``index`` keeps entry ``start`` of the first dimension; ``flatten`` joins all dimensions
            but the first; ``slices`` turns a kernel of shape ``(out, in, *positions)`` into a stack
            of matrices, shape ``(positions, out, in)``; ``thirds`` takes the rows as ``stop``
            groups of equal size and keeps third ``start`` of each.
        start: First index kept.
        stop: Index after the last one kept.
    """

    how: Literal["rows", "columns", "index", "flatten", "slices", "thirds"]
    start: int = 0
    stop: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """One matrix of a parameter.

    Attributes:
        name: What it is called within the parameter; empty if it is the whole of it.
        shape: Rows and columns.
        cut: How it is taken.
        count: Number of matrices of this shape whose spectra are pooled.
        reason: Why it is not worth measuring whatever its size; empty if it is.
    """

    name: str
    shape: tuple[int, int]
    cut: tuple[Cut, ...] = ()
    count: int = 1
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Layer:
    """What a parameter is.

    Attributes:
        kind: See the module.
        parts: Its matrices, at least one unless there is a reason.
        note: What a reader of the numbers should know.
        reason: Why it holds no matrix.
    """

    kind: str
    parts: tuple[Part, ...] = ()
    note: str = ""
    reason: str = ""


class Surroundings:
    """The other parameters, as far as they tell what one of them is."""

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        """Index the parameters of a model."""
        self._shapes = {parameter.name: parameter.shape for parameter in parameters}
        paths = [name.removesuffix(".weight").rpartition(".") for name in self._shapes]
        # Modules with projections that are attention's beyond doubt.
        self._attention = {parent for parent, _, last in paths if last in _ROLES}

    def matrix(self, name: str) -> tuple[int, int] | None:
        """Return the shape of a parameter if there is such a matrix and it is not empty."""
        shape = self._shapes.get(name, ())
        return (shape[0], shape[1]) if len(shape) == 2 and 0 not in shape else None

    def role(self, path: str) -> Role | None:
        """Return what a layer does in attention, None if it does nothing there."""
        parent, _, last = path.rpartition(".")
        if last in _ROLES:
            return _ROLES[last]
        nearby = ".".join(parent.split(".")[-2:]).lower()
        if parent in self._attention or "attn" in nearby or "attention" in nearby:
            return _ROLES_IN_ATTENTION.get(last)
        return None

    def is_transposed(self, path: str) -> bool:
        """Return whether the attention that a layer belongs to stores matrices as (in, out)."""
        parent, dot, _ = path.rpartition(".")
        fused = self.matrix(f"{parent}{dot}c_attn.weight")
        return fused is not None and fused[1] > fused[0]


def layer_of(
    parameter: Parameter, around: Surroundings, heads: Heads | None, by_head: bool
) -> Layer:
    """Return what a parameter is; see the module for the rules.

    Args:
        parameter: Not empty.
        around: All parameters of the model.
        heads: Attention heads, if they are known.
        by_head: Cut attention by head; only with ``heads``.
    """
    shape = parameter.shape
    path = parameter.name.removesuffix(".weight")
    parent, dot, leaf = parameter.name.rpartition(".")
    if len(shape) < 2:
        if not shape:
            return Layer("scalar", reason="a single number")
        return Layer("vector", reason="one-dimensional, as biases and norms are")
    is_expert = any("expert" in name and "shared" not in name for name in path.split("."))
    if leaf == "bias" or (is_expert and leaf.endswith("_bias")):
        return Layer("bias", reason="a bias, whatever its shape")

    is_weight = leaf == "weight"
    if is_weight and not is_expert and (len(shape) in (4, 5) or _is_conv1d(path, shape)):
        return _convolution(shape)
    kind = "experts" if is_expert else _embedding(path) or "parameter"
    if len(shape) == 3:
        return _stack(kind, shape)
    if len(shape) > 3:
        return Layer(kind, reason=f"{len(shape)} dimensions, and which two are a matrix's is open")

    rows, columns = shape
    found = _RECURRENT.fullmatch(leaf)
    if found:
        return _recurrent((rows, columns), f"{parent}{dot}weight", found, around)
    role = None if is_expert else around.role(path)
    if role is not None:
        return _attention((rows, columns), role, around.is_transposed(path), heads, by_head)
    if kind == "parameter" and is_weight:
        kind = "linear"
    note = "positional table" if kind == "positional embedding" else ""
    return _whole(kind, (rows, columns), note)


def _whole(kind: str, shape: tuple[int, int], note: str = "") -> Layer:
    return Layer(kind, (Part("", shape),), note)


def _blocks(
    kind: str,
    shape: tuple[int, int],
    axis: Literal["rows", "columns"],
    names: Sequence[str],
    note: str = "",
    shares: Sequence[int] = (),
) -> Layer:
    """Cut a matrix along one axis in blocks, named in their order; equal ones, or by shares."""
    rows, columns = shape
    shares = shares or [1] * len(names)
    unit = (rows if axis == "rows" else columns) // sum(shares)
    parts = []
    begin = 0
    for name, share in zip(names, shares, strict=True):
        end = begin + unit * share
        part = (end - begin, columns) if axis == "rows" else (rows, end - begin)
        parts.append(Part(name, part, (Cut(axis, begin, end),)))
        begin = end
    return Layer(kind, tuple(parts), note)


def _embedding(path: str) -> str:
    """Return the kind of embedding that a name speaks of, empty if of none."""
    *_, parent, last = ("", *path.lower().split("."))
    if not _EMBEDDING.fullmatch(last):
        return ""
    return "positional embedding" if _POSITION.search(f"{parent}.{last}") else "embedding"


def _is_conv1d(path: str, shape: tuple[int, ...]) -> bool:
    if len(shape) != 3:
        return False
    return shape[2] < min(shape[:2]) or shape[1] == 1 or "conv" in path.lower()


def _convolution(shape: tuple[int, ...]) -> Layer:
    outputs, inputs, *kernel = shape
    positions = 1
    for side in kernel:
        positions *= side
    reason = ""
    if positions == 1:
        reason = "one position: the same matrix as [flattened]"
    elif inputs == 1:
        reason = "one input channel (of each group): vectors"
    return Layer(
        f"conv{len(kernel)}d",
        (
            Part("flattened", (outputs, inputs * positions), (Cut("flatten"),)),
            Part("slices", (outputs, inputs), (Cut("slices"),), positions, reason),
        ),
    )


def _stack(kind: str, shape: tuple[int, ...]) -> Layer:
    count, rows, columns = shape
    if min(rows, columns) == 1:
        return Layer(kind, reason="a stack of vectors")
    if count > LARGEST_STACK:
        return Layer(kind, reason=f"a stack of {count} matrices is over the limit, {LARGEST_STACK}")
    parts = (Part(str(i), (rows, columns), (Cut("index", i),)) for i in range(count))
    note = "positional table" if kind == "positional embedding" else ""
    return Layer(kind, tuple(parts), note)


def _recurrent(
    shape: tuple[int, int], prefix: str, found: re.Match[str], around: Surroundings
) -> Layer:
    which, suffix = found.groups()
    of_states = around.matrix(f"{prefix}_hh{suffix}")
    projection = around.matrix(f"{prefix}_hr{suffix}")
    unknown = _whole("recurrent", shape, "number of gates unknown: analysed whole")
    if of_states is None:
        return unknown
    gates, rest = divmod(of_states[0], projection[1] if projection else of_states[1])
    if rest or gates not in _GATES:
        return unknown
    kind, names = _GATES[gates]
    if which == "hr" or not names:
        return _whole(kind, shape)
    return _blocks(kind, shape, "rows", names) if shape[0] == of_states[0] else unknown


def _attention(
    shape: tuple[int, int], role: Role, is_transposed: bool, heads: Heads | None, by_head: bool
) -> Layer:
    if role == "fused":
        return _fused(shape, heads, by_head)
    if role == "fused by head":
        return _fused_by_head(shape, heads, by_head)
    if role == "fused somehow":
        return _whole("attention", shape, UNKNOWN_LAYOUT)
    if heads is None or not by_head:
        return _whole("attention", shape)
    axis: Literal["rows", "columns"]
    axis = "columns" if (role == "output") != is_transposed else "rows"
    count = heads.keys if role in ("key", "value") else heads.queries
    if (shape[0] if axis == "rows" else shape[1]) % count:
        return _whole("attention", shape, _do_not_fit(heads))
    return _blocks("attention", shape, axis, [f"head {i}" for i in range(count)])


def _fused_by_head(shape: tuple[int, int], heads: Heads | None, by_head: bool) -> Layer:
    """Cut a projection whose rows go by head, and by query, key and value within each."""
    rows, columns = shape
    if heads is None or heads.queries != heads.keys or rows != 3 * columns:
        return _whole("attention", shape, UNKNOWN_LAYOUT)
    if columns % heads.keys:
        return _whole("attention", shape, _do_not_fit(heads) if by_head else UNKNOWN_LAYOUT)
    if by_head:
        names = [f"{part}, head {i}" for i in range(heads.keys) for part in _THIRDS]
        return _blocks("attention", shape, "rows", names)
    parts = (
        Part(name, (columns, columns), (Cut("thirds", i, heads.keys),))
        for i, name in enumerate(_THIRDS)
    )
    return Layer("attention", tuple(parts))


def _fused(shape: tuple[int, int], heads: Heads | None, by_head: bool) -> Layer:
    """Cut a projection whose queries, keys and values follow each other."""
    rows, columns = shape
    in_thirds = max(shape) == 3 * min(shape)
    axis: Literal["rows", "columns"] = "rows" if rows > columns else "columns"
    if in_thirds and not by_head:
        return _blocks("attention", shape, axis, _THIRDS)
    if heads is None:
        return _whole("attention", shape, UNKNOWN_LAYOUT)
    if in_thirds:
        # All heads together are as wide as the model, so queries have as many heads as keys; a
        # model that says otherwise has this layer in another tower.
        if heads.queries != heads.keys or min(shape) % heads.queries:
            return _blocks("attention", shape, axis, _THIRDS, _do_not_fit(heads))
    else:
        # Rows, as in any `Linear`, unless only columns give query heads the width of the model.
        blocks = heads.queries + 2 * heads.keys
        axis = "columns" if columns * heads.queries == rows * blocks else "rows"
        if (rows if axis == "rows" else columns) % blocks:
            return _whole("attention", shape, UNKNOWN_LAYOUT)
    counts = (heads.queries, heads.keys, heads.keys)
    if not by_head:
        return _blocks("attention", shape, axis, _THIRDS, shares=counts)
    parts = zip(_THIRDS, counts, strict=True)
    names = [f"{part}, head {i}" for part, count in parts for i in range(count)]
    return _blocks("attention", shape, axis, names)


def _do_not_fit(heads: Heads) -> str:
    return f"{heads.queries} query and {heads.keys} key heads do not fit: not cut by head"
