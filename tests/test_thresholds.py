"""From which probability on a label is present: said by the model, and obeyed by all that ask."""

import csv
import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import small
import tensorflow as tf
from errors import one_line_error

from keras_resnet import analysis, export, graphs, training
from keras_resnet.layers import Thresholds

NAMES, THRESHOLDS = ("odd", "small", "round"), (0.2, 0.4, 0.7)
IMAGES = np.random.default_rng(0).uniform(0, 16, (40, 8, 8, 1)).astype("float32")


@pytest.fixture(scope="module")
def model():
    """Of three labels, whose probabilities are all over the place."""
    found = small.model(3, "sigmoid")
    layer = found.get_layer("predictions")
    layer.kernel.assign(40 * layer.kernel)
    outputs = found.predict(IMAGES, verbose=0)
    logits = np.log(outputs / (1 - outputs))
    layer.kernel.assign(layer.kernel / logits.std(0))
    layer.bias.assign(-logits.mean(0) / logits.std(0))
    return found


@pytest.fixture(scope="module")
def decided(model):
    return graphs.with_thresholds(model, THRESHOLDS)


@pytest.fixture(scope="module")
def probabilities(model):
    found = model.predict(IMAGES, verbose=0)
    assert (found.min(0) < 0.2).all()
    assert (found.max(0) > 0.7).all()
    return found


class TestModels:
    def test_give_the_same_probabilities(self, decided, probabilities):
        np.testing.assert_array_equal(decided.predict(IMAGES, verbose=0), probabilities)

    def test_say_nothing_or_what_they_were_told(self, model, decided):
        assert graphs.thresholds_of(model) is None
        assert graphs.thresholds_of(decided) == THRESHOLDS
        assert graphs.thresholds_of(graphs.with_thresholds(model, 0.3)) == (0.3, 0.3, 0.3)

    def test_are_told_again(self, decided):
        again = graphs.with_thresholds(decided, (0.1, 0.2, 0.3))
        assert graphs.thresholds_of(again) == (0.1, 0.2, 0.3)
        assert sum(isinstance(layer, Thresholds) for layer in again.layers) == 1

    def test_are_rid_of_them(self, decided, probabilities):
        rid = graphs.with_thresholds(decided, None)
        assert graphs.thresholds_of(rid) is None
        np.testing.assert_array_equal(rid.predict(IMAGES, verbose=0), probabilities)

    def test_keep_them_when_saved_cloned_and_nested(self, decided, tmp_path):
        decided.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        image = keras.Input((8, 8, 1))
        for each in (
            loaded,
            keras.models.clone_model(decided),
            keras.Model(image, keras.layers.Activation("linear")(decided(image))),
        ):
            assert graphs.thresholds_of(each) == THRESHOLDS

    def test_are_compiled_if_they_were(self, model, probabilities):
        compiled = keras.models.clone_model(model)
        compiled.set_weights(model.get_weights())
        compiled.compile("sgd", "binary_crossentropy", metrics=["binary_accuracy"])
        decided = graphs.with_thresholds(compiled, 0.3)
        labels = (probabilities > 0.5).astype("float32")
        assert decided.evaluate(IMAGES, labels, verbose=0) == pytest.approx(
            compiled.evaluate(IMAGES, labels, verbose=0)
        )
        decided.fit(IMAGES, labels, verbose=0)

    def test_are_heads_as_before(self, model, decided):
        was, head = graphs.head_of(model), graphs.head_of(decided)
        assert (head.output, head.units) == (was.output, was.units) == ("multilabel", 3)
        assert len(graphs.whole_head_of(decided)) == len(graphs.whole_head_of(model)) + 1
        np.testing.assert_array_equal(
            graphs.extractor_of(decided).predict(IMAGES, verbose=0),
            graphs.extractor_of(model).predict(IMAGES, verbose=0),
        )

    def test_of_one_label_choose_between_no_two_classes(self):
        single = small.model(1, "sigmoid")
        assert graphs.task_of_outputs(graphs.head_of(single), None) == "classification"
        head = graphs.head_of(graphs.with_thresholds(single, 0.3))
        assert graphs.task_of_outputs(head, None) == "multilabel"
        assert graphs.answer_of(head, "classification") is None

    @pytest.mark.parametrize(
        ("thresholds", "complaint"),
        [
            (2, "threshold=2 must be at least 0 and at most 1"),
            ((0.5, -0.1, 0.5), "threshold=-0.1 must be at least 0 and at most 1"),
            ((0.5, float("nan"), 0.5), "threshold=nan must be a number of at least 0"),
            ((0.5, 0.5), "2 came for the 3 labels of the model: give one for each"),
        ],
    )
    def test_refuse_what_is_none(self, model, thresholds, complaint):
        with one_line_error(complaint):
            graphs.with_thresholds(model, thresholds)

    def test_of_classes_have_none(self):
        with one_line_error("thresholds=0.3 are for models that give a probability of each label"):
            graphs.with_thresholds(small.model(), 0.3)


def batches(labels):
    return tf.data.Dataset.from_tensor_slices((IMAGES, labels)).batch(16)


class TestEvaluation:
    def test_goes_by_them(self, decided, probabilities):
        labels = np.random.default_rng(1).integers(0, 2, probabilities.shape).astype("float32")
        names = ("a", "b", "c")
        quality = analysis.evaluate(decided, batches(labels), names, "multilabel")
        expected = probabilities > np.array(THRESHOLDS)
        assert (expected != (probabilities > 0.5)).any()
        np.testing.assert_array_equal(quality.predictions, expected)
        assert quality.accuracy == (expected == labels).all(-1).mean()
        for index, (name, scores) in enumerate(quality.per_label().items()):
            right = (expected[:, index] * labels[:, index]).sum()
            assert scores["precision"] == pytest.approx(right / expected[:, index].sum())
            assert scores["recall"] == pytest.approx(right / labels[:, index].sum())
            assert (name, scores["threshold"]) == (names[index], THRESHOLDS[index])

    def test_without_is_as_before(self, model, probabilities):
        labels = (probabilities > 0.6).astype("float32")
        quality = analysis.evaluate(model, batches(labels), ("a", "b", "c"), "multilabel")
        np.testing.assert_array_equal(quality.predictions, probabilities > 0.5)
        assert "threshold" not in quality.per_label()["a"]

    def test_shows_mistakes_first(self):
        found = np.array([[0.25], [0.1], [0.9], [0.35]])
        quality = analysis.MultiLabelEvaluation(np.array([[1], [0], [1], [0]]), found, ("a",))
        assert quality.right.tolist() == [False, True, True, True]
        assert quality.order().tolist()[0] == 0
        quality = dataclasses.replace(quality, thresholds=(0.2,))
        assert quality.right.tolist() == [True, True, True, False]
        assert quality.order().tolist() == [3, 0, 1, 2]

    def test_of_several_views_goes_by_them(self, decided):
        mean, _ = analysis.over_views(decided, "flip", graphs.view_of(decided))
        assert graphs.thresholds_of(mean) == THRESHOLDS

    def test_a_submission_goes_by_them(self, probabilities, tmp_path):
        files, names = [Path(f"{i}.png") for i in range(40)], ["a", "b", "c"]
        lines = {}
        for positive in (None, "b"):
            path = tmp_path / f"{positive}.csv"
            analysis.submission(
                *(path, files, probabilities, names, positive),
                task="multilabel",
                thresholds=THRESHOLDS,
            )
            with path.open(newline="") as file:
                lines[positive] = [row["label"] for row in csv.DictReader(file)]
        expected = probabilities > np.array(THRESHOLDS)
        assert lines["b"] == [str(int(each)) for each in expected[:, 1]]
        assert lines[None] == ["|".join(np.array(names)[row]) for row in expected]
        with one_line_error("are for several labels, not for classification"):
            analysis.submission(tmp_path / "x", files, probabilities, names, thresholds=THRESHOLDS)


@pytest.fixture(scope="module")
def exported(decided, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    return export.saved_model(decided, folder, NAMES, images=IMAGES, agreement=1.0, verbose=False)


class TestExports:
    def test_say_and_obey_them(self, exported, probabilities):
        card = json.loads((exported.path / "model_card.json").read_text())
        assert (card["labels"], card["thresholds"]) == ([*NAMES], [*THRESHOLDS])
        assert exported.verification.agreement == 1.0
        assert exported.verification.answer == "labels"
        served = tf.saved_model.load(exported.path).signatures
        found = served["serving_default"](tf.constant(IMAGES))["probabilities"]
        np.testing.assert_allclose(found, probabilities, atol=1e-4)

        pixels = np.full((8, 8, 1), 9, "uint8")
        answer = served["classify_bytes"](tf.constant([tf.io.encode_png(pixels).numpy()]))
        named = answer["labels"].numpy()[0].astype(str)
        np.testing.assert_allclose(
            answer["thresholds"].numpy()[0],
            [THRESHOLDS[NAMES.index(name)] for name in named],
            rtol=1e-6,
        )

    def test_agree_where_labels_are_decided_alike(self, exported, decided, probabilities):
        """With another model, whose probabilities are higher."""
        higher = keras.models.clone_model(decided)
        higher.set_weights(decided.get_weights())
        higher.get_layer("predictions").bias.assign(0.5 + higher.get_layer("predictions").bias)
        expected = higher.predict(IMAGES, verbose=0)
        same, otherwise = (
            ((probabilities > each) == (expected > each)).all(-1).mean()
            for each in (np.array(THRESHOLDS), 0.5)
        )
        assert same != otherwise
        result = export.verify(exported, higher, IMAGES, agreement=0.0, verbose=False)
        assert result.agreement == pytest.approx(same)

    def test_of_models_without_have_none(self, model, tmp_path):
        exported = export.saved_model(model, tmp_path, verbose=False)
        assert exported.card["thresholds"] is None
        served = tf.saved_model.load(exported.path).signatures["classify_bytes"]
        assert served.structured_outputs.keys() == {"labels", "probabilities"}


def test_a_model_is_trained_on_with_a_warning(caplog):
    source = small.several_labels(small.digits(40, 20))
    decided = graphs.with_thresholds(small.model(3, "sigmoid"), 0.3)
    training.train(decided, source, training.Recipe(epochs=1), verbose=0)
    assert graphs.thresholds_of(decided) == (0.3, 0.3, 0.3)
    assert "resnet keeps thresholds of labels that were chosen before this" in caplog.text
