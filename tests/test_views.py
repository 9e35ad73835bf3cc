"""Training, validation, evaluation, prediction and serving show a model the same of an image."""

import dataclasses
import json
import logging
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from commands import run
from errors import one_line_error
from pictures import encoded

import keras_resnet
from keras_resnet import data, export, graphs, runs, training, transfer
from keras_resnet.layers.view import sides
from keras_resnet.training import trainer
from keras_resnet.transfer import cached_features

# Of another size and shape each: (height, width).
SIZES = [(40, 40), (50, 90), (90, 50), (33, 47)]
PLAIN = training.Recipe(epochs=1, batch_size=4, learning_rate=1e-3, augmentation="none")
STAGES = [transfer.Stage("head", PLAIN, views=1), transfer.Stage("conv2", PLAIN)]


def net(height=None, width=None, channels=3, **options):
    """A model whose stem shows 7/8 of an image, unless it is told otherwise."""
    keras.utils.set_random_seed(0)
    usual = {"include_preprocessing": True, "classes": len(SIZES)}
    shape = (height, width, channels)
    return keras_resnet.ResNet((1,), "basic", (4,), input_shape=shape, **{**usual, **options})


def foreign(height=None, width=None):
    """A model that remembers nothing."""
    x = inputs = keras.Input((height, width, 3))
    for layer in (
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(4, 3),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(len(SIZES), "softmax"),
    ):
        x = layer(x)
    return keras.Model(inputs, x, name="foreign")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Training, validation and test images that are the same, one of each class."""
    folder = tmp_path_factory.mktemp("images")
    for split in ("train", "validation", "test"):
        for label, (height, width) in enumerate(SIZES):
            place = folder / split / f"{label}"
            place.mkdir(parents=True)
            (place / "image.png").write_bytes(encoded(label, height=height, width=width))
    return folder


@pytest.fixture
def shown(monkeypatch):
    """All images that were shown to a model, by who did it."""
    seen = {}

    def spy(split, **options):
        dataset = data.pipeline.batches(split, **options)
        who = "training" if options.get("augmentation") else "tests"
        for images, labels in dataset.as_numpy_iterator():
            seen.setdefault(who, []).append(images[np.argsort(labels)])
        return dataset

    def task_of(source):
        return dataclasses.replace(training.TASKS[source.task], batches=spy)

    for place in (trainer, cached_features):
        monkeypatch.setattr(place, "task_of", task_of)
    monkeypatch.setattr(data, "batches", spy)
    return seen


def train(model, source, **options):
    training.train(model, source, PLAIN, verbose=0, **options)


def fine_tune(model, source, **options):
    transfer.fine_tune(model, source, STAGES, verbose=0, **options)


@pytest.mark.parametrize(
    ("learn", "size", "options", "crop"),
    [
        pytest.param(train, (24, 24), {}, 1.0, marks=pytest.mark.slow),
        (train, (24, 40), {"crop": 0.5}, 0.5),
        pytest.param(train, (None, None), {"image_size": 24}, 1.0, marks=pytest.mark.slow),
        (fine_tune, (None, None), {"image_size": (40, 24)}, 1.0),
    ],
)
def test_the_pixels_are_the_same(shown, folder, tmp_path, learn, size, options, crop):
    model, source = net(*size), data.load(folder)
    learn(model, source, **options)
    height, width = sides(options.get("image_size", size))
    assert graphs.view_of(model) == graphs.View((height, width), crop, "bilinear", 3)

    file = tmp_path / "model.keras"
    model.save(file)
    evaluated = runs.evaluate(file, folder).evaluation.probabilities
    files = [folder / "test" / f"{label}" / "image.png" for label in range(len(SIZES))]
    predicted = runs.predict(file, files).outputs
    assert {*shown} == {"training", "tests"}
    first, *others = [*shown["training"], *shown["tests"]]
    assert first.shape == (len(SIZES), height, width, 3)
    for other in others:
        np.testing.assert_array_equal(other, first)

    exported = runs.export(file, tmp_path / "exported").exported
    assert exported.card["image_size"] == (24 if height == width else [height, width])
    classify = tf.saved_model.load(os.fspath(exported)).signatures["classify_bytes"]
    answer = classify(image_bytes=tf.constant([each.read_bytes() for each in files]))
    expected = np.asarray(model(first))
    order = np.argsort(-expected, axis=1)
    np.testing.assert_allclose(evaluated, expected, atol=1e-6)
    np.testing.assert_allclose(predicted, expected, atol=1e-6)
    np.testing.assert_allclose(
        answer["probabilities"], np.take_along_axis(expected, order, 1), atol=1e-6
    )


class TestTraining:
    def test_with_windows_leaves_the_crop_to_tests(self, shown, folder):
        model = net(24, 24)
        recipe = dataclasses.replace(PLAIN, augmentation="photograph")
        training.train(model, data.load(folder), recipe, verbose=0)
        assert graphs.view_of(model).crop == 0.875
        options = dict(image_size=24, crop=0.875)
        ((expected, _),) = data.pipeline.batches(data.load(folder).validation, **options)
        np.testing.assert_array_equal(shown["tests"][0], expected)

    def test_is_in_the_channels_and_the_interpolation_of_the_model(self, shown, folder, tmp_path):
        model = net(24, 24, channels=1)
        graphs.remember(model, interpolation="bicubic")
        train(model, data.load(folder))
        model.save(tmp_path / "model.keras")
        runs.evaluate(tmp_path / "model.keras", folder)
        options = dict(image_size=24, channels=1, interpolation="bicubic")
        ((expected, _),) = data.pipeline.batches(data.load(folder).test, **options)
        for images in (*shown["training"], *shown["tests"]):
            np.testing.assert_array_equal(images, expected)

    def test_refuses_a_size_that_the_model_does_not_take(self, folder):
        with one_line_error("image_size=(24, 40): model 'resnet' takes images of 24x24 pixels."):
            train(net(24, 24), data.load(folder), image_size=(24, 40))

    def test_in_stages_is_as_the_last_one(self, shown, folder):
        windows = dataclasses.replace(PLAIN, augmentation="photograph")
        model, plan = net(24, 24), [STAGES[0], transfer.Stage("conv2", windows)]
        transfer.fine_tune(model, data.load(folder), plan, verbose=0)
        assert graphs.view_of(model).crop == 0.875
        head, (validation, _) = shown["training"][0], shown["tests"]
        np.testing.assert_array_equal(head, validation)

    def test_warns_where_a_model_cannot_remember(self, folder, caplog, tmp_path):
        model, source = foreign(), data.load(folder)
        with caplog.at_level(logging.WARNING):
            train(model, source, image_size=(20, 30), crop=0.5)
        (said,) = (each for each in caplog.messages if "no layer that remembers" in each)
        assert "It is trained with 20x30 pixels, crop 0.5" in said
        model.save(tmp_path / "model.keras")
        for ask in (
            lambda **options: runs.evaluate(tmp_path / "model.keras", folder, **options),
            lambda **options: runs.predict(tmp_path / "model.keras", folder / "test/0", **options),
            lambda **options: runs.export(tmp_path / "model.keras", tmp_path / "new", **options),
        ):
            with one_line_error("'foreign' takes images of any size", "give image_size"):
                ask()
            ask(image_size=(20, 30), crop=0.5)

    def test_does_not_warn_of_what_needs_no_memory(self, folder, caplog):
        with caplog.at_level(logging.WARNING):
            train(foreign(24, 24), data.load(folder))
        assert not any("no layer that remembers" in each for each in caplog.messages)

    @pytest.mark.parametrize(("learn", "options"), [(train, {}), (fine_tune, {"crop": 0.875})])
    def test_a_run_of_before_is_not_mixed_with_one_of_now(self, folder, tmp_path, learn, options):
        """Then it trained on whole images, and validated on 7/8 of them."""
        source = data.load(folder)
        learn(net(24, 24), source, checkpoints=tmp_path, **options)
        file = min(tmp_path.rglob("settings.json"))
        settings = json.loads(file.read_text())
        assert settings.pop("training_crop", None) == options.get("crop")
        file.write_text(json.dumps({**settings, "crop": 0.875}))
        with one_line_error("run with other settings", "crop was"):
            learn(net(24, 24), source, checkpoints=tmp_path, **options)


class TestAnySize:
    def test_is_shown_what_it_was_made_for(self, shown, folder, tmp_path):
        model = keras_resnet.CIFARResNet(
            8, input_shape=(None, None, 3), classes=len(SIZES), include_preprocessing=True
        )
        model.save(tmp_path / "model.keras")
        runs.evaluate(tmp_path / "model.keras", folder)
        runs.predict(tmp_path / "model.keras", folder / "test" / "0")
        assert {images.shape[1:] for images in shown["tests"]} == {(32, 32, 3)}
        new = export.saved_model(model, tmp_path / "new", verified=False, verbose=False)
        assert new.card["image_size"] == 32

    def test_trains_with_the_size_of_the_data_and_remembers_it(self, folder):
        model, source = net(channels=3), dataclasses.replace(data.load(folder), image_size=20)
        assert graphs.view_of(model).image_size == (224, 224)
        train(model, source)
        assert graphs.view_of(model).image_size == (20, 20)

    @pytest.mark.parametrize("file", ["model.keras", "model.safetensors", "model.weights.h5"])
    def test_is_shown_what_its_weights_were_trained_with(self, tmp_path, file):
        model = net()
        view = graphs.View((24, 40), 0.5, "bicubic", 3)
        graphs.remember_view(model, view)
        if file.endswith("keras"):
            model.save(tmp_path / file)
        elif file.endswith("h5"):
            model.save_weights(tmp_path / file)
        else:
            keras_resnet.pretrained.to_torch(model, tmp_path / file)
        assert graphs.view_of(net(weights=tmp_path / file)) == view

    @pytest.mark.parametrize("file", ["model.keras", "model.safetensors", "model.weights.h5"])
    def test_is_shown_what_weights_of_a_model_of_one_size_were_trained_with(self, tmp_path, file):
        options = {"input_shape": (16, 24, 3), "classes": 2, "include_preprocessing": True}
        model = keras_resnet.CIFARResNet(8, **options)
        graphs.remember_view(model, graphs.view_of(model, crop=0.75))
        if file.endswith("h5"):
            model.save_weights(tmp_path / file)
        elif file.endswith("keras"):
            model.save(tmp_path / file)
        else:
            keras_resnet.pretrained.to_torch(model, tmp_path / file)
        image = tmp_path / "image.png"
        image.write_bytes(encoded(0, height=90, width=140))
        split = data.Split([image], [0])
        expected = model.predict(data.batches(split, **vars(graphs.view_of(model))), verbose=0)
        found = runs.predict("CIFARResNet8", image, weights=tmp_path / file)
        np.testing.assert_allclose(found.outputs, expected, atol=1e-6)

    @pytest.mark.parametrize("exporter", ["litert", "saved_model"])
    def test_is_not_exported_with_a_guess(self, tmp_path, exporter):
        path = tmp_path / ("new.tflite" if exporter == "litert" else "new")
        with one_line_error("'foreign' takes images of any size", "give image_size"):
            getattr(export, exporter)(foreign(), path)
        new = getattr(export, exporter)(foreign(), path, image_size=(9, 7), verbose=False)
        assert new.card["image_size"] == [9, 7]


class TestCommands:
    @pytest.mark.parametrize("size", ["0", "96x", "x96", "96x0", "1x2x3", "-5", "big"])
    def test_refuse_what_is_no_size(self, size):
        result = run("summary", "CIFARResNet8", "--image-size", size)
        assert result.exit_code == 2
        assert f"{size!r} must be 224, or height x width, such as 96x160." in result.stderr

    def test_take_a_height_and_a_width(self, folder, tmp_path):
        foreign().save(tmp_path / "foreign.keras")
        result = run(
            *("evaluate", tmp_path / "foreign.keras", "--data", folder, "--task", "classification"),
            *("--image-size", "20x30", "--crop", "0.5", "--json"),
        )
        assert json.loads(result.stdout)["images"] == len(SIZES)

    @pytest.mark.slow
    def test_a_stem_for_large_images_sees_the_edges_of_digits(self, tmp_path):
        """With tests that showed 7/8 of an image, training all of it, it was 90.81 %."""
        result = run(
            *("train", "--data", "digits", "--model", "ResNet18", "--image-size", 32),
            *("--output", tmp_path, "--json"),
        )
        assert json.loads(result.stdout)["test_accuracy"] > 0.95
