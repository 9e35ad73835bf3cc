import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_resnet import data, training
from keras_resnet.training.loop import training_function, validation_function


def objective(class_weight=None, mixed=False, **recipe):
    """Classification of four classes."""
    blank = data.Split(np.zeros((4, 1, 1, 1), "uint8"), np.arange(4))
    source = data.Source("four", tuple("abcd"), 1, 1, "none", blank, blank, blank)
    return training.task_of(source).objective(
        source, training.Recipe(**recipe), class_weight, mixed=mixed
    )


def net(**options):
    """Without BatchNormalization: what images have in common with others does not matter."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    x = keras.layers.Dense(5, "relu", **options)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(4, "softmax")(x))
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture(scope="module")
def batches():
    random = np.random.default_rng(0)
    return [
        (random.normal(size=(count, 3)).astype("float32"), random.integers(0, 4, count))
        for count in (8, 8, 5)
    ]


def iterator(batches):
    signature = (tf.TensorSpec((None, 3)), tf.TensorSpec((None,), "int64"))
    return iter(tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=signature))


def train(batches, model, learned=None, **options):
    step = training_function(model, learned or objective(), **options)
    found = iterator(batches)
    return np.concatenate([step(found, tf.constant(0.0), 1) for _ in batches])


def test_is_what_keras_does(batches):
    ours, theirs = net(kernel_regularizer="l2"), net(kernel_regularizer="l2")
    train(batches, ours)
    for images, labels in batches:
        theirs.train_on_batch(images, labels)
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6)


def test_class_weights_are_what_they_are_in_keras(batches):
    weights = {0: 2.0, 2: 0.1}
    ours, theirs = net(), net()
    train(batches, ours, objective(class_weight=weights))
    for images, labels in batches:
        theirs.train_on_batch(images, labels, class_weight={1: 1.0, 3: 1.0, **weights})
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6)


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_parts_of_a_batch_are_the_batch(batches, parts):
    whole, in_parts = net(kernel_regularizer="l2"), net(kernel_regularizer="l2")
    totals = train(batches, whole)
    np.testing.assert_allclose(train(batches, in_parts, accumulation=parts), totals, rtol=1e-5)
    for mine, other in zip(whole.get_weights(), in_parts.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6)


def test_several_steps_at_once_are_the_same_steps(batches):
    one_by_one, at_once = net(), net()
    totals = train(batches, one_by_one)
    step = training_function(at_once, objective())
    np.testing.assert_allclose(step(iterator(batches), tf.constant(0.0), 3), totals, rtol=1e-6)
    for mine, other in zip(one_by_one.get_weights(), at_once.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-7)


def test_totals_are_sums_over_images(batches):
    model = net()
    ask = validation_function(model, objective())
    found = iterator(batches)
    for images, labels in batches:
        ((loss, right, count, stop),) = ask(found, tf.constant(1.0), 1).numpy()
        probabilities = model.predict(images, verbose=0)
        chosen = probabilities[np.arange(len(labels)), labels]
        assert loss == pytest.approx(-np.log(chosen).sum(), rel=1e-5)
        assert right == (probabilities.argmax(-1) == labels).sum()
        assert (count, stop) == (len(labels), 1)


def test_labels_may_be_probabilities(batches):
    ours, theirs = net(), net()
    soft = [(images, np.eye(4, dtype="float32")[labels]) for images, labels in batches]
    signature = (tf.TensorSpec((None, 3)), tf.TensorSpec((None, 4)))
    found = iter(tf.data.Dataset.from_generator(lambda: iter(soft), output_signature=signature))
    step = training_function(ours, objective(mixed=True, label_smoothing=0.2))
    for _ in soft:
        step(found, tf.constant(0.0), 1)
    theirs.compile(
        keras.optimizers.SGD(0.5),
        keras.losses.CategoricalCrossentropy(label_smoothing=0.2),
        jit_compile=False,
    )
    for images, labels in soft:
        theirs.train_on_batch(images, labels)
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6)
