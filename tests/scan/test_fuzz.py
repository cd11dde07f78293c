"""Mutated files: whatever the bytes, nothing but a refusal that can be understood comes out.

The short versions run with every test; the long ones, with ``make test-slow``, print how many
inputs they tried, how many of these were read, and the processor time they took.
"""

import io
import json
import random
import re
import time
import zipfile
from collections import Counter

import pytest
import torch
from safetensors_attacks import safetensors
from test_safetensors_file import agree
from torch_attacks import beside, saved
from zip_building import archive, members_of

from grokscope.errors import InputError, MissingResource
from grokscope.scan.files import open_checkpoint
from grokscope.scan.inventory import digest, load_tensor, read_inventory
from grokscope.scan.limits import Limits

INTERESTING = [
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    2**16 - 1,
    2**31 - 1,
    2**32 - 1,
    2**62,
    2**63,
    2**64 - 1,
]
TOKENS = [
    b'"dtype"', b'"shape"', b'"data_offsets"', b'"__metadata__"', b'"F32"', b'"BF16"', b'"F4"',
    b'"BOOL"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"-0", b"1e2", b"0.5", b'""',
    b'"\\ud800"', b'"\\u0061"', b" ", b"\\", b'"', b"[[[[", b'{"a":', b"18446744073709551616",
]  # fmt: skip
# Every opcode that torch's unpickler knows, and some that it does not.
OPCODES = [
    bytes([b])
    for b in b"()}]{NsuabtetRQ.\x85\x86\x87\x88\x89\x81\x8fqrhjKMJGXUc\x8a\x80\x93\x95lid0"
]
GLOBALS = [
    b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_parameter\n",
    b"ctorch._utils\n_rebuild_sparse_tensor\n",
    b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n", b"ctorch._utils\n_rebuild_qtensor\n",
    b"cbuiltins\nbytearray\n", b"cbuiltins\nset\n", b"ctorch\nTensor\n", b"ctorch\nSize\n",
    b"ctorch\nfloat32\n", b"cposix\nsystem\n", b"ctorch.nn.parameter\nParameter\n",
]  # fmt: skip


def mutated(data, rng, tokens):
    """Change some bytes in up to four places."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        length = rng.choice((1, 1, 2, 4, 8, rng.randrange(64)))
        match rng.randrange(7):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                del out[at : at + length]
            case 2:
                out[at:at] = out[at : at + length]
            case 3:
                out[at : at + length] = rng.choice(INTERESTING).to_bytes(8, "little")[:length]
            case 4:
                out[at : at + length] = rng.choice(tokens)
            case 5:
                out[at:at] = rng.choice(tokens)
            case _:
                other = rng.randrange(len(out) + 1)
                out[at : at + length] = out[other : other + length]
    return bytes(out)


def other_number(data, rng):
    """Replace one number of a text."""
    found = list(re.finditer(rb"\d+", data))
    if not found:
        return data
    match = rng.choice(found)
    number = rng.choice((str(int(match[0]) + rng.randint(-4, 4)), str(rng.choice(INTERESTING))))
    return data[: match.start()] + number.encode() + data[match.end() :]


def safetensors_inputs(rng):
    """Yield mutations without end of a small sound file, half of them with a header that fits."""
    header = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, dtype, shape, size in (
        ("fc.weight", "F32", [2, 3], 24),
        ("fc.bias", "BF16", [3], 6),
        ("empty", "F64", [0, 4], 0),
        ("flag", "BOOL", [], 1),
        ("half", "F4", [2], 1),
    ):
        offsets = [position, position + size]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        position += size
    text, body = json.dumps(header).encode(), bytes(range(position))
    while True:
        match rng.randrange(4):
            case 0:
                yield mutated(safetensors(text, body), rng, TOKENS)
            case 1:
                yield safetensors(mutated(text, rng, TOKENS), body)
            case 2:
                yield safetensors(other_number(other_number(text, rng), rng), body)
            case _:
                yield safetensors(other_number(text, rng), mutated(body, rng, TOKENS))


def torch_inputs(rng):
    """Yield mutations without end of small sound files, most with checksums that are right."""
    meta = torch.empty(3, 3, device="meta")
    files = [
        saved(
            {
                "model": {"a": torch.ones(2, 3), "b": torch.zeros(3)[:2]},
                "optimizer": [torch.ones(1)],
            }
        ),
        beside(meta),
        saved(
            [torch.nn.Parameter(torch.ones(2, 2).T), {1: (torch.ones(1, dtype=torch.bfloat16),)}]
        ),
    ]
    members = [members_of(data) for data in files]
    while True:
        i = rng.randrange(len(files))
        if rng.randrange(4):
            pickle = mutated(members[i]["archive/data.pkl"], rng, OPCODES + GLOBALS)
            yield archive(members[i] | {"archive/data.pkl": pickle})
        elif rng.randrange(3):
            yield mutated(files[i], rng, OPCODES)
        else:
            name = rng.choice(list(members[i]))
            yield archive(members[i] | {name: mutated(members[i][name], rng, OPCODES)})


def read_all(data, path):
    """Do all that a scan does with a file; return whether it was read."""
    path.write_bytes(data)
    try:
        with open_checkpoint(path) as checkpoint:
            inventory = read_inventory(checkpoint, Limits())
            for entry in inventory.entries:
                if not entry.unavailable:
                    tensor = load_tensor(inventory, entry)
                    assert tuple(tensor.shape) == entry.shape
                    assert str(tensor.dtype) == f"torch.{entry.dtype}"
                    assert tensor.numel() * tensor.itemsize <= len(data)
                    digest(inventory, entry)
    except (InputError, MissingResource) as error:
        refusal = str(error)
    else:
        return True
    assert refusal.isprintable()
    return False


def fuzz_safetensors(count, seed, path):
    """Count what is accepted and refused; what is accepted is what the package reads."""
    inputs = safetensors_inputs(random.Random(seed))
    outcomes = Counter()
    for _, data in zip(range(count), inputs, strict=False):
        outcomes[agree(data, path)] += 1
        read_all(data, path)
    return outcomes


def fuzz_torch(count, seed, path):
    """Count what is accepted and refused; what is accepted is sound for Python's zipfile too."""
    inputs = torch_inputs(random.Random(seed))
    outcomes = Counter()
    for _, data in zip(range(count), inputs, strict=False):
        accepted = read_all(data, path)
        outcomes[accepted] += 1
        if accepted:
            with zipfile.ZipFile(io.BytesIO(data)) as file:
                assert file.testzip() is None
                assert len(set(file.namelist())) == len(file.namelist())
    return outcomes


FUZZ = {"safetensors": fuzz_safetensors, "torch": fuzz_torch}


@pytest.mark.parametrize("form", FUZZ)
def test_briefly(form, tmp_path):
    outcomes = FUZZ[form](400, 0, tmp_path / "x")
    # Both ends are met, or the mutations would test nothing.
    assert outcomes[True] > 10
    assert outcomes[False] > 100


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("form", "count"), [("safetensors", 300_000), ("torch", 150_000)])
def test_at_length(form, count, tmp_path, capsys):
    start = time.process_time()
    outcomes = FUZZ[form](count, 1, tmp_path / "x")
    with capsys.disabled():
        print(
            f"\n{form}: {count} inputs, {outcomes[True]} read, {outcomes[False]} refused, "
            f"{time.process_time() - start:.0f} s of processor time"
        )
    assert outcomes[True] > count // 40
