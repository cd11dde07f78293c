"""Malformed torch files: what is wrong with the pickle, or with the tensors it describes."""

from __future__ import annotations

import argparse
import builtins
import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from form_attacks import Payload
from registry import MARKER, refused, reported
from zip_building import archive, members_of


def saved(content: Any) -> bytes:
    """Return what ``torch.save`` writes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantised tensors are on their way out
        torch.save(content, buffer)
    return buffer.getvalue()


def beside(bad: torch.Tensor) -> bytes:
    """Return a state dict with a good and a bad tensor."""
    return saved({"good": torch.arange(6.0).reshape(2, 3), "bad": bad})


def edited(content: Any, edit: Callable[[dict[str, bytes]], None]) -> bytes:
    """Return what ``torch.save`` writes, with members changed and checksums right again."""
    members = members_of(saved(content))
    edit(members)
    return archive(members)


def with_pickle(data: bytes) -> bytes:
    """Return a torch file around a pickle."""
    return archive(
        {"archive/data.pkl": data, "archive/byteorder": b"little", "archive/version": b"3\n"}
    )


class Call:
    """Unpickled, it calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Choose which."""
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Tell the unpickler."""
        return self._call


@refused("posix.mkdir")
def payload(folder: Path) -> bytes:
    """A pickle that runs a system call."""
    return saved({"a": torch.ones(2), "b": Payload(folder)})


@refused("builtins.exec")
def payload_exec(folder: Path) -> bytes:
    """A pickle that runs Python."""
    code = f"import os; os.mkdir({str(folder / MARKER)!r})"
    return saved(Call(builtins.exec, code))


@refused("posix.mkdir")
def payload_protocol_4(folder: Path) -> bytes:
    """The same with opcodes that torch's list of globals does not understand."""
    return with_pickle(pickle.dumps(Payload(folder), protocol=4))


@refused("builtins.getattr")
def payload_getattr(folder: Path) -> bytes:
    """A function reached through an object that looks harmless."""
    return saved({"a": torch.ones(2), "b": Call(getattr, "text", "upper"), "c": Payload(folder)})


@refused("torch.hub.load")
def payload_inside_torch(folder: Path) -> bytes:
    """A function of torch itself that fetches and runs code."""
    return saved(Call(torch.hub.load, str(folder), "model", "local"))


@refused("posix.mkdir")
def payload_in_optimiser(folder: Path) -> bytes:
    """A pickle that runs code in a part that is not looked at."""
    return saved({"model": {"a": torch.ones(2)}, "optimizer": Payload(folder)})


@refused("cannot be read")
def persistent_id_is_text(_: Path) -> bytes:
    """A storage that is asked for in a way torch never does."""
    return with_pickle(b"\x80\x02X\x03\0\0\0abcQ.")


@refused("cannot be read")
def build_on_nothing(_: Path) -> bytes:
    """An opcode that expects an object where there is none."""
    return with_pickle(b"\x80\x02}b.")


@refused("cannot be read")
def setitem_on_list(_: Path) -> bytes:
    """An opcode for dictionaries, applied to a list (CVE-2026-24747)."""
    return with_pickle(b"\x80\x02]K\x01K\x02s.")


@refused("cannot be read")
def bytes_of_4_exabytes(_: Path) -> bytes:
    """A few bytes that ask for all memory there is."""
    return saved(Call(bytearray, 2**62))


@refused("cannot be read")
def empty_pickle(_: Path) -> bytes:
    """A pickle of no bytes."""
    return with_pickle(b"")


@refused("cannot be read")
def garbage_pickle(_: Path) -> bytes:
    """Bytes that are no pickle."""
    return with_pickle(b"\x80\x02" + bytes(range(256)))


@refused("torch.nn.modules.linear.Linear")
def whole_module(_: Path) -> bytes:
    """A module instead of its state dict."""
    return saved(torch.nn.Linear(3, 2))


@refused("--allow-global argparse.Namespace")
def namespace(_: Path) -> bytes:
    """Command line arguments beside the weights, as research code keeps them."""
    return saved({"model": {"a": torch.ones(2)}, "args": argparse.Namespace(lr=0.1)})


@refused("pathlib")
def path(_: Path) -> bytes:
    """A path beside the weights."""
    return saved({"model": {"a": torch.ones(2)}, "out": Path("runs")})


@refused("--allow-global numpy._core.multiarray.scalar --allow-global numpy.dtype")
def numpy_scalar(_: Path) -> bytes:
    """A number of numpy beside the weights."""
    return saved({"model": {"a": torch.ones(2)}, "best": np.float64(0.5)})


@refused("numpy._core.multiarray._reconstruct")
def numpy_state(_: Path) -> bytes:
    """The random state of numpy beside the weights."""
    return saved({"model": {"a": torch.ones(2)}, "rng": np.random.RandomState(0).get_state()})


@refused("nested deeper")
def nested_200000_deep(_: Path) -> bytes:
    """Dictionaries that overflow the stack of whoever walks through them."""
    depth = 200_000
    return with_pickle(b"\x80\x02}" + b"X\x01\0\0\0a}" * depth + b"s" * depth + b".")


@refused("no tensors")
def dictionary_in_itself(_: Path) -> bytes:
    """A walk without end."""
    content: dict[str, Any] = {}
    content["a"] = content
    return saved(content)


@refused("no tensors")
def lists_that_multiply(_: Path) -> bytes:
    """Sixty lists that hold the next one twice: 2^60 paths."""
    content: list[Any] = []
    for _ in range(60):
        content = [content, content]
    return saved(content)


@refused("no tensors")
def numbers_only(_: Path) -> bytes:
    """Nothing to scan."""
    return saved({"epoch": 3})


@refused("optimiser state only")
def optimiser_only(_: Path) -> bytes:
    """No network."""
    return saved({"optimizer": {"state": {0: torch.ones(3)}}})


@refused("longer than")
def long_tensor_name(_: Path) -> bytes:
    """A name of a million characters."""
    return saved({"a" * 1_000_000: torch.ones(2)})


@refused("not valid Unicode")
def surrogate_name(_: Path) -> bytes:
    """A name that no terminal can print."""
    return saved({"\ud800": torch.ones(2)})


@refused("two tensors are named")
def colliding_names(_: Path) -> bytes:
    """Two paths that read the same."""
    return saved({"a": {"b": torch.ones(2)}, "a.b": torch.zeros(2)})


@refused("byteorder")
def big_endian(_: Path) -> bytes:
    """Torch would swap all bytes, silently."""
    return edited({"a": torch.ones(2)}, lambda m: m.update({"archive/byteorder": b"big"}))


@refused("capitals")
def big_endian_in_capitals(_: Path) -> bytes:
    """Torch looks members up without regard to case, and would swap all bytes."""

    def rename(members: dict[str, bytes]) -> None:
        del members["archive/byteorder"]
        members["archive/BYTEORDER"] = b"big"

    return edited({"a": torch.ones(2)}, rename)


@refused("does not have the size")
def storage_shorter_than_declared(_: Path) -> bytes:
    """Numbers that would come from the bytes behind."""
    return edited(
        {"a": torch.ones(100)}, lambda m: m.update({"archive/data/0": m["archive/data/0"][:8]})
    )


@refused("does not have the size")
def storage_longer_than_declared(_: Path) -> bytes:
    """Bytes that nothing describes."""
    return edited(
        {"a": torch.ones(100)}, lambda m: m.update({"archive/data/0": m["archive/data/0"] * 2})
    )


@refused("cannot be read")
def storage_missing(_: Path) -> bytes:
    """A tensor without numbers."""
    return edited({"a": torch.ones(100)}, lambda m: m.pop("archive/data/0"))


@refused("cannot be read")
def storage_is_the_pickle(_: Path) -> bytes:
    """A tensor whose storage is another member of the file."""

    def edit(members: dict[str, bytes]) -> None:
        data = members["archive/data.pkl"]
        members["archive/data.pkl"] = data.replace(b"X\x01\0\0\0000", b"X\x03\0\0\0../")

    return edited({"a": torch.ones(100)}, edit)


@reported("asks for more than the 4 bytes")
def stride_0(_: Path) -> bytes:
    """Four bytes that are 10^12 elements."""
    return beside(torch.ones(1).expand(10**6, 10**6))


@reported("meta")
def meta(_: Path) -> bytes:
    """10^18 elements without numbers."""
    return beside(torch.empty(10**9, 10**9, device="meta"))


@reported("sparse")
def sparse_coo(_: Path) -> bytes:
    """A matrix that takes 400 TB when it is filled in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return beside(torch.sparse_coo_tensor([[0], [0]], [1.0], (10**7, 10**7)))


@reported("quantised")
def quantised(_: Path) -> bytes:
    """Integers with a scale."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return beside(torch.quantize_per_tensor(torch.ones(3, 3), 0.1, 0, torch.qint8))


@reported("scales")
def torch_float8(_: Path) -> bytes:
    """Floats whose scales are kept elsewhere."""
    return beside(torch.ones(3, 3).to(torch.float8_e4m3fn))


@reported("complex")
def torch_complex(_: Path) -> bytes:
    """Complex numbers."""
    return beside(torch.ones(3, 3, dtype=torch.complex64))


@reported("rank 20")
def torch_rank_20(_: Path) -> bytes:
    """More dimensions than a network has."""
    return beside(torch.ones([1] * 20))


@reported("shares its storage with 'a'")
def overlapping_views(_: Path) -> bytes:
    """Many large tensors out of one: work without end from a small file."""
    base = torch.arange(100.0)
    views = {f"a{i}": base[i:] for i in range(1, 50)}
    return saved({"a": base, **views, "bad": base[:99], "good": torch.ones(3)})
