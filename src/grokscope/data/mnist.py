"""MNIST, from its four original files: the user's, the cache's, or the public mirrors'."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from grokscope.data.dataset import (
    Dataset,
    Split,
    choose_points,
    make_dataset,
    remaining_points,
)
from grokscope.data.download import Progress, RemoteFile, fetch, report_to_stderr
from grokscope.data.idx import read_idx
from grokscope.errors import InputError, MissingResource

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
FILES = (
    RemoteFile(
        "train-images-idx3-ubyte.gz",
        9_912_422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    RemoteFile(
        "train-labels-idx1-ubyte.gz",
        28_881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    RemoteFile(
        "t10k-images-idx3-ubyte.gz",
        1_648_877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    RemoteFile(
        "t10k-labels-idx1-ubyte.gz",
        4_542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)
ENVIRONMENT = "GROKSCOPE_DATA"
CLASSES = 10

_STEMS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "t10k": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True, eq=False)
class MNIST:
    """Both parts of MNIST.

    Attributes:
        train: The 60,000 training images; None where only the files of the test images are.
        test: The 10,000 test images.
    """

    train: Dataset | None
    test: Dataset


@dataclass(frozen=True, eq=False)
class _Images:
    """One part as it is in its files: pixels (n, height, width) and labels (n,), both uint8."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def dataset(self, chosen: NDArray[np.int64] | slice = slice(None)) -> Dataset:
        pixels = self.pixels[chosen]
        return make_dataset(
            "mnist",
            pixels.reshape(len(pixels), -1) / 255.0,
            self.labels[chosen].astype(np.int64),
            classes=CLASSES,
            image_shape=(self.pixels.shape[1], self.pixels.shape[2]),
        )


def load_mnist(data_dir: Path | None = None, progress: Progress = report_to_stderr) -> MNIST:
    """Return MNIST, pixels divided by 255.

    Looked for in ``data_dir``, else in the folder that ``GROKSCOPE_DATA`` names, else in the user's
    cache, where it is downloaded to if it is not there. A folder that the user names must hold the
    files (itself, or in a folder ``mnist`` of its own): nothing is downloaded in its stead. Its
    files may be compressed or not, and those of the 60,000 training images may be missing. Any data
    set in the same files will do, such as Fashion-MNIST.

    Args:
        data_dir: Folder of the user's choice.
        progress: Told about downloads.

    Returns:
        Both parts.

    Raises:
        InputError: If a file is damaged, or files do not fit each other.
        MissingResource: If files are not there and could not be downloaded.
    """
    folder = _locate(data_dir, progress)
    train, test = _read_parts(folder)
    return MNIST(None if train is None else train.dataset(), test.dataset())


def mnist_split(
    data_dir: Path | None,
    n_train: int,
    *,
    subset: Literal["stratified", "first"] = "stratified",
    seed: int = 0,
    progress: Progress = report_to_stderr,
) -> Split:
    """Return training and test points of MNIST.

    Training points come from the 60,000 training images, and all 10,000 test images are test
    points. Where there are only the latter (see `load_mnist`), training points are chosen from them
    and the rest is for testing; the note of the split says so. The first half of the test images is
    known to be the easier one, which bears on ``"first"`` there.

    Args:
        data_dir: Folder of the user's choice; see `load_mnist` for where else files are looked for.
        n_train: Training points.
        subset: ``"stratified"``: equally many of each class, at random; ``"first"``: the first
            ones, as the code of arXiv:2210.01117 takes.
        seed: Root seed; the choice has a stream of its own. ``"first"`` does not use it.
        progress: Told about downloads.

    Returns:
        The split, both parts in the order of the files.

    Raises:
        InputError: If a file is damaged, files do not fit each other, or there are too few points.
        MissingResource: If files are not there and could not be downloaded.
    """
    folder = _locate(data_dir, progress)
    train, test = _read_parts(folder)
    source = test if train is None else train
    chosen = choose_points(source.labels, n_train, subset=subset, seed=seed)
    if train is not None:
        return Split(train.dataset(chosen), test.dataset())
    rest = remaining_points(len(test.labels), chosen)
    note = (
        f"Only the {len(test.labels):,} test images of MNIST were found: {n_train:,} of them are "
        f"the training points and the other {len(rest):,} the test points."
    )
    return Split(test.dataset(chosen), test.dataset(rest), note)


def _locate(data_dir: Path | None, progress: Progress) -> Path:
    """Return the folder that holds the files, downloading them if the user named none."""
    named, how = data_dir, "--data-dir"
    if named is None and os.environ.get(ENVIRONMENT):
        named, how = Path(os.environ[ENVIRONMENT]), ENVIRONMENT
    if named is not None:
        for folder in (named, named / "mnist"):
            if all(_find(folder, stem) for stem in _STEMS["t10k"]):
                return folder
        fault = "does not exist" if not named.exists() else "lacks the files of MNIST"
        raise MissingResource(f"{how} names {named}, which {fault}. {_what_to_put(named)}")
    cache = user_cache_path("grokscope") / "mnist"
    for remote in FILES:
        if _find(cache, remote.name.removesuffix(".gz")) is None:
            try:
                fetch(remote, MIRRORS, cache, progress)
            except (InputError, MissingResource) as error:
                raise type(error)(
                    f"{error}\n{_what_to_put(cache)} Or name another folder that holds them, with "
                    f"--data-dir or {ENVIRONMENT}; there, the t10k files alone will do."
                ) from error
    return cache


def _what_to_put(folder: Path) -> str:
    test, train = (
        " and ".join(f"{stem}.gz" for stem in _STEMS[part]) for part in ("t10k", "train")
    )
    return (
        f"Put {test} into {folder}, and for all 60,000 training images also {train}; unpacked "
        "files, without .gz, will do as well."
    )


def _find(folder: Path, stem: str) -> Path | None:
    """Return the file of that name in ``folder``, compressed or not, or None."""
    names = (folder / f"{stem}.gz", folder / stem)
    return next((path for path in names if path.is_file()), None)


def _read_parts(folder: Path) -> tuple[_Images | None, _Images]:
    """Read the training images, if there are any, and the test images."""
    train, test = _read_part(folder, "train"), _read_part(folder, "t10k")
    assert test is not None  # _locate has seen its files
    if train is not None and train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise InputError(
            f"The images in {folder} do not fit each other: those for training are of shape "
            f"{train.pixels.shape[1:]}, those for testing of shape {test.pixels.shape[1:]}."
        )
    return train, test


def _read_part(folder: Path, part: str) -> _Images | None:
    found = [_find(folder, stem) for stem in _STEMS[part]]
    if found == [None, None]:
        return None
    paths = []
    for path, stem in zip(found, _STEMS[part], strict=True):
        if path is None:
            raise MissingResource(
                f"{folder} holds only one of the two files of the {part} images. "
                f"Put {stem}.gz there, or take away the other."
            )
        paths.append(path)
    pixels, labels = read_idx(paths[0], axes=3), read_idx(paths[1], axes=1)
    if len(pixels) != len(labels) or not pixels.size:
        raise InputError(
            f"{paths[0]} and {paths[1]} do not fit each other: expected as many labels as images, "
            f"got {len(labels):,} labels and {len(pixels):,} images of {pixels.shape[1:]} pixels."
        )
    if labels.max() >= CLASSES:
        raise InputError(
            f"{paths[1]}: expected labels from 0 to {CLASSES - 1}, got {labels.max()}."
        )
    return _Images(pixels, labels)
