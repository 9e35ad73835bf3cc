"""Losses by name, against other people's code, and whom they are for."""

import dataclasses

import keras
import numpy as np
import pytest
import small
import tensorflow as tf
from errors import one_line_error

from keras_resnet import data, training
from keras_resnet.detection.task import TASKS
from keras_resnet.runs import choices
from keras_resnet.training.losses import LOSSES, asymmetric, loss_of
from keras_resnet.training.recipes import OPTIMIZERS

LOGITS = tf.constant([[2.0, -3.0, 0.5], [-4.0, 1.0, -1.0]])
LABELS = tf.constant([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])

# timm 1.0's AsymmetricLossMultiLabel(gamma_pos=...) and torchvision 0.28's
# sigmoid_focal_loss(alpha=-1), of these: losses of each label, and their gradients.
THEIRS = {
    "asymmetric": (
        [[0.12692806, 0.0, 0.47407696], [0.0, 0.24586025, 1.31326163]],
        [[-0.11920296, 0.0, -0.37754065], [0.0, 0.41653395, -0.73105860]],
    ),
    "asymmetric for both": (
        [[0.01513020, 0.0, 0.17898332], [0.0, 0.24586025, 0.96007121]],
        [[-0.02753599, 0.0, -0.25394678], [0.0, 0.41653395, -0.79264963]],
    ),
    "focal": (
        [[1.80356449e-3, 1.09283224e-4, 6.75734803e-2], [5.87156364e-6, 0.70186836, 0.70186836]],
        [[-4.87094443e-3, 3.14871664e-4, -0.13793698], [1.73505195e-5, 0.76823473, -0.76823479]],
    ),
}


@pytest.mark.parametrize("name", THEIRS)
def test_are_those_of_timm_and_torchvision(name):
    losses, gradients = map(np.array, THEIRS[name])
    loss = loss_of("multilabel", name.partition(" ")[0])(None, training.Recipe(), None, False)
    if name == "asymmetric for both":
        loss = lambda labels, outputs: asymmetric(labels, outputs, positive=1.0)  # noqa: E731
    with tf.GradientTape() as tape:
        tape.watch(LOGITS)
        found = loss(LABELS, tf.sigmoid(LOGITS))  # a mean over labels, theirs are of each
    np.testing.assert_allclose(found, losses.mean(-1), rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(found, LOGITS), gradients / 3, rtol=1e-4, atol=1e-8)


# timm 1.0.31's BinaryCrossEntropy of LOGITS: fields of the recipe, labels, loss and gradients.
ONE_AGAINST_ALL = {
    "of classes": (
        {},
        [0, 2],
        0.63237756,
        [[-0.01986716, 0.00790431, 0.10374323], [0.0029977, 0.1218431, -0.1218431]],
    ),
    "of smooth classes": (
        {"label_smoothing": 0.1},
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]],
        0.67404431,
        [[-0.00875605, 0.00234876, 0.09818766], [-0.00255785, 0.11628754, -0.11073198]],
    ),
    "of mixed classes": (
        {},
        [[0.7, 0.3, 0.0], [0.0, 0.15, 0.85]],
        0.83237767,
        [[0.03013284, -0.04209569, 0.10374323], [0.0029977, 0.0968431, -0.0968431]],
    ),
    "above a threshold": (
        {"target_threshold": 0.2},
        [[0.7, 0.3, 0.0], [0.0, 0.15, 0.85]],
        1.13237751,
        [[-0.01986716, -0.15876235, 0.10374323], [0.0029977, 0.1218431, -0.1218431]],
    ),
}


@pytest.mark.parametrize("name", ONE_AGAINST_ALL)
def test_one_class_against_all_others_is_that_of_timm(name):
    changes, labels, expected, gradients = ONE_AGAINST_ALL[name]
    recipe = training.Recipe(loss="binary_cross_entropy", **changes)
    soft = isinstance(labels[0], list)
    loss = loss_of("classification", recipe.loss)(None, recipe, None, soft)
    with tf.GradientTape() as tape:
        tape.watch(LOGITS)
        found = tf.reduce_mean(loss(tf.constant(labels), keras.activations.softmax(LOGITS)))
    assert float(found) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(tape.gradient(found, LOGITS), gradients, rtol=1e-4)


def test_one_class_against_all_others_needs_a_softmax():
    recipe = training.Recipe(loss="binary_cross_entropy")
    loss = loss_of("classification", recipe.loss)(None, recipe, None, False)
    with one_line_error("loss='binary_cross_entropy' of classes needs what the model's softmax is"):
        loss(tf.constant([0, 1]), tf.constant([[0.5, 0.5], [0.1, 0.9]]))


def test_thresholds_are_for_one_class_against_all_others():
    with one_line_error("target_threshold=0.2 is for loss='binary_cross_entropy', not for loss=No"):
        training.Recipe(target_threshold=0.2)


@pytest.mark.parametrize("name", ["focal", "asymmetric", "binary_cross_entropy"])
def test_are_finite_where_a_model_is_sure(name):
    loss = loss_of("multilabel", name)(None, training.Recipe(), None, False)
    outputs = tf.constant([[0.0, 1.0, 0.0, 1.0]])
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        found = loss(tf.constant([[0.0, 0.0, 1.0, 1.0]]), outputs)
    assert np.isfinite(found).all()
    assert np.isfinite(tape.gradient(found, outputs)).all()


@pytest.mark.parametrize(
    ("change", "loss", "complaint"),
    [
        (lambda digits: digits, "asymmetric", "is for multilabel, not for classification"),
        (small.several_labels, "huber", "is for regression, not for multilabel"),
        (small.numbers, "focal", "is for classification and multilabel, not for regression"),
    ],
)
def test_of_another_task_are_refused(change, loss, complaint):
    source = change(small.digits(20, 20))
    with one_line_error(f"loss={loss!r} {complaint}"):
        training.task_of(source).objective(source, training.Recipe(loss=loss))
    with one_line_error(f"loss={loss!r} {complaint}"):
        training.task_of(source).check_options({"loss": loss})


def test_of_another_name_are_refused():
    with one_line_error("loss='hinge' must be one of None, 'cross_entropy'", "'asymmetric'"):
        training.Recipe(loss="hinge")


def test_of_detectors_are_their_own():
    with one_line_error("loss='focal' is for classification and multilabel, not for detection"):
        TASKS["detection"].check_options({"loss": "focal"})


def test_are_what_the_command_line_offers():
    assert tuple(LOSSES) == choices.LOSSES


def test_recipes_and_optimizers_are_what_the_command_line_offers():
    assert tuple(training.RECIPES) == choices.RECIPES
    assert tuple(OPTIMIZERS) == choices.OPTIMIZERS


@pytest.mark.slow
def test_of_numbers_pay_where_some_are_far_off():
    """A tenth of the training values are; the test images are as they should be."""
    source, random = small.numbers(small.digits()), np.random.default_rng(0)

    def spoilt(split):
        far_off = random.uniform(size=len(split)) < 0.1
        labels = np.where(far_off, split.labels + 20_000, split.labels)
        return data.Split(split.images, labels.astype("float32"))

    train, validation = spoilt(source.train), spoilt(source.validation)
    source = dataclasses.replace(source, train=train, validation=validation)
    errors = {}
    for loss in ("squared_error", "huber", "absolute_error"):
        model = small.regressor(source, small.LEARNS)
        recipe = training.Recipe(epochs=10, batch_size=32, learning_rate=0.8, loss=loss)
        training.train(model, source, recipe, verbose=0)
        found = model.predict(source.test.images, verbose=0)[:, 0]
        errors[loss] = np.abs(found - source.test.labels).mean()
    assert errors["huber"] < 0.7 * errors["squared_error"]
    assert errors["absolute_error"] < 0.5 * errors["huber"]
