import itertools
from typing import Any

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet import analysis
from keras_resnet.analysis import paths
from keras_resnet.analysis.paths import kendall

IMAGES = np.random.default_rng(0).uniform(0, 255, (96, 8, 8, 3)).astype("float32")
SHAPE: Any = dict(input_shape=(8, 8, 3), include_preprocessing=True, classes=5)


@pytest.fixture
def uncompiled(monkeypatch):
    """A small model is computed in less time than it takes to compile it."""
    monkeypatch.setattr(paths, "_compiled", lambda compute, link: compute)


def varied(model):
    """The model, with weights that no two layers share, and that keep signals apart."""
    random = np.random.default_rng(1)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            for weight in layer.weights:
                weight.assign(random.uniform(0.5, 1.5, weight.shape))
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            kernel = layer.kernel
            kernel.assign(random.normal(0, 1.5 / np.prod(kernel.shape[:-1]) ** 0.5, kernel.shape))
    return centred(model)


def centred(model):
    """The model with a head that has every class now and then."""
    *_, pooling, head = model.layers
    features = np.asarray(keras.Model(model.input, pooling.output)(IMAGES))
    logits = features @ head.kernel.numpy()
    head.kernel.assign(head.kernel / logits.std())
    head.bias.assign(-logits.mean(0) / logits.std())
    return model


def probabilities(model):
    return np.asarray(model(IMAGES))


def classes(model):
    return probabilities(model).argmax(-1)


def measured(model, labels, **options):
    batches = [(IMAGES[:64], labels[:64]), (IMAGES[64:], labels[64:])]
    return analysis.effective_paths(model, batches, **{"counts": [1], "draws": 1, **options})


def silence(model, name):
    """Make the last weights of a residual branch 0."""
    layers = {layer.name: layer for layer in model.layers}
    ends = ("3_conv", "2_conv") if f"{name}_preact_bn" in layers else ("3_bn", "2_bn")
    last = next(layers[f"{name}_{end}"] for end in ends if f"{name}_{end}" in layers)
    for weight in last.trainable_weights:
        weight.assign(np.zeros(weight.shape))


def without(model, name):
    """The classes that a model finds with a block silenced, after which it is as before."""
    before = model.get_weights()
    silence(model, name)
    found = classes(model)
    model.set_weights(before)
    return found


KINDS: Any = {
    "basic": dict(block="basic"),
    "padded": dict(block="basic", shortcut="A"),
    "bottleneck, D, SE": dict(shortcut="D", attention="se", stem="cifar", drop_path=0.2),
    "preactivation": dict(block="preactivation"),
    "basic preactivation": dict(block="basic_preactivation"),
}


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("kind", KINDS)
def test_a_block_left_out_is_one_whose_residual_branch_gives_0(kind):
    options = {"stem": "cifar", **SHAPE, **KINDS[kind]}
    model = varied(keras_resnet.ResNet((2, 1), filters=(8, 16), **options))
    labels = classes(model)
    before = model.get_weights()
    found = measured(model, labels)
    assert (found.residual, found.accuracy, found.images) == (True, 1, len(IMAGES))
    assert [block.name for block in found.blocks] == [
        "conv2_block1",
        "conv2_block2",
        "conv3_block1",
    ]
    expected = [np.mean(without(model, block.name) == labels) for block in found.blocks]
    assert [block.accuracy for block in found.blocks] == pytest.approx(expected)
    assert min(expected) < 1  # or nothing would have been tested
    assert [block.changes_shape for block in found.blocks][1:] == [False, True]
    for weight, former in zip(model.get_weights(), before, strict=True):
        assert (weight == former).all()
    assert {len(layer._inbound_nodes) for layer in model.layers} == {1}


def copied(source, target, place):
    """Give a model the weights of another one's layers: `place` translates names."""
    layers = {layer.name: layer for layer in source.layers}
    for layer in target.layers:
        if layer.weights:
            layer.set_weights(layers[place(layer.name)].get_weights())
    return target


def outputs_of(model, order):
    """What a model with its blocks in another order makes of the images."""
    ((_, found),) = paths._outputs(paths._divided(model), IMAGES, [order])
    return np.asarray(found)


def test_without_a_block_is_the_model_with_a_block_less():
    model = varied(keras_resnet.CIFARResNet(20, shortcut="A", **SHAPE))
    less = keras_resnet.ResNet(
        (3, 2, 3), "basic", (16, 32, 64), stem="cifar", shortcut="A", **SHAPE
    )
    copied(model, less, lambda name: name.replace("conv3_block2", "conv3_block3"))
    expected = probabilities(less)
    order = (0, 1, 2, 3, -1, 5, 6, 7, 8)
    np.testing.assert_allclose(outputs_of(model, order), expected, atol=1e-6)
    assert measured(model, expected.argmax(-1)).blocks[4].accuracy == 1


@pytest.mark.usefixtures("uncompiled")
def test_swapped_blocks_are_those_with_each_others_weights():
    model = varied(keras_resnet.CIFARResNet(20, **SHAPE))
    other = {"conv4_block2": "conv4_block3", "conv4_block3": "conv4_block2"}
    exchanged = copied(
        model,
        keras_resnet.CIFARResNet(20, **SHAPE),
        lambda name: other.get(name[:12], name[:12]) + name[12:],
    )
    expected = probabilities(exchanged)
    order = (0, 1, 2, 3, 4, 5, 6, 8, 7)
    np.testing.assert_allclose(outputs_of(model, order), expected, atol=1e-6)
    found = measured(model, expected.argmax(-1), counts=[2, 4], draws=2)
    by_pair = {(first, second): accuracy for first, second, accuracy in found.swaps}
    assert by_pair[7, 8] == 1 > by_pair[0, 1]
    # Blocks of a stage, the first of which takes fewer channels in the later ones.
    assert set(by_pair) == {(0, 1), (0, 2), (1, 2), (4, 5), (7, 8)}
    assert [swaps for swaps, *_ in found.orders] == [2, 2, 4, 4]
    assert len(measured(model, expected.argmax(-1), swaps=2).swaps) == 2


@pytest.mark.usefixtures("uncompiled")
def test_several_blocks_left_out():
    model = varied(keras_resnet.CIFARResNet(14, **SHAPE))
    stages = ("conv2", "conv3", "conv4")
    names = [f"{stage}_block{number}" for stage in stages for number in (1, 2)]
    before = model.get_weights()
    for name in names:
        silence(model, name)
    labels = classes(centred(model))
    model.set_weights([*before[:-2], *model.layers[-1].get_weights()])
    found = measured(model, labels, counts=None, draws=2)
    assert [*found.several] == [1, 2, 3, 4, 5, 6]
    assert found.several[6] == (1, 1)
    single = {block.accuracy for block in found.blocks}
    assert {*found.several[1]} <= single
    again = measured(model, labels, counts=None, draws=2)
    assert again == found
    assert measured(model, labels, counts=None, draws=2, seed=1) != found


def test_by_hand():
    """Two residual blocks of dense layers, in NumPy."""
    random = np.random.default_rng(0)
    a, b, c, d = random.normal(size=(4, 6, 6))
    head = random.normal(size=(6, 3))
    inputs = keras.Input((6,))
    x = inputs
    for _ in range(2):
        branch = keras.layers.Dense(6, "relu")(x)
        x = x + keras.layers.Dense(6)(branch)  # an operation, not a layer
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax", name="predictions")(x))
    for layer, kernel in zip(
        [layer for layer in model.layers if layer.weights], (a, b, c, d, head), strict=True
    ):
        layer.set_weights([kernel, np.zeros(kernel.shape[1])])
    vectors = random.normal(size=(200, 6)).astype("float32")

    def answer(*blocks):
        x = vectors.astype(float)
        for first, second in blocks:
            x = x + np.maximum(x @ first, 0) @ second
        return (x @ head).argmax(-1)

    labels = answer((a, b), (c, d))
    found = analysis.effective_paths(model, [(vectors, labels)], draws=1)
    assert found.accuracy == 1
    assert [block.accuracy for block in found.blocks] == [
        np.mean(answer((c, d)) == labels),
        np.mean(answer((a, b)) == labels),
    ]
    assert found.swaps == ((0, 1, np.mean(answer((c, d), (a, b)) == labels)),)
    assert found.several[2] == (np.mean(answer() == labels),)
    assert found.chance == np.bincount(labels).max() / 200


@pytest.mark.usefixtures("uncompiled")
def test_a_layer_of_a_plain_model_is_replaced_by_the_identity():
    model = varied(keras_resnet.CIFARResNet(14, shortcut=None, **SHAPE))
    labels = classes(model)
    found = measured(model, labels)
    assert not found.residual
    assert found.path_lengths.tolist() == [1]
    by_name = {block.name: block for block in found.blocks}
    # The stem and the first layers of two stages change the shape.
    assert [name for name in by_name if by_name[name].accuracy is None] == [
        "conv1_conv",
        "conv3_block1_1_conv",
        "conv4_block1_1_conv",
    ]
    assert len(by_name) == 13
    for name in ("conv2_block2_1", "conv3_block1_2"):
        before = model.get_weights()
        kernel, norm = model.get_layer(f"{name}_conv").kernel, model.get_layer(f"{name}_bn")
        centre, one = np.zeros(kernel.shape), np.ones(kernel.shape[-1])
        centre[1, 1] = np.eye(len(one))
        kernel.assign(centre)
        norm.set_weights([(one + norm.epsilon) ** 0.5, 0 * one, 0 * one, one])
        assert by_name[f"{name}_conv"].accuracy == np.mean(classes(model) == labels) < 1
        model.set_weights(before)


def test_gates_and_pooling_of_plain_models():
    inputs = x = keras.Input((8, 8, 3))
    for name in ("first", "second"):
        x = keras.layers.Conv2D(3, 3, padding="same", activation="relu", name=name)(x)
        gate = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
        x = keras.layers.Multiply()([x, keras.layers.Conv2D(3, 1, name=f"{name}_gate")(gate)])
        x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Dense(5, "softmax")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x)
    found = measured(model, np.arange(len(IMAGES)) % 5)
    assert [(block.name, block.changes_shape) for block in found.blocks] == [
        ("first", False),
        ("second", False),
    ]
    assert None not in [block.accuracy for block in found.blocks]


@pytest.mark.usefixtures("uncompiled")
def test_models_in_models():
    whole = varied(keras_resnet.CIFARResNet(8, **SHAPE))
    backbone = keras.Model(whole.input, whole.get_layer("avg_pool").output)
    nested = keras.Sequential([keras.Input((8, 8, 3)), backbone, keras.layers.Dense(5, "softmax")])
    nested.layers[-1].set_weights(whole.layers[-1].get_weights())
    labels = classes(whole)
    assert measured(nested, labels) == measured(whole, labels)


def test_lengths_of_paths():
    by_hand = np.zeros(6)
    for path in itertools.product((0, 1), repeat=5):
        by_hand[sum(path)] += 1 / 32
    np.testing.assert_allclose(analysis.path_lengths(5), by_hand)
    model = keras_resnet.CIFARResNet(8, **SHAPE)
    labels = np.arange(len(IMAGES)) % 5
    np.testing.assert_allclose(measured(model, labels).path_lengths, np.array([1, 3, 3, 1]) / 8)


def test_kendall():
    from scipy.stats import kendalltau

    random = np.random.default_rng(0)
    for _ in range(5):
        order = random.permutation(9)
        assert kendall(order.tolist()) == pytest.approx(kendalltau(range(9), order).statistic)


def logistic():
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(),
                             keras.layers.Dense(5, "softmax")])  # fmt: skip


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    ("build", "labels", "options", "message"),
    [
        (logistic, [0, 1], {}, "neither a residual block nor a layer"),
        (None, [1, 1], {}, "all images are of class 1"),
        (None, [], {}, "no images"),
        (None, [0, 5], {}, "labels from 0 to 5 must be classes of .*, from 0 to 4"),
        (None, [0.5, 1], {}, "must be whole numbers"),
        (None, [0, 1], {"counts": [4]}, "counts=4 must be a whole number from 1 to 3"),
        (None, [0, 1], {"counts": [0]}, "counts=0 must be a whole number from 1 to 3"),
        (None, [0, 1], {"draws": 0}, "draws=0"),
        (None, [0, 1], {"swaps": 0}, "swaps=0"),
    ],
)
def test_what_does_not_fit(build, labels, options, message):
    model = build() if build else keras_resnet.CIFARResNet(8, **SHAPE)
    batches = [(IMAGES[: len(labels)], np.array(labels))] if labels else []
    with pytest.raises(ValueError, match=message):
        analysis.effective_paths(model, batches, **options)


@pytest.mark.parametrize("where", ["images", "outputs"])
def test_nan_is_no_answer(where):
    model = keras_resnet.CIFARResNet(8, **SHAPE)
    images = IMAGES[:2].astype("float32")
    if where == "images":
        images = images * np.nan
    else:
        model.layers[-1].bias.assign(np.full(model.output_shape[-1:], np.inf))
    with pytest.raises(ValueError, match="NaN or infinity"):
        analysis.effective_paths(model, [(images, np.array([0, 1]))])


def test_batches_that_do_not_fit():
    model, labels = keras_resnet.CIFARResNet(8, **SHAPE), np.array([0, 1, 1, 0])
    with pytest.raises(ValueError, match="1 labels came for 4 images"):  # they would be broadcast
        analysis.effective_paths(model, [(IMAGES[:4], labels[:1])])
    with pytest.raises(ValueError, match=r"images must be of shape \(None, 8, 8, "):
        analysis.effective_paths(model, [(IMAGES[:4, 1:], labels)])


def test_models_that_are_no_classifiers():
    features = keras_resnet.CIFARResNet(8, include_top=False, pooling="avg", **SHAPE)
    with pytest.raises(ValueError, match="cifar_resnet8"):
        measured(features, np.arange(len(IMAGES)) % 5)
    two = keras.Model(features.input, [features.output, features.output])
    with pytest.raises(ValueError, match=r"several outputs|2 outputs"):
        measured(two, np.arange(len(IMAGES)) % 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "blocks", "changing"),
    [("ResNet50V2", 16, 7), ("MobileNetV2", 10, 0), ("EfficientNetB0", 9, 0)],
)
def test_blocks_of_other_families_are_found(name, blocks, changing):
    # ResNet50V2: one block of a stage widens it, and one of the first three has the stride.
    model = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3))
    chain = paths._divided(model)
    assert chain.residual
    assert len(chain.blocks) == blocks
    assert sum(block.shapes[0] != block.shapes[1] for block in chain.blocks) == changing
