"""Detectors as SavedModels: what clients get, and what is refused."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import drawn
import endurance
import keras
import numpy as np
import onednn
import pytest
import tensorflow as tf
from errors import one_line_error
from exported import encoded
from serving import Served, code_of, needs_switch, serve_without_xla
from tensorflow_serving.apis import prediction_log_pb2

from keras_resnet import detection, export
from keras_resnet.export import objects, warmup
from keras_resnet.export.runtimes import Loaded

PICTURES = [drawn.picture(0), drawn.picture(1, 70, 50), drawn.picture(2, 33, 90)]
FILES = [encoded(each, "PNG") for each in PICTURES]


@functools.cache
def model():
    """A detector that finds some objects in every picture, but not as many as it could."""
    return drawn.drawn("c4", box_score_thresh=0.5)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "cells"
    return export.saved_model(model(), folder, drawn.NAMES, images=PICTURES, verbose=False)


@pytest.fixture(scope="module")
def served(exported):
    return Served(exported.path)


def assert_found(outputs, index, expected):
    """One image's part of an answer is what the model in memory finds."""
    count = outputs["count"][index]
    assert count == len(expected["scores"])
    found = {name: outputs[name][index][:count] for name in ("boxes", "scores", "labels")}
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-2)
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)
    labels = expected["labels"]
    if found["labels"].dtype == object:
        labels = [drawn.NAMES[label].encode() for label in labels]
    np.testing.assert_array_equal(found["labels"], labels)
    assert (outputs["scores"][index][count:] == 0).all()
    assert {*outputs["labels"][index][count:]} <= {-1, b""}


def found_alone(image):
    return detection.detect(model(), [image])[0]


class TestAnswers:
    def test_of_files_of_any_size_are_in_pixels_of_each(self, served):
        outputs = served("detect_bytes", FILES)
        assert {name: each.shape for name, each in outputs.items()} == {
            "boxes": (3, 10, 4),
            "scores": (3, 10),
            "labels": (3, 10),
            "count": (3,),
        }
        assert 0 < outputs["count"].min() < outputs["count"].max()
        for index, picture in enumerate(PICTURES):
            assert_found(outputs, index, found_alone(picture))

    def test_are_the_same_in_any_company(self, served):
        alone = served("detect_bytes", FILES[1:2])
        together = served("detect_bytes", [encoded(drawn.picture(5, 200, 300), "PNG"), FILES[1]])
        for name, each in alone.items():
            np.testing.assert_array_equal(together[name][1], each[0])

    def test_of_images_have_the_numbers_of_classes(self, served):
        images = np.stack([drawn.picture(number) for number in range(3)]).astype("float32")
        outputs = served("serving_default", images)
        assert outputs["labels"].dtype == np.int32
        for index, image in enumerate(images):
            assert_found(outputs, index, found_alone(image))

    def test_turned_photographs_are_upright(self, served):
        """A camera held upright stores the image lying down, and says so (EXIF orientation 6)."""
        lying = np.rot90(PICTURES[0])
        tag = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
        exif = b"Exif\0\0MM\x00*\x00\x00\x00\x08\x00\x01" + tag
        file, plain = encoded(lying, "JPEG", exif=exif), encoded(lying, "JPEG")
        upright = np.rot90(tf.io.decode_jpeg(plain), -1)
        assert_found(served("detect_bytes", [file]), 0, found_alone(upright))

    @pytest.mark.parametrize("kind", ["JPEG", "GIF", "BMP"])
    def test_of_other_formats(self, served, kind):
        file = encoded(PICTURES[0], kind)
        image = tf.io.decode_image(file, channels=3, expand_animations=False).numpy()
        assert_found(served("detect_bytes", [file]), 0, found_alone(image))

    def test_of_one_pixel_and_of_a_line(self, served):
        images = [PICTURES[0][:1, :1], PICTURES[0][:1], np.full((400, 1, 3), 90, "uint8")]
        outputs = served("detect_bytes", [encoded(each, "PNG") for each in images])
        for index, image in enumerate(images):
            assert_found(outputs, index, found_alone(image))

    @needs_switch
    def test_come_without_xla_in_a_process_of_its_own(self, exported, tmp_path):
        process = serve_without_xla(exported.path, tmp_path / "outputs.npz")
        assert process.returncode == 0, process.stderr
        answers = np.load(tmp_path / "outputs.npz")
        for signature in ("serving_default", "detect_bytes"):
            outputs = {
                name: answers[f"{signature}.{name}"] for name in ("boxes", "scores", "count")
            }
            expected = found_alone(np.ones((32, 32, 3)))
            for index in range(2):
                count = len(expected["scores"])
                assert outputs["count"][index] == count
                found = {name: outputs[name][index][:count] for name in ("boxes", "scores")}
                np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)
                if onednn.IS_ON:
                    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-4)
                else:
                    # In an image of one colour, scores are so much alike that rounding, which
                    # differs here, decides their order, and which of the last boxes are left.
                    apart = np.abs(found["boxes"] - expected["boxes"][:, None]).max(-1)
                    assert np.median(apart.min(1)) < 1e-3


_NO_IMAGE = "[image] [1] [is none of JPEG, PNG, GIF, BMP: it has]"
BAD = {
    "no files": ("detect_bytes", [], "no images were sent: send at least one."),
    "no images": ("serving_default", np.zeros((0, 8, 8, 3)), "no images were sent"),
    "no pixels": ("serving_default", np.zeros((1, 0, 8, 3)), "images have no pixels"),
    "rank": ("serving_default", np.zeros((8, 8, 3)), "[8,8,3] is not compatible"),
    "channels": ("serving_default", np.zeros((1, 8, 8, 1)), "[1,8,8,1] is not compatible"),
    "half a PNG": ("detect_bytes", [FILES[0][: len(FILES[0]) // 2]], "Invalid PNG data"),
    "half a JPEG": ("detect_bytes", [encoded(PICTURES[0], "JPEG")[:500]], "Invalid JPEG data"),
    "empty file": ("detect_bytes", [FILES[0], b""], _NO_IMAGE),
    "text": ("detect_bytes", [FILES[0], b"no image"], _NO_IMAGE),
    "too many pixels": (
        "detect_bytes",
        # The header of a PNG file of 65,535 pixels in height and width.
        [FILES[0][:16] + b"\0\0\xff\xff" * 2 + FILES[0][24:]],
        "[pixels, 100000000 are allowed.]",
    ),
}


@pytest.mark.parametrize(("name", "inputs", "reason"), BAD.values(), ids=BAD)
def test_bad_requests_get_a_reason_and_do_no_harm(served, name, inputs, reason):
    if isinstance(inputs, np.ndarray):
        inputs = inputs.astype("float32")
    with pytest.raises(tf.errors.OpError) as caught:
        served(name, inputs)
    assert code_of(caught.value).name == "INVALID_ARGUMENT"
    assert reason in caught.value.message
    assert_found(served("detect_bytes", FILES[:1]), 0, found_alone(PICTURES[0]))


class TestFolder:
    def test_says_what_it_is(self, exported):
        card = json.loads((exported.path / "model_card.json").read_text(encoding="utf-8"))
        assert card == json.loads(json.dumps(exported.card))
        expected = {"kind": "objects", "output": "boxes", "labels": drawn.NAMES, "not_folded": {}}
        assert {name: card[name] for name in expected} == expected
        options = card["options"]
        assert (options["min_size"], options["max_size"]) == (64, 96)
        assert options["box_score_thresh"] == 0.5
        assert card["verification"]["answer"] == "objects"
        assert (exported.path / "assets" / "labels.txt").read_text() == "cat\ndog\nbird\n"

    def test_is_verified_by_the_objects_in_the_images(self, exported):
        found = exported.verification
        assert (found.images, found.made_up, found.agreement) == (3, False, 1.0)
        assert found.objects == sum(len(found_alone(each)["scores"]) for each in PICTURES)
        assert found.largest_difference < 1e-4
        assert found.box_difference < 1e-2
        assert "same objects" in str(found)

    def test_warms_a_server_up_with_one_photograph_at_a_time(self, exported, served):
        asked = []
        for record in tf.data.TFRecordDataset(str(exported.path / warmup.FILE)).as_numpy_iterator():
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            (sent,) = request.inputs.values()
            served(request.model_spec.signature_name, tf.make_ndarray(sent))
            asked.append(
                (request.model_spec.signature_name, [each.size for each in sent.tensor_shape.dim])
            )
        assert sorted(asked) == [("detect_bytes", [1]), ("serving_default", [1, 64, 85, 3])]

    def test_is_verified_again_and_measured(self, exported):
        again = export.verify(exported, model(), PICTURES, verbose=False)
        assert (again.objects, again.agreement) == (exported.verification.objects, 1.0)
        with one_line_error("finds the same objects", "objects in 3 images, agreement=100.0%"):
            export.verify(exported, drawn.drawn("c4", seed=1), PICTURES, agreement=1.0)
        (found,) = export.latencies([exported], image_size=(30, 40), seconds=0.05)
        assert found.batch_size == 1
        with one_line_error("image_size=(9, 9) is for noise"):
            export.latencies([exported], np.zeros((1, 9, 9, 3)), image_size=9)

    def test_is_not_compared_with_a_model_of_something_else(self, exported):
        classifier = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
        with one_line_error("a model of images", "a detector: they cannot be compared"):
            export.verify(exported, classifier, PICTURES)


@pytest.mark.parametrize("head", ["fpn_v2", "c4"])
def test_every_normalization_is_folded(head):
    original = drawn.drawn(head)
    folded = export.fold_batch_norm(original)
    assert export.unfoldable(original) == {}
    assert not any("BatchNorm" in type(layer).__name__ for layer in folded._flatten_layers())
    parts, expected = detection.parts_of(folded), detection.parts_of(original)
    batch = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype("float32")
    levels = expected.levels(batch)
    regions = np.random.default_rng(0).normal(size=(2, *expected.box_head.input_shape[1:]))
    for found, wanted in (
        (parts.levels(batch), levels),
        (parts.rpn(levels), expected.rpn(levels)),
        (parts.box_head(regions), expected.box_head(regions)),
    ):
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"preprocessing": "torch"}, "preprocessing='torch' has no effect on detector"),
        ({"crop": 0.9}, "crop=0.9 has no effect on detector"),
        ({"image_size": 64}, "image_size=64 has no effect on detector"),
        ({"resize": True}, "resize=True has no effect on detector"),
        ({"top": 3}, "top=3 has no effect on detector"),
        ({"labels": ["cell"]}, "1 names came for the 3 classes"),
        ({"labels": ["a", "b", 3]}, "3 must be a str"),
        ({"image_dtype": "int8"}, "image_dtype='int8'"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_what_means_nothing_is_refused_by_name(tmp_path, option, said):
    with one_line_error(said):
        export.saved_model(model(), tmp_path / "1", **option)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(("write", "named"), [(export.litert, "a.tflite"), (export.onnx, "a.onnx")])
def test_other_formats_are_refused(tmp_path, write, named):
    with one_line_error("is a detector, which cannot be written as a", "write a SavedModel"):
        write(model(), tmp_path / named, drawn.NAMES)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_an_export_of_something_else_is_refused(tmp_path, monkeypatch):
    """Also by made-up images alone."""
    other = drawn.drawn("c4", seed=1, box_score_thresh=0.5)
    module = sys.modules["keras_resnet.export.saved_model"]  # the function has its name
    monkeypatch.setattr(module, "fold_batch_norm", lambda model: other)
    with one_line_error("finds the same objects as the original for only"):
        export.saved_model(model(), tmp_path / "1", drawn.NAMES, verbose=False)
    assert not [*tmp_path.iterdir()]


def found(*rows):
    """Outputs of a detector for one image: rows of x1, y1, x2, y2, score, label."""
    table = np.array(rows, "float32").reshape(-1, 6)
    return {
        "boxes": table[None, :, :4],
        "scores": table[None, :, 4],
        "labels": table[None, :, 5].astype("int32"),
        "count": np.array([len(table)]),
    }


def compared(exported, original, **options):
    shape = (None, None, None, 3)
    loaded = Loaded(Path("x"), "none", shape, "float32", 1.0, lambda _: exported, ("boxes",))
    images = np.zeros((1, 4, 4, 3))
    return objects.compare_objects(loaded, lambda _: original, images, **options)


class TestComparison:
    """Made-up answers whose comparison is known by hand."""

    CELL = (10, 10, 30, 30, 0.9, 0)

    def test_in_any_order(self):
        other = (50, 50, 60, 70, 0.8, 1)
        result = compared(found(other, self.CELL), found(self.CELL, other))
        assert (result.agreement, result.objects, result.largest_difference) == (1.0, 2, 0.0)

    def test_moved_a_little_and_less_sure(self):
        result = compared(found((11, 10, 31, 30, 0.4, 0)), found(self.CELL))
        assert (result.agreement, result.box_difference) == (1.0, 1.0)
        assert result.largest_difference == pytest.approx(0.5)

    @pytest.mark.parametrize(
        "cell", [(20, 10, 40, 30, 0.9, 0), (10, 10, 30, 30, 0.9, 1)], ids=["elsewhere", "class"]
    )
    def test_another_object_is_missed_and_wrong(self, cell):
        assert compared(found(cell), found(self.CELL)).agreement == 0.0

    def test_doubled_and_missing_ones_count(self):
        assert compared(found(self.CELL, self.CELL), found(self.CELL)).agreement == 2 / 3
        assert compared(found(), found(self.CELL)).agreement == 0.0
        assert compared(found(self.CELL), found()).agreement == 0.0

    def test_unsure_ones_do_not_count_unless_there_are_no_others(self):
        unsure = (50, 50, 60, 60, 0.2, 0)
        assert compared(found(self.CELL), found(self.CELL, unsure)).agreement == 1.0
        result = compared(found(), found(unsure))
        assert (result.agreement, result.objects) == (0.0, 1)

    def test_nothing_found_is_the_same_and_shows_nothing(self):
        assert compared(found(), found()).agreement == 1.0
        assert not compared(found(), found()).alike
        assert compared(found(), found(), tolerance=1e-3).alike

    def test_refuses_nan(self):
        cell = (10, 10, np.nan, 30, 0.9, 0)
        with one_line_error("the exported model: what it finds", "NaN or infinite"):
            compared(found(cell), found(self.CELL))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["fpn", "fpn_v2", "c4"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_all_heads_in_all_precisions(tmp_path, head, precision):
    pictures = [drawn.picture(number, 40 + number, 90 - number) for number in range(12)]
    least = 1.0 if precision == "float32" else 0.85
    new = export.saved_model(
        drawn.drawn(head),
        tmp_path / "1",
        drawn.NAMES,
        precision=precision,
        image_dtype="uint8",
        images=pictures,
        agreement=least,
        verbose=False,
    )
    assert new.verification.agreement >= least
    if precision == "float32":
        assert new.verification.largest_difference < 1e-4
        assert new.verification.box_difference < 1e-2
    served = Served(new.path)
    assert (served("detect_bytes", FILES)["count"] > 0).all()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_stays_within_2_percent_over_thousands_of_requests(exported):
    process = subprocess.run(
        [sys.executable, str(endurance.__file__), str(exported.path), "--requests", "5000"],
        capture_output=True,
        text=True,
    )
    print(process.stdout)
    assert process.returncode == 0, process.stdout + process.stderr
