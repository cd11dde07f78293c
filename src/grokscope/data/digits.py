"""The embedded data set: 1,797 real handwritten digits of 8 x 8 pixels."""

from __future__ import annotations

import numpy as np

from grokscope.data.dataset import Dataset, make_dataset


def load_digits() -> Dataset:
    """Return scikit-learn's copy of the UCI test set of optically recognised digits.

    It comes with scikit-learn, so nothing is read from the network. Pixels are counts from 0 to 16
    and are divided by 16. A class has 174 to 183 points.

    Returns:
        1,797 points of 64 pixels, 10 classes.
    """
    from sklearn.datasets import load_digits as embedded  # slow to import

    pixels, labels = embedded(return_X_y=True)
    return make_dataset(
        "digits",
        pixels / 16.0,
        np.asarray(labels, np.int64),
        classes=10,
        image_shape=(8, 8),
    )
