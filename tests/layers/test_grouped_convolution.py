import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import onednn
import pytest
import tensorflow as tf
from arrays import ROUNDING, error, numbers
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from keras_resnet import layers

# TensorFlow has gradients of groups in float32 and bfloat16 where it has oneDNN, as on most
# machines, and on none in float64: there the layer brings its own.
both_gradients = pytest.mark.parametrize("dtype", ["float32", "float64"])


def sides_of(padding):
    """((top, bottom), (left, right)) of what an explicit padding adds."""
    return ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding


def textbook(inputs, kernel, groups, strides, padding, dilation=(1, 1)):
    """A grouped convolution as sums of products over patches, without a convolution kernel.

    TensorFlow's own convolutions are no reference: some are wrong where strides differ.
    """
    if not isinstance(padding, str):
        inputs = tf.pad(inputs, [(0, 0), *sides_of(padding), (0, 0)])
        padding = "valid"
    height, width, channels, filters = kernel.shape
    patches = tf.image.extract_patches(
        inputs, (1, height, width, 1), (1, *strides, 1), (1, *dilation, 1), padding.upper()
    )
    patches = tf.reshape(patches, (*patches.shape[:3], height, width, groups, channels))
    kernel = tf.reshape(kernel, (height, width, channels, groups, filters // groups))
    outputs = tf.einsum("nyxhwgc,hwcgf->nyxgf", patches, kernel)
    return tf.reshape(outputs, (*outputs.shape[:3], filters))


def value_and_gradients(convolve, *arguments):
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        outputs = convolve(*arguments)
        weights = numbers(outputs.shape, seed=1)
        loss = tf.reduce_sum(tf.cast(outputs, "float64") * weights)
    return [outputs, *tape.gradient(loss, arguments)]


def hessian_vector_product(convolve, *arguments):
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(arguments)
        with tf.GradientTape() as inner:
            inner.watch(arguments)
            loss = tf.reduce_sum(convolve(*arguments) ** 3)
        gradients = inner.gradient(loss, arguments)
        norm = sum(tf.reduce_sum(gradient**2) for gradient in gradients)
    return outer.gradient(norm, arguments)


def train_grouped_net(policy="float32"):
    """Weights of a small net after three steps, and what it predicts with them."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((9, 8, 8)),
            layers.GroupedConv2D(16, 3, 2, "same", groups=4, use_bias=False, dtype=policy),
            layers.BatchNormalization(momentum=0.5, dtype=policy),
            layers.GroupedConv2D(16, (2, 3), groups=8, dtype=policy),
            layers.GroupedConv2D(16, 3, padding=2, dilation_rate=2, groups=4, dtype=policy),
            keras.layers.GlobalAveragePooling2D(dtype="float32"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.05), "mse")
    images = numbers((6, 9, 8, 8))
    model.fit(images, numbers((6, 16), seed=1), epochs=3, shuffle=False, verbose=0)
    return [*model.get_weights(), model.predict(images, verbose=0)]


class TestValuesAndGradients:
    @settings(max_examples=120, deadline=None)
    @given(
        groups=st.integers(1, 6),
        channels_per_group=st.integers(1, 9),
        filters_per_group=st.integers(1, 5),
        size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
        kernel_size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
        strides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
        padding=st.one_of(
            st.sampled_from(["valid", "same"]),
            st.integers(0, 2),
            st.tuples(
                st.tuples(st.integers(0, 3), st.integers(0, 3)),
                st.tuples(st.integers(0, 3), st.integers(0, 3)),
            ),
        ),
        dtype=st.sampled_from(["float32", "bfloat16", "float64"]),
        graph=st.booleans(),
    )
    @example(2, 1, 1, (5, 5), (1, 3), (1, 3), "valid", "float32", False)
    @example(2, 1, 1, (5, 5), (1, 3), (1, 3), "valid", "float64", False)
    # What oneDNN gets wrong on CPUs with AMX.
    @example(2, 1, 1, (5, 2), (1, 2), (1, 2), "valid", "bfloat16", False)
    @example(2, 1, 1, (5, 2), (1, 2), (1, 2), "same", "bfloat16", True)
    @example(1, 1, 1, (5, 2), (1, 2), (1, 2), "valid", "bfloat16", False)
    def test_are_those_of_the_textbook(
        self,
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
            pads = sides_of(0 if padding == "valid" else padding)
            assume(np.all(np.add(size, np.sum(pads, 1)) >= kernel_size))
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
        kernel = tf.convert_to_tensor(layer.kernel.value)

        def ours(inputs, kernel):
            return value_and_gradients(layer.convolution_op, inputs, kernel)

        results = (tf.function(ours) if graph else ours)(inputs, kernel)
        expected = value_and_gradients(
            lambda inputs, kernel: textbook(inputs, kernel, groups, strides, padding),
            *(tf.cast(tensor, "float64") for tensor in (inputs, kernel)),
        )
        assert results[0].shape == layer.compute_output_shape(inputs.shape)
        for result, tensor in zip(results, expected, strict=True):
            assert result.dtype == dtype
            scale = max(1.0, np.abs(tensor).max())
            np.testing.assert_allclose(
                tf.cast(result, "float64"), tensor, rtol=0, atol=ROUNDING[dtype] * scale
            )

    @settings(max_examples=40, deadline=None)
    @given(
        groups=st.sampled_from([1, 3, 4]),
        channels_per_group=st.sampled_from([1, 2, 8]),
        size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
        kernel_size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
        dilation=st.tuples(st.integers(1, 4), st.integers(1, 4)),
        padding=st.sampled_from(["valid", "same", 1, ((2, 0), (3, 4))]),
        dtype=st.sampled_from(["float32", "bfloat16", "float64"]),
        graph=st.booleans(),
    )
    @example(4, 2, (2, 1), (3, 3), (4, 4), "same", "float32", False)
    @example(4, 2, (9, 8), (3, 3), (2, 2), "same", "float64", True)
    def test_of_dilated_convolutions_are_those_of_the_textbook(
        self, groups, channels_per_group, size, kernel_size, dilation, padding, dtype, graph
    ):
        if padding != "same":
            pads = sides_of(0 if padding == "valid" else padding)
            reach = np.subtract(kernel_size, 1) * dilation + 1
            assume(np.all(np.add(size, np.sum(pads, 1)) >= reach))
        layer = layers.GroupedConv2D(
            groups * 2,
            kernel_size,
            padding=padding,
            dilation_rate=dilation,
            groups=groups,
            use_bias=False,
            dtype=dtype,
        )
        inputs = tf.cast(numbers((2, *size, groups * channels_per_group)), dtype)
        layer.build(inputs.shape)
        kernel = tf.convert_to_tensor(layer.kernel.value)

        def ours(inputs, kernel):
            return value_and_gradients(layer.convolution_op, inputs, kernel)

        results = (tf.function(ours) if graph else ours)(inputs, kernel)
        expected = value_and_gradients(
            lambda inputs, kernel: textbook(inputs, kernel, groups, (1, 1), padding, dilation),
            *(tf.cast(tensor, "float64") for tensor in (inputs, kernel)),
        )
        assert results[0].shape == layer.compute_output_shape(inputs.shape)
        for result, tensor in zip(results, expected, strict=True):
            assert result.dtype == dtype
            scale = max(1.0, np.abs(tensor).max())
            np.testing.assert_allclose(
                tf.cast(result, "float64"), tensor, rtol=0, atol=ROUNDING[dtype] * scale
            )

    @both_gradients
    def test_of_a_dilated_convolution_are_those_of_one_convolution_a_group(self, dtype):
        options = {"padding": "same", "dilation_rate": 2, "use_bias": False, "dtype": dtype}
        layer = layers.GroupedConv2D(12, 3, groups=4, **options)
        images = numbers((2, 7, 8, 8)).astype(dtype)
        outputs = np.split(layer(images), 4, -1)
        single = keras.layers.Conv2D(3, 3, **options)
        single.build((None, 7, 8, 2))
        for group, kernel in enumerate(np.split(layer.kernel, 4, -1)):
            single.set_weights([kernel])
            expected = single(images[..., 2 * group : 2 * group + 2])
            assert error(outputs[group], expected) < ROUNDING[dtype]

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
    def test_taps_that_see_only_padding_have_no_gradient(self, dtype):
        # oneDNN leaves theirs as it finds the memory, in bfloat16 where it pads itself.
        layer = layers.GroupedConv2D(16, 3, 2, "same", groups=4, use_bias=False, dtype=dtype)
        inputs = tf.ones((2, 1, 1, 16), dtype)
        layer.build(inputs.shape)
        for _ in range(20):
            tf.fill(layer.kernel.shape, tf.constant(7, dtype))  # memory to find
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(layer(inputs))
            gradient = np.array(tape.gradient(loss, layer.kernel.value), "float32")
            assert np.all(gradient[1, 1] == 2)
            gradient[1, 1] = 0
            assert not gradient.any()

    @pytest.mark.parametrize(("strides", "padding"), [(1, "same"), (2, 1), ((3, 2), "same")])
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
    @pytest.mark.parametrize("strides", [(2, 2), (1, 2), (4, 2)])
    def test_second_derivatives_are_right(self, dtype, strides):
        inputs = tf.constant(numbers((1, 5, 6, 8)), dtype)
        kernel = tf.constant(numbers((3, 3, 2, 8), seed=1), dtype)
        layer = layers.GroupedConv2D(8, 3, strides, groups=4, dtype=dtype)
        ours = hessian_vector_product(layer.convolution_op, inputs, kernel)
        theirs = hessian_vector_product(
            lambda i, k: textbook(i, k, 4, strides, "valid"), inputs, kernel
        )
        for our_gradient, their_gradient in zip(ours, theirs, strict=True):
            assert error(our_gradient, their_gradient) < 10 * ROUNDING[dtype]

    def test_jacobians_are_right(self):
        # In float64, as TensorFlow's own gradients of groups go wrong in its vectorized loops.
        inputs = tf.constant(numbers((2, 5, 5, 8)), "float64")
        kernel = tf.constant(numbers((3, 3, 2, 8), seed=1), "float64")

        def jacobians(convolve):
            with tf.GradientTape(persistent=True) as tape:
                tape.watch([inputs, kernel])
                outputs = convolve(inputs, kernel)
            return [tape.jacobian(outputs, inputs), tape.jacobian(outputs, kernel)]

        layer = layers.GroupedConv2D(8, 3, 2, groups=4, dtype="float64")
        ours = jacobians(layer.convolution_op)
        theirs = jacobians(lambda i, k: textbook(i, k, 4, (2, 2), "valid"))
        for our_jacobian, their_jacobian in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(our_jacobian, their_jacobian, atol=1e-10)

    def test_in_half_precision_are_close(self):
        inputs = tf.constant(numbers((4, 8, 8, 32)))
        kernel = tf.constant(numbers((3, 3, 4, 32), seed=1))

        def results(dtype):
            layer = layers.GroupedConv2D(32, 3, padding="same", groups=8, dtype=dtype)
            return value_and_gradients(
                layer.convolution_op, tf.cast(inputs, dtype), tf.cast(kernel, dtype)
            )

        for exact, half in zip(results("float32"), results("bfloat16"), strict=True):
            # Without oneDNN, sums are in bfloat16, too.
            assert error(half, exact) < (0.02 if onednn.IS_ON else 0.04)


class TestUnequalStrides:
    """On CPUs with AMX TensorFlow computes them wrong; elsewhere only the graph can tell."""

    @pytest.mark.parametrize("groups", [1, 4])
    @pytest.mark.parametrize("strides", [(1, 2), (4, 2), (3, 1)])
    @pytest.mark.parametrize("padding", ["valid", "same", ((0, 1), (2, 0))])
    @pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
    def test_reach_no_convolution(self, groups, strides, padding, dtype):
        layer = layers.GroupedConv2D(8, (1, 2), strides, padding, groups=groups, dtype=dtype)
        layer.build((None, 9, 8, 8))

        @tf.function
        def derivatives(inputs, kernel):
            return (
                value_and_gradients(layer.convolution_op, inputs, kernel),
                hessian_vector_product(layer.convolution_op, inputs, kernel),
            )

        traced = derivatives.get_concrete_function(
            tf.TensorSpec((2, 9, 8, 8), dtype), tf.TensorSpec(layer.kernel.shape, dtype)
        )
        graph = traced.graph.as_graph_def()
        nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
        convolutions = [node for node in nodes if "Conv" in node.op]
        assert {node.op for node in convolutions} >= {"Conv2D", "Conv2DBackpropFilter"}
        for node in convolutions:
            _, down, across, _ = node.attr["strides"].list.i
            assert down == across, node

    @pytest.mark.parametrize("groups", [1, 4])
    def test_train_and_export(self, tmp_path, groups):
        inputs = keras.Input((None, None, 8))
        x = layers.GroupedConv2D(8, (1, 2), (1, 2), "same", groups=groups)(inputs)
        model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
        model.compile("sgd", "mse")
        images = numbers((6, 5, 2, 8))
        history = model.fit(images, numbers((6, 8)), epochs=3, verbose=0)
        assert history.history["loss"][-1] < history.history["loss"][0]
        model.export(tmp_path / "exported", verbose=False)
        served = tf.saved_model.load(tmp_path / "exported")
        np.testing.assert_allclose(served.serve(images), model(images), atol=1e-6)


class TestModels:
    def test_train_alike_without_onednn(self, tmp_path):
        script = (
            "import sys, numpy, test_grouped_convolution as tests\n"
            "numpy.savez(sys.argv[1], *tests.train_grouped_net())\n"
            "numpy.savez(sys.argv[2], *tests.train_grouped_net('mixed_bfloat16'))"
        )
        path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
        files = [tmp_path / "float32.npz", tmp_path / "bfloat16.npz"]
        subprocess.run(
            [sys.executable, "-c", script, *files],
            env={**os.environ, "PYTHONPATH": path, "TF_ENABLE_ONEDNN_OPTS": "0"},
            check=True,
        )
        exact, half = map(np.load, files)
        for name, expected in zip(exact, train_grouped_net(), strict=True):
            np.testing.assert_allclose(exact[name], expected, atol=1e-5)
            np.testing.assert_allclose(half[name], expected, atol=0.03)

    @pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
    def test_train_on_images_of_any_size(self, policy):
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

    @pytest.mark.parametrize("dilation", [1, 2])
    def test_use_no_xla(self, dilation):
        layer = layers.GroupedConv2D(16, 3, groups=4, dilation_rate=dilation)
        layer.build((None, 8, 8, 16))

        @tf.function
        def step(inputs):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(layer(inputs))
            return tape.gradient(loss, layer.kernel.value)

        graph = step.get_concrete_function(tf.TensorSpec((None, 8, 8, 16))).graph.as_graph_def()
        assert "_XlaMustCompile" not in str(graph)

    @pytest.mark.parametrize("padding", ["same", 1, ((0, 1), (2, 0))])
    def test_survive_saving(self, tmp_path, padding):
        inputs = keras.Input((9, 9, 8))
        outputs = layers.GroupedConv2D(16, 3, 2, padding, groups=4, activation="relu")(inputs)
        model = keras.Model(inputs, outputs)
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        images = numbers((2, 9, 9, 8))
        np.testing.assert_array_equal(model(images), again(images))


class TestArguments:
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
            (dict(groups=4, strides=2, dilation_rate=2), "`strides > 1` not supported"),
        ],
    )
    def test_that_are_wrong_are_refused(self, options, complaint):
        with pytest.raises(ValueError, match=complaint):
            layers.GroupedConv2D(**{"filters": 8, "kernel_size": 3, **options})
