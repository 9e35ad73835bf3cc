"""scikit-learn's digits."""

import os

import numpy as np

from keras_resnet.data.source import Source, Split
from keras_resnet.data.splitting import VALIDATION, SplitPolicy, complete


def digits(seed: int = 0, validation: float = VALIDATION) -> Source:
    """Load the handwritten digits that come with scikit-learn: 8x8 pixels, grey.

    Parameters
    ----------
    seed : int, default 0
        Seed of the split.
    validation : float, default 0.15
        As in `load`.

    Returns
    -------
    Source

    References
    ----------
    Kaynak, Alpaydin: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository.

    Examples
    --------
    >>> from keras_resnet.data.sources import digits
    >>> digits().test.images.shape
    (359, 8, 8, 1)
    """
    return read_digits("digits", SplitPolicy(seed, validation=validation))


def read_digits(name: str, policy: SplitPolicy) -> Source:
    """Do what `digits` does, with a policy."""
    from sklearn.datasets import load_digits

    notes = ()
    if os.path.isdir(name):
        notes = (f"These are scikit-learn's digits; the folder of that name is {'./' + name!r}.",)
    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype("uint8")[..., None]
    class_names = tuple(str(name) for name in bunch.target_names)
    return Source(
        name=name,
        class_names=class_names,
        channels=1,
        image_size=16,
        augmentation="handwriting",
        notes=notes,
        **complete({"train": Split(images, bunch.target)}, class_names, policy),
    )
