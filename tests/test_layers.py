import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keras_resnet import layers


def textbook(inputs, kernel, groups, strides, padding):
    """A grouped convolution as sums of products over patches, without a convolution kernel.

    TensorFlow's own convolutions are no reference: some are wrong where strides differ.
    """
    if not isinstance(padding, str):
        inputs = tf.pad(inputs, [(0, 0), *layers._pair_of_pairs(padding), (0, 0)])
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


class TestGroupedConv2D:
    @settings(max_examples=60, deadline=None)
    @given(
        groups=st.integers(2, 6),
        channels_per_group=st.integers(1, 9),
        filters_per_group=st.integers(1, 5),
        size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
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
    )
    @example(
        groups=2,
        channels_per_group=1,
        filters_per_group=1,
        size=(5, 5),
        kernel_size=(1, 3),
        strides=(1, 3),
        padding="valid",
    )
    def test_value_and_gradients_are_those_of_the_textbook(
        self, groups, channels_per_group, filters_per_group, size, kernel_size, strides, padding
    ):
        layer = layers.GroupedConv2D(
            groups * filters_per_group, kernel_size, strides, padding, groups=groups, use_bias=False
        )
        inputs = tf.constant(numbers((2, *size, groups * channels_per_group)))
        layer.build(inputs.shape)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(inputs)
            ours = layer(inputs)
            theirs = textbook(inputs, layer.kernel.value, groups, strides, padding)
            weights = numbers(theirs.shape, seed=1)
            our_loss = tf.reduce_sum(ours * weights)
            their_loss = tf.reduce_sum(theirs * weights)
        assert ours.shape == layer.compute_output_shape(inputs.shape)
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
        for variable in (inputs, layer.kernel.value):
            np.testing.assert_allclose(
                tape.gradient(our_loss, variable), tape.gradient(their_loss, variable), atol=1e-4
            )

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

    def test_second_derivatives_are_right(self):
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

        ours = hessian_vector_product(
            lambda i, k: layers._grouped_convolution(i, k, 4, (2, 2), "VALID")
        )
        theirs = hessian_vector_product(lambda i, k: textbook(i, k, 4, (2, 2), "valid"))
        for our_gradient, their_gradient in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(our_gradient, their_gradient, rtol=1e-3, atol=1.0)

    @pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_trains_in_a_model_of_unknown_size(self, policy, jit_compile):
        inputs = keras.Input((None, None, 16))
        layer = layers.GroupedConv2D(32, 3, 2, padding=1, groups=4, dtype=policy)
        outputs = keras.layers.GlobalAveragePooling2D(dtype="float32")(layer(inputs))
        model = keras.Model(inputs, outputs)
        model.compile("sgd", "mse", jit_compile=jit_compile)
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
                outputs = layers._grouped_convolution(i, k, 8, (1, 1), "SAME")
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

    def test_takes_the_native_gradient_beside_an_accelerator(self, monkeypatch):
        class Device:
            device_type = "GPU"

        monkeypatch.setattr(tf.config, "list_logical_devices", lambda: [Device])

        class Tensor:
            device = ""

        assert layers._has_native_gradient(Tensor)
        Tensor.device = "/job:localhost/replica:0/task:0/device:CPU:0"
        assert not layers._has_native_gradient(Tensor)

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
            (dict(synchronized=True), (2, 4, 4, 3), "float32"),
        ],
    )
    def test_everything_else_is_left_to_keras(self, options, shape, dtype, monkeypatch):
        monkeypatch.delattr(tf.raw_ops, "FusedBatchNormV3")
        ours = layers.BatchNormalization(dtype=dtype, **options)
        theirs = keras.layers.BatchNormalization(dtype=dtype, **options)
        images = numbers(shape).astype(dtype)
        np.testing.assert_array_equal(ours(images, training=True), theirs(images, training=True))

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


class TestZeroPaddedShortcut:
    def test_equals_slicing_and_padding(self):
        images = numbers((2, 5, 6, 3))
        outputs = layers.ZeroPaddedShortcut(8, strides=2)(images)
        expected = np.pad(images[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (2, 3)))
        np.testing.assert_array_equal(outputs, expected)
        assert outputs.shape == layers.ZeroPaddedShortcut(8, 2).compute_output_shape((2, 5, 6, 3))

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
