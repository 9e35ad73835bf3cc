import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from errors import one_line_error
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pictures import encoded, pixels

from keras_resnet import data
from keras_resnet.data.boxes import padded
from keras_resnet.detection.augmentation import Augmentation
from keras_resnet.detection.batches import batches

COUNT = 11
SIZES = [(9 + 2 * (index % 4), 30 - 3 * (index % 5)) for index in range(COUNT)]
# As many boxes as the number of the image, up to three; the third is ignored.
ROWS = [
    [(1, 2, 3 + index, 8, index, 0), (5.5, 0, 18, 9, 0, 0), (0, 0, 2, 2, 1, 1)][: index % 4]
    for index in range(COUNT)
]
LABELS = padded(ROWS)


@pytest.fixture(scope="module")
def ways(tmp_path_factory):
    """The same images, of several sizes, in files and in a stream."""
    folder = tmp_path_factory.mktemp("images")
    for index, (height, width) in enumerate(SIZES):
        contents = encoded(index, height=height, width=width)
        (folder / f"{index}.png").write_bytes(contents)
    files = [folder / f"{index}.png" for index in range(COUNT)]
    contents = tf.data.Dataset.from_tensor_slices([file.read_bytes() for file in files])
    return {"files": data.Split(files, LABELS), "stream": data.Split(contents, LABELS)}


def arrays(count=COUNT, height=6, width=8):
    """Images of one size that show their number."""
    images = np.arange(count, dtype="uint8")[:, None, None, None]
    rows = padded([[(0, 0, 1 + index % width, 2, index, 0)] for index in range(count)])
    return data.Split(np.broadcast_to(images, (count, height, width, 3)).copy(), rows)


def collect(dataset):
    return list(dataset.as_numpy_iterator())


def alone(found):
    """Every image by itself, without padding, with all that is known of it."""
    return [
        {"image": image[: size[0], : size[1]], **{name: labels[name][i] for name in labels}}
        for inputs, labels in found
        for i, (image, size) in enumerate(zip(inputs["images"], inputs["sizes"], strict=True))
    ]


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize(
    ("way", "cache"), [("files", None), ("stream", None), ("files", "memory"), ("stream", "folder")]
)
def test_images_keep_sizes_pixels_and_boxes(ways, way, cache, tmp_path):
    cache = tmp_path if cache == "folder" else cache
    found = collect(batches(ways[way], batch_size=4, cache=cache))
    assert [len(inputs["images"]) for inputs, _ in found] == [4, 4, 3]
    for step, (inputs, labels) in enumerate(found):
        of_batch = range(4 * step, min(4 * step + 4, COUNT))
        sizes = np.array([SIZES[index] for index in of_batch])
        np.testing.assert_array_equal(inputs["sizes"], sizes)
        expected = np.zeros((len(of_batch), *sizes.max(axis=0), 3), "float32")
        for image, index, (height, width) in zip(expected, of_batch, sizes, strict=True):
            image[:height, :width] = pixels(index, height=height, width=width)
        np.testing.assert_array_equal(inputs["images"], expected)
        rows = LABELS[of_batch.start : of_batch.stop]
        np.testing.assert_array_equal(labels["boxes"], rows[..., :4])
        np.testing.assert_array_equal(labels["classes"], rows[..., 4])
        np.testing.assert_array_equal(labels["ignored"], rows[..., 5] == 1)
        np.testing.assert_array_equal(labels["seeds"], [(0, index) for index in of_batch])
    types = {"images": "float32", "sizes": "int32", "boxes": "float32", "classes": "int32"}
    types |= {"ignored": "bool", "seeds": "int32"}
    assert {name: each.dtype.name for name, each in (inputs | labels).items()} == types


def test_a_cache_is_found_again(ways, tmp_path):
    options = dict(augmentation="photograph", epochs=range(1))
    expected = collect(batches(ways["files"], **options))
    for _ in range(2):
        assert_same(collect(batches(ways["files"], cache=tmp_path, **options)), expected)
    assert len([*tmp_path.iterdir()]) == 1


def test_files_are_turned_as_exif_tells(tmp_path):
    """Boxes are in pixels of the upright image."""
    stored = np.zeros((20, 40, 3), "uint8")
    stored[:10, 30:] = 255
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    PIL.Image.fromarray(stored).save(tmp_path / "image.png", exif=exif)
    split = data.Split([tmp_path / "image.png"], padded([[(10, 30, 20, 40, 0, 0)]]))
    ((inputs, _),) = collect(batches(split))
    expected = np.zeros((1, 40, 20, 3))
    expected[0, 30:, 10:] = 255
    np.testing.assert_array_equal(inputs["images"], expected)


@pytest.mark.parametrize(("way", "policy"), [("files", "photograph"), ("stream", "cells")])
def test_an_epoch_is_the_same_wherever_a_run_begins(ways, way, policy):
    options = dict(batch_size=4, augmentation=policy, seed=5)
    whole = collect(batches(ways[way], epochs=range(1, 4), **options))
    assert len(whole) == 9
    rest = batches(ways[way], epochs=range(2, 4), first_step=2, **options)
    assert len(rest) == 4
    assert_same(collect(rest), whole[5:])
    epochs = [alone(whole[first : first + 3]) for first in (0, 3, 6)]
    assert len({b"".join(each["image"].tobytes() for each in epoch) for epoch in epochs}) == 3
    assert len({tuple(each["classes"][0] for each in epoch) for epoch in epochs}) == 3


def test_files_and_arrays_are_varied_alike(tmp_path):
    split = arrays()
    files = [tmp_path / f"{index}.png" for index in range(COUNT)]
    for file, image in zip(files, split.images, strict=True):
        PIL.Image.fromarray(image).save(file)
    options = dict(augmentation="photograph", epochs=range(1))
    expected = collect(batches(split, **options))
    assert len(expected) == 6
    assert_same(collect(batches(data.Split(files, split.labels), **options)), expected)


def test_seeds_tell_epochs_and_images_apart(ways):
    orders = []
    for seed in (1, 2):
        found = collect(batches(ways["files"], augmentation="none", epochs=range(3), seed=seed))
        seeds = [tuple(each["seeds"].tolist()) for each in alone(found)]
        assert len({*seeds}) == 3 * COUNT
        orders.append(seeds)
    assert not {*orders[0]} & {*orders[1]}
    every_time = batches(ways["files"], augmentation="none", seed=1)
    first, second = ({each["seeds"][0] for each in alone(collect(every_time))} for _ in range(2))
    assert len(first | second) == 2


class TestShards:
    @pytest.mark.parametrize(("way", "policy"), [("files", None), ("stream", "cells")])
    def test_are_the_epoch_together(self, ways, way, policy):
        options = dict(augmentation=policy, epochs=range(1, 2), seed=2)
        whole = alone(collect(batches(ways[way], **options)))
        for part in range(2):
            some = alone(collect(batches(ways[way], shard=(2, part), **options)))
            assert_same(some, whole[part::2])

    @pytest.mark.parametrize("shard", [(3, 3), (3, -1), (0, 0)])
    def test_out_of_range_are_refused(self, shard):
        with one_line_error(f"shard={shard}"):
            batches(arrays(), shard=shard)

    def test_may_be_empty(self):
        assert collect(batches(arrays(2), shard=(3, 2))) == []


class TestReplicas:
    @settings(max_examples=3, deadline=None, derandomize=True)
    @given(
        count=st.integers(4, 24),
        each=st.integers(1, 3),
        parts=st.integers(1, 2),
        replicas=st.integers(1, 3),
        at_least=st.integers(1, 2),
        first_step=st.integers(0, 2),
    )
    def test_share_the_batches_of_one(self, count, each, parts, replicas, at_least, first_step):
        assume(count >= parts * replicas * at_least)
        batch_size = each * at_least * replicas
        sizes = data.pipeline.batch_sizes(count, batch_size, (parts, 0), replicas, at_least)
        steps = len(sizes) // replicas
        first_step = min(first_step, steps - 1)
        options = dict(augmentation="none", seed=7, epochs=range(3, 5))
        whole = alone(collect(batches(arrays(count), **options)))
        for part in range(parts):
            shared = dict(shard=(parts, part), replicas=replicas, at_least=at_least)
            dataset = batches(
                arrays(count), batch_size=batch_size, first_step=first_step, **shared, **options
            )
            found = collect(dataset)
            assert len(dataset) == len(found) == (2 * steps - first_step) * replicas
            expected = data.pipeline.batch_sizes(
                count, batch_size, (parts, part), replicas, at_least
            )
            counts = [len(inputs["images"]) for inputs, _ in found]
            assert counts == (2 * expected)[first_step * replicas :]
            mine = whole[part:count:parts][first_step * batch_size :] + whole[count + part :: parts]
            assert_same(alone(found), mine)

    def test_are_padded_each_by_itself(self, ways):
        shared = collect(batches(ways["files"], batch_size=4, replicas=2))
        for (inputs, _), first in zip(shared, (0, 2, 4, 6, 8, 10), strict=True):
            sizes = SIZES[first : min(first + 2, COUNT)]
            assert inputs["images"].shape == (len(sizes), *np.max(sizes, axis=0), 3)

    def test_too_many_for_the_images_are_refused(self):
        with one_line_error("5 images are too few for 6 devices, each of which needs 1 in every"):
            batches(arrays(5), batch_size=3, shard=(2, 0), replicas=3)


def test_nothing_retraces(ways):
    """Whatever the sizes and numbers of images, as long as the rows are as many."""
    traces = []

    @tf.function
    def step(inputs, labels):
        traces.append(1)
        return tf.reduce_sum(inputs["images"]) + tf.reduce_sum(labels["boxes"])

    same_size = data.Split(np.zeros((3, 5, 7, 3), "uint8"), LABELS[:3])
    shapes = set()
    for split, policy in ((ways["files"], None), (ways["stream"], "cells"), (same_size, None)):
        dataset = batches(split, batch_size=2, augmentation=policy, epochs=range(1))
        inputs, labels = dataset.element_spec
        assert inputs["images"].shape.as_list() == [None, None, None, 3]
        assert labels["boxes"].shape.as_list() == [None, 3, 4]
        for example in dataset:
            shapes.add(tuple(example[0]["images"].shape))

        @tf.function(input_signature=[])
        def all_of(dataset=dataset):
            total = 0.0
            for inputs, labels in dataset:
                total += step(inputs, labels)
            return total

        assert all_of() > 0 or split is same_size
    assert len(shapes) > 4
    assert len(traces) == 1


def test_images_without_boxes(ways):
    nothing = data.Split(ways["files"].images, np.zeros((COUNT, 0, 6), "float32"))
    for inputs, labels in batches(nothing, augmentation="photograph", epochs=range(1)):
        assert labels["boxes"].shape == (len(inputs["images"]), 1, 4)
        np.testing.assert_array_equal(labels["classes"], -1)
        np.testing.assert_array_equal(labels["boxes"], 0)
        assert not labels["ignored"].numpy().any()


@pytest.mark.parametrize("policy", [None, "photograph"])
def test_an_image_of_one_pixel_among_others(policy):
    images = [encoded(0, height=1, width=1), encoded(1, height=30, width=20)]
    rows = padded([[(0, 0, 1, 1, 0, 0)], [(2, 3, 18, 28, 1, 0)]])
    split = data.Split(tf.data.Dataset.from_tensor_slices(images), rows)
    ((inputs, labels),) = collect(batches(split, augmentation=policy, epochs=range(1)))
    (index,) = np.flatnonzero((inputs["sizes"] == 1).all(axis=1))
    np.testing.assert_array_equal(labels["boxes"][index], [(0, 0, 1, 1)])
    assert not inputs["images"][index, 1:].any()
    assert not inputs["images"][index, :, 1:].any()


def test_300_boxes_in_an_image():
    corners = np.random.default_rng(0).integers(0, 50, (300, 2))
    rows = np.zeros((300, 6), "float32")
    rows[:, :2], rows[:, 2:4] = corners, corners + 10
    rows[:, 4] = np.arange(300)
    split = data.Split(np.zeros((2, 60, 60, 3), "uint8"), padded([rows, []]))
    ((_, labels),) = collect(batches(split))
    np.testing.assert_array_equal(labels["boxes"][0], rows[:, :4])
    np.testing.assert_array_equal(labels["classes"], [np.arange(300), np.full(300, -1)])
    mirrored = batches(split, augmentation=Augmentation(turns=True), epochs=range(1))
    ((_, labels),) = collect(mirrored)
    sides = labels["boxes"][..., 2:] - labels["boxes"][..., :2]
    assert sorted(np.unique(sides).tolist()) == [0, 10]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"batch_size": 0}, "batch_size=0 must be a whole number of at least 1."),
        ({"replicas": 3}, "batch_size=2 is too small for replicas=3, each of which needs an image"),
        ({"replicas": 0}, "replicas=0 must be a whole number of at least 1."),
        ({"augmentation": "handwriting"}, "augmentation='handwriting' must be one of None, "),
        ({"first_step": 6}, "first_step=6: an epoch has 6 steps, from 0."),
    ],
)
def test_mistakes_are_one_line(options, complaint):
    with one_line_error(complaint):
        batches(arrays(), **options)


def test_labels_that_are_no_boxes_are_refused():
    split = data.Split(np.zeros((2, 4, 4, 3), "uint8"), [0, 1])
    with one_line_error("split has labels of shape (2,); those of boxes have the shape"):
        batches(split)


def test_grey_arrays_are_refused():
    split = data.Split(np.zeros((1, 4, 4, 1), "uint8"), padded([[]]))
    with one_line_error("channels=3: the images have 1"):
        batches(split)


def test_a_split_without_images_is_refused():
    with one_line_error("split has no images"):
        batches(arrays(1).take(np.array([], int)))
