import numpy as np
import pytest
import tensorflow as tf
from errors import one_line_error
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pictures import pixels, write_images

from keras_resnet import data


def test_some_of_a_split_are_the_same_wherever_it_is(tmp_path):
    write_images(tmp_path, 10)
    files = [tmp_path / f"{index}.png" for index in range(10)]
    labels = np.arange(10) % 3
    images = np.stack([pixels(index) for index in range(10)])
    stream = tf.data.Dataset.from_tensor_slices([file.read_bytes() for file in files])
    indices = np.array([1, 4, 5, 8])
    for kind in (images, files, stream):
        once = data.Split(kind, labels).take(indices)
        twice = once.take(np.array([0, 2, 3]))
        for split, expected in ((once, [1, 4, 5, 8]), (twice, [1, 5, 8])):
            shown, shown_labels = next(iter(data.batches(split, image_size=9)))
            np.testing.assert_array_equal(shown, images[expected][:, :, 1:10])
            assert shown_labels.numpy().tolist() == labels[expected].tolist()


def stream(*contents):
    return tf.data.Dataset.from_tensor_slices(list(contents))


class TestArrays:
    @settings(deadline=None)
    @given(
        arrays.arrays(
            st.sampled_from(["uint8", "int16", "int64", "uint32"]), (2, 3, 4, 1), fill=st.nothing()
        )
    )
    def test_any_whole_numbers_are_kept_or_refused(self, images):
        if images.min() < 0 or images.max() > 255:
            with one_line_error(f"images are {images.dtype} from", "must be uint8 from 0 to 255"):
                data.Split(images, [0, 1])
        else:
            kept = data.Split(images, [0, 1]).images
            assert kept.dtype == np.uint8
            np.testing.assert_array_equal(kept, images)

    @settings(deadline=None)
    @given(
        arrays.arrays("float32", (2, 3, 4, 1), elements=st.floats(0, 1, width=32)),
        st.sampled_from([1, 16, 100, 255]),
    )
    def test_floats_are_not_silently_dark(self, images, scale):
        images = np.minimum(images * scale, 255)
        try:
            kept = data.Split(images, [0, 1]).images
        except ValueError as error:
            assert "images are float32 from" in str(error)  # noqa: PT017
            assert images.max() < 128
        else:
            np.testing.assert_allclose(kept, images, atol=0.5)
            assert images.max() >= 128

    @pytest.mark.parametrize(
        ("images", "complaints"),
        [
            (np.ones((2, 4, 4, 1)), ["float64 from 1 to 1", "(255 * images).round()"]),
            (np.full((2, 4, 4, 1), 16.0), ["from 16 to 16", "images.round().astype('uint8')"]),
            (np.full((2, 4, 4, 1), -1.0), ["from -1 to -1", "Undo their normalization"]),
            (np.full((2, 4, 4, 1), np.nan), ["from nan to nan"]),
            (np.ones((2, 4, 4, 1), "int64"), ["int64 from 1 to 1", "(255 * images)"]),
            (np.zeros((2, 4, 4, 1), bool), ["images of type bool must be uint8"]),
            (
                np.zeros((2, 4, 4), "uint8"),
                ["shape (2, 4, 4)", "add a channel axis", "[..., None]"],
            ),
            (np.zeros((2, 16), "uint8"), ["shape (2, 16) must have the shape (images, height"]),
            ([np.zeros((4, 4, 1))] * 2, ["images[0] is of type ndarray", "np.stack(images)"]),
            ("photograph.jpg", ["images of type str", "a list of paths"]),
            (None, ["images of type NoneType"]),
        ],
    )
    def test_others_are_refused(self, images, complaints):
        with one_line_error(*complaints):
            data.Split(images, [0, 1])

    def test_bytes_that_are_nearly_black_are_told(self, caplog):
        data.Split(np.ones((2, 4, 4, 1), "uint8"), [0, 1])
        assert caplog.messages == [
            "images are uint8 from 1 to 1, which is nearly black: 255 is white."
        ]
        caplog.clear()
        for value in (0, 2):
            data.Split(np.full((2, 4, 4, 1), value, "uint8"), [0, 1])
        assert caplog.messages == []

    def test_tensors_will_do(self):
        images = np.arange(32, dtype="uint8").reshape(2, 4, 4, 1)
        split = data.Split(tf.constant(images), tf.constant([0, 1]))
        np.testing.assert_array_equal(split.images, images)

    def test_other_channels_than_asked_for_are_refused(self):
        split = data.Split(np.zeros((2, 3, 8, 8), "uint8"), [0, 1])
        with one_line_error("channels=3: the images have 8"):
            data.batches(split, image_size=8)


class TestFiles:
    @pytest.mark.parametrize("kind", [list, tuple, np.array])
    def test_are_paths_of_any_type(self, tmp_path, kind):
        write_images(tmp_path, 2)
        split = data.Split(kind([str(tmp_path / "0.png"), str(tmp_path / "1.png")]), [0, 1])
        ((images, _),) = data.batches(split, image_size=9)
        np.testing.assert_array_equal(images[1], pixels(1)[:, 1:10])

    def test_images_are_what_was_passed(self, tmp_path):
        files = [tmp_path / "0.png", tmp_path / "1.png"]
        assert data.Split(files, [0, 1]).images is files


class TestStreams:
    @pytest.mark.parametrize(
        ("images", "complaints"),
        [
            (tf.data.Dataset.range(2), ["Dataset of TensorSpec", "contents of image files"]),
            (tf.data.Dataset.zip(stream(b"1"), tf.data.Dataset.range(1)), ["without labels"]),
            (stream(b"1", b"2").batch(2), ["string tensors of shape ()", "not in batches"]),
            (stream(b"1", b"2").repeat(), ["without an end"]),
            (stream(b"1", b"2", b"3"), ["3 images, 2 labels"]),
        ],
    )
    def test_others_are_refused(self, images, complaints):
        with one_line_error(*complaints):
            data.Split(images, [0, 1])


def test_kinds_are_not_joined():
    arrays = data.Split(np.zeros((1, 4, 4, 3), "uint8"), [0])
    files = data.Split(["1.png"], [0])
    with one_line_error("a split of arrays cannot be joined with one of files"):
        arrays.joined(files)


@pytest.mark.parametrize("indices", [[True, False, True], [0, 2], slice(0, None, 2), [0, -1]])
def test_images_are_taken_as_numpy_takes_them(indices):
    images = np.arange(3, dtype="uint8").repeat(16).reshape(3, 4, 4, 1)
    contents = [b"a", b"b", b"c"]
    assert data.Split(images, [4, 5, 6]).take(indices).images[:, 0, 0, 0].tolist() == [0, 2]
    assert data.Split(["a", "b", "c"], [4, 5, 6]).take(indices).images == ["a", "c"]
    some = data.Split(stream(*contents), [4, 5, 6]).take(indices)
    assert [*some.images.as_numpy_iterator()] == [b"a", b"c"]
    assert some.labels.tolist() == [4, 6]
