"""Maps of a detector's boxes, against finite differences."""

import detectors
import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

import keras_resnet
from keras_resnet import detection, explain

SIZE = 50, 70  # of an image: 64 x 89 in the batch


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).uniform(0, 255, (*SIZE, 3)).astype("float32")


@pytest.fixture(scope="module")
def explainer():
    """Explainers of detectors by their heads, each made once."""
    made, detectors_of = {}, {}

    def make(head, layer=None, method="hirescam", **options):
        key = head, *sorted(options.items())
        if key not in detectors_of:
            detectors_of[key] = detectors.tiny(head, **options)
        if (asked := (key, layer, method)) not in made:
            made[asked] = explain.BoxExplainer(detectors_of[key], layer, method)
        return made[asked]

    return make


class Score:
    """The logit of a box, its region held fixed, by the layers of the detector alone."""

    def __init__(self, model, image, explained, index):
        self.parts = detection.parts_of(model)
        sizes = np.array([image.shape[:2]], "int32")
        self.batch, resized = self.parts.transform(image[None], sizes)
        (rows, columns), (height, width) = resized[0].numpy(), image.shape[:2]
        to_batch = np.array([columns / width, rows / height] * 2, "float32")
        self.region = explained.regions[index] * to_batch
        self.label, self.resized = int(explained.labels[index]), (rows, columns)

    def __call__(self, levels):
        batch = tf.repeat(self.batch, len(levels[0]), axis=0)
        regions = np.tile(self.region, (len(levels[0]), 1, 1))
        logits, _ = self.parts.box_head(self.parts.pooled(levels, batch, regions))
        return logits.numpy()[:, self.label + 1]

    def probability(self, levels):
        batch_of_one = self.parts.pooled(levels, self.batch, self.region[None, None])
        return tf.nn.softmax(self.parts.box_head(batch_of_one)[0]).numpy()[0, self.label + 1]

    def at_pixels(self, cells, shift):
        """What RoIAlign sees at the middle of every pixel of the image."""
        stride = self.batch.shape[1] / cells.shape[0]
        points = [
            (np.arange(side) + 0.5) * (resized / side) / stride - shift
            for side, resized in zip(SIZE, self.resized, strict=True)
        ]
        grid = np.meshgrid(*points, indexing="ij")
        return scipy.ndimage.map_coordinates(cells, grid, order=1, mode="nearest")


def slopes(score, levels, number, step=0.004):
    """The derivative of the score if all channels of a cell of a level are scaled, cell by cell.

    It is the sum over channels of features times gradients.
    """
    level = levels[number].numpy()[0]
    cells = np.argwhere(np.ones(level.shape[:2], bool))
    found = []
    for some in np.array_split(cells, -(-len(cells) // 64)):
        changed = np.repeat(level[None], 2 * len(some), axis=0)
        for index, (row, column) in enumerate(some):
            changed[index, row, column] *= 1 + step
            changed[index + len(some), row, column] *= 1 - step
        others = [tf.repeat(each, len(changed), axis=0) for each in levels]
        values = score([*others[:number], tf.constant(changed), *others[number + 1 :]])
        found.append((values[: len(some)] - values[len(some) :]) / (2 * step))
    return np.concatenate(found).reshape(level.shape[:2])


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("fpn", {}),
        ("c4", {}),
        pytest.param("fpn_v2", {}, marks=pytest.mark.slow),
        pytest.param(
            *("fpn", {"roi_aligned": True, "roi_sampling_ratio": 0}), marks=pytest.mark.slow
        ),
    ],
)
def test_maps_are_finite_differences(explainer, image, head, options):
    explains = explainer(head, **options)
    model, explained = explains.detector, explains(image, score=0, top=2)
    names = [f"fpn_layer{number}{'_bn' * (head == 'fpn_v2')}" for number in range(2, 6)]
    for index in range(2):
        score = Score(model, image, explained, index)
        levels = score.parts.levels(score.batch)
        assert score.probability(levels) == pytest.approx(explained.scores[index], abs=1e-5)
        number = 0 if head == "c4" else names.index(explained.layers[index])
        expected = np.maximum(slopes(score, levels, number), 0)
        assert expected.max() > 1e-3
        expected = score.at_pixels(expected, 0.5 if options else 0.0)
        np.testing.assert_allclose(explained.maps[index], expected, atol=0.03 * expected.max())


def test_maps_of_the_backbone_are_finite_differences(explainer, image, monkeypatch):
    explains, layer = explainer("fpn", "conv4"), "conv4_block1_out"
    model, explained = explains.detector, explains(image, score=0, top=1)
    assert explained.layers == (layer,)
    score, features = Score(model, image, explained, 0), {}
    inside = score.parts.features.get_layer(layer)
    call = inside.call

    def changed(cell=None, by=0.0):
        def called(*args, **kwargs):
            made = call(*args, **kwargs).numpy()
            if cell is not None:
                made[0, cell[0], cell[1]] *= 1 + by
            features["made"] = made[0]
            return tf.constant(made)

        monkeypatch.setattr(inside, "call", called)
        return score(score.parts.levels(score.batch))[0]

    changed()
    cells = np.argwhere(np.ones(features["made"].shape[:2], bool))
    step, slope = 0.004, np.zeros(features["made"].shape[:2])
    for cell in cells:
        slope[tuple(cell)] = (changed(cell, step) - changed(cell, -step)) / (2 * step)
    expected = score.at_pixels(np.maximum(slope, 0), 0.0)
    assert expected.max() > 1e-3
    np.testing.assert_allclose(explained.maps[0], expected, atol=0.03 * expected.max())


class TestBoxes:
    @pytest.mark.parametrize("head", ["fpn", "c4"])
    def test_are_what_detect_finds(self, explainer, head):
        random = np.random.default_rng(1)
        images = [random.uniform(0, 255, (*size, 3)) for size in (SIZE, (80, 40))]
        explains = explainer(head)
        for image, found in zip(images, detection.detect(explains.detector, images), strict=True):
            each = explains(image, score=0, top=4)
            assert each.maps.shape == (4, *image.shape[:2])
            for name in ("boxes", "scores", "labels"):
                np.testing.assert_allclose(each.found[name], found[name], rtol=1e-4, atol=1e-3)
                np.testing.assert_array_equal(getattr(each, name), each.found[name][:4])

    def test_of_classes_and_scores(self, explainer, image):
        explains = explainer("c4")
        (found,) = detection.detect(explains.detector, [image])
        middle = float(np.median(found["scores"]))
        explained = explains(image, score=middle, top=100)
        assert len(explained.boxes) == (found["scores"] >= middle).sum()
        for classes in (found["labels"][-1], [found["labels"][-1]]):
            explained = explains(image, classes, score=0, top=100)
            expected = found["boxes"][found["labels"] == found["labels"][-1]]
            np.testing.assert_allclose(explained.boxes, expected, atol=1e-3)
        none = explains(image, score=1.0)
        assert none.maps.shape == (0, *SIZE)
        assert none.layers == ()
        assert len(none.found["boxes"]) == len(found["boxes"])

    def test_maps_are_near_the_regions(self, explainer, image):
        """Of the level that a region is taken from, RoIAlign reads a cell around it at most."""
        explained = explainer("fpn")(image, score=0, top=10)
        stride = {"fpn_layer2": 4, "fpn_layer3": 8, "fpn_layer4": 16, "fpn_layer5": 32}
        for each, (x1, y1, x2, y2), layer in zip(
            explained.maps, explained.regions, explained.layers, strict=True
        ):
            around = 2 * stride[layer] * SIZE[0] / 64 + 1
            rows, columns = (np.flatnonzero(each.any(axis)) for axis in (1, 0))
            assert rows[0] >= y1 - around
            assert rows[-1] <= y2 + around
            assert columns[0] >= x1 - around
            assert columns[-1] <= x2 + around

    def test_each_has_its_own_map(self, explainer, image):
        explained = explainer("c4")(image, score=0, top=3)
        assert (explained.maps[0] != explained.maps[1]).any()
        for method in ("grad_cam", "grad-cam++"):
            others = explainer("c4", method=method)(image, score=0, top=3).maps
            assert others.min() >= 0
            assert others.any(axis=(1, 2)).any()
            assert (others != explained.maps).any()


@pytest.mark.slow
def test_half_precision(explainer, image):
    plain, policy = explainer("c4"), keras.config.dtype_policy()
    expected = plain(image, score=0, top=1)
    try:
        for name, within in (("mixed_bfloat16", 0.2), ("mixed_float16", 0.05)):
            keras.config.set_dtype_policy(name)
            mixed = detectors.tiny("c4")
            mixed.set_weights(plain.detector.get_weights())
            (found,) = explain.box_maps(mixed, [image], score=0, top=10)
            same = np.abs(found.boxes - expected.boxes).sum(1).argmin()
            assert found.maps.dtype == "float32"
            difference = np.abs(found.maps[same] - expected.maps[0]).max()
            assert difference < within * expected.maps.max()
    finally:
        keras.config.set_dtype_policy(policy)


class TestMistakes:
    def test_are_named(self, explainer, image):
        explains = explainer("c4")
        model = explains.detector
        for arguments, complaint in (
            ({"layer": "conv9"}, "no such layer or stage. Its layers begin with input, conv1"),
            ({"layer": "conv5"}, "no such layer or stage"),  # which sees a region, not the image
            ({"method": "cam"}, "method 'cam' is not known"),
        ):
            with pytest.raises(ValueError, match=complaint):
                explain.box_maps(model, [image], **arguments)
        for arguments, complaint in (
            ({"classes": 3}, "must be class numbers from 0 to 2"),
            ({"classes": [0.5]}, "must be class numbers"),
            ({"top": 0}, "top=0"),
            ({"score": 2}, "score=2"),
        ):
            with pytest.raises(ValueError, match=complaint):
                explains(image, **arguments)
        with pytest.raises(ValueError, match="must be an image of shape"):
            explains(image[0])
        with pytest.raises(ValueError, match="is not a detector"):
            explain.box_maps(keras_resnet.CIFARResNet(8), [image])

    @pytest.mark.slow
    def test_of_a_level_that_a_box_was_not_found_in(self, explainer, image):
        explains = explainer("fpn", "fpn_layer5")
        before = detection.detect(explains.detector, [image])[0]
        with pytest.raises(ValueError, match="do not depend on it: leave it out"):
            explains(image, score=0)
        after = detection.detect(explains.detector, [image])[0]
        np.testing.assert_array_equal(after["boxes"], before["boxes"])
