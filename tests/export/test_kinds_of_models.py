"""Models of every kind of block, stem and part: exported, they answer as they do in memory."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_folding import difference, normalizations, trained_like

import keras_resnet
from keras_resnet import export
from keras_resnet.export.folding import in_precision
from keras_resnet.layers import StandardizedConv2D

KINDS = {
    "squeeze and excitation": dict(attention="se", zero_init_residual=False),
    "efficient channel attention": dict(attention="eca"),
    "deep stem, pooled shortcut, blur": dict(stem="deep", shortcut="D", anti_aliasing="blur"),
    "average": dict(block="basic", anti_aliasing="average"),
    "strided stem": dict(stem="deep_strided", attention="se", attention_ratio=0.25, shortcut="D"),
    "pre-activation": dict(block="preactivation"),
    "of keras.applications": dict(block="preactivation", biases=True, stride_block="last"),
    "pre-activation for CIFAR": dict(block="basic_preactivation", stem="cifar", shortcut="A"),
    "group normalization": dict(norm="group", filters=(32, 64)),
    "standardized": dict(weight_standardization=True),
    "big transfer": dict(
        block="preactivation",
        norm="group",
        weight_standardization=True,
        filters=(32, 64),
        stem="zero_padded",
    ),
    "drop path": dict(drop_path=0.5),
    "dilated groups": dict(cardinality=4, base_width=64, output_stride=4),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def some(*fast):
    """Every kind, most of them in slow tests."""
    return [kind if kind in fast else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]


def model_of(kind):
    keras.utils.set_random_seed(0)
    return trained_like(
        keras_resnet.ResNet(
            (2, 1),
            **{"filters": (8, 16), **KINDS[kind]},
            input_shape=(32, 32, 3),
            classes=5,
            classifier_activation=None,
            include_preprocessing=True,
        )
    )


def images():
    return np.random.default_rng(1).uniform(0, 255, (4, 32, 32, 3)).astype("float32")


def far(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@every_kind
def test_folds_what_follows_a_convolution_and_nothing_else(kind):
    model = model_of(kind)
    folded = export.fold_batch_norm(model)
    assert difference(model, folded) < 1e-5
    # With pre-activation, most of what a normalization sees comes from a sum, before a ReLU.
    after_sums = {
        layer.name
        for layer in normalizations(model)
        if layer.name.endswith(("preact_bn", "post_bn"))
    }
    assert {layer.name for layer in normalizations(folded)} == after_sums
    assert {*export.unfoldable(model)} == after_sums
    assert len(after_sums) == (4 if "preactivation" in KINDS[kind].get("block", "") else 0) * (
        KINDS[kind].get("norm") != "group"
    )
    assert not any(isinstance(layer, StandardizedConv2D) for layer in folded.layers)


def test_a_standardized_model_in_half_precision_keeps_its_kernels():
    model = model_of("big transfer")
    half = in_precision(model, "bfloat16")
    assert sum(isinstance(layer, StandardizedConv2D) for layer in half.layers) > 5
    assert 0 < difference(model, half) < 0.1


@pytest.mark.parametrize("kind", some("big transfer", "dilated groups"))
@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_saved_model_answers_as_in_memory(kind, precision, tmp_path):
    model = model_of(kind)
    new = export.saved_model(
        model, tmp_path / "m", precision=precision, agreement=0.0, verified=False, verbose=False
    )
    served = tf.saved_model.load(os.fspath(new.path)).signatures["serving_default"]
    (answers,) = served(images=tf.constant(images())).values()
    assert far(answers, model(images())) < (1e-5 if precision == "float32" else 0.1)


@pytest.mark.parametrize("kind", some("deep stem, pooled shortcut, blur"))
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_litert_answers_as_in_memory(kind, tmp_path):
    model = model_of(kind)
    new = export.litert(model, tmp_path / "m.tflite", verified=False, verbose=False)
    interpreter = tf.lite.Interpreter(os.fspath(new.path))
    interpreter.allocate_tensors()
    (given,), (taken,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert not any("Flex" in each["op_name"] for each in interpreter._get_ops_details())
    answers = []
    for image in images():
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(taken["index"])[0])
    assert far(np.array(answers), model(images())) < 1e-5


@every_kind
@pytest.mark.slow
def test_onnx_answers_as_in_memory(kind, tmp_path):
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    new = export.onnx(model_of(kind), tmp_path / "m.onnx", verbose=False)
    assert new.verification.largest_difference < 1e-5
