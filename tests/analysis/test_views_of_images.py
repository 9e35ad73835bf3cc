"""Test-time augmentation, against the answers to files that hold the views."""

import functools

import keras
import numpy as np
import PIL.Image
import pytest
from commands import refused, run
from errors import one_line_error
from pictures import pixels

import keras_resnet
from keras_resnet import analysis, graphs, runs

SIDE, AROUND = 32, 40  # a view of 32 pixels is 0.8 of 40
COUNT = 6
ENDS = {
    "classification": (3, "softmax"),
    "multilabel": (3, "sigmoid"),
    "regression": (1, None),
}


@pytest.fixture(scope="module")
def file_of(tmp_path_factory):
    """Makes a model of a task that is shown 0.8 of an image."""
    return functools.cache(lambda task: saved(task, tmp_path_factory.mktemp(task)))


def saved(task, folder):
    keras.utils.set_random_seed(1)
    options = {"input_shape": (SIDE, SIDE, 3), "include_preprocessing": True, "stem": "cifar"}
    body = keras_resnet.ResNet((1,), "basic", (8,), include_top=False, pooling="avg", **options)
    model = keras.Model(body.input, keras.layers.Dense(*ENDS[task])(body.output))
    graphs.remember(model, crop=SIDE / AROUND)
    path = folder / "model.keras"
    model.save(path)
    return path


def write(folder, images):
    folder.mkdir()
    for index, image in enumerate(images):
        PIL.Image.fromarray(image).save(folder / f"{index:03}.png")
    return folder


@pytest.fixture
def images():
    return [pixels(number, AROUND, AROUND) for number in range(COUNT)]


def corner(rows, columns):
    return lambda image: image[rows : rows + SIDE, columns : columns + SIDE]


EDGE = AROUND - SIDE
CROPS = [corner(*place) for place in [(4, 4), (0, 0), (0, EDGE), (EDGE, 0), (EDGE, EDGE)]]
BY_HAND = {
    "flip": [CROPS[0], lambda image: CROPS[0](image)[:, ::-1]],
    "five-crops": CROPS,
    "ten-crops": [*CROPS, *(lambda image, cut=cut: cut(image)[:, ::-1] for cut in CROPS)],
}


CASES = [*(("classification", tta) for tta in BY_HAND), *((task, "flip") for task in ENDS)]


@pytest.mark.parametrize(("task", "tta"), dict.fromkeys(CASES))
def test_answers_are_the_mean_of_those_to_the_views(file_of, images, tmp_path, task, tta):
    views = [view(image) for view in BY_HAND[tta] for image in images]
    of_views = runs.predict(file_of(task), write(tmp_path / "views", views), crop=1.0, task=task)
    answers = of_views.outputs.reshape(len(BY_HAND[tta]), COUNT, -1)
    whole = write(tmp_path / "whole", images)
    found = runs.predict(file_of(task), whole, tta=tta, task=task)
    np.testing.assert_allclose(found.outputs, answers.mean(0), rtol=1e-5, atol=1e-6)
    assert found.to_json()["tta"] == tta.replace("-", "_")
    assert np.abs(found.outputs - answers[0]).max() > 1e-4


@pytest.mark.parametrize("task", ENDS)
class TestEvaluate:
    @pytest.fixture
    def table(self, task, images, tmp_path):
        write(tmp_path / "files", images)
        labels = {
            "classification": ["0", "1", "2"] * 2,
            "multilabel": ["0|1", "2", "1|2"] * 2,
            "regression": ["0.5", "1.5", "2.5"] * 2,
        }[task]
        column = "value" if task == "regression" else "label"
        rows = [f"files/{i:03}.png,{label},{s}" for i, label in enumerate(labels) for s in SPLITS]
        path = tmp_path / "images.csv"
        path.write_text("\n".join([f"path,{column},split", *rows]))
        return path

    def test_measures_those_answers(self, file_of, task, table, tmp_path):
        file = file_of(task)
        found = runs.evaluate(file, table, task=task, tta="flip")
        answers = runs.predict(file, tmp_path / "files", task=task, tta="flip").outputs
        quality = found.evaluation
        outputs = quality.predictions if task == "regression" else quality.probabilities
        np.testing.assert_allclose(outputs, answers, rtol=1e-5)
        expected = analysis.EVALUATIONS[task](quality.labels, answers, quality.class_names)
        assert quality.metrics() == pytest.approx(expected.metrics(), rel=1e-4)
        assert found.to_json()["tta"] == "flip"
        if task == "classification":
            result = run("evaluate", file, "--data", table, "--tta", "flip")
            assert result.exit_code == 0, result.output
            title = f"test images, mean of flip views, {quality.accuracy:.2%} right"
            assert title in result.stdout


SPLITS = ("train", "validation", "test")


class TestRefuses:
    @pytest.fixture
    def image(self, tmp_path):
        return write(tmp_path / "files", [pixels(0, AROUND, AROUND)])

    def saved(self, tmp_path, *layers):
        path = tmp_path / "net.keras"
        convolution = keras.layers.Conv2D(4, 3)
        pool = keras.layers.GlobalAveragePooling2D()
        keras.Sequential([keras.Input((SIDE, SIDE, 3)), convolution, pool, *layers]).save(path)
        return path

    def test_unknown_views(self, tmp_path, image):
        line = refused(run("predict", tmp_path / "net.keras", image, "--tta", "flop"))
        assert "tta 'flop' is not known. Did you mean flip?" in line

    def test_crops_of_whole_images(self, tmp_path, image):
        path = self.saved(tmp_path, keras.layers.Dense(3, "softmax"))
        with one_line_error("is shown whole images"):
            runs.predict(path, image, tta="five_crops")
        assert runs.predict(path, image, tta="five_crops", crop=0.8).outputs.shape == (1, 3)

    def test_outputs_that_are_not_known(self, tmp_path, image):
        path = self.saved(tmp_path, keras.layers.Dense(3))
        with one_line_error("tta='flip': what the outputs"):
            runs.predict(path, image, tta="flip")
        assert runs.predict(path, image, tta="flip", task="classification").outputs.sum() == (
            pytest.approx(1)
        )

    def test_boxes(self, tmp_path, image):
        from keras_resnet import detection

        body = keras_resnet.ResNet((1, 1, 1, 1), "basic", (4, 4, 4, 4), include_top=False)
        path = tmp_path / "detector.keras"
        detection.FasterRCNN(body, classes=2).save(path)
        line = refused(run("predict", path, image, "--tta", "flip"))
        assert "tta='flip' is not for boxes: boxes of several views cannot be averaged" in line
