"""What clients are told comes out of a model, for every kind of head."""

import logging

import keras
import numpy as np
import pytest
from errors import one_line_error
from exported import encoded, signatures
from keras import layers

import keras_resnet
from keras_resnet import export

SIZE = 8
RANDOM = np.random.default_rng(0)
FILES = [encoded(RANDOM.integers(0, 256, (SIZE, SIZE, 3), "uint8"), "PNG") for _ in range(3)]
IMAGES = RANDOM.uniform(0, 255, (20, SIZE, SIZE, 3)).astype("float32")


def with_head(*head, nest=False):
    """A model of raw images with such a head; as a whole in another model, if asked."""
    keras.utils.set_random_seed(0)
    backbone = keras_resnet.resnet.resnet(
        (1,), "basic", (4,), stem="cifar", input_shape=(SIZE, SIZE, 3), include_top=False,
        pooling="avg", include_preprocessing=True, name="backbone",
    )  # fmt: skip
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), backbone, *head], name="net")
    if not nest:
        return model
    inputs = keras.Input((SIZE, SIZE, 3))
    return keras.Model(inputs, model(layers.RandomFlip()(inputs)), name="net")


def decoded(files):
    import tensorflow as tf

    return np.stack([tf.io.decode_image(each).numpy() for each in files])


def sorted_answer(answer, names):
    """Probabilities by the order of names."""
    rows = zip(answer["labels"], answer["probabilities"], strict=True)
    found = [dict(zip(labels, row, strict=True)) for labels, row in rows]
    return np.array([[each[name.encode()] for name in names] for each in found])


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def both(probabilities):
    return np.concatenate([1 - probabilities, probabilities], -1)


NAMES = ["a", "b", "c"]
CASES = {
    "softmax": ([layers.Dense(3, "softmax")], NAMES, "probabilities", np.asarray),
    "three layers": (
        [layers.Dense(5, "relu"), layers.BatchNormalization(), layers.Dense(3, "softmax")],
        NAMES, "probabilities", np.asarray,
    ),
    "softmax before a linear activation": (
        [layers.Dense(3), layers.Softmax(), layers.Activation("linear")],
        NAMES, "probabilities", np.asarray,
    ),
    "known logits": ([layers.Dense(3, name="predictions")], NAMES, "logits", softmax),
    "logits, as labels tell": ([layers.Dense(3)], NAMES, "logits", softmax),
    "several labels": ([layers.Dense(3, "sigmoid")], NAMES, "probabilities", np.asarray),
    "one label": ([layers.Dense(1, "sigmoid")], ["a"], "probabilities", np.asarray),
    "one of two classes": ([layers.Dense(1, "sigmoid")], ["a", "b"], "probabilities", both),
    "one logit": ([layers.Dense(1)], ["a", "b"], "logits", lambda x: both(sigmoid(x))),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_files_get_probabilities_whatever_the_head_gives(tmp_path, case):
    head, names, output, expected = case
    model = with_head(*head, nest=len(names) == 3)
    served = signatures(model, tmp_path, labels=names)
    outputs = model.predict(decoded(FILES), verbose=0)
    answer = sorted_answer(served["classify_bytes"](FILES), names)
    np.testing.assert_allclose(answer, expected(outputs), rtol=1e-3, atol=1e-5)
    given = served["serving_default"](decoded(FILES))
    assert [*given] == [output]
    np.testing.assert_allclose(given[output], outputs, rtol=1e-3, atol=1e-5)


def test_a_single_probability_is_of_the_second_of_two_classes(tmp_path):
    model = with_head(layers.Dense(1, "sigmoid"))
    answer = signatures(model, tmp_path)["classify_bytes"](FILES)
    np.testing.assert_allclose(
        sorted_answer(answer, "01"), both(model.predict(decoded(FILES), verbose=0)), rtol=1e-3
    )


def test_values_are_values(tmp_path):
    model = with_head(
        layers.Dense(1, name="standardized"), layers.Rescaling(20, 100, name="predictions")
    )
    served = signatures(model, tmp_path, labels=["weight"])
    assert {*served} == {"serving_default", "features", "predict_bytes"}
    expected = model.predict(decoded(FILES), verbose=0)
    assert (
        [*served["predict_bytes"](FILES)]
        == [*served["serving_default"](decoded(FILES))]
        == ["values"]
    )
    np.testing.assert_allclose(served["predict_bytes"](FILES)["values"], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("head", "labels"),
    [
        ([layers.Dense(4)], None),
        ([layers.Dense(4, "relu")], list("abcd")),
        ([layers.Dense(1, name="predictions")], ["weight"]),
        ([layers.Dense(3), layers.BatchNormalization()], None),
    ],
    ids=["no labels", "after ReLU", "one number", "normalized"],
)
def test_what_is_not_known_is_not_called_a_probability(tmp_path, caplog, head, labels):
    with caplog.at_level(logging.INFO, "keras_resnet"):
        served = signatures(with_head(*head), tmp_path, labels=labels)
    assert {*served} == {"serving_default", "features"}
    assert [*served["serving_default"](decoded(FILES))] == ["outputs"]
    assert "net: there is no classify_bytes" in caplog.text


def test_features_are_features(tmp_path, caplog):
    served = signatures(with_head(), tmp_path)
    assert {*served} == {"serving_default", "features"}
    assert [*served["serving_default"](decoded(FILES))] == ["features"]
    assert "classify_bytes" not in caplog.text


@pytest.mark.parametrize(
    ("head", "labels"),
    [
        ([layers.Dense(3, "softmax")], ["a", "b"]),
        ([layers.Dense(3)], ["a", "b"]),
        ([layers.Dense(1), layers.Rescaling(2, name="predictions")], ["a", "b"]),
        ([layers.Dense(1, "sigmoid")], ["a", "b", "c"]),
    ],
)
def test_labels_fit_the_outputs(tmp_path, head, labels):
    with one_line_error(f"labels: {len(labels)} names came for the"):
        export.saved_model(with_head(*head), tmp_path, labels=labels)


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """A model of values around 1000, and its export."""
    model = with_head(
        layers.Dense(1, name="standardized"), layers.Rescaling(20, 1000, name="predictions")
    )
    path = tmp_path_factory.mktemp("values")
    return model, export.saved_model(model, path, images=IMAGES, verbose=False)


class TestVerification:
    """What counts as the same answer."""

    def test_of_values_is_one_that_is_near(self, values):
        _, new = values
        assert (new.verification.answer, new.verification.agreement) == ("values", 1.0)
        assert "same values" in str(new)

    def test_of_values_is_judged_by_their_range(self, values):
        model, new = values
        kernel = model.get_layer("standardized").kernel
        former = kernel.numpy()
        kernel.assign(-former)  # differs by a fraction of 1000, and predicts the reverse
        try:
            with one_line_error("gives the same values as the original for only"):
                export.verify(new, model, IMAGES, verbose=False)
        finally:
            kernel.assign(former)

    def test_of_labels_is_that_all_of_them_are_the_same(self, tmp_path):
        model = with_head(layers.Dense(3, "sigmoid"))
        new = export.saved_model(model, tmp_path, images=IMAGES, verbose=False)
        assert (new.verification.answer, new.verification.agreement) == ("labels", 1.0)
        bias = model.layers[-1].bias
        bias.assign([0.0, 0.0, -100.0])
        changed = export.saved_model(model, tmp_path, verified=False, verbose=False)
        bias.assign([0.0, 0.0, 100.0])
        with one_line_error("gives the same labels as the original for only 0.0%"):
            export.verify(changed, model, IMAGES, verbose=False)


def test_the_card_says_what_comes_out(tmp_path):
    model = with_head(layers.Dense(3, "sigmoid"))
    card = export.saved_model(model, tmp_path, verified=False, verbose=False).card
    assert (card["output"], card["kind"]) == ("probabilities", "multilabel")


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize(
    ("head", "output"),
    [
        ([layers.Dense(3, "softmax")], "probabilities"),
        ([layers.Dense(3)], "outputs"),
        ([layers.Dense(1), layers.Rescaling(2, name="predictions")], "values"),
    ],
)
def test_litert_files_call_it_the_same(tmp_path, head, output):
    import tensorflow as tf

    path = export.litert(with_head(*head), tmp_path / "a.tflite", verified=False, verbose=False)
    signature = tf.lite.Interpreter(str(path.path)).get_signature_list()["serving_default"]
    assert signature["outputs"] == [output]


def test_a_learned_normalization_of_the_input_is_exported(tmp_path):
    """Keras' Normalization computes with constants that are no weights."""
    x = inputs = keras.Input((SIZE, SIZE, 3))
    normalization = layers.Normalization()
    normalization.adapt(IMAGES)
    for layer in (
        normalization,
        layers.Conv2D(4, 3),
        layers.BatchNormalization(),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3, "softmax"),
    ):
        x = layer(x)
    model = keras.Model(inputs, x)
    for changed in (
        export.fold_batch_norm(model),
        export.fold_batch_norm(keras.Sequential([inputs, model, layers.Activation("linear")])),
    ):
        np.testing.assert_allclose(changed(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-5)
