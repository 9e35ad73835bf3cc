import keras
import numpy as np
import pytest
from errors import one_line_error
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import keras_resnet
from keras_resnet.export import fold_batch_norm, unfoldable
from keras_resnet.export.folding import in_precision


def normalizations(model):
    found = model._flatten_layers()
    return [layer for layer in found if isinstance(layer, layers.BatchNormalization)]


def trained_like(model, seed=0):
    """Give every weight a value of its own; the fresh ones of a normalization do nothing."""
    random = np.random.default_rng(seed)
    for layer in normalizations(model):
        for name in ("gamma", "moving_variance", "beta", "moving_mean"):
            if (variable := getattr(layer, name)) is not None:
                positive = name in ("gamma", "moving_variance")
                drawn = random.uniform(0.5, 2, variable.shape) if positive else 0.3
                variable.assign(drawn if positive else random.normal(0, 0.3, variable.shape))
    for variable in model.trainable_variables:
        if variable.path.endswith("bias"):
            variable.assign(random.normal(0, 0.3, variable.shape))
    return model


def outputs(model, seed=1, **options):
    shapes = [(3, *each.shape[1:]) for each in model.inputs]
    random = np.random.default_rng(seed)
    images = [random.normal(size=shape).astype("float32") for shape in shapes]
    result = model(images if len(images) > 1 else images[0], training=False, **options)
    return np.concatenate([np.ravel(each).astype("float32") for each in keras.tree.flatten(result)])


def difference(model, other):
    """The largest, as a part of the largest output."""
    expected, found = outputs(model), outputs(other)
    assert np.ptp(expected) > 0
    return np.abs(expected - found).max() / np.abs(expected).max()


def assert_folds(model, left=0):
    """Folding leaves so many normalizations, and neither outputs nor the model change."""
    trained_like(model)
    before = [np.array(each) for each in model.get_weights()]
    folded = fold_batch_norm(model)
    assert len(normalizations(folded)) == len(unfoldable(model)) == left
    assert difference(model, folded) < 1e-5
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    return folded


def net(**options):
    options = {"filters": (8, 16), "input_shape": (32, 32, 3), "classes": 5, **options}
    return keras_resnet.ResNet((2, 1), **{"classifier_activation": None, **options})


def chain(*parts, size=8, **options):
    x = inputs = keras.Input((size, size, 3))
    for part in parts:
        x = part(x)
    return keras.Model(inputs, x, **options)


class TestFamily:
    @pytest.mark.parametrize(
        "options",
        [
            {"block": "basic"},
            {"block": "bottleneck"},
            {"block": "basic", "shortcut": "A"},
            {"block": "bottleneck", "shortcut": "C"},
            {"block": "basic", "shortcut": None},
            {"stride_in": "1x1", "stem": "cifar"},
            {"cardinality": 4, "base_width": 64},
            {"include_preprocessing": True, "preprocessing": "caffe"},
            {"include_top": False, "input_shape": (None, None, 3)},
        ],
        ids=repr,
    )
    def test_every_normalization_of_every_kind_of_net_folds(self, options):
        model = net(**options)
        if None in model.input_shape[1:]:
            model = keras.Model(inputs := keras.Input((40, 24, 3)), model(inputs))
        assert_folds(model)

    def test_grouped_convolutions_stay_free_of_xla(self):
        folded = assert_folds(net(cardinality=4, base_width=64))
        grouped = [each for each in folded.layers if getattr(each, "groups", 1) > 1]
        assert {type(each) for each in grouped} == {keras_resnet.layers.GroupedConv2D}

    def test_mixed_precision_stays(self):
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
        try:
            model = trained_like(net())
        finally:
            keras.mixed_precision.set_global_policy("float32")
        folded = fold_batch_norm(model)
        assert normalizations(folded) == []
        assert folded.get_layer("conv1_conv").compute_dtype == "bfloat16"
        assert folded.get_layer("conv1_conv").kernel.dtype == "float32"
        assert difference(model, folded) < 0.03

    def test_the_policy_of_the_moment_is_no_part_of_the_model(self):
        model = trained_like(net())
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
        try:
            folded = fold_batch_norm(model)
        finally:
            keras.mixed_precision.set_global_policy("float32")
        assert difference(model, folded) < 1e-5

    def test_a_deep_net(self):
        model = keras_resnet.CIFARResNet(110, input_shape=(8, 8, 3), classifier_activation=None)
        assert normalizations(fold_batch_norm(model)) == []

    def test_what_the_model_says_of_its_images_stays(self):
        model = net(preprocessing="caffe")
        assert fold_batch_norm(model).preprocessing == "caffe"
        assert in_precision(model, "bfloat16").preprocessing == "caffe"


class TestLayers:
    @pytest.mark.parametrize("normalization", [{}, {"scale": False}, {"center": False}], ids=repr)
    @pytest.mark.parametrize(
        "convolution",
        [
            lambda: layers.Conv2D(4, 3),
            lambda: layers.Conv2D(4, 3, use_bias=False, strides=2, padding="same"),
            lambda: layers.Conv2D(4, 3, activation="linear", dilation_rate=2),
            lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
            lambda: layers.DepthwiseConv2D(3, use_bias=False),
            lambda: layers.SeparableConv2D(4, 3, depth_multiplier=2),
            lambda: layers.SeparableConv2D(4, 3, use_bias=False),
            lambda: layers.Conv2DTranspose(4, 3, strides=2),
            lambda: layers.Conv2DTranspose(4, 3, use_bias=False),
            lambda: layers.Dense(4),
            lambda: layers.Dense(4, use_bias=False),
        ],
    )
    def test_with_and_without_bias_factor_and_offset(self, convolution, normalization):
        assert_folds(chain(convolution(), layers.BatchNormalization(epsilon=0.1, **normalization)))

    def test_dense_behind_the_pooling(self):
        parts = layers.GlobalMaxPooling2D(), layers.Dense(4), layers.BatchNormalization()
        assert_folds(chain(*parts))

    def test_keras_own_groups_become_ours(self):
        parts = layers.Conv2D(8, 1), layers.Conv2D(8, 3, groups=4), layers.BatchNormalization()
        folded = assert_folds(chain(*parts))
        assert type(folded.layers[2]) is keras_resnet.layers.GroupedConv2D

    def test_groups_with_dilation_become_ours_too(self):
        parts = (
            layers.Conv2D(8, 3, groups=4, dilation_rate=2, name="grouped"),
            layers.BatchNormalization(),
        )
        folded = assert_folds(chain(layers.Conv2D(8, 1), *parts))
        assert type(folded.get_layer("grouped")) is keras_resnet.layers.GroupedConv2D

    def test_variances_near_nothing_and_very_large(self):
        model = trained_like(chain(layers.Conv2D(4, 3), layers.BatchNormalization()))
        model.layers[-1].moving_variance.assign([0, 1e-20, 1, 1e10])
        assert difference(model, fold_batch_norm(model)) < 1e-5

    def test_a_convolution_of_another_kind_is_left(self):
        class Squared(layers.Conv2D):
            def convolution_op(self, inputs, kernel):
                return super().convolution_op(inputs, kernel**2)

        model = trained_like(chain(Squared(4, 3), layers.BatchNormalization()))
        assert difference(model, fold_batch_norm(model)) < 1e-5

    def test_a_normalization_of_another_kind_is_left(self):
        class Rectified(layers.BatchNormalization):
            def call(self, inputs, training=None, mask=None):
                return keras.ops.relu(super().call(inputs, training=training, mask=mask))

        model = trained_like(chain(layers.Conv2D(4, 3), Rectified()))
        assert difference(model, fold_batch_norm(model)) < 1e-5


class TestGraphs:
    def test_a_model_inside_of_a_model(self):
        inner = chain(layers.Conv2D(4, 3), layers.BatchNormalization(), name="inner")
        assert_folds(chain(inner, layers.Conv2D(4, 3), layers.BatchNormalization()))

    def test_a_model_inside_of_a_model_that_is_used_twice(self):
        parts = layers.Conv2D(3, 3, padding="same"), layers.BatchNormalization()
        inner = chain(*parts, name="inner")
        assert_folds(chain(inner, inner))

    def test_a_sequential_model(self):
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(4, 3),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.Flatten(),
                layers.Dense(3),
                layers.BatchNormalization(),
            ]
        )
        assert_folds(model)

    def test_a_sequential_model_inside_of_a_model(self):
        parts = layers.Conv2D(4, 3), layers.BatchNormalization()
        assert_folds(chain(keras.Sequential([keras.Input((8, 8, 3)), *parts])))

    def test_several_inputs_and_outputs(self):
        first, second = keras.Input((8, 8, 3), name="first"), keras.Input((8, 8, 3), name="second")
        x = layers.BatchNormalization()(layers.Conv2D(4, 3)(first))
        y = layers.BatchNormalization()(layers.Conv2D(4, 3)(second))
        assert_folds(keras.Model([first, second], {"x": x, "sum": x + y}))

    def test_keras_applications(self):
        model = keras.applications.MobileNetV2(
            (32, 32, 3), alpha=0.35, weights=None, classes=4, classifier_activation=None
        )
        assert_folds(model)

    def test_a_head_on_a_backbone(self):
        backbone = keras.applications.MobileNetV2(
            (32, 32, 3), alpha=0.35, weights=None, include_top=False
        )
        head = keras_resnet.transfer.classifier(backbone, 3, 0.5, classifier_activation=None)
        keras_resnet.transfer.freeze(head)
        assert_folds(head)

    def test_a_model_with_a_loss_that_cannot_be_saved(self):
        model = chain(layers.Conv2D(4, 3), layers.BatchNormalization())
        model.compile("sgd", loss=lambda truth, output: keras.ops.mean(output))
        assert_folds(model)

    @pytest.mark.parametrize(
        ("parts", "reason"),
        [
            (lambda: [layers.Conv2D(4, 3, activation="relu", name="c")], "activation of c, 'relu'"),
            (
                lambda: [layers.Conv2D(4, 3), layers.ReLU(name="r")],
                "r before it is not a convolution",
            ),
            (lambda: [], "before it is not a convolution"),
        ],
    )
    def test_what_stands_between_is_named(self, parts, reason):
        model = chain(*parts(), layers.BatchNormalization(name="bn"))
        assert reason in unfoldable(model)["bn"]
        assert_folds(model, left=1)

    def test_a_convolution_that_is_read_twice(self):
        inputs = keras.Input((8, 8, 3))
        x = layers.Conv2D(4, 3)(inputs)
        model = keras.Model(inputs, x + layers.BatchNormalization(name="bn")(x))
        assert "used elsewhere" in unfoldable(model)["bn"]
        assert_folds(model, left=1)

    def test_a_convolution_that_is_an_output_too(self):
        inputs = keras.Input((8, 8, 3))
        x = layers.Conv2D(4, 3)(inputs)
        model = keras.Model(inputs, [x, layers.BatchNormalization(name="bn")(x)])
        assert "used elsewhere" in unfoldable(model)["bn"]
        assert_folds(model, left=1)

    def test_a_layer_that_is_used_twice(self):
        convolution, normalization = layers.Conv2D(3, 1), layers.BatchNormalization(name="bn")
        assert_folds(chain(convolution, normalization, layers.ReLU(), convolution), left=1)
        model = chain(
            layers.Conv2D(3, 1), normalization, layers.ReLU(), layers.Conv2D(3, 1), normalization
        )
        assert "several times" in unfoldable(model)["bn"]
        assert_folds(model, left=1)

    def test_batch_statistics(self):
        inputs = keras.Input((8, 8, 3))
        x = layers.Conv2D(4, 3)(inputs)
        model = keras.Model(inputs, layers.BatchNormalization(name="bn")(x, training=True))
        assert unfoldable(model) == {"bn": "it is called with training=True"}
        assert_folds(model, left=1)

    def test_batch_statistics_of_a_model_inside_of_a_model(self):
        inner = chain(layers.Conv2D(4, 3), layers.BatchNormalization(), name="inner")
        inputs = keras.Input((8, 8, 3))
        assert_folds(keras.Model(inputs, inner(inputs, training=True)), left=1)

    def test_a_masked_normalization_is_left(self):
        inputs, mask = keras.Input((8, 8, 3)), keras.Input((6, 6), dtype="bool")
        x = layers.Conv2D(4, 3)(inputs)
        model = keras.Model([inputs, mask], layers.BatchNormalization(name="bn")(x, mask=mask))
        assert [*unfoldable(model)] == ["bn"]

    def test_another_axis(self):
        parts = layers.Conv2D(4, 3), layers.BatchNormalization(axis=1, name="bn")
        assert "last axis" in unfoldable(chain(*parts))["bn"]
        assert_folds(chain(*parts), left=1)

    def test_channels_first(self):
        convolution = layers.Conv2D(8, 3, data_format="channels_first")
        model = chain(convolution, layers.BatchNormalization(axis=1, name="bn"))
        assert "last axis" in unfoldable(model)["bn"]

    def test_no_graph_no_folding(self):
        class Subclassed(keras.Model):
            pass

        for function in (fold_batch_norm, unfoldable, lambda model: in_precision(model, "float32")):
            with one_line_error("'subclassed' is a Subclassed", "functional model"):
                function(Subclassed(name="subclassed"))
            with one_line_error("is a Sequential", "functional model"):
                function(keras.Sequential([layers.Conv2D(3, 3)]))


def random_graph(draw):
    """Convolutions, normalizations, activations and sums in any order."""
    maps = [inputs := keras.Input((6, 6, 4))]
    makers = {
        "conv": lambda: layers.Conv2D(4, 3, padding="same", use_bias=draw(st.booleans())),
        "grouped": lambda: layers.Conv2D(4, 3, padding="same", groups=2),
        "depthwise": lambda: layers.DepthwiseConv2D(3, padding="same"),
        "active": lambda: layers.Conv2D(4, 1, activation="relu"),
        "relu": layers.ReLU,
        "bn": layers.BatchNormalization,
        "add": layers.Add,
    }
    for kind in draw(st.lists(st.sampled_from([*makers, "bn", "bn"]), min_size=2, max_size=10)):
        layer, x = makers[kind](), draw(st.sampled_from(maps[-2:]))
        maps.append(layer([x, draw(st.sampled_from(maps))] if kind == "add" else layer(x)))
    return keras.Model(inputs, maps[-1])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_graph_computes_the_same(data):
    model = trained_like(random_graph(data.draw))
    folded = fold_batch_norm(model)
    assert len(normalizations(folded)) == len(unfoldable(model))
    np.testing.assert_allclose(outputs(folded), outputs(model), rtol=1e-4, atol=1e-4)


class TestPrecision:
    def test_feature_maps_and_what_makes_them_are_bfloat16(self):
        model = in_precision(net(include_preprocessing=True), "bfloat16")
        kinds = {layer.name: layer.compute_dtype for layer in model.layers}
        assert {kind for name, kind in kinds.items() if "block" in name} == {"bfloat16"}
        assert kinds["conv1_conv"] == "bfloat16"
        assert kinds["preprocessing"] == kinds["avg_pool"] == kinds["predictions"] == "float32"
        kernels = {
            layer.name: layer.kernel.dtype for layer in model.layers if hasattr(layer, "kernel")
        }
        assert kernels.pop("predictions") == "float32"
        assert set(kernels.values()) == {"bfloat16"}
        assert model.output.dtype == "float32"

    def test_outputs_stay_near(self):
        model = fold_batch_norm(trained_like(net()))
        assert 0 < difference(model, in_precision(model, "bfloat16")) < 0.05

    def test_mixed_precision_becomes_float32(self):
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
        try:
            mixed = trained_like(net())
            plain = in_precision(mixed, "float32")
        finally:
            keras.mixed_precision.set_global_policy("float32")
        weighty = [layer for layer in plain.layers if layer.weights]
        assert {layer.compute_dtype for layer in weighty} == {"float32"}
        same = net()
        same.set_weights(mixed.get_weights())
        assert difference(same, plain) < 1e-5

    def test_models_inside_of_models(self):
        inner = net(include_top=False)
        model = in_precision(chain(inner, layers.GlobalAveragePooling2D(), size=32), "bfloat16")
        assert model.layers[1].get_layer("conv1_conv").kernel.dtype == "bfloat16"

    def test_no_other_precision(self):
        with one_line_error("precision='float16' must be one of 'float32', 'bfloat16'"):
            in_precision(net(), "float16")
