import contextlib
import functools
import itertools
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from keras_resnet import layers
from keras_resnet.layers import devices, grouped_convolution


def textbook(inputs, kernel, groups, strides, padding):
    """A grouped convolution as sums of products over patches, without a convolution kernel.

    TensorFlow's own convolutions are no reference: some are wrong where strides differ.
    """
    if not isinstance(padding, str):
        inputs = tf.pad(inputs, [(0, 0), *grouped_convolution._pair_of_pairs(padding), (0, 0)])
        padding = "valid"
    height, width, channels, filters = kernel.shape
    patches = tf.image.extract_patches(
        inputs, (1, height, width, 1), (1, *strides, 1), (1, 1, 1, 1), padding.upper()
    )
    patches = tf.reshape(patches, (*patches.shape[:3], height, width, groups, channels))
    kernel = tf.reshape(kernel, (height, width, channels, groups, filters // groups))
    outputs = tf.einsum("nyxhwgc,hwcgf->nyxgf", patches, kernel)
    return tf.reshape(outputs, (*outputs.shape[:3], filters))


def numbers(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def error(actual, expected):
    """Largest difference, as a fraction of the largest expected number."""
    actual, expected = (np.array(tf.cast(tensor, "float32")) for tensor in (actual, expected))
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max() / np.abs(expected).max()


# The size of rounding errors, as a fraction of the largest number.
ROUNDING = {"float32": 2e-5, "float16": 5e-3, "bfloat16": 3e-2}

both_gradients = pytest.mark.parametrize("native", [True, False], ids=["native", "ours"])


@contextlib.contextmanager
def gradients_of_groups(native):
    """Grouped convolutions take TensorFlow's gradients, or else those of this package."""
    if native and not grouped_convolution._onednn_differentiates_groups(tf.float32):
        pytest.skip("this machine's TensorFlow has no gradient of its own")
    with mock.patch.object(grouped_convolution, "_differentiates_groups", return_value=native):
        yield


def train_grouped_net():
    """Weights of a small net after three steps, and what it predicts with them."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((9, 8, 8)),
            layers.GroupedConv2D(16, 3, 2, "same", groups=4, use_bias=False),
            layers.BatchNormalization(momentum=0.5),
            layers.GroupedConv2D(16, (2, 3), groups=8),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    model.compile(keras.optimizers.SGD(0.05), "mse")
    images = numbers((6, 9, 8, 8))
    model.fit(images, numbers((6, 16), seed=1), epochs=3, shuffle=False, verbose=0)
    return [*model.get_weights(), model.predict(images, verbose=0)]


class TestGroupedConv2D:
    @both_gradients
    @settings(max_examples=60, deadline=None)
    @given(
        groups=st.integers(2, 6),
        channels_per_group=st.integers(1, 9),
        filters_per_group=st.integers(1, 5),
        size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
        kernel_size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
        strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
        padding=st.one_of(
            st.sampled_from(["valid", "same"]),
            st.integers(0, 2),
            st.tuples(
                st.tuples(st.integers(0, 3), st.integers(0, 3)),
                st.tuples(st.integers(0, 3), st.integers(0, 3)),
            ),
        ),
        dtype=st.sampled_from(["float32", "bfloat16"]),
        graph=st.booleans(),
    )
    @example(
        groups=2,
        channels_per_group=1,
        filters_per_group=1,
        size=(5, 5),
        kernel_size=(1, 3),
        strides=(1, 3),
        padding="valid",
        dtype="float32",
        graph=False,
    )
    def test_value_and_gradients_are_those_of_the_textbook(
        self,
        native,
        groups,
        channels_per_group,
        filters_per_group,
        size,
        kernel_size,
        strides,
        padding,
        dtype,
        graph,
    ):
        if padding != "same":
            pads = grouped_convolution._pair_of_pairs(0 if padding == "valid" else padding)
            assume(np.all(np.add(size, np.sum(pads, 1)) >= kernel_size))
        if dtype == "bfloat16" and channels_per_group == 1:
            assume(strides[0] == strides[1])  # else TensorFlow computes wrong values
        layer = layers.GroupedConv2D(
            groups * filters_per_group,
            kernel_size,
            strides,
            padding,
            groups=groups,
            use_bias=False,
            dtype=dtype,
        )
        inputs = tf.cast(numbers((2, *size, groups * channels_per_group)), dtype)
        layer.build(inputs.shape)
        kernel = layer.kernel.value

        def value_and_gradients(convolve, *arguments):
            with tf.GradientTape() as tape:
                tape.watch(arguments)
                outputs = convolve(*arguments)
                loss = tf.reduce_sum(tf.cast(outputs, "float32") * numbers(outputs.shape, seed=1))
            return [outputs, *tape.gradient(loss, arguments)]

        def ours(inputs, kernel):
            return value_and_gradients(layer.convolution_op, inputs, kernel)

        with gradients_of_groups(native):
            results = (tf.function(ours) if graph else ours)(inputs, tf.convert_to_tensor(kernel))
        expected = value_and_gradients(
            lambda inputs, kernel: textbook(inputs, kernel, groups, strides, padding),
            *(tf.cast(tensor, "float32") for tensor in (inputs, kernel)),
        )
        assert results[0].shape == layer.compute_output_shape(inputs.shape)
        for result, tensor in zip(results, expected, strict=True):
            assert result.dtype == dtype
            scale = max(1.0, np.abs(tensor).max())
            np.testing.assert_allclose(
                tf.cast(result, "float32"), tensor, rtol=0, atol=ROUNDING[dtype] * scale
            )

    @both_gradients
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_taps_that_see_only_padding_have_no_gradient(self, native, dtype):
        # oneDNN leaves theirs as it finds the memory, in bfloat16 where it pads itself.
        layer = layers.GroupedConv2D(16, 3, 2, "same", groups=4, use_bias=False, dtype=dtype)
        inputs = tf.ones((2, 1, 1, 16), dtype)
        layer.build(inputs.shape)
        for _ in range(20):
            tf.fill(layer.kernel.shape, tf.constant(7, dtype))  # memory to find
            with gradients_of_groups(native), tf.GradientTape() as tape:
                loss = tf.reduce_sum(layer(inputs))
            gradient = np.array(tape.gradient(loss, layer.kernel.value), "float32")
            assert np.all(gradient[1, 1] == 2)
            gradient[1, 1] = 0
            assert not gradient.any()

    @pytest.mark.parametrize(("strides", "padding"), [(1, "same"), (2, 1)])
    def test_gradient_equals_finite_differences(self, strides, padding):
        layer = layers.GroupedConv2D(
            8, 3, strides, padding, groups=4, use_bias=False, dtype="float64"
        )
        inputs = tf.constant(numbers((1, 6, 5, 8)), "float64")
        layer.build(inputs.shape)

        def loss(inputs):
            return tf.reduce_sum(tf.sin(layer(inputs)))

        theoretical, numerical = tf.test.compute_gradient(loss, [inputs])
        np.testing.assert_allclose(theoretical[0], numerical[0], atol=1e-7)

    @both_gradients
    def test_second_derivatives_are_right(self, native):
        inputs = tf.constant(numbers((1, 5, 5, 8)))
        kernel = tf.constant(numbers((3, 3, 2, 8), seed=1))

        def hessian_vector_product(convolve):
            with tf.GradientTape(persistent=True) as outer:
                outer.watch([inputs, kernel])
                with tf.GradientTape() as inner:
                    inner.watch([inputs, kernel])
                    loss = tf.reduce_sum(convolve(inputs, kernel) ** 3)
                gradients = inner.gradient(loss, [inputs, kernel])
                norm = sum(tf.reduce_sum(gradient**2) for gradient in gradients)
            return outer.gradient(norm, [inputs, kernel])

        layer = layers.GroupedConv2D(8, 3, 2, groups=4)
        with gradients_of_groups(native):
            ours = hessian_vector_product(layer.convolution_op)
        theirs = hessian_vector_product(lambda i, k: textbook(i, k, 4, (2, 2), "valid"))
        for our_gradient, their_gradient in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(our_gradient, their_gradient, rtol=1e-3, atol=1.0)

    def test_jacobians_are_right(self):
        inputs = tf.constant(numbers((2, 5, 5, 8)))
        kernel = tf.constant(numbers((3, 3, 2, 8), seed=1))

        def jacobians(convolve):
            with tf.GradientTape(persistent=True) as tape:
                tape.watch([inputs, kernel])
                outputs = convolve(inputs, kernel)
            return [tape.jacobian(outputs, inputs), tape.jacobian(outputs, kernel)]

        # TensorFlow's own gradients of groups go wrong in its vectorized loops.
        with gradients_of_groups(False):
            ours = jacobians(layers.GroupedConv2D(8, 3, 2, groups=4).convolution_op)
        theirs = jacobians(lambda i, k: textbook(i, k, 4, (2, 2), "valid"))
        for our_jacobian, their_jacobian in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(our_jacobian, their_jacobian, atol=1e-5)

    def test_trains_alike_without_onednn(self, tmp_path):
        script = (
            "import sys, numpy, test_layers\n"
            "numpy.savez(sys.argv[1], *test_layers.train_grouped_net())"
        )
        path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
        subprocess.run(
            [sys.executable, "-c", script, tmp_path / "weights.npz"],
            env={**os.environ, "PYTHONPATH": path, "TF_ENABLE_ONEDNN_OPTS": "0"},
            check=True,
        )
        weights = np.load(tmp_path / "weights.npz")
        for name, expected in zip(weights, train_grouped_net(), strict=True):
            np.testing.assert_allclose(weights[name], expected, atol=1e-5)

    @pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
    def test_trains_in_a_model_of_unknown_size(self, policy):
        inputs = keras.Input((None, None, 16))
        layer = layers.GroupedConv2D(32, 3, 2, padding=1, groups=4, dtype=policy)
        outputs = keras.layers.GlobalAveragePooling2D(dtype="float32")(layer(inputs))
        model = keras.Model(inputs, outputs)
        model.compile("sgd", "mse")
        for size in (8, 11):
            history = model.fit(
                numbers((6, size, size, 16)), numbers((6, 32)), batch_size=4, epochs=3, verbose=0
            )
            assert history.history["loss"][-1] < history.history["loss"][0]

    def test_half_precision_gradients_are_close(self):
        inputs = tf.constant(numbers((4, 8, 8, 32)))
        kernel = tf.constant(numbers((3, 3, 4, 32), seed=1))
        upstream = numbers((4, 8, 8, 32), seed=2)

        def gradients(dtype):
            i, k = tf.cast(inputs, dtype), tf.cast(kernel, dtype)
            with tf.GradientTape() as tape:
                tape.watch([i, k])
                outputs = grouped_convolution._grouped_convolution(i, k, 8, (1, 1), "SAME")
            return tape.gradient(outputs, [i, k], tf.cast(upstream, dtype))

        for exact, half in zip(gradients("float32"), gradients("bfloat16"), strict=True):
            error = np.abs(exact - tf.cast(half, "float32")).max() / np.abs(exact).max()
            assert error < 0.02

    def test_uses_no_xla(self):
        layer = layers.GroupedConv2D(16, 3, groups=4)
        layer.build((None, 8, 8, 16))

        @tf.function
        def step(inputs):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(layer(inputs))
            return tape.gradient(loss, layer.kernel.value)

        graph = step.get_concrete_function(tf.TensorSpec((None, 8, 8, 16))).graph.as_graph_def()
        assert "_XlaMustCompile" not in str(graph)

    def test_is_not_compiled_by_xla_on_a_cpu_unless_asked_to(self, monkeypatch):
        for layer in (layers.GroupedConv2D(8, 3, groups=2), layers.BatchNormalization()):
            model = keras.Sequential([keras.Input((8, 8, 8)), layer])
            model.compile("sgd", "mse")
            assert not model.jit_compile

        class Device:
            device_type = "GPU"

        monkeypatch.setattr(tf.config, "list_physical_devices", lambda *_: [Device])
        assert layers.BatchNormalization().supports_jit

    def test_takes_the_native_gradient_beside_an_accelerator(self, monkeypatch):
        class Device:
            device_type = "GPU"

        monkeypatch.setattr(tf.config, "list_logical_devices", lambda: [Device])

        class Tensor:
            device = ""

        assert devices.on_accelerator(Tensor)
        Tensor.device = "/job:localhost/replica:0/task:0/device:CPU:0"
        assert not devices.on_accelerator(Tensor)

    @pytest.mark.parametrize("padding", ["same", 1, ((0, 1), (2, 0))])
    def test_survives_saving(self, tmp_path, padding):
        inputs = keras.Input((9, 9, 8))
        outputs = layers.GroupedConv2D(16, 3, 2, padding, groups=4, activation="relu")(inputs)
        model = keras.Model(inputs, outputs)
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        images = numbers((2, 9, 9, 8))
        np.testing.assert_array_equal(model(images), again(images))

    def test_padding_may_be_of_numpy(self):
        assert layers.GroupedConv2D(4, 3, padding=np.int64(1)).explicit_padding == ((1, 1), (1, 1))

    def test_one_group_is_an_ordinary_convolution(self):
        layer = layers.GroupedConv2D(4, 3, padding="same", dilation_rate=2)
        ordinary = keras.layers.Conv2D(4, 3, padding="same", dilation_rate=2)
        images = numbers((1, 8, 8, 3))
        layer.build(images.shape)
        ordinary.build(images.shape)
        ordinary.set_weights(layer.get_weights())
        np.testing.assert_array_equal(layer(images), ordinary(images))

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            (dict(filters=10, groups=4), "groups=4, filters=10"),
            (dict(padding=-1), "padding=-1 must be"),
            (dict(padding=((1.5, 1), (1, 1))), "must be 'valid', 'same'"),
            (dict(padding=(1, 2, 3)), r"padding=\(1, 2, 3\) must be"),
            (dict(padding="full"), "padding"),
            (dict(data_format="channels_first"), "use 'channels_last'"),
            (dict(groups=4, dilation_rate=2), "dilation_rate=2 with groups=4"),
        ],
    )
    def test_refuses_bad_arguments(self, options, complaint):
        with pytest.raises(ValueError, match=complaint):
            layers.GroupedConv2D(**{"filters": 8, "kernel_size": 3, **options})


class TestBatchNormalization:
    @pytest.mark.parametrize("shape", [(4, 5, 7, 6), (1, 1, 1, 3), (2, 3, 1, 8)])
    @pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
    @pytest.mark.parametrize(("center", "scale"), itertools.product([True, False], repeat=2))
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
            (dict(groups=8), True),
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


class TestZeroPaddedShortcut:
    @settings(max_examples=40, deadline=None)
    @given(
        size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
        channels=st.integers(1, 4),
        new=st.integers(0, 5),
        strides=st.integers(1, 4),
        dtype=st.sampled_from(["float32", "bfloat16", "float16", "float64"]),
        graph=st.booleans(),
    )
    def test_equals_slicing_and_padding(self, size, channels, new, strides, dtype, graph):
        pixels = numbers((2, *size, channels))
        for seed, value in enumerate((np.nan, np.inf, -np.inf)):
            pixels[np.random.default_rng(seed).random(pixels.shape) < 0.1] = value
        images = tf.cast(pixels, dtype)
        shortcut = layers.ZeroPaddedShortcut(channels + new, strides, dtype=dtype)
        outputs = (tf.function(shortcut) if graph else shortcut)(images)
        pads = ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2))
        expected = np.pad(images.numpy()[:, ::strides, ::strides], pads)
        np.testing.assert_array_equal(tf.cast(outputs, "float64"), expected.astype("float64"))
        assert outputs.shape == shortcut.compute_output_shape(images.shape)

    @pytest.mark.parametrize("strides", [1, 2, 3])
    @pytest.mark.parametrize("graph", [False, True])
    def test_gradient_is_that_of_slicing_and_padding(self, strides, graph):
        images, shortcut = tf.constant(numbers((2, 5, 8, 3))), layers.ZeroPaddedShortcut(6, strides)

        def gradient(upstream):
            with tf.GradientTape() as tape:
                tape.watch(images)
                outputs = shortcut(images)
            return tape.gradient(outputs, images, upstream)

        upstream = numbers(shortcut.compute_output_shape(images.shape))
        upstream[0, 1, 1] = np.nan
        expected = np.zeros(images.shape, "float32")
        expected[:, ::strides, ::strides] = upstream[..., 1:4]
        actual = (tf.function(gradient) if graph else gradient)(tf.constant(upstream))
        np.testing.assert_array_equal(actual, expected)

    def test_takes_channels_last_whatever_the_configuration(self):
        images = numbers((1, 6, 6, 2))
        keras.config.set_image_data_format("channels_first")
        try:
            outputs = layers.ZeroPaddedShortcut(2, strides=2)(images)
        finally:
            keras.config.set_image_data_format("channels_last")
        np.testing.assert_array_equal(outputs, images[:, ::2, ::2])

    def test_refuses_to_drop_channels(self):
        with pytest.raises(ValueError, match="16 come in, filters=8 go out"):
            layers.ZeroPaddedShortcut(8)(numbers((1, 4, 4, 16)))


class TestPreprocessing:
    @pytest.mark.parametrize("mode", ["torch", "caffe", "tf"])
    def test_equals_keras_applications(self, mode):
        images = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)).astype("float32")
        expected = keras.applications.imagenet_utils.preprocess_input(images.copy(), mode=mode)
        np.testing.assert_allclose(layers.Preprocessing(mode)(images), expected, atol=1e-4)

    def test_is_exact_under_mixed_precision(self):
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            layer = layers.Preprocessing("torch")
        finally:
            keras.config.set_dtype_policy("float32")
        images = np.array([[[[100.6, 100.7, 100.8]]]], "float32")
        assert layer(images).dtype == "float32"
        np.testing.assert_array_equal(layer(images), layers.Preprocessing("torch")(images))

    def test_takes_bytes(self):
        images = np.full((1, 2, 2, 3), 255, "uint8")
        np.testing.assert_allclose(layers.Preprocessing("tf")(images), np.ones((1, 2, 2, 3)))

    def test_refuses_unknown_modes_and_grey_images(self):
        with pytest.raises(ValueError, match="mode='pytorch' must be one of 'torch'"):
            layers.Preprocessing("pytorch")
        with pytest.raises(ValueError, match="have 1 channels"):
            layers.Preprocessing("caffe")(np.zeros((1, 2, 2, 1)))
