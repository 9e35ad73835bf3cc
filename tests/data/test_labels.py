import numpy as np
import pytest
from errors import one_line_error
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from keras_resnet import data
from keras_resnet.data.labels import as_labels, task_of


def split(labels):
    """A split with these labels; what its images show does not matter."""
    return data.Split(np.zeros((len(labels), 1, 1, 1), "uint8"), labels)


class TestOfASplit:
    @pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint64", "int64", "bool"])
    @pytest.mark.parametrize("shape", [(2,), (2, 1)])
    def test_whole_numbers_are_classes(self, dtype, shape):
        labels = split(np.array([1, 0], dtype).reshape(shape)).labels
        assert labels.tolist() == [1, 0]
        assert labels.dtype == np.int64

    def test_a_list_will_do(self):
        assert split([3, 1, 2]).labels.tolist() == [3, 1, 2]

    @pytest.mark.parametrize("dtype", ["int64", "float64", "bool", "uint8"])
    def test_rows_are_several_labels(self, dtype):
        labels = split(np.eye(3, dtype=dtype)).labels
        assert labels.dtype == np.float32
        np.testing.assert_array_equal(labels, np.eye(3))

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_floats_are_numbers(self, dtype):
        labels = split(np.array([-0.5, 3], dtype)).labels
        assert labels.dtype == np.float32
        assert labels.tolist() == [-0.5, 3]

    @pytest.mark.parametrize(
        ("labels", "complaints"),
        [
            (["cat", "dog"], ["labels of type <U3", "np.unique(labels, return_inverse=True)"]),
            ([1, -1], ["labels[1]=-1 is negative", "counted from 0", "astype('float32')"]),
            ([0.5, float("nan")], ["labels[1]=nan is not a finite"]),
            ([[0, 0.5], [np.inf, 1]], ["labels[1, 0]=inf is not a finite"]),
            ([1e300, 0], ["labels[0]=1e+300 is not a finite float32"]),
            (np.zeros((2, 3, 4), int), ["shape (2, 3, 4)", "Expected whole numbers of shape"]),
            ([1j, 2], ["labels of type complex128"]),
        ],
    )
    def test_others_are_refused(self, labels, complaints):
        with one_line_error(*complaints):
            split(labels)

    @pytest.mark.parametrize("labels", [[1], [1, 2, 3]])
    def test_of_another_length_are_refused(self, labels):
        with one_line_error(f"2 images, {len(labels)} labels"):
            data.Split(np.zeros((2, 1, 1, 1), "uint8"), labels)

    @settings(deadline=None)
    @given(arrays.arrays(st.sampled_from(["int8", "int64", "uint16"]), st.integers(1, 20)))
    def test_any_whole_numbers_are_kept_or_refused(self, labels):
        if labels.min() < 0:
            with one_line_error("is negative"):
                split(labels)
        else:
            np.testing.assert_array_equal(split(labels).labels, labels)

    @settings(deadline=None)
    @given(arrays.arrays("float64", st.integers(1, 20)))
    def test_any_floats_are_kept_or_refused(self, labels):
        with np.errstate(over="ignore"):
            kept = labels.astype("float32")
        if np.isfinite(kept).all():
            np.testing.assert_array_equal(split(labels).labels, kept)
        else:
            with one_line_error("is not a finite float32"):
                split(labels)


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        ([0, 1], "classification"),
        ([[0, 1], [1, 1]], "multilabel"),
        ([0.0, 1.0], "regression"),
        ([[0, 0.5], [1, 1]], "regression"),
    ],
)
def test_the_task_is_read_off_them(labels, task):
    assert task_of(as_labels(labels)) == task
