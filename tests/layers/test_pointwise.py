"""1x1 convolutions whose filter gradient is a matrix product, switched on by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from arrays import ROUNDING, error, numbers
from onednn import needs_onednn

import keras_resnet
from keras_resnet import layers, machine
from keras_resnet.layers import pointwise


@pytest.fixture(autouse=True)
def switched_on(monkeypatch):
    monkeypatch.setenv(pointwise.SWITCH, "1")


def pair(filters, strides, dtype, shape, **options):
    """Our layer and Keras' own, with the same weights."""
    ours = layers.Conv2D(filters, 1, strides, dtype=dtype, **options)
    stock = keras.layers.Conv2D(filters, 1, strides, dtype=dtype, **options)
    for each in (ours, stock):
        each.build(shape)
    stock.set_weights([numbers(each.shape, seed=2) for each in stock.get_weights()])
    ours.set_weights(stock.get_weights())
    return ours, stock


def value_and_gradients(layer, inputs, graph):
    """The outputs, and the gradients of their weighted sum of squares."""

    def compute():
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = tf.cast(layer(inputs), "float64")
            loss = tf.reduce_sum(outputs**2 * numbers(outputs.shape, seed=1))
        return [outputs, *tape.gradient(loss, [inputs, *layer.trainable_variables])]

    return (tf.function(compute) if graph else compute)()


def operations(layer, inputs):
    """Types of the operations of a function that differentiates a layer."""

    @tf.function
    def gradient(inputs):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(layer(inputs), "float32") ** 2)
        return tape.gradient(loss, layer.trainable_variables)

    return {each.type for each in gradient.get_concrete_function(inputs).graph.get_operations()}


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("strides", [1, 2, 3, (1, 2)])
@pytest.mark.parametrize(
    ("dtype", "close"), [("float32", 1e-5), ("float64", 1e-12), ("mixed_bfloat16", 3e-2)]
)
def test_values_and_gradients_are_keras_own(dtype, close, strides, padding, graph):
    inputs = tf.constant(numbers((2, 7, 8, 20)), dtype.removeprefix("mixed_"))
    both = pair(6, strides, dtype, inputs.shape, padding=padding)
    found = [value_and_gradients(layer, inputs, graph) for layer in both]
    for ours, stock in zip(*found, strict=True):
        assert ours.dtype == stock.dtype
        assert error(ours, stock) <= close


@pytest.mark.parametrize("strides", [1, 2])
def test_gradients_are_finite_differences(strides):
    inputs = tf.constant(numbers((2, 5, 4, 3)), "float64")
    layer = pair(4, strides, "float64", inputs.shape)[0]

    def loss(kernel):
        return tf.reduce_sum(tf.sin(layer.convolution_op(inputs, kernel)))

    kernel = tf.constant(numbers((1, 1, 3, 4), seed=3), "float64")
    theory, practice = tf.test.compute_gradient(loss, [kernel], 1e-5)
    assert error(theory[0], practice[0]) <= 1e-8


def test_gradients_are_keras_own_in_xla():
    inputs = tf.constant(numbers((2, 7, 8, 20)))
    ours, stock = pair(6, 2, "float32", inputs.shape)
    compiled = tf.function(lambda: value_and_gradients(ours, inputs, False), jit_compile=True)
    for mine, theirs in zip(compiled(), value_and_gradients(stock, inputs, False), strict=True):
        assert error(mine, theirs) <= 1e-5


def test_second_derivatives_are_keras_own():
    inputs = tf.constant(numbers((2, 5, 4, 3)), "float64")

    def product(layer):
        with tf.GradientTape() as outer:
            outer.watch(inputs)
            with tf.GradientTape() as inner:
                loss = tf.reduce_sum(layer(inputs) ** 3)
            norm = tf.reduce_sum(inner.gradient(loss, layer.kernel.value) ** 2)
        return outer.gradient(norm, [inputs, layer.kernel.value])

    found = [product(layer) for layer in pair(4, 2, "float64", inputs.shape)]
    for ours, stock in zip(*found, strict=True):
        assert error(ours, stock) <= ROUNDING["float64"]


class TestChoice:
    @pytest.mark.parametrize(
        ("flags", "dtype", "product"),
        [
            ({"amx_bf16", "avx512_bf16"}, "mixed_bfloat16", True),
            ({"amx_bf16", "avx512_bf16"}, "float32", False),
            ({"avx512_bf16"}, "mixed_bfloat16", False),
            (set(), "mixed_bfloat16", False),
        ],
    )
    def test_is_made_by_the_flags_of_the_cpu(self, monkeypatch, flags, dtype, product):
        monkeypatch.delenv(pointwise.SWITCH)
        monkeypatch.setattr(pointwise, "cpu", lambda: machine.CPU("A CPU", 2, frozenset(flags)))
        pointwise._has_amx.cache_clear()
        try:
            inputs = tf.zeros((1, 4, 4, 16), dtype.removeprefix("mixed_"))
            found = operations(pair(16, 1, dtype, inputs.shape)[0], inputs)
        finally:
            pointwise._has_amx.cache_clear()
        assert ("MatMul" in found) == product
        assert ("Conv2DBackpropFilter" in found) == (not product)

    def test_may_be_never(self, monkeypatch):
        monkeypatch.setenv(pointwise.SWITCH, "0")
        monkeypatch.setattr(pointwise, "_has_amx", lambda: True)
        inputs = tf.zeros((1, 4, 4, 16), "bfloat16")
        assert "MatMul" not in operations(pair(16, 1, "bfloat16", inputs.shape)[0], inputs)

    @pytest.mark.parametrize(
        "layer",
        [
            lambda: layers.Conv2D(16, 3, padding="same"),
            lambda: layers.Conv2D(16, 1, groups=2),
            lambda: layers.GroupedConv2D(16, 1, groups=2),
        ],
        ids=["3x3", "groups", "grouped"],
    )
    def test_leaves_other_kernels_alone(self, layer):
        inputs = tf.zeros((1, 4, 4, 16))
        made = layer()
        made.build(inputs.shape)
        assert "MatMul" not in operations(made, inputs)

    def test_is_not_made_on_a_gpu(self, monkeypatch):
        monkeypatch.setattr(pointwise, "on_accelerator", lambda _: True)
        inputs = tf.zeros((1, 4, 4, 16))
        assert "MatMul" not in operations(pair(16, 1, "float32", inputs.shape)[0], inputs)

    def test_predictions_are_graphs_of_ordinary_convolutions(self):
        layer = pair(16, 1, "float32", (1, 4, 4, 16))[0]
        function = tf.function(layer).get_concrete_function(tf.TensorSpec((1, 4, 4, 16)))
        found = {each.type for each in function.graph.get_operations()}
        assert "Conv2D" in found
        assert "IdentityN" not in found


class TestModels:
    def net(self):
        keras.utils.set_random_seed(0)
        return keras_resnet.ResNet(
            (1, 1),
            filters=(8, 16),
            cardinality=4,
            base_width=16,
            input_shape=(16, 16, 3),
            classes=4,
        )

    def trained(self, policy="float32", scope=None):
        """The weights of a small model after three steps."""
        former = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            with scope or tf.distribute.get_strategy().scope():
                model = self.net()
                model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
            images, labels = numbers((8, 16, 16, 3)), np.arange(8) % 4
            model.fit(images, labels, epochs=3, batch_size=8, shuffle=False, verbose=0)
        finally:
            keras.config.set_dtype_policy(former)
        return model

    @pytest.mark.parametrize(
        ("options", "close"),
        [
            ({}, 1e-4),
            ({"policy": "mixed_bfloat16"}, 3e-2),
        ],
        ids=["float32", "mixed_bfloat16"],
    )
    def test_learn_the_same(self, monkeypatch, options, close):
        ours = self.trained(**options)
        monkeypatch.setenv(pointwise.SWITCH, "0")
        for mine, theirs in zip(
            ours.get_weights(), self.trained(**options).get_weights(), strict=True
        ):
            np.testing.assert_allclose(mine, theirs, atol=close)

    def test_learn_the_same_in_the_scope_of_a_strategy(self, monkeypatch):
        ours = self.trained(scope=tf.distribute.MirroredStrategy(["CPU:0"]).scope())
        monkeypatch.setenv(pointwise.SWITCH, "0")
        for mine, theirs in zip(ours.get_weights(), self.trained().get_weights(), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-4)

    def test_are_saved_and_loaded(self, tmp_path):
        model = self.net()
        model.save(tmp_path / "model.keras")
        model.save_weights(tmp_path / "model.weights.h5")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        kinds = {type(each) for each in loaded.layers if isinstance(each, keras.layers.Conv2D)}
        assert kinds == {layers.Conv2D, layers.GroupedConv2D}
        other = self.net()
        other.load_weights(tmp_path / "model.weights.h5")
        image = numbers((1, 16, 16, 3))
        for each in (loaded, other):
            np.testing.assert_array_equal(each(image), model(image))

    @needs_onednn  # without, grouped convolutions bring their own
    def test_exports_have_no_custom_gradients(self, tmp_path):
        self.net().export(tmp_path / "exported", verbose=False)
        function = tf.saved_model.load(tmp_path / "exported").signatures["serving_default"]
        library = function.graph.as_graph_def().library.function
        found = {node.op for each in library for node in each.node_def}
        assert "Conv2D" in found
        assert "IdentityN" not in found
