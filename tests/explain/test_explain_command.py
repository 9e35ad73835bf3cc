"""`keras-resnet explain`: pictures of where a model looks."""

import json

import keras
import numpy as np
import PIL.Image
import pytest
from commands import refused, run

import keras_resnet
from keras_resnet import explain, graphs


def save(folder, *names, activation="softmax", **options):
    """A small model, the names of its outputs, and three images in two folders."""
    keras.utils.set_random_seed(0)
    units = 1 if names == ("cat", "dog") and activation == "sigmoid" else len(names)
    model = keras_resnet.CIFARResNet(
        8, classes=units, classifier_activation=activation, include_preprocessing=True, **options
    )
    model.save(folder / "model.keras")
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in names))
    rng = np.random.default_rng(0)
    for path in ("a/1.png", "a/2.jpg", "b/1.png"):
        file = folder / path
        file.parent.mkdir(exist_ok=True)
        PIL.Image.fromarray(rng.integers(0, 256, (40, 50, 3)).astype("uint8")).save(file)
    return model, [folder / "a", folder / "b"]


def pixels(path):
    return np.asarray(PIL.Image.open(path).convert("RGB"), "float32")


class TestExplain:
    def test_writes_what_python_draws(self, tmp_path):
        model, folders = save(tmp_path, "ant", "bee", "cat")
        result = run("explain", tmp_path, *folders, "--output", tmp_path / "out", "--json")
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert found["layer"] == "conv4_block1_out"
        assert [each["file"] for each in found["maps"]] == [
            str(tmp_path / "out" / name) for name in ("a/1.png", "a/2.png", "b/1.png")
        ]
        assert PIL.Image.open(found["sheet"]).size == (6 * 165, 198)
        for each in found["maps"]:
            image = _shown(model, each["image"])
            probabilities = model(image).numpy()[0]
            assert each["class"] == ("ant", "bee", "cat")[probabilities.argmax()]
            assert each["probability"] == pytest.approx(probabilities.max(), abs=1e-4)
            large = image.repeat(7, axis=1).repeat(7, axis=2)
            expected = explain.overlay(large, explain.Explainer(model)(image).maps)[0]
            np.testing.assert_allclose(pixels(each["file"]), expected, atol=1)

    def test_takes_class_layer_and_method(self, tmp_path):
        _, folders = save(tmp_path, "ant", "bee", "cat")
        pictures = []
        for options in (
            ["--class", "bee"],
            ["--class", "cat"],
            ["--class", "bee", "--layer", "conv3"],
            ["--class", "bee", "--layer", "conv3", "--method", "GRAD_CAM++"],
            ["--class", "bee", "--method", "cam"],
        ):
            result = run("explain", tmp_path, folders[1], "--output", tmp_path / "out", *options)
            assert result.exit_code == 0, result.output
            assert options[1] in result.stdout
            pictures.append(pixels(tmp_path / "out" / "1.png"))
        for index, picture in enumerate(pictures):
            assert all((picture != other).any() for other in pictures[:index])

    def test_two_classes_of_one_output(self, tmp_path):
        model, folders = save(tmp_path, "cat", "dog", activation="sigmoid")
        for index, name in enumerate(("cat", "dog")):
            result = run(
                "explain", tmp_path, folders[1], "--output", tmp_path / name, "--class", name,
                "--json",
            )  # fmt: skip
            assert result.exit_code == 0, result.output
            (found,) = json.loads(result.stdout)["maps"]
            dog = model(_shown(model, found["image"])).numpy()[0, 0]
            assert found["class"] == name
            assert found["probability"] == pytest.approx(dog if index else 1 - dog, abs=1e-4)
        assert (pixels(tmp_path / "cat/1.png") != pixels(tmp_path / "dog/1.png")).any()

    def test_labels_and_values(self, tmp_path):
        model, folders = save(tmp_path, "red", "blue", "green", activation="sigmoid")
        result = run(
            "explain", tmp_path, folders[1], "--output", tmp_path / "out", "--class", "blue",
            "--json",
        )  # fmt: skip
        (found,) = json.loads(result.stdout)["maps"]
        probability = model(_shown(model, found["image"])).numpy()[0, 1]
        assert found["probability"] == pytest.approx(probability, abs=1e-4)
        backbone = keras_resnet.CIFARResNet(8, include_top=False, include_preprocessing=True)
        x = keras.layers.GlobalAveragePooling2D()(backbone.output)
        x = keras.layers.Rescaling(1.0, name="predictions")(keras.layers.Dense(2)(x))
        keras.Model(backbone.input, x).save(tmp_path / "model.keras")
        (tmp_path / "labels.txt").write_text("weight\nheight\n")
        arguments = ["explain", tmp_path, folders[1], "--output", tmp_path / "out"]
        assert "gives the values weight, height: say which" in refused(run(*arguments))
        result = run(*arguments, "--class", "height", "--json")
        assert json.loads(result.stdout)["maps"][0]["name"] == "height"

    def test_normalizes_for_models_that_do_not(self, tmp_path):
        """A model without preprocessing says which normalization it wants."""
        model, folders = save(tmp_path, "ant", "bee", "cat")
        bare = keras_resnet.CIFARResNet(8, classes=3)
        graphs.remember(bare, normalization="torch")
        bare.save(tmp_path / "bare.keras")
        wants = [graphs.wants_of(each).normalization for each in (model, bare)]
        assert wants == ["raw", "torch"]
        result = run(
            "explain", tmp_path / "bare.keras", folders[1], "--output", tmp_path / "out", "--json"
        )
        (found,) = json.loads(result.stdout)["maps"]
        image = keras_resnet.preprocess_input(_shown(bare, found["image"]), mode="torch")
        assert found["probability"] == pytest.approx(bare(image).numpy().max(), abs=1e-4)


def _shown(model, file):
    """An image as `predict` shows it to the model."""
    from keras_resnet import data

    split = data.Split([file], np.zeros(1, int))
    (batch,) = data.batches(split, **vars(graphs.view_of(model)))
    return batch[0].numpy()


class TestMistakes:
    def test_are_one_line_and_nothing_is_written(self, tmp_path):
        _, folders = save(tmp_path, "ant", "bee", "cat")
        out = tmp_path / "out"
        for options, complaint in (
            (
                ["--class", "dog"],
                "class_name='dog' is not known to the model, which knows ant",
            ),
            (["--layer", "conv9"], "no such layer or stage"),
            (["--layer", "avg_pool"], "gives no feature map"),
            (["--method", "lime"], "method 'lime' is not known"),
            (["--method", "cam", "--layer", "conv3"], "leave out layer='conv3'"),
        ):
            assert complaint in refused(
                run("explain", tmp_path, *folders, "--output", out, *options)
            )
            assert not out.exists()
        (tmp_path / "labels.txt").write_text("ant\nbee\n")
        assert "names 2 outputs" in refused(run("explain", tmp_path, *folders, "--output", out))

    def test_pictures_replace_no_images(self, tmp_path):
        _, folders = save(tmp_path, "ant", "bee", "cat")
        message = refused(run("explain", tmp_path, folders[1], "--output", folders[1]))
        assert "holds the images" in message
        (folders[1] / "1.png").rename(folders[1] / "sheet.png")
        message = refused(run("explain", tmp_path, folders[1], "--output", tmp_path / "out"))
        assert "overview of all images: rename it" in message

    def test_options_for_objects(self, tmp_path):
        _, folders = save(tmp_path, "ant", "bee", "cat")
        for option, value in (("--score", 0.5), ("--top", 3)):
            message = refused(
                run("explain", tmp_path, folders[1], "--output", tmp_path / "out", option, value)
            )
            assert f"{option[2:]}={value} is not for" in message
            assert "it is for detectors" in message


def test_damaged_images_are_left_out_if_asked(tmp_path):
    _, folders = save(tmp_path, "ant", "bee", "cat")
    (folders[1] / "2.png").write_bytes((folders[1] / "1.png").read_bytes()[:200])
    arguments = ["explain", tmp_path, folders[1], "--output", tmp_path / "out"]
    assert "2.png" in refused(run(*arguments))
    result = run(*arguments, "--on-error", "skip", "--json")
    found = json.loads(result.stdout)
    assert len(found["maps"]) == len(found["skipped"]) == 1
