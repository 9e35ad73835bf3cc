import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_resnet import analysis


def test_scores_are_those_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2])
    predictions = np.array([0, 0, 1, 1, 0, 1])
    quality = analysis.Evaluation(labels, np.eye(3)[predictions], ("a", "b", "c"))
    assert quality.accuracy == pytest.approx(0.5)
    scores = quality.per_class()
    assert scores["a"]["precision"] == pytest.approx(2 / 3)
    assert scores["b"]["recall"] == pytest.approx(1 / 2)
    assert scores["c"] == {"precision": 0, "recall": 0, "f1-score": 0, "support": 1}


def test_classes_may_be_called_like_the_averages():
    names = ("accuracy", "macro avg", "weighted avg")
    quality = analysis.Evaluation(np.array([0, 1, 1]), np.eye(3)[[0, 1, 0]], names)
    scores = quality.per_class()
    assert [scores[name]["support"] for name in names] == [1, 2, 0]
    assert scores["accuracy"]["precision"] == pytest.approx(0.5)


def test_evaluate_keeps_images_and_labels_together():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Softmax()(inputs))
    rows = np.eye(3, dtype="float32")[[2, 0, 1, 1]] * 9
    dataset = tf.data.Dataset.from_tensor_slices((rows, [2, 0, 1, 0])).batch(3)
    quality = analysis.evaluate(model, dataset, ("a", "b", "c"))
    assert quality.labels.tolist() == [2, 0, 1, 0]
    assert quality.predictions.tolist() == [2, 0, 1, 1]
