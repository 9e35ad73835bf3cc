"""What each task computes, and that all of it is learned."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import small
import tensorflow as tf
from errors import one_line_error

import keras_resnet
from keras_resnet import analysis, data, training
from keras_resnet.training.loop import training_function

RANDOM = np.random.default_rng(0)
OUTPUTS = RANDOM.uniform(0.05, 0.95, (6, 3)).astype("float32")
OUTPUTS /= OUTPUTS.sum(-1, keepdims=True)
CLASSES = np.array([0, 2, 1, 0, 1, 2])
PRESENT = RANDOM.integers(0, 2, (6, 3)).astype("float32")
VALUES = RANDOM.normal(5.0, 3.0, 6).astype("float32")


def source(task, labels):
    split = data.Split(np.zeros((6, 8, 8, 1), "uint8"), labels)
    names = ("price",) if task == "regression" else ("a", "b", "c")
    return data.Source("toy", names, 1, 8, "none", split, split, split, task=task)


def binary_cross_entropy(labels, smoothing=0.0):
    labels = labels * (1 - smoothing) + smoothing / 2
    return -(labels * np.log(OUTPUTS) + (1 - labels) * np.log(1 - OUTPUTS))


def focal(found):
    """Lin et al. 2017, equation 4, of the probability that is found of what is true."""
    return -((1 - found) ** 2) * np.log(found)


def asymmetric(labels):
    """Ridnik et al. 2021, equations 5 to 7, with their exponents and margin for MS-COCO."""
    shifted = np.maximum(OUTPUTS - 0.05, 0)
    return -labels * np.log(OUTPUTS) - (1 - labels) * shifted**4 * np.log(1 - shifted)


ERRORS = np.abs(OUTPUTS[:, 0] - VALUES) / VALUES.std()

# Task, its labels, recipe, class weights; and losses and metrics of each image in NumPy.
CASES = {
    "classes": (
        ("classification", CLASSES, {}, None),
        -np.log(OUTPUTS[range(6), CLASSES]),
        OUTPUTS.argmax(-1) == CLASSES,
    ),
    "weighted classes": (
        ("classification", CLASSES, {}, {0: 3.0, 2: 0.5}),
        -np.log(OUTPUTS[range(6), CLASSES]) * np.array([3.0, 1.0, 0.5])[CLASSES],
        OUTPUTS.argmax(-1) == CLASSES,
    ),
    "smooth classes": (
        ("classification", CLASSES, {"label_smoothing": 0.3}, None),
        -((np.eye(3)[CLASSES] * 0.7 + 0.1) * np.log(OUTPUTS)).sum(-1),
        OUTPUTS.argmax(-1) == CLASSES,
    ),
    "labels": (
        ("multilabel", PRESENT, {}, None),
        binary_cross_entropy(PRESENT).mean(-1),
        ((OUTPUTS > 0.5) == PRESENT).mean(-1),
    ),
    "weighted labels": (
        ("multilabel", PRESENT, {}, {0: 3.0, 2: 0.5}),
        (binary_cross_entropy(PRESENT) * np.where(PRESENT, [3.0, 1.0, 0.5], 1.0)).mean(-1),
        ((OUTPUTS > 0.5) == PRESENT).mean(-1),
    ),
    "smooth labels": (
        ("multilabel", PRESENT, {"label_smoothing": 0.3}, None),
        binary_cross_entropy(PRESENT, 0.3).mean(-1),
        ((OUTPUTS > 0.5) == PRESENT).mean(-1),
    ),
    "numbers": (
        ("regression", VALUES, {}, None),
        (OUTPUTS[:, 0] - VALUES) ** 2 / VALUES.var(),
        np.abs(OUTPUTS[:, 0] - VALUES),
    ),
    "focal classes": (
        ("classification", CLASSES, {"loss": "focal"}, None),
        focal(OUTPUTS[range(6), CLASSES]),
        OUTPUTS.argmax(-1) == CLASSES,
    ),
    "weighted focal classes": (
        ("classification", CLASSES, {"loss": "focal"}, {0: 3.0, 2: 0.5}),
        focal(OUTPUTS[range(6), CLASSES]) * np.array([3.0, 1.0, 0.5])[CLASSES],
        OUTPUTS.argmax(-1) == CLASSES,
    ),
    "smooth focal classes": (
        ("classification", CLASSES, {"loss": "focal", "label_smoothing": 0.3}, None),
        ((np.eye(3)[CLASSES] * 0.7 + 0.1) * focal(OUTPUTS)).sum(-1),
        OUTPUTS.argmax(-1) == CLASSES,
    ),
    "focal labels": (
        ("multilabel", PRESENT, {"loss": "focal"}, None),
        focal(np.where(PRESENT, OUTPUTS, 1 - OUTPUTS)).mean(-1),
        ((OUTPUTS > 0.5) == PRESENT).mean(-1),
    ),
    "weighted focal labels": (
        ("multilabel", PRESENT, {"loss": "focal"}, {0: 3.0, 2: 0.5}),
        (focal(np.where(PRESENT, OUTPUTS, 1 - OUTPUTS)) * np.where(PRESENT, [3, 1, 0.5], 1.0)).mean(
            -1
        ),
        ((OUTPUTS > 0.5) == PRESENT).mean(-1),
    ),
    "asymmetric labels": (
        ("multilabel", PRESENT, {"loss": "asymmetric"}, None),
        asymmetric(PRESENT).mean(-1),
        ((OUTPUTS > 0.5) == PRESENT).mean(-1),
    ),
    "weighted asymmetric labels": (
        ("multilabel", PRESENT, {"loss": "asymmetric"}, {0: 3.0, 2: 0.5}),
        (asymmetric(PRESENT) * np.where(PRESENT, [3, 1, 0.5], 1.0)).mean(-1),
        ((OUTPUTS > 0.5) == PRESENT).mean(-1),
    ),
    "smooth asymmetric labels": (
        ("multilabel", PRESENT, {"loss": "asymmetric", "label_smoothing": 0.3}, None),
        asymmetric(PRESENT * 0.7 + 0.15).mean(-1),
        ((OUTPUTS > 0.5) == PRESENT).mean(-1),
    ),
    "absolute numbers": (
        ("regression", VALUES, {"loss": "absolute_error"}, None),
        ERRORS,
        np.abs(OUTPUTS[:, 0] - VALUES),
    ),
    "huber numbers": (
        ("regression", VALUES, {"loss": "huber"}, None),
        np.where(ERRORS < 1, ERRORS**2 / 2, ERRORS - 0.5),
        np.abs(OUTPUTS[:, 0] - VALUES),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_losses_and_metrics_are_their_formulas(name):
    (task, labels, recipe, weights), losses, measured = CASES[name]
    toy = source(task, labels)
    objective = training.task_of(toy).objective(toy, training.Recipe(**recipe), weights)
    outputs = OUTPUTS[:, :1] if task == "regression" else OUTPUTS
    dataset = objective.prepare(tf.data.Dataset.from_tensor_slices((outputs, labels)).batch(6))
    ((inputs, prepared),) = dataset
    identity = lambda inputs, training: inputs  # noqa: E731
    found = objective.sums(identity, inputs, prepared, training=True).numpy()
    np.testing.assert_allclose(found, [losses.sum(), measured.sum(), 6], rtol=1e-5)
    assert objective.totals[::2] == ("loss", "images")
    plainly = name.removeprefix("weighted ").removeprefix("smooth ")
    _, plain, _ = CASES[plainly]  # or runs could not be compared
    validated = objective.sums(identity, inputs, prepared, training=False).numpy()[0]
    np.testing.assert_allclose(validated, plain.sum(), rtol=1e-5)


@pytest.mark.parametrize("name", ["weighted classes", "weighted labels", "numbers"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_follows_the_gradient_of_the_mean_loss(name, accumulation):
    """Of a Dense layer, whose gradient is known: inputs times output minus label."""
    (task, labels, recipe, weights), *_ = CASES[name]
    toy = source(task, labels)
    task = training.task_of(toy)
    inputs = np.random.default_rng(1).normal(size=(6, 4)).astype("float32")
    units = len(toy.class_names)
    layer = keras.layers.Dense(units, task.activation, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((4,)), layer])
    model.compile(keras.optimizers.SGD(1.0), *task.compiled[:1], jit_compile=False)
    objective = task.objective(toy, training.Recipe(**recipe), weights)
    step = training_function(model, objective, accumulation=accumulation)
    batch = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(6)
    step(iter(batch), tf.constant(0.0), 1)
    if task.name == "classification":
        errors = (1 / 3 - np.eye(3)[labels]) * np.array([3.0, 1.0, 0.5])[labels][:, None]
    elif task.name == "multilabel":
        errors = (0.5 - labels) * np.where(labels, [3.0, 1.0, 0.5], 1.0) / 3
    else:
        errors = (0 - labels)[:, None] * 2 / labels.var()
    np.testing.assert_allclose(layer.kernel, -inputs.T @ errors / 6, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def labelled():
    return small.several_labels(small.digits())


@pytest.fixture(scope="module")
def priced():
    return small.numbers(small.digits())


class TestLearning:
    def test_several_labels(self, labelled, capsys):
        model = small.model(3, "sigmoid", small.LEARNS)
        recipe = training.Recipe(epochs=12, batch_size=32, learning_rate=0.8, label_smoothing=0.02)
        result = training.train(model, labelled, recipe, image_size=8, verbose=2)
        assert set(result.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
        assert result.history["loss"][-1] < 0.5 * result.history["loss"][0]
        assert ", accuracy 0." in capsys.readouterr().out
        batches = data.batches(labelled.test, image_size=8, channels=1)
        quality = analysis.evaluate(model, batches, labelled.class_names, labelled.task)
        assert quality.headline[1] > 0.9
        _, accuracy = model.evaluate(batches, verbose=0)
        assert accuracy == pytest.approx(
            np.mean((quality.probabilities > 0.5) == quality.labels), abs=1e-5
        )

    def test_numbers_of_any_unit(self, priced, capsys):
        model = small.regressor(priced, small.LEARNS)
        recipe = training.Recipe(epochs=12, batch_size=32, learning_rate=0.8)
        result = training.train(model, priced, recipe, image_size=8, verbose=2)
        assert result.history["loss"][-1] < 0.5 * result.history["loss"][0]
        # In units of the variance: what predicting the mean would cost.
        assert result.history["loss"][0] < 5
        assert ", mean_absolute_error " in capsys.readouterr().out
        assert result.history["val_mean_absolute_error"][-1] < 100
        batches = data.batches(priced.test, image_size=8, channels=1)
        quality = analysis.evaluate(model, batches, priced.class_names, priced.task)
        assert quality.headline[1] > 0.6

    def test_of_numbers_begins_at_their_mean(self, priced):
        model = small.regressor(priced)
        model.get_layer("standardized").kernel.assign(0 * model.get_layer("standardized").kernel)
        found = model.predict(priced.test.images[:2], verbose=0)
        np.testing.assert_allclose(found, priced.train.labels.mean(), rtol=1e-5)

    def test_several_numbers(self, priced):
        both = {
            name: data.Split(split.images, np.stack([split.labels, -split.labels / 100], -1))
            for name, split in priced.splits.items()
        }
        two = dataclasses.replace(priced, class_names=("price", "debt"), **both)
        model = small.regressor(two)
        result = training.train(model, two, training.Recipe(epochs=1), verbose=0)
        assert result.history["loss"][0] < 5
        means = model.predict(two.test.images, verbose=0).mean(0)
        assert means[0] == pytest.approx(1225, rel=0.2)
        assert means[1] == pytest.approx(-12.25, rel=0.2)

    def test_mixed_labels(self, labelled, priced):
        recipe = training.Recipe(epochs=1, mixup=0.2)
        for source, model in (
            (labelled, small.model(3, "sigmoid")),
            (priced, small.regressor(priced)),
        ):
            history = training.train(model, source, recipe, verbose=0).history
            assert np.isfinite(history["loss"]).all()

    def test_rare_labels_may_count_more(self, labelled):
        """With such a weight, missing a label is worse than inventing it."""
        model = small.model(3, "sigmoid", small.LEARNS)
        recipe = training.Recipe(epochs=4, batch_size=32, learning_rate=0.4)
        training.train(model, labelled, recipe, class_weight={1: 1000.0}, verbose=0)
        found = model.predict(labelled.test.images, verbose=0)
        assert found[:, 1].min() > 0.5 > found[:, 2].min()


class TestCheck:
    digits = small.digits(20, 20)

    def head(self, *layers):
        backbone = small.model(include_top=False, pooling="avg")
        return keras.Sequential([backbone.input, backbone, *layers], name="net")

    def test_heads_of_several_layers_are_classifiers(self):
        layers = keras.layers
        model = self.head(
            layers.Dense(16, "relu"), layers.BatchNormalization(), layers.Dense(10, "softmax")
        )
        result = training.train(model, self.digits, training.Recipe(epochs=1), verbose=0)
        assert len(result.history["loss"]) == 1

    def test_a_nested_classifier_is_a_classifier(self):
        inner = small.model()
        image = keras.Input((8, 8, 1))
        model = keras.Model(image, keras.layers.Activation("linear")(inner(image)))
        before = inner.get_weights()
        training.train(model, self.digits, training.Recipe(epochs=1), verbose=0)
        assert any((a != b).any() for a, b in zip(before, inner.get_weights(), strict=True))

    @pytest.mark.parametrize(
        ("task", "head", "advice"),
        [
            ("classification", ("logits", None), "classifier_activation='softmax'"),
            ("classification", ("predictions", "sigmoid"), "classifier_activation='softmax'"),
            ("multilabel", ("predictions", "softmax"), "classifier_activation='sigmoid'"),
            ("multilabel", ("logits", None), "classifier_activation='sigmoid'"),
            ("regression", ("predictions", "softmax"), "keras_resnet.transfer.model_for"),
        ],
    )
    def test_outputs_of_another_kind_are_refused_with_advice(self, task, head, advice):
        name, activation = head
        found = {
            "classification": self.digits,
            "multilabel": small.several_labels(self.digits),
            "regression": small.numbers(self.digits),
        }[task]
        units = len(found.class_names)
        model = self.head(keras.layers.Dense(max(units, 2), activation, name=name))
        if units == 1:
            model = self.head(keras.layers.Dense(1, "sigmoid"))
        with one_line_error("net gives no", advice):
            training.train(model, found, verbose=0)

    def test_a_linear_output_is_a_number(self):
        model = self.head(keras.layers.Dense(1))
        recipe = training.Recipe(epochs=1)
        assert training.train(model, small.numbers(self.digits), recipe, verbose=0).best_epoch == 1

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            (small.several_labels, "has 10 outputs, digits has 3 labels: build the model with"),
            (small.numbers, "has 10 outputs, digits has 1 number: build the model with"),
        ],
    )
    def test_another_number_of_outputs_is_refused(self, change, complaint):
        with one_line_error(complaint):
            training.train(small.model(), change(self.digits), verbose=0)

    def test_normalized_images_are_refused_at_any_depth(self):
        inner = keras_resnet.ResNet18(weights=None, classes=10, input_shape=(32, 32, 3))
        image = keras.Input((32, 32, 3))
        with one_line_error("takes images that are normalized as 'torch', and a source's are raw"):
            training.train(keras.Model(image, inner(image)), self.digits, verbose=0)


def test_weights_are_for_classes_and_labels():
    digits = small.digits(20, 20)
    with one_line_error("class_weight has [10, '3']: classes are the numbers from 0 to 9"):
        training.train(small.model(), digits, class_weight={1: 2.0, 10: 1.0, "3": 1.0})
    with one_line_error("class_weight has [3]: labels are the numbers from 0 to 2"):
        training.train(
            small.model(3, "sigmoid"), small.several_labels(digits), class_weight={3: 1.0}
        )
    priced = small.numbers(digits)
    with one_line_error("class_weight={0: 2.0} is for classes and labels; digits has numbers"):
        training.train(small.regressor(priced), priced, class_weight={0: 2.0})


def test_numbers_that_are_all_the_same_are_refused():
    same = small.with_labels(small.digits(20, 20), "regression", ("n",), lambda digits: 0 * digits)
    with one_line_error("'digits': all training images have the same value"):
        small.regressor(same)


def test_a_run_does_not_go_on_as_another_task(tmp_path):
    digits = small.digits(20, 20)
    recipe, options = training.Recipe(epochs=1), dict(checkpoints=tmp_path, verbose=0)
    training.train(small.model(3, "sigmoid"), small.several_labels(digits), recipe, **options)
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["task"] == "multilabel"
    with one_line_error("holds an interrupted run with other settings", "task was 'multilabel'"):
        training.train(small.model(), digits, recipe, **options)
