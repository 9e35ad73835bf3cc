import numpy as np
from sklearn.datasets import load_digits

from keras_resnet import data


class TestDigits:
    def test_are_the_pixels_of_scikit_learn(self):
        digits = data.load("digits")
        splits = (digits.train, digits.validation, digits.test)
        ours = np.concatenate([split.images for split in splits]).reshape(-1, 64)
        theirs = np.round(load_digits().data * 255 / 16)
        assert len(ours) == 1797
        np.testing.assert_array_equal(np.sort(ours, axis=0), np.sort(theirs, axis=0))

    def test_splits_depend_on_the_seed_alone(self):
        first, again, other = (data.load("digits", seed).test for seed in (1, 1, 2))
        np.testing.assert_array_equal(first.images, again.images)
        assert (first.images != other.images).any()

    def test_every_class_is_in_every_split(self):
        digits = data.load("digits")
        for split, share in ((digits.test, 0.2), (digits.validation, 0.12)):
            counts = np.bincount(split.labels, minlength=10)
            assert counts.min() >= 0.9 * share * 174
