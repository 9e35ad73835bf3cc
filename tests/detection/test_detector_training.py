"""Detectors learn, by the same `train` as classifiers."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys

import detectors
import keras
import numpy as np
import pytest
import tensorflow as tf
from detectors import boxes, tiny

import keras_resnet
from keras_resnet import data, detection, training, transfer

PATHS = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture(scope="module")
def learned():
    """A detector, and what it was like to train it."""
    detector = tiny("c4")
    before = {each.path: each.numpy() for each in detector.weights}
    recipe = dict(epochs=3, rates={"conv4": 0.0}, ema=0.5)
    return before, detector, detectors.train(recipe=recipe, detector=detector)


def test_learn(learned):
    _, _, (losses, history, _) = learned
    assert len(losses) == 6
    assert history["loss"][-1] < history["loss"][0]
    parts = ("classifier", "box_reg", "objectness", "rpn_box_reg")
    for before in ("", "val_"):
        four = sum(np.array(history[f"{before}{part}"]) for part in parts)
        np.testing.assert_allclose(history[f"{before}loss"], four, rtol=1e-5)


def test_learn_at_rates_of_their_own(learned):
    """Only what has a rate of 0 is as it was, and BatchNormalization, which is frozen."""
    before, detector, _ = learned
    for each in detector.weights:
        same = (each.numpy() == before[each.path]).all()
        layer = each.path.rpartition("/")[0]
        assert same == ("conv4" in layer or layer.endswith("_bn")), each.path


def test_learn_from_grey_images():
    """Arrays of one channel, by a detector that stands on such a backbone."""
    source = boxes()
    splits = [data.Split(each.images[..., :1], each.labels) for each in source.splits.values()]
    grey = data.Source("grey", source.class_names, 1, 64, "mirrored", *splits, task="detection")
    detector = tiny("c4", input_shape=(None, None, 1))
    recipe = dict(epochs=1, augmentation="photograph")
    losses, _, _ = detectors.train(source=grey, detector=detector, recipe=recipe)
    assert np.isfinite(losses).all()
    assert len(detection.evaluate(detector, grey.test, grey.class_names).detections) == 3


def test_are_compiled_for_more(learned):
    _, detector, _ = learned
    assert detector.optimizer.learning_rate > 0
    inputs, labels = detectors.batch_of()
    with pytest.raises(ValueError, match="No loss to compute"):
        detector.fit(inputs, labels["boxes"], verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize("options", [dict(steps_per_execution=2), dict(recipe={"accumulation": 2})])
def test_is_the_same_however_steps_are_taken(options):
    """Every image has as many RoIs and anchors, so that parts of a batch weigh the same."""
    one, other = (detectors.train(**each)[1] for each in ({}, options))
    for name, values in one.items():
        np.testing.assert_allclose(other[name], values, rtol=1e-3, err_msg=name)


def images_named(folder, source):
    """The training images as files, the third of which has become white: its loss is NaN."""
    paths = [folder / f"image{index}.png" for index in range(len(source.train))]
    for path, image in zip(paths, source.train.images, strict=True):
        path.write_bytes(tf.io.encode_png(image).numpy())
    return data.Split([str(path) for path in paths], source.train.labels)


class Poison(keras.layers.Layer):
    """NaN where an image has no dark pixel."""

    def call(self, images):
        dark = tf.reduce_any(images[:, :50, :50] < 200.0, (1, 2, 3), keepdims=True)
        return tf.where(dark, images, np.nan)


def test_name_the_image_whose_loss_is_not_finite(tmp_path, monkeypatch):
    source = boxes()
    source.train.images[2] = 255
    files = images_named(tmp_path, source)
    others = files.take(np.array([0]))
    source = dataclasses.replace(source, train=files, validation=others, test=others)
    detector = tiny("c4")
    transform = type(detector.get_layer("transform"))
    call = transform.call
    monkeypatch.setattr(
        transform, "call", lambda self, images, sizes: call(self, Poison()(images), sizes)
    )
    with pytest.raises(training.DivergedError, match="loss became NaN") as error:
        detectors.train(source=source, detector=detector)
    assert f"the loss of {str(tmp_path / 'image2.png')!r}, or its gradient" in str(error.value)
    assert all(np.isfinite(each).all() for each in detector.get_weights())


def without_boxes():
    source = boxes()
    source.train.labels[..., 4] = -1
    return source


def only_ignored():
    source = boxes()
    source.train.labels[..., 5] = 1
    return source


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(source=without_boxes), "no training image has a box to learn from"),
        (dict(source=only_ignored), "no training image has a box to learn from"),
        (dict(detector=lambda: tiny(classes=2)), "has 2 classes, boxes has 3: build .* classes=3"),
        (dict(image_size=lambda: 64), "image_size=64: .* build it with min_size"),
        (dict(crop=lambda: 0.5), r"crop=0\.5: .* build it with min_size"),
        (dict(class_weight=lambda: {0: 2.0}), "class_weight=.* not for boxes"),
        (dict(recipe=lambda: dict(augmentation="handwriting")), "augmentation='handwriting'"),
        (dict(recipe=lambda: dict(rates={"conv9": 0.1})), "no layer or stage 'conv9'"),
        (dict(recipe=lambda: dict(layer_decay=0.5)), "layer_decay=0.5 is for models that answer"),
        (dict(recipe=lambda: dict(drop_path=0.1)), "was built with drop_path=0: build it with"),
    ],
)
def test_what_cannot_be_trained_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        detectors.train(**{name: make() for name, make in change.items()})


def test_classifiers_do_not_learn_boxes():
    model = keras_resnet.ResNet18(weights=None, classes=3)
    with pytest.raises(ValueError, match=r"finds no boxes: build .*FasterRCNN"):
        training.train(model, boxes(), verbose=0)


def start(name, file, cluster=None, **options):
    """Train on the devices of a strategy, in another process."""
    environment = {**PATHS, **({"TF_CONFIG": json.dumps(cluster)} if cluster else {})}
    return subprocess.Popen(
        [sys.executable, detectors.__file__, name, file, json.dumps(options)],
        env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def outcome(process, file):
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    with np.load(file) as arrays:
        told, *weights = (arrays[name] for name in arrays.files)
    return *json.loads(str(told)), weights


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe", [{}, {"ema": 0.9, "clip_norm": 0.5}, {"optimizer": "adamw", "clip_norm": 0.5}]
)
def test_two_devices_and_two_processes_learn_what_one_does(tmp_path, recipe):
    """In the last step of an epoch, they have two images and one."""
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("localhost", 0))
    workers = [f"localhost:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    files = {name: tmp_path / f"{name}.npz" for name in ("alone", "cpu:2", "chief", "worker")}
    clusters = [
        {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        for index in range(2)
    ]
    options = dict(recipe=recipe)
    runs = {
        "alone": start("alone", files["alone"], **options),
        "cpu:2": start("cpu:2", files["cpu:2"], **options),
        "chief": start("multiworker", files["chief"], clusters[0], **options),
        "worker": start("multiworker", files["worker"], clusters[1], **options),
    }
    losses, history, weights = outcome(runs.pop("alone"), files["alone"])
    for name, process in runs.items():
        its_losses, its_history, its_weights = outcome(process, files[name])
        np.testing.assert_allclose(its_losses, losses, atol=1e-6, err_msg=name)
        for each, values in history.items():
            np.testing.assert_allclose(its_history[each], values, atol=1e-6, err_msg=name)
        for mine, other in zip(weights, its_weights, strict=True):
            np.testing.assert_allclose(other, mine, atol=2e-5, rtol=2e-5, err_msg=name)


KILLED = """
import os, signal, sys
import detectors, keras
steps = []
def count(batch, logs):
    steps.append(batch)
    if len(steps) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
callbacks = [keras.callbacks.LambdaCallback(on_train_batch_end=count)]
detectors.train(checkpoints=sys.argv[1], save_every=1, callbacks=callbacks)
"""


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_not(tmp_path):
    """Killed in the second of two epochs of two steps, after its first step was saved."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "run"], env=PATHS)
    _, history, weights = detectors.train()
    assert process.wait(300) == -signal.SIGKILL
    losses, its_history, its_weights = detectors.train(checkpoints=tmp_path / "run", save_every=1)
    assert len(losses) == 1
    for name, values in history.items():
        np.testing.assert_allclose(its_history[name], values, rtol=1e-5, err_msg=name)
    for mine, other in zip(weights, its_weights, strict=True):
        np.testing.assert_allclose(other, mine, rtol=1e-4, atol=1e-6)


def test_are_not_trained_in_stages():
    with pytest.raises(ValueError, match=r"for detection, .* call keras_resnet\.training\.train"):
        transfer.fine_tune(tiny("c4"), boxes(), verbose=0)
