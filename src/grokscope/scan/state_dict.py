"""Which tensors of a torch file are the network's.

A file holds a state dict, or a training checkpoint that keeps one beside optimiser, schedules and
averages of the weights.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from grokscope.errors import UsageError, unknown
from grokscope.scan.limits import Limits
from grokscope.scan.open_file import Fault, above, shown
from grokscope.scan.safetensors_file import check_name

Path = tuple[str, ...]

# Where training checkpoints keep the network, the likeliest first.
_NETWORKS = (
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "params",
    "net",
    "network",
    "weights",
    "ema",
    "model_ema",
    "ema_state_dict",
    "params_ema",
)
# Of the keys that a message offers: characters of one, and how many.
_LONGEST_KEY = 80
_MOST_KEYS = 20
_NOT_NETWORK = re.compile(r"optim|sched|scaler|rng|random_state|callback|loops", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class StateDict:
    """The tensors that were chosen.

    Attributes:
        tensors: By name, in the order of the file.
        notes: What was chosen, and what else there was, in sentences.
    """

    tensors: dict[str, Tensor]
    notes: list[str]


def find_state_dict(content: Any, limits: Limits, *, key: str = "") -> StateDict:
    """Choose the network's tensors out of what a torch file holds.

    Without ``key``: the file's own dictionary, or the likeliest one in it by name
    (``state_dict``, ``model``, ``ema``, ...), without optimiser state. Dictionaries and lists
    inside are flattened, their keys joined by dots. Equal files give equal choices.

    Args:
        content: What ``torch.load`` returned; only dictionaries, lists and tuples are looked into.
        limits: Caps on depth, on the number of tensors and on their names.
        key: Path of the dictionary to take, keys joined by dots; it is taken whole.

    Returns:
        The tensors, at least one.

    Raises:
        ValueError: With a clause that says what is wrong: no tensors, a cap is passed, two names
            are equal. A `Fault` where there is more to do than to save the file again.
        UsageError: ``key`` is not there.
    """
    found = _tensors(content, limits)
    if not found:
        raise ValueError("it holds no tensors")
    prefix = _named(found, key) if key else _likeliest(found)
    depth = len(prefix)
    chosen: dict[str, Tensor] = {}
    left: Counter[str] = Counter()
    for path, tensor in found:
        inside = path[:depth] == prefix
        if not inside or (not key and any(map(_NOT_NETWORK.search, path[depth:-1]))):
            # Named by the key at which it parts from the chosen dictionary.
            shared = next((i for i in range(depth) if path[i : i + 1] != prefix[i : i + 1]), depth)
            left[".".join(path[: shared + 1])] += 1
            continue
        name = ".".join(path[depth:]) or "tensor"
        check_name(name, limits)
        if name in chosen:
            raise ValueError(f"two tensors are named {shown(name)}")
        chosen[name] = tensor
    if not chosen:
        raise Fault("it holds optimiser state only", "To look at it, name a part of it with --key.")
    notes = [f"The network is what the file keeps under {shown('.'.join(prefix))}."] * bool(prefix)
    notes += [f"Not looked at: {shown(name)} ({count} tensors)." for name, count in left.items()]
    return StateDict(chosen, notes)


def _tensors(content: Any, limits: Limits) -> list[tuple[Path, Tensor]]:
    """Return the path of every tensor, in the order of the file; no path twice the same container.

    Iterative, for nesting can be deeper than Python's stack; and each container is entered once,
    for lists of lists of the same list multiply without end.
    """
    found: list[tuple[Path, Tensor]] = []
    entered: set[int] = set()
    waiting: list[tuple[Path, Any]] = [((), content)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, Tensor):
            if len(found) == limits.tensors:
                raise above(f"it has more than {limits.tensors} tensors", limits, "tensors")
            found.append((path, value))
        elif isinstance(value, dict | list | tuple) and id(value) not in entered:
            if len(path) > limits.nesting:
                what = f"it is nested deeper than {limits.nesting} levels"
                raise above(what, limits, "nesting")
            entered.add(id(value))
            items = dict.items(value) if isinstance(value, dict) else enumerate(value)
            children = [
                ((*path, str(k)), v)
                for k, v in items
                if isinstance(v, Tensor | dict | list | tuple) and isinstance(k, str | int)
            ]
            waiting += reversed(children)
    return found


def _likeliest(found: Sequence[tuple[Path, Tensor]]) -> Path:
    """Return the path of the dictionary that most probably is the network."""
    prefix: Path = ()
    named = False
    while True:
        depth = len(prefix)
        inside = [path for path, _ in found if path[:depth] == prefix]
        dictionaries = dict.fromkeys(path[depth] for path in inside if len(path) > depth + 1)
        known = next((name for name in _NETWORKS if name in dictionaries and not named), None)
        rest = [name for name in dictionaries if not _NOT_NETWORK.search(name)]
        if known is not None:
            prefix, named = (*prefix, known), True
        elif len(rest) == 1 and not any(len(path) == depth + 1 for path in inside):
            prefix = (*prefix, rest[0])
        else:
            return prefix


def _named(found: Sequence[tuple[Path, Tensor]], key: str) -> Path:
    for path, _ in found:
        for depth in range(1, len(path) + 1):
            if ".".join(path[:depth]) == key:
                return path[:depth]
    dictionaries = dict.fromkeys(path[:depth] for path, _ in found for depth in range(1, len(path)))
    names = (".".join(path) for path in sorted(dictionaries, key=len))
    # What can be read in a message and typed after it.
    known = [name for name in names if name.isprintable() and 0 < len(name) <= _LONGEST_KEY]
    if not known:
        raise UsageError(
            f"Unknown --key {key!r}: the file keeps no dictionary of tensors in another."
        )
    raise unknown("--key", key, known[:_MOST_KEYS])
