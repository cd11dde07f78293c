from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_mnist import idx_bytes, write_part

from grokscope.data import mnist
from grokscope.data.download import RemoteFile
from grokscope.data.mnist import load_mnist, mnist_split
from grokscope.errors import InputError, MissingResource

FALLBACK = Path(__file__).resolve().parents[3] / "shared" / "data"
REAL = Path(os.environ.get("GROKSCOPE_DATA") or FALLBACK)
STEMS = [f"{p}-{kind}-ubyte" for p in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def origin(inputs: torch.Tensor) -> list[int]:
    """Return the index that each tiny image was written with."""
    return (inputs[:, 0] * 255).round().to(torch.int64).tolist()


@pytest.mark.parametrize("compressed", [True, False])
def test_both_parts(tmp_path: Path, compressed: bool) -> None:
    write_part(tmp_path, "train", 60, compressed=compressed)
    write_part(tmp_path, "t10k", 20, compressed=compressed)
    found = load_mnist(tmp_path)
    assert found.train is not None
    assert tuple(found.train.inputs.shape) == (60, 16)
    assert found.train.image_shape == (4, 4)
    assert origin(found.train.inputs) == list(range(60))
    assert found.train.labels.tolist() == [i % 10 for i in range(60)]
    assert len(found.test) == 20
    assert float(found.train.inputs[51, 3]) == 51 / 255


def test_training_points_come_from_the_training_images(tmp_path: Path) -> None:
    write_part(tmp_path, "train", 60)
    write_part(tmp_path, "t10k", 20)
    split = mnist_split(tmp_path, 30, seed=3)
    assert split.note == ""
    assert torch.bincount(split.train.labels).tolist() == [3] * 10
    assert max(origin(split.train.inputs)) >= 20
    assert origin(split.test.inputs) == list(range(20))
    assert mnist_split(tmp_path, 30, seed=3).train.digest == split.train.digest
    assert mnist_split(tmp_path, 30, seed=4).train.digest != split.train.digest
    first = mnist_split(tmp_path, 25, subset="first", seed=3)
    assert origin(first.train.inputs) == list(range(25))


@pytest.mark.parametrize("subset", ["stratified", "first"])
def test_without_training_images_the_test_images_are_divided(tmp_path: Path, subset) -> None:
    write_part(tmp_path, "t10k", 50)
    assert load_mnist(tmp_path).train is None
    split = mnist_split(tmp_path, 20, subset=subset, seed=1)
    train, test = origin(split.train.inputs), origin(split.test.inputs)
    assert len(train) == 20
    assert sorted(train + test) == list(range(50))
    assert split.note == (
        "Only the 50 test images of MNIST were found: 20 of them are the training points and the "
        "other 30 the test points."
    )
    if subset == "first":
        assert train == list(range(20))


def test_split_takes_the_same_points_as_a_split_of_the_data_set(tmp_path: Path) -> None:
    from grokscope.data.dataset import stratified_split

    write_part(tmp_path, "t10k", 50)
    direct = stratified_split(load_mnist(tmp_path).test, 20, seed=8)
    split = mnist_split(tmp_path, 20, seed=8)
    assert split.train.digest == direct.train.digest
    assert split.test.digest == direct.test.digest


def test_where_files_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n, name in ((10, "named"), (20, "environment"), (30, "cache")):
        write_part(tmp_path / name, "t10k", n)
        write_part(tmp_path / name, "train", n)
    (tmp_path / "cache").rename(tmp_path / "kept")
    (tmp_path / "cache").mkdir()
    (tmp_path / "kept").rename(tmp_path / "cache" / "mnist")
    assert len(load_mnist().test) == 30
    monkeypatch.setenv("GROKSCOPE_DATA", "")
    assert len(load_mnist().test) == 30
    monkeypatch.setenv("GROKSCOPE_DATA", str(tmp_path / "environment"))
    assert len(load_mnist().test) == 20
    assert len(load_mnist(tmp_path / "named").test) == 10


def test_a_folder_of_several_data_sets_will_do(tmp_path: Path) -> None:
    write_part(tmp_path / "mnist", "t10k", 10)
    assert len(load_mnist(tmp_path).test) == 10


@pytest.mark.parametrize("how", ["--data-dir", "GROKSCOPE_DATA"])
def test_a_named_folder_without_files_is_an_error_and_nothing_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def never(*args: object) -> None:
        raise AssertionError("downloaded")

    monkeypatch.setattr(mnist, "fetch", never)
    write_part(tmp_path / "cache" / "mnist", "t10k", 10)
    write_part(tmp_path / "cache" / "mnist", "train", 10)
    empty, gone = tmp_path / "empty", tmp_path / "gone"
    write_part(empty, "train", 10)  # the test images are what is needed most
    for folder, fault in ((empty, "lacks the files of MNIST"), (gone, "does not exist")):
        if how == "GROKSCOPE_DATA":
            monkeypatch.setenv(how, str(folder))
        with pytest.raises(MissingResource, match=rf"{how} names .*, which {fault}\.") as caught:
            load_mnist(None if how == "GROKSCOPE_DATA" else folder)
        message = str(caught.value)
        assert f"into {folder}" in message
        assert all(f"{stem}.gz" in message for stem in STEMS)
        assert caught.value.exit_code == 5


def test_half_of_a_part_is_an_error(tmp_path: Path) -> None:
    write_part(tmp_path, "train", 10)
    write_part(tmp_path, "t10k", 10)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(MissingResource, match=r"only one of the two files of the train images.*"):
        load_mnist(tmp_path)


def test_files_that_do_not_fit_each_other(tmp_path: Path) -> None:
    write_part(tmp_path, "t10k", 10)
    labels = tmp_path / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx_bytes(np.arange(9))))
    with pytest.raises(InputError, match=r"got 9 labels and 10 images of \(4, 4\) pixels"):
        load_mnist(tmp_path)
    labels.write_bytes(gzip.compress(idx_bytes(np.arange(10) + 1)))
    with pytest.raises(InputError, match=r"idx1-ubyte.gz: expected labels from 0 to 9, got 10"):
        load_mnist(tmp_path)
    write_part(tmp_path, "t10k", 0)
    with pytest.raises(InputError, match=r"got 0 labels and 0 images"):
        load_mnist(tmp_path)
    write_part(tmp_path, "t10k", 10)
    write_part(tmp_path, "train", 10, side=5)
    with pytest.raises(InputError, match=r"shape \(5, 5\), those for testing of shape \(4, 4\)"):
        load_mnist(tmp_path)


def test_a_damaged_file(tmp_path: Path) -> None:
    write_part(tmp_path, "t10k", 10)
    images = tmp_path / "t10k-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte.gz is damaged"):
        load_mnist(tmp_path)


def test_too_few_points(tmp_path: Path) -> None:
    write_part(tmp_path, "t10k", 30)
    with pytest.raises(InputError, match=r"Cannot choose 31 points from 30"):
        mnist_split(tmp_path, 31)
    with pytest.raises(InputError, match=r"All 30 points are taken"):
        mnist_split(tmp_path, 30)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Publish a tiny MNIST: as files, which is a mirror without a server."""
    published = tmp_path / "published"
    write_part(published, "train", 40)
    write_part(published, "t10k", 20)
    files = []
    for stem in STEMS:
        content = (published / f"{stem}.gz").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        files.append(RemoteFile(f"{stem}.gz", len(content), digest))
    monkeypatch.setattr(mnist, "FILES", tuple(files))
    monkeypatch.setattr(mnist, "MIRRORS", (f"{published.as_uri()}/",))
    return published


def test_downloads_to_the_cache_once(tmp_path: Path, mirror: Path) -> None:
    names: list[str] = []
    found = load_mnist(progress=lambda name, done, total: names.append(name))
    assert found.train is not None
    assert (len(found.train), len(found.test)) == (40, 20)
    assert names == [f"{stem}.gz" for stem in STEMS]
    assert sorted(os.listdir(tmp_path / "cache" / "mnist")) == sorted(names)
    shutil.rmtree(mirror)
    assert len(load_mnist().test) == 20


def test_downloads_only_what_the_cache_lacks(tmp_path: Path, mirror: Path) -> None:
    write_part(tmp_path / "cache" / "mnist", "t10k", 10, compressed=False)
    names: list[str] = []
    found = load_mnist(progress=lambda name, done, total: names.append(name))
    assert len(found.test) == 10
    assert names == [f"{stem}.gz" for stem in STEMS[:2]]


def test_a_download_that_fails_says_what_to_put_where(tmp_path: Path, mirror: Path) -> None:
    (mirror / f"{STEMS[1]}.gz").unlink()
    write_part(tmp_path / "cache" / "mnist", "t10k", 10)  # not enough: results would depend on it
    with pytest.raises(MissingResource, match=r"No mirror gave train-labels-idx1") as caught:
        load_mnist(progress=lambda *state: None)
    message = str(caught.value)
    assert f"{mirror.as_uri()}/train-labels-idx1-ubyte.gz: " in message
    assert f"into {tmp_path / 'cache' / 'mnist'}" in message
    assert "--data-dir or GROKSCOPE_DATA" in message
    assert caught.value.exit_code == 5


def test_a_download_of_wrong_content_is_bad_input(tmp_path: Path, mirror: Path) -> None:
    images = mirror / f"{STEMS[0]}.gz"
    images.write_bytes(images.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match=r"expected SHA-256 [0-9a-f]{64}, got") as caught:
        load_mnist(progress=lambda *state: None)
    assert caught.value.exit_code == 3
    assert os.listdir(tmp_path / "cache" / "mnist") == []


def real_folder() -> Path:
    for folder in (REAL, REAL / "mnist"):
        if (folder / "t10k-images-idx3-ubyte.gz").is_file():
            return folder
    pytest.skip("the real MNIST files are not here; set GROKSCOPE_DATA")


def test_published_checksums_are_those_of_the_real_files() -> None:
    folder = real_folder()
    seen = 0
    for remote in mnist.FILES:
        path = folder / remote.name
        if path.is_file():
            seen += 1
            assert path.stat().st_size == remote.size
            assert hashlib.sha256(path.read_bytes()).hexdigest() == remote.sha256
    assert seen >= 2


def test_the_real_test_images() -> None:
    test = load_mnist(real_folder()).test
    assert tuple(test.inputs.shape) == (10_000, 784)
    assert test.image_shape == (28, 28)
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert torch.bincount(test.labels).tolist() == counts
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert float(test.inputs.mean()) == pytest.approx(0.1325, abs=5e-5)
    assert (float(test.inputs.min()), float(test.inputs.max())) == (0.0, 1.0)


def test_a_real_split() -> None:
    split = mnist_split(real_folder(), 1000, seed=0)
    assert torch.bincount(split.train.labels).tolist() == [100] * 10
    if split.note:
        assert len(split.test) == 9000
    else:
        assert len(split.test) == 10_000
