"""Soups of runs: one model, tested on the images that all of them were tested on."""

import json

import keras
import numpy as np
import PIL.Image
import pytest
import small
from commands import refused, run
from errors import one_line_error

from keras_resnet import analysis, data, graphs, runs


def written(folder, seed, **options):
    """A model of random weights in a folder of its own."""
    model = small.model(filters=(4, 8), **options)
    random = np.random.default_rng(seed)
    model.set_weights([random.uniform(0.5, 1.5, each.shape) for each in model.get_weights()])
    folder.mkdir()
    model.save(folder / "model.keras")
    return folder


class TestModels:
    @pytest.fixture
    def folders(self, tmp_path):
        return [written(tmp_path / f"{seed}", seed) for seed in range(2)]

    def test_are_averaged_and_tested(self, folders, tmp_path):
        output = tmp_path / "soup"
        result = run("soup", *folders, "--data", "digits", "--output", output, "--json")
        assert result.exit_code == 0, result.output
        answer = json.loads(result.stdout)
        assert answer["soup"] == [*map(str, folders)]
        assert answer["statistics"] == "measured"
        made, *models = (
            keras.saving.load_model(folder / "model.keras") for folder in (output, *folders)
        )
        for weight, *parts in zip(made.trainable_weights, *(m.trainable_weights for m in models),
                                  strict=True):  # fmt: skip
            np.testing.assert_allclose(weight, sum(np.asarray(p) for p in parts) / 2, rtol=1e-6)
        first = next(each for each in made.layers if each.name == "conv1_bn")
        digits = data.load("digits")
        inside = keras.Model(made.input, first.input)
        shown = data.batches(digits.train, **vars(graphs.view_of(made)), batch_size=2000)
        maps = inside.predict(shown, verbose=0)
        np.testing.assert_allclose(first.moving_mean, maps.mean((0, 1, 2)), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(first.moving_variance, maps.var((0, 1, 2)), rtol=1e-3)
        quality = analysis.evaluate(
            made, data.batches(digits.test, **vars(graphs.view_of(made))), digits.class_names
        )
        assert answer["test_accuracy"] == quality.accuracy
        again = runs.evaluate(output)  # it knows its images
        assert again.evaluation.accuracy == quality.accuracy
        assert len(again.source.test) == 359

    def test_without_images_statistics_are_averaged_and_that_is_said(self, folders, tmp_path):
        result = run("soup", *folders, "--output", tmp_path / "soup")
        assert result.exit_code == 0, result.output
        assert "There are no images to measure BatchNormalization statistics on" in result.stderr
        assert "the mean of the models'" in result.stdout
        assert sorted(file.name for file in (tmp_path / "soup").iterdir()) == [
            *("labels.txt", "metrics.json", "model.keras")
        ]

    @pytest.mark.slow
    def test_thresholds_are_chosen_anew(self, tmp_path):
        digits, folder = data.load("digits"), tmp_path / "images"
        folder.mkdir()
        lines = ["path,label,split"]
        for name, split in digits.splits.items():
            for index in range(20):
                PIL.Image.fromarray(split.images[index, ..., 0]).save(folder / f"{name}{index}.png")
                labels = "odd|small" if index % 3 else "odd" if index % 2 else ""
                lines.append(f"{name}{index}.png,{labels},{name}")
        (folder / "images.csv").write_text("\n".join(lines))
        paths = []
        for seed in range(2):
            path = written(tmp_path / f"{seed}", seed, units=2, activation="sigmoid", channels=3)
            model = keras.saving.load_model(path / "model.keras")
            graphs.with_thresholds(model, [0.2 + seed / 2, 0.9]).save(path / "model.keras")
            (path / "labels.txt").write_text("odd\nsmall\n")
            paths.append(path)
        record = runs.soup(paths, tmp_path / "soup", source=folder / "images.csv")
        found = graphs.thresholds_of(record.made.model)
        validation = runs.evaluate(tmp_path / "soup", split="validation").evaluation
        assert validation.thresholds == found
        assert found == pytest.approx(
            analysis.choose_thresholds(
                validation.labels, validation.probabilities, "f1", validation.class_names
            )
        )
        averaged = runs.soup(paths, tmp_path / "mean")
        assert graphs.thresholds_of(averaged.made.model) == pytest.approx((0.45, 0.9))

    def test_refuses(self, folders, tmp_path):
        output = tmp_path / "soup"
        line = refused(run("soup", folders[0], "--output", output))
        assert "models: 1 came; a soup is made of two or more" in line
        line = refused(run("soup", *folders, "--greedy", "--output", output))
        assert "chosen on validation images, and there are none" in line
        line = refused(run("soup", *folders, "--output", folders[1]))
        assert "which it would replace" in line
        deeper = written(tmp_path / "deeper", 0, shortcut="A")
        line = refused(run("soup", folders[0], deeper, "--output", output))
        assert "only models of the same architecture have a mean" in line
        cropped = keras.saving.load_model(folders[1] / "model.keras")
        graphs.remember(cropped, crop=0.5)
        cropped.save(tmp_path / "cropped.keras")
        line = refused(run("soup", folders[0], tmp_path / "cropped.keras", "--output", output))
        assert "only models that see images alike have a mean" in line
        (folders[1] / "labels.txt").write_text("".join(f"number {i}\n" for i in range(10)))
        line = refused(run("soup", *folders, "--output", output))
        assert "only models of the same classes have a mean" in line
        assert not output.exists()


OPTIONS = {"model": "CIFARResNet8", "epochs": 6, "image_size": 8, "batch_size": 32}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three runs that begin with the weights of another, and go different ways."""
    folder = tmp_path_factory.mktemp("runs")
    first = runs.train("digits", folder / "first", **OPTIONS)
    weights = folder / "first.weights.h5"
    first.model.save_weights(weights)
    options = {**OPTIONS, "weights": weights, "recipe": "paper", "epochs": 3}
    places = [folder / f"{seed}" for seed in range(3)]
    for seed, place in enumerate(places):
        runs.train("digits", place, learning_rate=0.05 * 4**seed, seed=seed, **options)
    return places


@pytest.mark.slow
class TestRuns:
    def test_greedy_soup_is_no_worse_than_the_best(self, trained, tmp_path):
        record = runs.soup(trained, tmp_path / "soup", greedy=True)
        scores = record.validation["accuracy"]
        for place in trained:
            alone = runs.evaluate(place, split="validation").evaluation.accuracy
            assert scores[str(place)] == alone
        assert scores["soup"] >= max(scores[str(place)] for place in trained)
        again = runs.evaluate(tmp_path / "soup", split="validation")
        assert again.evaluation.accuracy == pytest.approx(scores["soup"], abs=1e-9)

    def test_measured_statistics_beat_averaged_ones(self, trained, tmp_path):
        record = runs.soup(trained, tmp_path / "soup")
        assert record.statistics == "measured"
        with_images = record.evaluation.accuracy
        assert with_images > 0.9

    def test_runs_on_other_images_are_refused(self, trained, tmp_path):
        options = {**OPTIONS, "epochs": 1}
        runs.train("digits", tmp_path / "other", validation=0.3, **options)
        with one_line_error("on other images than"):
            runs.soup([trained[0], tmp_path / "other"], tmp_path / "soup")
