"""From the parameters of a model to named matrices: one naming scheme for files and live models.

Names
    A layer's ``weight`` is named by the layer (``fc1.weight``: ``fc1``), any other parameter by its
    full path, both without the ``_orig_mod`` that `torch.compile` puts in them. What is one part of
    a parameter says which in square brackets: ``c_attn[query]``, ``lstm.weight_hh_l0[forget]``,
    ``experts.gate_up_proj[3]``, ``q_proj[head 3]``, ``qkv[query, head 3]``. A convolution kernel is
    read in two ways, ``conv1[flattened]`` (outputs by everything else) and ``conv1[slices]`` (a
    matrix for each position, spectra pooled). A low-rank adapter is read as its product,
    ``q_proj[lora]``. Brackets in a parameter's own name are doubled, so that no two names are ever
    alike.

What is a matrix, and of which kind, says `grokscope.probes.layer_kinds`.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grokscope.probes.layer_kinds import Cut, Heads, Layer, Parameter, Part, Surroundings, layer_of

if TYPE_CHECKING:  # planning does without torch, which takes a second to import
    from torch import Tensor

__all__ = [
    "COMPILED",
    "Cut",
    "Heads",
    "Matrix",
    "Parameter",
    "Skipped",
    "layer_names",
    "matrix_from_json",
    "matrix_to_json",
    "parameters_of",
    "plan_matrices",
    "take_matrix",
    "uncompiled",
]

COMPILED = "_orig_mod"  # where `torch.compile` keeps the module that it wraps

_FLOATING = frozenset({"float64", "float32", "float16", "bfloat16"})
# Both halves of an adapter as PEFT and as diffusers name them, with the adapter's name or without.
_LORA = re.compile(r"(?:(.*)\.)?lora(?:_embedding_|_|\.)(A|B|down|up)(?:\.([^.]+))??(?:\.weight)?")
# The floating-point numbers that come with quantised weights.
_SCALES = re.compile(r"(?:weight_)?scales?(?:_inv)?")


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix to measure.

    Attributes:
        name: Unique among the matrices of a model.
        kind: Of the layer: ``linear``, ``embedding``, ``conv2d``, ``lstm``, ``attention``,
            ``experts``, ``parameter``, ``lora``, ...
        shape: Rows and columns.
        sources: Full names of the parameters it is taken from: one, or for ``lora`` both factors,
            the first applied first.
        cut: How it is taken from its source, step by step.
        count: Number of matrices of this shape whose eigenvalues are pooled.
        note: What a reader of the numbers should know.
    """

    name: str
    kind: str
    shape: tuple[int, int]
    sources: tuple[str, ...]
    cut: tuple[Cut, ...] = ()
    count: int = 1
    note: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A parameter, or a part of one, that is not measured.

    Attributes:
        name: As for `Matrix`.
        kind: As for `Matrix`.
        shape: Of what is skipped, any number of dimensions.
        sources: As for `Matrix`.
        reason: Why.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    reason: str


def parameters_of(tensors: Iterable[tuple[str, Tensor]]) -> tuple[Parameter, ...]:
    """Return what planning needs to know of named tensors, such as ``model.named_parameters()``."""
    return tuple(
        Parameter(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in tensors
    )


def layer_names(names: Iterable[str]) -> dict[str, str]:
    """Return what parameters are called when they are read whole, by their full names.

    A ``weight`` is called what its layer is, unless a parameter of that very name exists.
    """
    plain = _uncompiled(dict.fromkeys(names))
    taken = set(plain.values())
    found = {}
    for name, path in plain.items():
        layer = path.removesuffix(".weight")
        found[name] = _escaped(path if layer in taken or not layer else layer)
    return found


def uncompiled(path: str) -> str:
    """Return a path as it would read if no module on it were compiled."""
    return ".".join(part for part in path.split(".") if part != COMPILED)


def plan_matrices(
    parameters: Sequence[Parameter],
    *,
    heads: Heads | None = None,
    by_head: bool = False,
    min_side: int = 10,
) -> list[Matrix | Skipped]:
    """Return every matrix among the parameters of a model, and why the rest holds none.

    A pure function of names, shapes and dtypes. Tied weights appear under each of their names:
    whether two names share storage, only the tensors tell.

    Args:
        parameters: All tensors of a model or file; the kind of one may depend on the others.
        heads: Tells how fused projections are split into query, key and value.
        by_head: Cut attention projections by head.
        min_side: Shorter side (for adapters: rank) below which a matrix is skipped.

    Returns:
        In the order of the parameters, parts of one next to each other. Each parameter is a source
        of at least one entry, and no two entries have the same name.

    Raises:
        ValueError: If two parameters have the same name, or ``by_head`` comes without ``heads``.
    """
    if by_head and heads is None:
        raise ValueError("plan_matrices: expected heads with by_head, got none.")
    names = layer_names(parameter.name for parameter in parameters)
    if len(names) < len(parameters):
        raise ValueError("plan_matrices: expected parameters with different names.")
    plain = _uncompiled(names)
    full = {path: name for name, path in plain.items()}
    parameters = [dataclasses.replace(p, name=plain[p.name]) for p in parameters]
    around = Surroundings(parameters)
    packed = {
        parameter.name.rpartition(".")[0]
        for parameter in parameters
        if len(parameter.shape) > 1 and _is_quantised(parameter)
    }
    adapters = _adapters(parameters, min_side)
    plan: list[Matrix | Skipped] = []
    for parameter in parameters:
        if parameter.name in adapters:
            adapter = adapters[parameter.name]
            if adapter is not None:
                plan.append(adapter)
            continue
        if 0 in parameter.shape:
            layer = Layer("parameter", reason="empty")
        else:
            layer = layer_of(parameter, around, heads, by_head)
        parent, _, leaf = parameter.name.rpartition(".")
        if parent in packed and _SCALES.fullmatch(leaf):
            layer = Layer("scales", reason="scales of quantised weights")
        plan += _entries(parameter, names[full[parameter.name]], layer, min_side)
    return [
        dataclasses.replace(entry, sources=tuple(full[path] for path in entry.sources))
        for entry in plan
    ]


def take_matrix(matrix: Matrix, tensors: Sequence[Tensor]) -> Tensor:
    """Take a matrix from the tensors that it was planned for.

    Args:
        matrix: Of `plan_matrices`.
        tensors: One for each of its sources.

    Returns:
        Shape ``(rows, columns)``, or ``(count, rows, columns)`` if several are pooled; a view with
        the dtype of its source wherever strides allow. The product of an adapter is float64.

    Raises:
        ValueError: If the tensors are not the ones that were planned for.
    """
    if len(tensors) != len(matrix.sources):
        raise ValueError(
            f"take_matrix: expected {len(matrix.sources)} tensors for {matrix.name}, "
            f"got {len(tensors)}."
        )
    if len(tensors) == 2:
        first, second = (tensor.double() for tensor in tensors)
        taken = second @ first
    else:
        taken = tensors[0]
        for step in matrix.cut:
            taken = _cut(taken, step)
    expected = matrix.shape if matrix.count == 1 else (matrix.count, *matrix.shape)
    if tuple(taken.shape) != expected:
        raise ValueError(
            f"take_matrix: expected {matrix.name} of shape {expected}, got {tuple(taken.shape)}."
        )
    return taken


def matrix_to_json(matrix: Matrix) -> dict[str, Any]:
    """Return a matrix as an object that `json` can write."""
    return dataclasses.asdict(matrix)


def matrix_from_json(fields: Mapping[str, Any]) -> Matrix:
    """Return the matrix that `matrix_to_json` was given."""
    rows, columns = fields["shape"]
    return Matrix(
        **{
            **fields,
            "shape": (rows, columns),
            "sources": tuple(fields["sources"]),
            "cut": tuple(Cut(**step) for step in fields["cut"]),
        }
    )


def _uncompiled(names: Iterable[str]) -> dict[str, str]:
    """Return paths as if nothing were compiled, by full name; as they are if two became alike."""
    paths = {name: uncompiled(name) for name in names}
    return paths if len(set(paths.values())) == len(paths) else {name: name for name in paths}


def _escaped(name: str) -> str:
    # A run of brackets in a name is even then, so the odd one is where the part begins.
    return name.replace("[", "[[")


def _cut(tensor: Tensor, step: Cut) -> Tensor:
    match step.how:
        case "rows":
            return tensor[step.start : step.stop]
        case "columns":
            return tensor[:, step.start : step.stop]
        case "index":
            return tensor[step.start]
        case "flatten":
            return tensor.flatten(1)
        case "slices":
            return tensor.flatten(2).permute(2, 0, 1)
        case "thirds":
            groups = tensor.reshape(step.stop, 3, -1, tensor.shape[1])
            return groups[:, step.start].flatten(0, 1)


def _is_quantised(parameter: Parameter) -> bool:
    return parameter.dtype.startswith(("int", "uint", "qint", "quint", "float8", "float4"))


def _unreadable(dtype: str) -> str:
    """Return why entries of a dtype cannot be measured; empty if they can."""
    if dtype in _FLOATING:
        return ""
    if dtype.startswith(("float8", "float4")):
        return f"{dtype} entries mean nothing without their scales"
    if dtype.startswith("complex"):
        return f"{dtype} entries are not real"
    return f"{dtype} entries: quantised weights, or no weights"


def _entries(
    parameter: Parameter, name: str, layer: Layer, min_side: int
) -> Iterable[Matrix | Skipped]:
    """Yield what a plan says of one parameter."""
    sources = (parameter.name,)
    reason = layer.reason or _unreadable(parameter.dtype)
    left_out = [part.reason or _too_small(part.shape, min_side) for part in layer.parts]
    if not reason and all(left_out):
        reason = left_out[0]
    if reason:
        yield Skipped(name, layer.kind, parameter.shape, sources, reason)
        return
    for part, reason in zip(layer.parts, left_out, strict=True):
        own = _part_name(name, part)
        if reason:
            yield Skipped(own, layer.kind, part.shape, sources, reason)
        else:
            yield Matrix(own, layer.kind, part.shape, sources, part.cut, part.count, layer.note)


def _part_name(name: str, part: Part) -> str:
    return f"{name}[{part.name}]" if part.name else name


def _too_small(shape: tuple[int, int], min_side: int) -> str:
    return f"shorter side {min(shape)} is below {min_side}" if min(shape) < min_side else ""


def _adapters(parameters: Sequence[Parameter], min_side: int) -> dict[str, Matrix | Skipped | None]:
    """Pair the halves of low-rank adapters.

    Returns:
        By the name of the half that comes first, the entry of both; by that of the other, None.
        Halves without a match are not in it.
    """
    halves: dict[tuple[str, str], dict[str, Parameter]] = {}
    for parameter in parameters:
        found = _LORA.fullmatch(parameter.name)
        if found and len(parameter.shape) == 2 and not _unreadable(parameter.dtype):
            half = "A" if found[2] in ("A", "down") else "B"
            halves.setdefault((found[1] or "", found[3] or ""), {}).setdefault(half, parameter)
    pairs = {
        key: (pair["A"], pair["B"])
        for key, pair in halves.items()
        if len(pair) == 2 and pair["A"].shape[0] == pair["B"].shape[1]
    }
    order = {parameter.name: i for i, parameter in enumerate(parameters)}
    crowd = Counter(module for module, _ in pairs)
    entries: dict[str, Matrix | Skipped | None] = {}
    for (module, adapter), (a, b) in pairs.items():
        # Only adapters beside others are told apart by name: a saved one has lost its own.
        label = f"lora {_escaped(adapter)}" if adapter and crowd[module] > 1 else "lora"
        earlier, later = sorted((a.name, b.name), key=order.__getitem__)
        entries[earlier] = _product(f"{_escaped(module)}[{label}]", a, b, min_side)
        entries[later] = None
    return entries


def _product(name: str, a: Parameter, b: Parameter, min_side: int) -> Matrix | Skipped:
    shape, rank, sources = (b.shape[0], a.shape[1]), a.shape[0], (a.name, b.name)
    reason = _too_small(shape, min_side)
    if rank < min_side:
        reason = f"rank {rank} is below {min_side}"
    if reason:
        return Skipped(name, "lora", shape, sources, reason)
    note = f"product of rank {rank}, without the adapter's scale"
    return Matrix(name, "lora", shape, sources, note=note)
