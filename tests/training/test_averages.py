import keras
import numpy as np
import small

from keras_resnet import training
from keras_resnet.training.averages import WeightAverage


def test_follows_quickly_at_first():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    (weight,) = model.trainable_variables
    average, expected = WeightAverage(model, momentum=0.5), weight.numpy()
    for step in range(1, 20):
        weight.assign(weight + 1.0)
        average.follow(step)
        momentum = min(0.5, step / (step + 9))
        expected = momentum * expected + (1 - momentum) * weight.numpy()
    last = weight.numpy()
    with average.swapped():
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(weight.numpy(), last)


def test_is_of_weights_and_of_statistics(digits):
    """Weights of many steps ago are not normalized by the statistics of the last ones."""
    seen = []

    class See(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(self.model.get_weights())

    model = small.model()
    expected = model.get_weights()
    recipe = training.Recipe(epochs=1, batch_size=32, learning_rate=0.2, ema=0.8)
    training.train(model, digits, recipe, image_size=8, callbacks=[See()], verbose=0)
    assert len(seen) == 10
    for step, weights in enumerate(seen, start=1):
        part = 1 - min(0.8, step / (step + 9))
        expected = [old + part * (new - old) for old, new in zip(expected, weights, strict=True)]
    names = [variable.path for variable in model.weights]
    for name, found, value in zip(names, model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5, err_msg=name)
