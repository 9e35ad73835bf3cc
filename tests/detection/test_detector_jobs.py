"""Train, evaluate and predict with boxes, as commands and as functions."""

import json
import shutil

import keras
import numpy as np
import PIL.Image
import pytest
from commands import refused, run, table_of
from errors import one_line_error
from pycocotools.coco import COCO
from scenes import NAMES, SIZE, write_scenes

import keras_resnet
from keras_resnet import data, detection, graphs, runs
from keras_resnet.pretrained import to_torch
from keras_resnet.runs import objects
from keras_resnet.runs.choices import RUN_FILES, RUN_FOLDERS
from keras_resnet.runs.kinds import Order

SMALL = "FasterRCNN_CIFARResNet8_C4"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes") / "data")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a detector that has learned nothing, and gives scores around a third."""
    folder = tmp_path_factory.mktemp("untrained")
    keras.utils.set_random_seed(1)
    objects.detector(SMALL, 2, min_size=48, max_size=64).save(folder / "model.keras")
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return folder


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory):
    """A run of a step or two, and what it answered."""
    output = tmp_path_factory.mktemp("runs") / "scenes"
    small = ["--model", SMALL, "--image-size", "48x64", "--epochs", 1, "--batch-size", 3]
    result = run("train", "--data", scenes, *small, "--output", output, "--json")
    assert result.exit_code == 0, result.output
    return output, json.loads(result.stdout)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The weights of a whole detector, and the detector."""
    path = tmp_path_factory.mktemp("weights") / "detector.safetensors"
    theirs = objects.detector("FasterRCNN_ResNet18_C4", 2)
    detection.to_torch(theirs, path)
    return path, theirs


def begun(*_):
    raise AssertionError("the training has begun")


UNTRAINED = keras.callbacks.LambdaCallback(on_train_begin=begun)


class TestTrain:
    def test_writes_what_a_classifier_writes_and_more(self, trained):
        output, answer = trained
        assert answer == json.loads((output / "metrics.json").read_text())
        assert answer["task"] == "detection"
        assert answer["per_class"].keys() == set(NAMES)
        assert {file.name for file in output.iterdir()} <= {*RUN_FILES, *RUN_FOLDERS, "saved_model"}
        assert (output / "labels.txt").read_text().split() == list(NAMES)
        assert [row[0] for row in table_of(output / "per_class.csv")[1]] == list(NAMES)
        for picture in ("curves", "predictions", "precision_recall", "errors"):
            PIL.Image.open(output / f"{picture}.png").verify()
        assert (output / "saved_model" / "1" / "saved_model.pb").exists()
        head, rows = table_of(output / "history.csv")
        assert {"loss", "classifier", "objectness", "val_loss"} <= {*head}
        assert len(rows) == 1
        assert len(table_of(output / "images.csv")[1]) == 11

    def test_image_size_is_what_the_detector_resizes_to(self, trained):
        saved = keras.saving.load_model(trained[0] / "model.keras", compile=False)
        options = detection.parts_of(saved).options
        assert (options.min_size, options.max_size) == (48, 64)
        assert objects.resized(600) == {"min_size": 600, "max_size": 1000}
        assert objects.resized(None) == {}

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"dropout": 0.5}, "dropout=0.5 is not for boxes: detectors have no dropout"),
            ({"balanced": True}, "balanced=True is not for boxes"),
            ({"crop": 0.5}, "crop=0.5 is not for boxes: a detector sees whole images"),
            ({"mixup": 0.2}, "mixup=0.2"),
            ({"cutmix": 1.0}, "cutmix=1.0 is for classes"),
            ({"repeats": 3}, "repeats=3 is for classes, not boxes"),
            ({"label_smoothing": 0.1}, "label_smoothing=0.1"),
            ({"task": "classification"}, "has boxes, which are task='detection'"),
            ({"model": "FasterRCNN_ResNet50_C5"}, "Did you mean FasterRCNN_ResNet50_C4?"),
            ({"model": "FasterRCNN_ResNet51_C4"}, "Did you mean FasterRCNN_ResNet50_C4?"),
            ({"image_size": (64, 48, 3)}, "image_size=(64, 48, 3)"),
            ({"augmentation": "strong"}, "augmentation"),
        ],
    )
    def test_mistakes_are_told_before_the_hours(self, scenes, tmp_path, options, reason):
        options = {"model": SMALL, "callbacks": [UNTRAINED], **options}
        with one_line_error(reason):
            runs.train(scenes, tmp_path / "run", **options)

    @pytest.mark.parametrize("model", [SMALL, "CIFARResNet14"])
    def test_drop_path_is_the_backbones(self, scenes, model):
        order = Order(model, None, None, {"drop_path": 0.25}, None, 0.0, False)
        built = objects.built(order, data.load(scenes), (48, 64))
        assert graphs.drop_path_of(built) == 0.25

    def test_a_detector_needs_boxes(self, tmp_path):
        digits = ["train", "--data", "digits", "--output", tmp_path / "run"]
        line = refused(run(*digits, "--model", SMALL))
        assert "finds objects; data 'digits' is for classification, without boxes" in line
        assert "task='detection'" in refused(run(*digits, "--task", "detection"))

    def test_searches_are_for_classifiers(self, scenes, tmp_path):
        with one_line_error("detection", "runs.train"):
            runs.tune(scenes, tmp_path / "search", callbacks=[UNTRAINED])


class TestNames:
    @pytest.mark.parametrize("name", [SMALL, "faster-rcnn_cifar-resnet8_c4"])
    def test_say_the_backbone_and_the_head(self, name):
        found = objects.detector(name, 3)
        assert detection.parts_of(found).classes == 3
        assert len(detection.parts_of(found).features.outputs) == 1

    def test_of_a_backbone_mean_a_pyramid(self):
        found = objects.detector("CIFARResNet8", 3)
        assert len(detection.parts_of(found).features.outputs) > 1
        assert objects.architecture("ResNet50") is None


class TestWeights:
    def test_may_be_a_detectors(self, file):
        path, theirs = file
        ours = objects.detector("FasterRCNN_ResNet18_C4", 2, path)
        for mine, other in zip(ours.weights, theirs.weights, strict=True):
            np.testing.assert_array_equal(mine, other)

    def test_of_another_head_are_refused(self, file, scenes, tmp_path):
        other = {"model": "FasterRCNN_ResNet18_FPN", "callbacks": [UNTRAINED]}
        with one_line_error(str(file[0]), "the head 'c4'"):
            runs.train(scenes, tmp_path / "run", weights=file[0], **other)

    def test_or_those_of_its_backbone(self, tmp_path):
        classifier = keras_resnet.CIFARResNet(8, include_preprocessing=True)
        to_torch(classifier, tmp_path / "classifier.safetensors", naming="cifar")
        ours = objects.detector(SMALL, 2, tmp_path / "classifier.safetensors")
        features = detection.parts_of(ours).features
        kernel = features.get_layer("conv1_conv").kernel
        np.testing.assert_array_equal(kernel, classifier.get_layer("conv1_conv").kernel)
        assert not features.get_layer("conv1_bn").trainable


class TestEvaluate:
    def test_repeats_what_training_found(self, trained):
        output, answer = trained
        result = run("evaluate", output, "--json")
        found = json.loads(result.stdout)
        for name in ("AP", "AP50", "AP_small", "VOC_AP50", "per_class", "errors"):
            assert found[name] == answer[name]
        assert (found["images"], found["trained_on"]) == (3, 0)

    def test_prints_scores_by_class_size_and_kind_of_error(self, model, scenes):
        result = run("evaluate", model, "--data", f"{scenes}:all")
        assert result.exit_code == 0, result.output
        for text in (
            "AP50",
            "VOC AP50",
            "small",
            "medium",
            "bar",
            "square",
            "mislocated",
            "missed",
        ):
            assert text in result.stdout

    def test_is_what_python_computes(self, model, scenes):
        source = data.load(scenes)
        net = keras.saving.load_model(model / "model.keras", compile=False)
        quality = detection.evaluate(net, source.validation, source.class_names)
        record = runs.evaluate(model, scenes, split="validation")
        assert record.to_json()["AP50"] == quality.metrics()["AP50"]

    @pytest.mark.parametrize(
        ("source", "options", "reason"),
        [
            ("digits", {}, "data 'digits' is for classification; the model is for detection"),
            (None, {"task": "classification"}, "is for detection"),
            (None, {"crop": 0.5}, "crop=0.5 is not for boxes"),
            (None, {"image_size": 64}, "was built to resize images to a shorter side of 48"),
        ],
    )
    def test_refuses_what_does_not_suit(self, model, scenes, source, options, reason):
        with one_line_error(reason):
            runs.evaluate(model, source or scenes, **options)

    def test_a_classifier_knows_no_boxes(self, scenes, tmp_path):
        keras_resnet.CIFARResNet(8, classes=2, include_preprocessing=True).save(
            tmp_path / "model.keras"
        )
        with one_line_error("is for detection; the model is for classification"):
            runs.evaluate(tmp_path, scenes)
        with one_line_error("task='detection': model 'cifar_resnet8' is not a detector"):
            runs.evaluate(tmp_path, scenes, task="detection")
        image = next((scenes / "JPEGImages").iterdir())
        with one_line_error("score=0.5 is not for answers about whole images"):
            runs.predict(tmp_path, image, score=0.5)

    def test_of_some_of_its_classes_in_another_order(self, model, scenes, tmp_path):
        wide = objects.detector(SMALL, 3, min_size=48, max_size=64)
        wide.save(tmp_path / "model.keras")
        (tmp_path / "labels.txt").write_text("square\ncircle\nbar\n")
        record = runs.evaluate(tmp_path, scenes)
        note = "The data has 2 of the 3 classes that the model knows"
        assert any(each.startswith(note) for each in record.notes)
        (first, *_), source = record.evaluation.detections, data.load(scenes)
        inputs, _ = next(iter(detection.batches(source.test, batch_size=1)))
        (raw,) = detection.detect(wide, inputs["images"].numpy())
        assert 0 < len(first["labels"]) == (raw["labels"] != 1).sum()
        expected = {0: 1, 2: 0}  # square and bar, as the data numbers them
        assert [expected[label] for label in raw["labels"] if label != 1] == [*first["labels"]]

    def test_of_other_classes(self, model, scenes, tmp_path):
        shutil.copy(model / "model.keras", tmp_path)
        (tmp_path / "labels.txt").write_text("circle\nsquare\n")
        with one_line_error("the model knows circle, square"):
            runs.evaluate(tmp_path, scenes)
        (tmp_path / "labels.txt").write_text("circle\n")
        with one_line_error("names 1 outputs, the model has 2"):
            runs.evaluate(tmp_path, scenes)


class TestPredict:
    def test_lists_and_draws_what_detect_finds(self, model, scenes, tmp_path):
        files = [tmp_path / "1.png", tmp_path / "2.png"]  # which are decoded in one way only
        for file, jpeg in zip(files, sorted((scenes / "JPEGImages").iterdir()), strict=False):
            PIL.Image.open(jpeg).save(file)
        before = [file.read_bytes() for file in files]
        result = run(
            "predict", model, *files, "--score", 0.3, "--output", tmp_path / "out", "--json"
        )
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        net = keras.saving.load_model(model / "model.keras", compile=False)
        images = [np.asarray(PIL.Image.open(file)) for file in files]
        for image, expected in zip(
            found["predictions"], detection.detect(net, images, score=0.3), strict=True
        ):
            assert len(expected["scores"]) > 0
            assert [NAMES.index(each["class"]) for each in image["objects"]] == [
                *expected["labels"]
            ]
            for name, key in (("box", "boxes"), ("score", "scores")):
                given = [each[name] for each in image["objects"]]
                np.testing.assert_allclose(given, expected[key], atol=1e-3)
        assert [file.read_bytes() for file in files] == before
        drawn = [np.asarray(PIL.Image.open(tmp_path / "out" / file.name)) for file in files]
        assert all(copy.shape == image.shape for copy, image in zip(drawn, images, strict=True))
        assert any(
            np.abs(c.astype(int) - i).max() > 100 for c, i in zip(drawn, images, strict=True)
        )

    def test_coco_can_read_it(self, model, scenes, tmp_path):
        runs.predict(model, scenes / "JPEGImages", output=tmp_path, score=0)
        truths = COCO()
        truths.dataset = {
            "images": [{"id": int(file.stem)} for file in (scenes / "JPEGImages").iterdir()],
            "categories": [{"id": 1, "name": "bar"}, {"id": 2, "name": "square"}],
            "annotations": [],
        }
        truths.createIndex()
        found = truths.loadRes(str(tmp_path / "detections.json"))
        assert {*found.getImgIds()} == set(range(11))
        assert {each["category_id"] for each in found.anns.values()} <= {1, 2}

    def test_never_replaces_an_image_or_a_model(self, trained, model, scenes, tmp_path):
        folder = shutil.copytree(scenes / "JPEGImages", tmp_path / "images")
        for output, reason in ((folder, "holds the images"), (trained[0], "would replace")):
            with one_line_error(reason, "choose another folder"):
                runs.predict(trained[0], folder, output=output)
        runs.predict(model, folder, output=tmp_path / "out")
        runs.predict(model, folder, output=tmp_path / "out")  # over what it has drawn before

    def test_damaged_images_are_named(self, model, scenes, tmp_path):
        file = tmp_path / "damaged.jpg"
        file.write_bytes((scenes / "JPEGImages" / "000000.jpg").read_bytes()[:300])
        with one_line_error(str(file)):
            runs.predict(model, file, output=tmp_path / "out")
        assert not (tmp_path / "out").exists()
        record = runs.predict(model, [file, scenes / "JPEGImages"], on_error="skip")
        assert (len(record.files), len(record.skipped)) == (11, 1)

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"top": 3}, "top=3 is not for boxes: score=0.5 says which objects are shown"),
            ({"score": 1.5}, "score=1.5"),
            ({"crop": 0.5}, "crop=0.5 is not for boxes"),
        ],
    )
    def test_refuses_what_has_no_effect(self, model, scenes, options, reason):
        with one_line_error(reason):
            runs.predict(model, scenes / "JPEGImages", **options)
        with one_line_error("csv=", "is not for boxes: output=FOLDER"):
            runs.predict(model, scenes / "JPEGImages", csv=scenes / "found.csv")

    def test_images_of_any_size(self, model, tmp_path):
        for name, size in (("dot", (1, 1)), ("wide", (200, 3)), ("large", SIZE[::-1])):
            PIL.Image.new("RGB", size, "white").save(tmp_path / f"{name}.png")
        record = runs.predict(model, tmp_path, output=tmp_path / "out", score=0.0)
        assert {file.name for file in (tmp_path / "out").iterdir()} == {
            *("dot.png", "wide.png", "large.png", "detections.json")
        }
        for file, found in zip(record.files, record.outputs, strict=True):
            width, height = PIL.Image.open(file).size
            assert (found["boxes"] <= [width, height, width, height]).all()
