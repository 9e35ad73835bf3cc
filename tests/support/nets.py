"""Small models for tests of training and transfer, and what changed in them."""

import keras

import keras_resnet
from keras_resnet import training

QUICK = training.Recipe(epochs=2, batch_size=128, learning_rate=0.4)


def small_net(**options):
    keras.utils.set_random_seed(0)
    usual = {"depth": 8, "input_shape": (8, 8, 1), "include_preprocessing": True}
    return keras_resnet.CIFARResNet(**{**usual, **options})


def three_layers(units=10):
    """A head that is longer than a builder's."""
    return [
        keras.layers.Dense(12, "relu", name="hidden"),
        keras.layers.BatchNormalization(name="hidden_norm"),
        keras.layers.Dense(units, "softmax", name="classes"),
    ]


def nested_net(head=None):
    """A classifier that calls its backbone as one layer, as Keras' guides do."""
    x = inputs = keras.Input((8, 8, 1))
    head = [keras.layers.Dense(10, "softmax", name="predictions")] if head is None else head
    for layer in (small_net(include_top=False, pooling="avg"), *head):
        x = layer(x)
    return keras.Model(inputs, x)


def snapshot(model):
    return {weight.path: weight.numpy() for weight in model.weights}


def changed(before, after):
    """Names of the layers whose weights differ."""
    paths = [path for path in before if (before[path] != after[path]).any()]
    return {path.partition("/")[0] for path in paths}
