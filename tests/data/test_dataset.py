from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokscope.data.dataset import (
    Dataset,
    choose_points,
    first_n_split,
    make_dataset,
    stratified_split,
)
from grokscope.data.digits import load_digits
from grokscope.errors import InputError

CHOSEN = [0, 3, 18, 21, 22, 23, 28, 33, 38]
DIGITS = "5889d26819cf830d070975af3c711419825fa0a078137b3d80b8e7d06bd58da0"


def tiny(n: int = 40, classes: int = 4) -> Dataset:
    inputs = np.arange(n)[:, None] / n * np.ones((1, 6))  # each row tells its index
    return make_dataset("tiny", inputs, np.arange(n) % classes, classes=classes, image_shape=(2, 3))


def rows_of(dataset: Dataset, n: int = 40) -> list[int]:
    return (dataset.inputs[:, 0] * n).round().to(torch.int64).tolist()


def test_make_dataset_copies_and_takes_the_digest_of_the_bytes() -> None:
    inputs, labels = np.array([[0.25, 1.0], [0.0, 0.5]]), np.array([1, 0])
    dataset = make_dataset("d", inputs, labels, classes=2)
    inputs[0, 0] = 0.0
    assert dataset.inputs.tolist() == [[0.25, 1.0], [0.0, 0.5]]
    assert dataset.inputs.dtype == torch.float64
    assert dataset.labels.dtype == torch.int64
    assert dataset.labels.tolist() == [1, 0]
    assert len(dataset) == 2
    raw = dataset.inputs.numpy().tobytes() + dataset.labels.numpy().tobytes()
    assert dataset.digest == hashlib.sha256(raw).hexdigest()


def test_digest_tells_data_apart_and_not_their_layout() -> None:
    inputs, labels = np.linspace(0, 1, 12).reshape(4, 3), np.array([0, 1, 0, 1])
    plain = make_dataset("a", inputs, labels, classes=2)
    same = make_dataset("b", np.asfortranarray(inputs), labels.astype(np.uint8), classes=3)
    assert same.digest == plain.digest
    assert make_dataset("a", inputs[::-1], labels, classes=2).digest != plain.digest
    assert make_dataset("a", inputs, labels[::-1], classes=2).digest != plain.digest
    assert make_dataset("a", inputs**2, labels, classes=2).digest != plain.digest


def test_make_dataset_refuses_what_does_not_fit() -> None:
    x, y = np.zeros((3, 4)), np.zeros(3, np.int64)
    with pytest.raises(ValueError, match=r"d: expected inputs \(n, d\).*got \(3, 4\), \(2,\)"):
        make_dataset("d", x, y[1:], classes=1)
    with pytest.raises(ValueError, match=r"d: expected inputs \(n, d\).*got \(3, 2, 2\), \(3,\)"):
        make_dataset("d", x.reshape(3, 2, 2), y, classes=1)
    with pytest.raises(ValueError, match=r"d: expected \(2, 3\) = 4 pixels"):
        make_dataset("d", x, y, classes=1, image_shape=(2, 3))
    for bad in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"d: expected inputs in \[0, 1\]"):
            make_dataset("d", x + bad, y, classes=1)
    for bad_label in (-1, 2):
        with pytest.raises(ValueError, match=r"d: expected labels in \[0, 2\)"):
            make_dataset("d", x, y + bad_label, classes=2)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 39), st.integers(0, 2**32 - 1))
def test_a_stratified_split_is_balanced_disjoint_and_complete(n_train: int, seed: int) -> None:
    split = stratified_split(tiny(), n_train, seed)
    counts = torch.bincount(split.train.labels, minlength=4)
    assert int(counts.max() - counts.min()) <= (1 if n_train % 4 else 0)
    train, test = rows_of(split.train), rows_of(split.test)
    assert len(train) == n_train
    assert sorted(train + test) == list(range(40))
    assert train == sorted(train)
    assert test == sorted(test)
    assert split.train.labels.tolist() == [i % 4 for i in train]  # labels stay with their rows
    assert split.train.image_shape == split.test.image_shape == (2, 3)
    assert split.note == ""
    again = stratified_split(tiny(), n_train, seed)
    assert again.train.digest == split.train.digest
    assert again.test.digest == split.test.digest


def test_a_stratified_choice_is_uniform_and_so_are_the_classes_that_get_one_more() -> None:
    labels = np.arange(40) % 4
    chosen = np.zeros(40)
    extra = np.zeros(4)
    for seed in range(3000):
        found = choose_points(labels, 10, subset="stratified", seed=seed)
        chosen[found] += 1
        extra += np.bincount(labels[found], minlength=4) - 2
    assert chosen / 3000 == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / 3000) ** 0.5)
    assert extra / 3000 == pytest.approx(0.5, abs=5 * (0.25 / 3000) ** 0.5)


def test_a_stratified_choice_is_what_it_was_when_runs_were_recorded() -> None:
    labels = np.arange(40) % 4
    found = choose_points(labels, 9, subset="stratified", seed=0)
    assert found.tolist() == CHOSEN


def test_only_classes_that_occur_share_the_points() -> None:
    dataset = make_dataset("d", np.zeros((6, 1)), np.array([2, 2, 2, 7, 7, 7]), classes=10)
    split = stratified_split(dataset, 4, 0)
    assert torch.bincount(split.train.labels, minlength=10).tolist() == [
        0,
        0,
        2,
        0,
        0,
        0,
        0,
        2,
        0,
        0,
    ]
    assert split.train.classes == 10


def test_the_first_n() -> None:
    split = first_n_split(tiny(), 12)
    assert rows_of(split.train) == list(range(12))
    assert rows_of(split.test) == list(range(12, 40))


def test_too_few_points() -> None:
    uneven = make_dataset("d", np.zeros((5, 1)), np.array([0, 0, 0, 0, 1]), classes=2)
    with pytest.raises(InputError, match=r"4 points equally over 2 classes: 2 of class 1 .* are 1"):
        stratified_split(uneven, 4, 0)
    for split in (lambda n: stratified_split(tiny(), n, 0), lambda n: first_n_split(tiny(), n)):
        with pytest.raises(InputError, match=r"Cannot choose 41 points from 40"):
            split(41)
        with pytest.raises(InputError, match=r"All 40 points are taken .* none remain"):
            split(40)
        with pytest.raises(ValueError, match=r"expected n of at least 1, got 0"):
            split(0)
    with pytest.raises(ValueError, match=r"'stratified' or 'first', got 'last'"):
        choose_points(np.zeros(3, np.int64), 2, subset="last", seed=0)


def test_digits_are_the_embedded_data_set() -> None:
    digits = load_digits()
    assert digits.name == "digits"
    assert tuple(digits.inputs.shape) == (1797, 64)
    assert digits.image_shape == (8, 8)
    assert digits.classes == 10
    assert torch.bincount(digits.labels).tolist() == [
        178,
        182,
        177,
        183,
        181,
        182,
        181,
        179,
        174,
        180,
    ]
    assert (digits.inputs * 16 == (digits.inputs * 16).round()).all()
    assert float(digits.inputs.max()) == 1.0
    # The first image, as published: a zero.
    assert (digits.inputs[0, :8] * 16).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert int(digits.labels[0]) == 0
    assert digits.digest == DIGITS


def test_digits_split_as_the_main_job_does() -> None:
    split = stratified_split(load_digits(), 200, seed=0)
    assert torch.bincount(split.train.labels).tolist() == [20] * 10
    assert len(split.test) == 1597


def test_scikit_learn_is_imported_only_when_digits_are_loaded() -> None:
    code = "import sys, grokscope.data.digits; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
