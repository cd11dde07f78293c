"""Labelled data in memory, and its division into training and test points."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grokscope.data.seeds import derive_seed
from grokscope.errors import InputError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs with class labels.

    Attributes:
        name: For people: ``"digits"``.
        inputs: float64 in [0, 1], shape ``(n, d)``; images row by row.
        labels: int64 in ``[0, classes)``, shape ``(n,)``.
        classes: Number of classes, whether all occur or not.
        image_shape: Height and width with ``height * width == d``; None if these are no images.
        digest: SHA-256, in hexadecimal, of the bytes of ``inputs`` followed by those of ``labels``.
    """

    name: str
    inputs: Tensor
    labels: Tensor
    classes: int
    image_shape: tuple[int, int] | None
    digest: str

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Split:
    """Training and test points that share no point.

    Attributes:
        train: Training points.
        test: Test points.
        note: What a reader of results must know about the division; empty if nothing unusual.
    """

    train: Dataset
    test: Dataset
    note: str = ""


def make_dataset(
    name: str,
    inputs: NDArray[np.float64],
    labels: NDArray[np.int64],
    *,
    classes: int,
    image_shape: tuple[int, int] | None = None,
) -> Dataset:
    """Build a data set from arrays, which are copied, and take its digest.

    Args:
        name: For people.
        inputs: Shape ``(n, d)``, values in [0, 1].
        labels: Shape ``(n,)``, integers in ``[0, classes)``.
        classes: Number of classes.
        image_shape: Height and width, if the rows of ``inputs`` are images.

    Returns:
        The data set.

    Raises:
        ValueError: If shapes or values do not fit.
    """
    x = np.array(inputs, np.float64, order="C")
    y = np.array(labels, np.int64, order="C")
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise ValueError(f"{name}: expected inputs (n, d), labels (n,), got {x.shape}, {y.shape}.")
    if image_shape is not None and image_shape[0] * image_shape[1] != x.shape[1]:
        raise ValueError(f"{name}: expected {image_shape} = {x.shape[1]} pixels.")
    if not ((x >= 0) & (x <= 1)).all():
        raise ValueError(f"{name}: expected inputs in [0, 1].")
    if not ((y >= 0) & (y < classes)).all():
        raise ValueError(f"{name}: expected labels in [0, {classes}).")
    digest = hashlib.sha256(x.astype("<f8", copy=False).data)
    digest.update(y.astype("<i8", copy=False).data)
    return Dataset(
        name, torch.from_numpy(x), torch.from_numpy(y), classes, image_shape, digest.hexdigest()
    )


def choose_points(
    labels: NDArray[np.integer], n: int, *, subset: Literal["stratified", "first"], seed: int
) -> NDArray[np.int64]:
    """Choose ``n`` points of a set.

    Args:
        labels: Class of every point, shape ``(points,)``.
        n: How many to choose.
        subset: ``"stratified"``: at random, equally many of each class that occurs, or differing by
            one where ``n`` does not divide evenly (which classes get one more is random too);
            ``"first"``: the first ``n``.
        seed: Root seed; the choice has a stream of its own. ``"first"`` does not use it.

    Returns:
        Distinct indices into ``labels``, increasing, shape ``(n,)``.

    Raises:
        InputError: If there are too few points, of all or of one class.
        ValueError: If ``n`` or ``subset`` cannot be meant.
    """
    if n < 1:
        raise ValueError(f"choose_points: expected n of at least 1, got {n}.")
    if n > len(labels):
        raise InputError(f"Cannot choose {n} points from {len(labels)}. Ask for fewer.")
    if subset == "first":
        return np.arange(n)
    if subset != "stratified":
        raise ValueError(f"choose_points: expected 'stratified' or 'first', got {subset!r}.")
    # Raw Philox words, which numpy keeps the same in all versions, put everything in random order.
    source = np.random.Philox(key=derive_seed(seed, "subset"))
    classes, of_class = np.unique(labels, return_inverse=True)
    share, rest = divmod(n, len(classes))
    wanted = np.full(len(classes), share)
    wanted[np.argsort(source.random_raw(len(classes)), kind="stable")[:rest]] += 1
    order = np.argsort(source.random_raw(len(labels)), kind="stable")
    chosen = []
    for k, count in enumerate(wanted):
        members = order[of_class[order] == k]
        if len(members) < count:
            raise InputError(
                f"Cannot choose {n} points equally over {len(classes)} classes: {count} of class "
                f"{classes[k]} are needed, and there are {len(members)}. Ask for fewer."
            )
        chosen.append(members[:count])
    return np.sort(np.concatenate(chosen))


def remaining_points(points: int, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices below ``points`` that are not among ``chosen``, increasing.

    Raises:
        InputError: If none remain.
    """
    rest = np.setdiff1d(np.arange(points), chosen)
    if not len(rest):
        raise InputError(
            f"All {points} points are taken for training; none remain to test on. Ask for fewer."
        )
    return rest


def stratified_split(dataset: Dataset, n_train: int, seed: int) -> Split:
    """Take equally many training points of each class at random; the rest is for testing.

    Args:
        dataset: All points.
        n_train: Training points; where they do not divide evenly, classes differ by one point.
        seed: Root seed; the choice has a stream of its own.

    Returns:
        The split, both parts in the order of ``dataset``.

    Raises:
        InputError: If there are too few points, of all or of one class.
    """
    labels = dataset.labels.numpy()
    return _split(dataset, choose_points(labels, n_train, subset="stratified", seed=seed))


def first_n_split(dataset: Dataset, n_train: int) -> Split:
    """Take the first ``n_train`` points for training; the rest is for testing.

    Args:
        dataset: All points.
        n_train: Training points.

    Returns:
        The split, both parts in the order of ``dataset``.

    Raises:
        InputError: If there are too few points.
    """
    return _split(dataset, choose_points(dataset.labels.numpy(), n_train, subset="first", seed=0))


def _split(dataset: Dataset, train: NDArray[np.int64]) -> Split:
    test = remaining_points(len(dataset), train)
    return Split(_take(dataset, train), _take(dataset, test))


def _take(dataset: Dataset, indices: NDArray[np.int64]) -> Dataset:
    return make_dataset(
        dataset.name,
        dataset.inputs.numpy()[indices],
        dataset.labels.numpy()[indices],
        classes=dataset.classes,
        image_shape=dataset.image_shape,
    )
