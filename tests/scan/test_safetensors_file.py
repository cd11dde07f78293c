"""Our reader of safetensors against the package of that name, and its own promises."""

import json
import subprocess
import sys

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors_attacks import ONE
from safetensors_attacks import safetensors as file_of

from grokscope.errors import InputError, MissingResource
from grokscope.scan.entry import TensorEntry
from grokscope.scan.files import open_checkpoint
from grokscope.scan.inventory import digest, load_tensor, read_inventory
from grokscope.scan.limits import Limits
from grokscope.scan.open_file import OpenFile
from grokscope.scan.safetensors_file import read_header, read_tensor

# All that the package accepts and we do not; each stands for one clause of a refusal.
STRICTER = (
    "begin with '{'",
    "same key twice",
    "not described by",  # unknown fields, or fields by position
    "the metadata",  # null
    "overflows",  # a dimension of 0 beside others that are too large
    "rank",
    "longer than",
    "above the limit",
    "more than 100000",
    "20 digits",  # in an unknown field
    "surrogates",  # likewise
    "nested too deeply",
)

DTYPES = [
    torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16,
    torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64,
]  # fmt: skip


def scan(path):
    """Return (entry, tensor or None) of every tensor."""
    with open_checkpoint(path) as checkpoint:
        inventory = read_inventory(checkpoint, Limits())
        return [
            (entry, None if entry.unavailable else load_tensor(inventory, entry))
            for entry in inventory.entries
        ]


def header_of(data, tmp_path, limits=None):
    path = tmp_path / "x"
    path.write_bytes(data)
    with open_checkpoint(path) as checkpoint:
        return read_header(checkpoint.files[0], limits or Limits())


def agree(data, path):
    """Compare our reading of some bytes with the package's; return whether we accept them."""
    path.write_bytes(data)
    try:
        theirs = dict(safetensors.deserialize(data))
    except safetensors.SafetensorError:
        theirs = None
    try:
        with open_checkpoint(path) as checkpoint:
            (file,) = checkpoint.files
            entries = read_header(file, Limits())
            ours = {e.name: bytes(file.read(e.begin, e.end - e.begin)) for e in entries}
    except InputError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert theirs is None or any(clause in refusal for clause in STRICTER), refusal
        return False
    if any(entry.dtype == "unknown" for entry in entries):
        assert theirs is None
        return True
    assert theirs is not None
    assert ours == {name: bytes(info["data"]) for name, info in theirs.items()}
    assert {e.name: list(e.shape) for e in entries} == {n: i["shape"] for n, i in theirs.items()}
    return True


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (0, 5), (2, 3, 4, 1)], ids=str)
def test_every_bit_comes_back(dtype, shape, tmp_path):
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(0, 256, (*shape, dtype.itemsize), dtype=torch.uint8, generator=generator)
    tensor = (bits > 127).squeeze(-1) if dtype == torch.bool else bits.view(dtype).squeeze(-1)
    safetensors.torch.save_file({"a": tensor, "z": torch.ones(1)}, tmp_path / "x")
    (entry, back), _ = scan(tmp_path / "x")
    assert entry.dtype == str(dtype).removeprefix("torch.")
    assert back.dtype == dtype
    assert back.shape == entry.shape == shape
    assert torch.equal(back.view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8))


def test_nonfinite_numbers_are_read(tmp_path):
    safetensors.torch.save_file({"a": torch.tensor([[torch.nan, torch.inf]])}, tmp_path / "x")
    ((_, back),) = scan(tmp_path / "x")
    assert back.isnan().tolist() == [[True, False]]


@pytest.mark.parametrize(
    "name", ["", "../../etc/<script>alert(1)</script>\x1b[31m", "層.重み", "a\0b"]
)
def test_names_are_kept_as_they_are(name, tmp_path):
    safetensors.torch.save_file({name: torch.ones(2)}, tmp_path / "x")
    ((entry, _),) = scan(tmp_path / "x")
    assert entry.name == name


def test_order_is_that_of_names(tmp_path):
    names = ["b", "a.10", "a.9", "Z"]
    safetensors.torch.save_file({name: torch.ones(2) for name in names}, tmp_path / "x")
    assert [entry.name for entry, _ in scan(tmp_path / "x")] == sorted(names)


def test_blanks_behind_the_header_and_metadata_are_fine(tmp_path):
    text = json.dumps({"__metadata__": {"format": "pt"}, "a": ONE}).encode()
    assert agree(file_of(text + b" \n", bytes(4)), tmp_path / "x")


def test_digest_is_of_dtype_shape_and_bytes(tmp_path):
    tensors = {
        "a": torch.zeros(2, 3),
        "same": torch.zeros(2, 3),
        "turned": torch.zeros(3, 2),
        "typed": torch.zeros(2, 3, dtype=torch.int32),
        "other": torch.tensor([[0, 0, 0], [0, 0, 1.0]]),
    }
    safetensors.torch.save_file(tensors, tmp_path / "x")
    with open_checkpoint(tmp_path / "x") as checkpoint:
        inventory = read_inventory(checkpoint, Limits())
        digests = {entry.name: digest(inventory, entry) for entry in inventory.entries}
    assert digests.pop("a") == digests["same"]
    assert len(set(digests.values())) == len(digests)


def test_caps_are_the_callers(tmp_path):
    data = file_of(
        {"abc": {**ONE, "shape": [1, 1]}, "b": {**ONE, "data_offsets": [4, 8]}}, bytes(8)
    )
    length = int.from_bytes(data[:8], "little")
    assert len(header_of(data, tmp_path, Limits(tensors=2, rank=2, name_length=3))) == 2
    with pytest.raises(
        InputError, match=r"more than 1 tensors\. Raise it with --limit tensors=2\.$"
    ):
        header_of(data, tmp_path, Limits(tensors=1))
    with pytest.raises(InputError, match=r"rank 2, above 1\. .* --limit rank=2\.$"):
        header_of(data, tmp_path, Limits(rank=1))
    with pytest.raises(InputError, match=r"longer than 2 .* --limit name_length=4\.$"):
        header_of(data, tmp_path, Limits(name_length=2))
    with pytest.raises(
        InputError, match=rf"above the limit of 50\. .* --limit header_bytes={length}\.$"
    ):
        header_of(data, tmp_path, Limits(header_bytes=50))


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    safetensors.torch.save_file({"a": torch.ones(100)}, tmp_path / "x")
    with open_checkpoint(tmp_path / "x") as checkpoint:
        inventory = read_inventory(checkpoint, Limits())
        with open(tmp_path / "x", "r+b") as file:
            file.truncate(200)
        with pytest.raises(InputError, match="shorter"):
            load_tensor(inventory, inventory.entries[0])
        with pytest.raises(InputError, match="shorter"):
            digest(inventory, inventory.entries[0])


def test_a_tensor_that_memory_does_not_hold(tmp_path):
    entry = TensorEntry("a", "float32", (2**40, 2**10), end=2**52)
    with pytest.raises(MissingResource, match="no memory for tensor 'a'"):
        read_tensor(OpenFile("x", 0, 2**52), entry)


def test_unavailable_is_the_callers_fault():
    with pytest.raises(ValueError, match="unavailable: complex"):
        read_tensor(OpenFile("x", 0, 8), TensorEntry("a", "complex64", (1,), unavailable="complex"))


def test_listing_needs_no_torch(tmp_path):
    safetensors.torch.save_file({"a": torch.ones(100)}, tmp_path / "x")
    code = f"""
import sys
from grokscope.scan.files import open_checkpoint
from grokscope.scan.inventory import digest, read_inventory
from grokscope.scan.limits import Limits
inventory = read_inventory(open_checkpoint({str(tmp_path / "x")!r}), Limits())
print(digest(inventory, inventory.entries[0]), "torch" in sys.modules)
"""
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert out.split()[1] == "False"


numbers = st.one_of(
    st.integers(-1, 6), st.sampled_from([2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64]), st.floats()
)
infos = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "BF16", "U8", "BOOL", "F4", "C64", "F8_E4M3", "X"]),
        "shape": st.lists(numbers, max_size=3) | st.just([1] * 9),
        "data_offsets": st.lists(numbers, min_size=2, max_size=2),
    },
    optional={"extra": st.none()},
)


@given(header=st.dictionaries(st.text(max_size=3), infos, max_size=3), size=st.integers(0, 20))
def test_agrees_with_the_package_on_arbitrary_headers(header, size, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "header"
    agree(file_of(json.dumps(header).encode(), bytes(size)), path)


@given(
    shapes=st.lists(
        st.tuples(
            st.sampled_from(["F32", "U8", "F4", "F64", "I16"]),
            st.lists(st.integers(0, 4), max_size=3),
        ),
        max_size=5,
    ),
    order=st.randoms(use_true_random=False),
)
def test_agrees_with_the_package_on_sound_files(shapes, order, tmp_path_factory):
    bits = {"F32": 32, "U8": 8, "F4": 4, "F64": 64, "I16": 16}
    header, position = {}, 0
    for i, (dtype, shape) in enumerate(shapes):
        size = bits[dtype]
        for side in shape:
            size *= side
        if size % 8:
            continue
        header[str(i)] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [position, position + size // 8],
        }
        position += size // 8
    items = list(header.items())
    order.shuffle(items)
    data = file_of(dict(items), order.randbytes(position))
    assert agree(data, tmp_path_factory.getbasetemp() / "sound")
