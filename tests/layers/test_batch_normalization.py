import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from arrays import ROUNDING, error, numbers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onednn import needs_onednn

from keras_resnet import layers


class TestBatchNormalization:
    @pytest.mark.parametrize("shape", [(4, 5, 7, 6), (1, 1, 1, 3), (2, 3, 1, 8)])
    @pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
    @pytest.mark.parametrize(("center", "scale"), [*itertools.product([True, False], repeat=2)])
    def test_outputs_averages_and_gradients_are_those_of_keras(self, shape, policy, center, scale):
        options = dict(momentum=0.9, epsilon=1e-5, center=center, scale=scale, dtype=policy)
        ours = layers.BatchNormalization(**options)
        theirs = keras.layers.BatchNormalization(**options)
        images = numbers(shape) * 3 + 1
        for layer in (ours, theirs):
            layer.build(shape)
            for seed, weight in enumerate(layer.weights):
                weight.assign(np.abs(numbers(weight.shape, seed)) + 0.5)
        weights = numbers(shape, seed=9)
        tolerance = dict(atol=2e-5, rtol=1e-4) if policy == "float32" else dict(atol=0.05)
        for training in (True, False, True):
            results = []
            for layer in (ours, theirs):
                inputs = tf.constant(images, layer.compute_dtype)
                with tf.GradientTape() as tape:
                    tape.watch(inputs)
                    outputs = layer(inputs, training=training)
                    assert outputs.dtype == layer.compute_dtype
                    loss = tf.reduce_sum(tf.cast(outputs, "float32") * weights)
                gradients = tape.gradient(
                    loss, [inputs, *(weight.value for weight in layer.trainable_weights)]
                )
                results.append([outputs, *gradients])
            if np.prod(shape[:-1]) > 1:  # over a single value the gradient is 0 / 0, less epsilon
                for our_tensor, their_tensor in zip(*results, strict=True):
                    np.testing.assert_allclose(
                        tf.cast(our_tensor, "float32"),
                        tf.cast(their_tensor, "float32"),
                        **tolerance,
                    )
            for our_weight, their_weight in zip(ours.weights, theirs.weights, strict=True):
                assert our_weight.dtype == "float32"
                np.testing.assert_allclose(our_weight, their_weight, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        ("options", "shape", "dtype"),
        [
            (dict(axis=1), (2, 3, 4, 4), "float32"),
            ({}, (8, 3), "float32"),
            ({}, (2, 4, 4, 3), "float64"),
        ],
    )
    def test_everything_else_is_left_to_keras(self, options, shape, dtype, monkeypatch):
        monkeypatch.delattr(tf.raw_ops, "FusedBatchNormV3")
        ours = layers.BatchNormalization(dtype=dtype, **options)
        theirs = keras.layers.BatchNormalization(dtype=dtype, **options)
        images = numbers(shape).astype(dtype)
        np.testing.assert_array_equal(ours(images, training=True), theirs(images, training=True))

    def test_one_device_has_the_statistics_of_all(self):
        images = numbers((2, 4, 4, 3))
        ours = layers.BatchNormalization(synchronized=True)
        theirs = keras.layers.BatchNormalization(synchronized=True)
        np.testing.assert_allclose(
            ours(images, training=True), theirs(images, training=True), atol=1e-5
        )

    def test_whole_numbers_and_unknown_channels_are_left_to_keras(self):
        images = np.arange(48).reshape(2, 2, 4, 3)
        ours, theirs = layers.BatchNormalization(), keras.layers.BatchNormalization()
        np.testing.assert_array_equal(ours(images, training=True), theirs(images, training=True))

        @tf.function(input_signature=[tf.TensorSpec((None, None, None, None))])
        def normalize(images):
            return ours(images, training=True)

        np.testing.assert_allclose(
            normalize(images.astype("float32")), theirs(images, training=True), atol=1e-5
        )

    def test_a_frozen_layer_keeps_its_averages(self):
        layer = layers.BatchNormalization()
        layer.build((None, 4, 4, 3))
        layer.trainable = False
        images = numbers((2, 4, 4, 3)) + 5
        outputs = layer(images, training=True)
        np.testing.assert_array_equal(layer.moving_mean, np.zeros(3))
        np.testing.assert_allclose(outputs, images, rtol=1e-2)

    @settings(max_examples=40, deadline=None)
    @given(
        shape=st.tuples(*[st.integers(1, 4)] * 4),
        momentum=st.floats(0, 1, width=32),
        policy=st.sampled_from(["float32", "mixed_bfloat16", "mixed_float16"]),
        center=st.booleans(),
        scale=st.booleans(),
        graph=st.booleans(),
    )
    @example((1, 1, 1, 3), 0.0, "float32", True, True, False)
    @example((2, 1, 1, 3), 0.0, "mixed_bfloat16", False, True, True)
    @example((1, 1, 1, 3), 0.99, "mixed_float16", True, False, True)
    @example((4, 3, 2, 3), 1.0, "float32", False, False, True)
    def test_averages_move_as_those_of_keras(self, shape, momentum, policy, center, scale, graph):
        self.compare_averages(
            shape, momentum, policy, center, scale, tf.function if graph else None
        )

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    @pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
    def test_averages_move_alike_under_xla(self, momentum, policy):
        self.compare_averages(
            (2, 3, 1, 4),
            momentum,
            policy,
            True,
            True,
            functools.partial(tf.function, jit_compile=True),
        )

    @pytest.mark.parametrize("graph", [None, tf.function])
    def test_an_empty_batch_does_what_it_does_in_keras(self, graph):
        self.compare_averages((0, 3, 2, 4), 0.9, "float32", True, True, graph)

    def compare_averages(self, shape, momentum, policy, center, scale, compiled):
        averages, steps = [], (numbers((3, *shape)) * 3 + 1)
        for kind in (layers.BatchNormalization, keras.layers.BatchNormalization):
            layer = kind(momentum=momentum, center=center, scale=scale, dtype=policy)
            layer.build(shape)
            layer.moving_variance.assign(np.arange(1.0, shape[-1] + 1))
            train = functools.partial(layer, training=True)
            train = compiled(train) if compiled else train
            for images in steps:
                assert train(tf.cast(images, layer.compute_dtype)).shape == shape
            averages.append([layer.moving_mean, layer.moving_variance])
        for ours, theirs in zip(*averages, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def convolution_and_normalization(policy, size=(9, 8, 8), normalization=(), **options):
    """A net of a convolution, a batch normalization with a past and a ReLU."""
    inputs = keras.Input(size, dtype=keras.DTypePolicy(policy).compute_dtype)
    options = {"filters": 16, "kernel_size": 3, "use_bias": False, "dtype": policy, **options}
    convolved = layers.GroupedConv2D(**options)(inputs)
    normalize = layers.BatchNormalization(**{"dtype": policy, **dict(normalization)})
    outputs = keras.layers.ReLU(dtype=policy)(normalize(convolved))
    model = keras.Model(inputs, [outputs, convolved])
    for seed, weight in enumerate(model.weights):
        values = numbers(weight.shape, seed)
        weight.assign(np.abs(values) + 0.5 if weight.name == "moving_variance" else values)
    return model


def live_operations(function, *arguments):
    """Types of the operations that the outputs of a function depend on."""
    found = {tensor.op for tensor in function.get_concrete_function(*arguments).graph.outputs}
    left = list(found)
    while left:
        new = {tensor.op for tensor in left.pop().inputs} - found
        found |= new
        left += new
    return [operation.type for operation in found]


half_precision = pytest.mark.parametrize("dtype", ["bfloat16", "float16"])


class TestFoldingIntoTheConvolution:
    """Eager execution, the reference here, never folds."""

    @settings(max_examples=40, deadline=None)
    @given(
        policy=st.sampled_from(["mixed_bfloat16", "mixed_float16", "bfloat16", "float32"]),
        groups=st.sampled_from([1, 2, 8]),
        kernel_size=st.integers(1, 3),
        strides=st.integers(1, 2),
        padding=st.sampled_from(["valid", "same", 1]),
        dilated=st.booleans(),
        use_bias=st.booleans(),
        normalization=st.fixed_dictionaries(
            dict(center=st.booleans(), scale=st.booleans(), epsilon=st.sampled_from([1e-5, 0.5]))
        ),
    )
    @example("mixed_bfloat16", 1, 3, 1, "same", False, False, dict(epsilon=0.5))
    def test_predictions_stay_the_same(
        self, policy, groups, kernel_size, strides, padding, dilated, use_bias, normalization
    ):
        model = convolution_and_normalization(
            policy,
            groups=groups,
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            dilation_rate=2 if dilated and groups == strides == 1 else 1,
            use_bias=use_bias,
            normalization=normalization,
        )
        images = tf.cast(numbers((2, 9, 8, 8)), model.layers[1].compute_dtype)
        folded = tf.function(model)(images, training=False)
        for actual, expected in zip(folded, model(images, training=False), strict=True):
            assert actual.dtype == expected.dtype
            assert error(actual, expected) < ROUNDING[model.layers[1].compute_dtype]

    @pytest.mark.parametrize(
        ("options", "folds"),
        [
            ({}, True),
            pytest.param(dict(groups=8), True, marks=needs_onednn),
            (dict(kernel_size=1, strides=2, normalization=dict(scale=False)), True),
            (dict(dtype="bfloat16"), True),  # nothing casts its kernel
            (dict(use_bias=True), False),
            (dict(dilation_rate=2), False),
            (dict(policy="float32"), False),
        ],
    )
    def test_leaves_one_convolution(self, options, folds):
        model = convolution_and_normalization(**{"policy": "mixed_bfloat16", **options})
        predict = tf.function(lambda images: model(images, training=False)[0])
        alive = live_operations(predict, tf.TensorSpec((None, 9, 8, 8), model.inputs[0].dtype))
        assert alive.count("Conv2D") == 1
        assert ("FusedBatchNormV3" not in alive) == folds
        train = tf.function(lambda images: model(images, training=True)[0])
        alive = live_operations(train, tf.TensorSpec((None, 9, 8, 8), model.inputs[0].dtype))
        assert "FusedBatchNormV3" in alive

    @pytest.mark.parametrize("groups", [1, 4])
    @pytest.mark.parametrize("frozen", [True, False])
    @half_precision
    def test_gradients_of_a_frozen_layer_stay_the_same(self, dtype, groups, frozen):
        model = convolution_and_normalization(f"mixed_{dtype}", groups=groups)
        normalization = model.layers[2]
        variables = [weight.value for weight in model.trainable_weights]
        if frozen:
            normalization.trainable = False
        images = tf.cast(numbers((2, 9, 8, 8), seed=7), dtype)

        def value_and_gradients():
            with tf.GradientTape() as tape:
                tape.watch(images)
                outputs = model(images, training=frozen)[0]
                loss = tf.reduce_sum(tf.cast(outputs, "float32") * numbers(outputs.shape))
            return [outputs, *tape.gradient(loss, [images, *variables])]

        averages = np.array([normalization.moving_mean, normalization.moving_variance])
        eager = value_and_gradients()
        for actual, expected in zip(tf.function(value_and_gradients)(), eager, strict=True):
            assert error(actual, expected) < ROUNDING[dtype]
        np.testing.assert_array_equal(
            [normalization.moving_mean, normalization.moving_variance], averages
        )

    @half_precision
    def test_gradients_reach_the_output_of_the_convolution(self, dtype):
        # As a map of what a prediction rests on (Grad-CAM) takes them.
        model = convolution_and_normalization(f"mixed_{dtype}")
        images = tf.cast(numbers((2, 9, 8, 8)), dtype)

        def gradient():
            with tf.GradientTape() as tape:
                outputs, convolved = model(images, training=False)
            return tape.gradient(outputs, convolved)

        assert error(tf.function(gradient)(), gradient()) < ROUNDING[dtype]

    @half_precision
    def test_gradients_stop_where_recording_does(self, dtype):
        model = convolution_and_normalization(f"mixed_{dtype}")
        images = tf.cast(numbers((2, 9, 8, 8)), dtype)
        _, convolve, normalize, _ = model.layers

        @tf.function
        def gradient(images):
            with tf.GradientTape() as tape:
                tape.watch(images)
                with tape.stop_recording():
                    convolved = convolve(images)
                outputs = normalize(convolved, training=False)
            return tape.gradient(outputs, images, unconnected_gradients="zero")

        assert not np.any(gradient(images))

    @pytest.mark.parametrize(
        "options",
        [
            dict(padding=[[0, 0], [1, 2], [0, 1], [0, 0]]),
            dict(padding="SAME", dilations=(1, 1, 2, 1)),
            dict(padding="VALID", strides=(1, 2, 3, 1)),
        ],
    )
    @half_precision
    def test_takes_any_convolution_of_tensorflow(self, dtype, options):
        normalize = convolution_and_normalization(f"mixed_{dtype}").layers[2]
        images, kernel = (
            tf.cast(numbers((2, 9, 8, 8)), dtype),
            tf.cast(numbers((3, 2, 8, 16)), dtype),
        )

        def predict():
            convolved = tf.nn.conv2d(images, kernel, **{"strides": 1, **options})
            return normalize(convolved, training=False)

        assert error(tf.function(predict)(), predict()) < ROUNDING[dtype]

    def test_spares_a_convolution_with_channels_first(self):
        normalize = convolution_and_normalization("mixed_bfloat16").layers[2]  # of the columns

        @tf.function
        def predict(images, kernel):
            convolved = tf.nn.conv2d(images, kernel, 1, "SAME", data_format="NCHW")
            return normalize(convolved, training=False)

        images = tf.TensorSpec((2, 8, 9, 16), "bfloat16")
        kernel = tf.TensorSpec((3, 3, 8, 16), "bfloat16")
        assert "FusedBatchNormV3" in live_operations(predict, images, kernel)

    @half_precision
    def test_a_convolution_outside_of_the_function_or_loop(self, dtype):
        model = convolution_and_normalization(f"mixed_{dtype}")
        images = tf.cast(numbers((2, 9, 8, 8)), dtype)
        _, convolve, normalize, relu = model.layers

        @tf.function
        def captured():
            convolved = convolve(images)
            return tf.function(lambda: relu(normalize(convolved, training=False)))()

        @tf.function
        def looped():
            convolved = convolve(images)
            outputs = tf.zeros_like(convolved)
            for _ in tf.range(3):
                outputs = relu(normalize(convolved, training=False))
            return outputs

        @tf.function
        def constant():
            return relu(normalize(eager, training=False))

        eager = convolve(images)
        for function in (captured, looped, constant):
            assert error(function(), model(images, training=False)[0]) < ROUNDING[dtype]

    @half_precision
    def test_predicts_and_exports_the_same(self, dtype, tmp_path):
        model = convolution_and_normalization(f"mixed_{dtype}", groups=4)
        images = tf.cast(numbers((2, 9, 8, 8)), dtype)
        expected = model(images)[0]
        assert error(model.predict(images, verbose=0)[0], expected) < ROUNDING[dtype]
        model.export(tmp_path, verbose=False)
        served = tf.saved_model.load(tmp_path)
        assert error(served.serve(images)[0], expected) < ROUNDING[dtype]
