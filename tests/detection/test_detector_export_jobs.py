"""`runs.export` and `runs.bench` of detectors."""

import drawn
import numpy as np
import pytest
import scenes
import tensorflow as tf
from errors import one_line_error

from keras_resnet import detection, runs


@pytest.fixture(scope="module")
def model():
    return drawn.drawn("c4", len(scenes.NAMES), box_score_thresh=0.5)


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    """The folder of a run: a detector and the names of its classes."""
    folder = tmp_path_factory.mktemp("run")
    model.save(folder / "model.keras")
    (folder / "labels.txt").write_text("\n".join(scenes.NAMES) + "\n")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return scenes.write_scenes(tmp_path_factory.mktemp("pictures") / "scenes")


def test_what_was_trained_is_exported_verified_and_measured(run, model, pictures, tmp_path):
    record = runs.export(run, tmp_path / "scenes", calibrate=pictures)
    told = record.to_json()
    files = sorted((pictures / "JPEGImages").iterdir())[-3:]  # the test images
    images = [tf.io.decode_jpeg(file.read_bytes()).numpy() for file in files]
    expected = detection.detect(model, images)
    assert (told["format"], told["answer"], told["agreement"]) == ("saved_model", "objects", 1.0)
    assert (told["images"], told["made_up"]) == (3, False)
    assert told["objects"] == sum(len(each["scores"]) for each in expected) > 0
    assert record.exported.card["labels"] == [*scenes.NAMES]

    serve = tf.saved_model.load(str(record.exported.path)).signatures["detect_bytes"]
    outputs = serve(image_bytes=tf.constant([file.read_bytes() for file in files]))
    for index, found in enumerate(expected):
        count = int(outputs["count"][index])
        np.testing.assert_allclose(outputs["boxes"][index, :count], found["boxes"], atol=1e-2)
        names = [scenes.NAMES[label].encode() for label in found["labels"]]
        assert outputs["labels"][index, :count].numpy().tolist() == names

    (noise,) = runs.bench(record.exported, seconds=0.05, image_size=(40, 50)).results
    (photographs,) = runs.bench(record.exported, images=pictures, seconds=0.05).results
    assert (noise.batch_size, photographs.batch_size) == (1, 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_size": 64}, "image_size=64"),
        ({"crop": 0.9}, "crop=0.9 has no effect on detector"),
        ({"resize": True}, "resize=True has no effect on detector"),
        ({"top": 3}, "top=3 has no effect on detector"),
        ({"task": "multilabel"}, "task='multilabel'"),
        ({"format": "litert"}, "is a detector, which cannot be written as a LiteRT file"),
        ({"format": "openvino"}, "is a detector, which cannot be written as an OpenVINO file"),
    ],
)
def test_what_means_nothing_is_refused_by_name(run, tmp_path, options, said):
    with one_line_error(said):
        runs.export(run, tmp_path / "scenes", **options)
    assert not [*tmp_path.iterdir()]


def test_names_must_be_those_of_its_classes(model, tmp_path):
    model.save(tmp_path / "model.keras")
    (tmp_path / "labels.txt").write_text("bar\n")
    with one_line_error("labels.txt' names 1 outputs, the model has 2"):
        runs.export(tmp_path, tmp_path / "scenes")
    assert not (tmp_path / "scenes").exists()
