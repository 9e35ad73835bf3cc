import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_resnet
from keras_resnet import data, detection, graphs, training
from keras_resnet.resnet import resnet

OPTIONS = dict(min_size=64, max_size=96, rpn_post_nms_top_n_test=20, box_score_thresh=0.0)


def backbone(**options):
    options = {"block_counts": (1, 1, 1, 1), "block": "basic", "filters": (8, 8, 16, 16), **options}
    return resnet(include_top=False, **options)


def drawn(model):
    """A model whose weights are not those that it was made with."""
    generator = np.random.default_rng(0)
    for each in model.weights:
        if each.name != "moving_variance":
            each.assign(each + generator.normal(0, 0.02, each.shape))
    return model


@pytest.fixture(scope="module")
def model():
    return drawn(detection.FasterRCNN(backbone(), 3, **OPTIONS))


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(1)
    return [
        generator.integers(0, 256, (*size, 3), "uint8") for size in ((50, 60), (90, 40), (7, 200))
    ]


def same(found, expected, atol=1e-4):
    for one, other in zip(found, expected, strict=True):
        for name in ("boxes", "scores", "labels"):
            assert np.allclose(one[name], other[name], atol=atol), name


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("fpn", {}),
        ("fpn", {"block": "bottleneck", "cardinality": 4, "base_width": 8}),
        ("fpn_v2", {"shortcut": "A"}),
        ("c4", {"block": "bottleneck"}),
        ("c4", {"stride_in": "1x1", "block": "bottleneck", "include_preprocessing": True}),
        ("fpn", {"stem": "cifar", "block_counts": (1, 1, 1), "filters": (8, 8, 16)}),
        ("c4", {"input_shape": (64, 64, 3), "preprocessing": "caffe"}),
        ("fpn", {"stem": "deep_strided", "shortcut": "D", "attention": "se"}),
        ("c4", {"block": "preactivation", "stride_block": "last", "biases": True}),
        ("c4", {"block": "bottleneck", "output_stride": 16, "anti_aliasing": "blur"}),
    ],
)
def test_stands_on_every_kind_of_backbone(head, options, images):
    model = detection.FasterRCNN(backbone(**options), 3, head, **OPTIONS)
    for answer, image in zip(detection.detect(model, images), images, strict=True):
        height, width, _ = image.shape
        assert len(answer["boxes"]) == len(answer["scores"]) == len(answer["labels"]) > 0
        assert (answer["boxes"] >= 0).all()
        assert (answer["boxes"] <= np.array([width, height] * 2) + 1e-3).all()
        assert (np.diff(answer["scores"]) <= 0).all()
        assert set(answer["labels"]) <= {0, 1, 2}


def test_is_saved_loaded_and_cloned_as_others_are(model, images, tmp_path):
    expected = detection.detect(model, images)
    model.save(tmp_path / "detector.keras")
    loaded = keras.saving.load_model(tmp_path / "detector.keras")
    same(detection.detect(loaded, images), expected)
    assert detection.parts_of(loaded).options == detection.parts_of(model).options
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    same(detection.detect(clone, images), expected)
    model.save_weights(tmp_path / "detector.weights.h5")
    other = detection.FasterRCNN(backbone(), 3, **OPTIONS)
    other.load_weights(tmp_path / "detector.weights.h5")
    same(detection.detect(other, images), expected)
    assert graphs.digest(other) == graphs.digest(model)


def test_keras_knows_all_layers_of_a_detector_before_they_are_imported(model):
    """`keras_resnet` registers them by name, so that importing it does not import detection."""
    ours = {each.name for each in model.layers} - {"images", "sizes", "features", "rpn", "box_head"}
    registered = {type(model.get_layer(name)).__name__ for name in ours}
    assert registered == set(keras_resnet._OF_DETECTORS)


def test_wants_raw_images(model):
    assert graphs.wants_of(model).normalization == "raw"


def test_an_image_alone_gets_the_same_answer_in_any_company(model, images):
    together = detection.detect(model, images)
    same([detection.detect(model, [image])[0] for image in images], together)


def test_a_batch_of_one_size_is_as_its_images_alone(model, images):
    batch = [images[0], images[0][::-1], images[0][:, ::-1]]
    same(detection.detect(model, batch, batch_size=3), detection.detect(model, batch), atol=1e-3)


def test_no_number_or_size_of_images_is_traced_again(model, images):
    function = detection.detect.__globals__["function_of"](model)
    detection.detect(model, images)
    before = function.experimental_get_tracing_count()
    for some in (images, images[:1], [np.zeros((33, 71, 3), "uint8")] * 5):
        detection.detect(model, some, batch_size=2)
    assert function.experimental_get_tracing_count() == before == 1


def test_scores_are_cut_off_where_asked(model, images):
    found = detection.detect(model, images)
    middle = float(np.median(found[0]["scores"]))
    for cut, whole in zip(detection.detect(model, images, score=middle), found, strict=True):
        assert len(cut["scores"]) == (whole["scores"] >= middle).sum()


LOADED = """
import sys, keras_resnet, keras
assert "keras_resnet.detection" not in sys.modules
print(type(keras.saving.load_model(sys.argv[1]).get_layer("transform")))
"""


def test_is_loaded_by_keras_before_detection_is_imported(model, tmp_path):
    model.save(tmp_path / "model.keras")
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run(
        [sys.executable, "-c", LOADED, tmp_path / "model.keras"],
        env=paths, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "keras_resnet.detection.Transform" in process.stdout


def test_no_images_have_no_answers(model):
    assert detection.detect(model, []) == []


def test_a_batch_of_no_images(model):
    nothing = {"images": np.zeros((0, 9, 8, 3), "float32"), "sizes": np.zeros((0, 2), "int32")}
    for function in (model, tf.function(model)):
        with pytest.raises(ValueError, match=r"images is a batch of 0: .* one image or more"):
            function(nothing)


def test_weights_that_are_nan_are_named():
    model = detection.FasterRCNN(backbone(), 3, **OPTIONS)
    bias = model.get_layer("box_head").get_layer("box_logits").bias
    bias.assign(bias * np.nan)
    with pytest.raises(ValueError, match="its weights 'box_logits/bias' are NaN"):
        detection.detect(model, [np.zeros((9, 9, 3), "uint8")])


def test_one_pixel(model):
    (found,) = detection.detect(model, [np.zeros((1, 1, 3), "uint8")])
    assert (found["boxes"] >= 0).all()
    assert (found["boxes"] <= 1).all()


def test_a_detector_that_finds_nothing_says_so(images):
    model = detection.FasterRCNN(backbone(), 3, **{**OPTIONS, "box_score_thresh": 1.0})
    assert [len(each["scores"]) for each in detection.detect(model, images)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((5, 6)), r"images\[0\] of shape \(5, 6\) must be an image of shape \(height"),
        (np.zeros((5, 6, 4)), r"images\[0\] of shape \(5, 6, 4\)"),
        (np.zeros((0, 6, 3)), r"images\[0\] of shape \(0, 6, 3\)"),
        (np.full((5, 6, 3), np.nan), r"images\[0\] of type float64 must hold finite numbers"),
        (np.full((5, 6, 3), 0.4), r"images\[0\] has pixels from 0\.4 to 0\.4; .* multiply them by"),
        (np.full((5, 6, 3), -0.4), r"images\[0\] has pixels from -0\.4 .* undo their scaling"),
        (np.full((5, 6, 3), 256), r"images\[0\] has pixels from 256 to 256; .* undo their scaling"),
    ],
)
def test_what_is_no_image_is_named(model, image, message):
    with pytest.raises(ValueError, match=message):
        detection.detect(model, [image])


def test_early_stages_and_batch_normalization_are_frozen():
    def trained(**options):
        net = backbone()
        detection.FasterRCNN(net, 3, **options)
        return {layer.name for layer in net.layers if layer.trainable and layer.weights}

    assert not any("_bn" in name for name in trained())
    assert {name[:5] for name in trained()} == {"conv3", "conv4", "conv5"}
    assert trained(trainable_backbone_layers=0) == set()
    everything = trained(trainable_backbone_layers=5, trainable_batch_norm=True)
    assert {"conv1_conv", "conv1_bn", "conv5_block1_2_bn"} <= everything


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(classes=0), "classes=0 must be a whole number of at least 1"),
        (dict(classes=3, head="c5"), "head='c5' must be one of 'fpn', 'fpn_v2', 'c4'"),
        (dict(classes=3, min_siz=5), "option 'min_siz' is unknown: there are min_size"),
        (dict(classes=3, trainable_backbone_layers=6), "from 0 to 5"),
        (dict(classes=3, returned_layers=[4, 2]), "must be consecutive numbers"),
        (dict(classes=3, returned_layers=[3], head="c4"), "only for heads with a pyramid"),
        (dict(classes=3, rpn_anchor_sizes=(32, 64)), "one size for each of the 5 levels"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        detection.FasterRCNN(backbone(), **arguments)


def test_a_pyramid_needs_strides():
    with pytest.raises(ValueError, match="conv5_block1_2_conv: the levels of a pyramid must halve"):
        detection.FasterRCNN(backbone(output_stride=16), 3)


def test_what_closes_the_last_stage_is_frozen_with_it():
    net = backbone(filters=(32, 32, 32, 32), norm="group", block="basic_preactivation")
    detection.FasterRCNN(net, 3, trainable_backbone_layers=0)
    assert not any(layer.trainable for layer in net.layers if layer.weights)


def test_a_detector_is_not_trained_on_classes(model):
    with pytest.raises(ValueError, match="gives 4 outputs, as detectors do; data 'digits' is for"):
        training.train(model, data.load("digits"))


def test_a_classifier_is_no_detector():
    classifier = keras_resnet.CIFARResNet(8)
    assert not detection.is_detector(classifier)
    with pytest.raises(ValueError, match="is not a detector: build one with"):
        detection.detect(classifier, [])


def test_computes_boxes_exactly_in_mixed_precision(images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = detection.FasterRCNN(backbone(), 3, **OPTIONS)
    finally:
        keras.config.set_dtype_policy("float32")
    parts = detection.parts_of(model)
    sizes = np.array([images[0].shape[:2]])
    batch, sizes = parts.transform(images[0][None].astype("float32"), sizes)
    levels = parts.levels(batch)
    objectness, deltas = parts.rpn(levels)
    anchors, counts = parts.anchors(batch, levels)
    proposals, _ = parts.proposals(objectness, deltas, anchors, counts, sizes)
    assert levels[0].dtype == tf.bfloat16
    for each in (objectness, deltas, anchors, proposals):
        assert each.dtype == tf.float32
    assert parts.pooled(levels, batch, proposals).dtype == tf.bfloat16


def test_nan_on_the_way_is_not_taken_for_nothing_found(images):
    """As in float16, where features are too large; the weights themselves are finite."""
    model = detection.FasterRCNN(backbone(), 3, **OPTIONS)
    kernel = detection.parts_of(model).box_head.get_layer("box_logits").kernel
    kernel.assign(np.sign(kernel) * 3e38)
    with pytest.raises(ValueError, match="computes NaN for an image"):
        detection.detect(model, images)
