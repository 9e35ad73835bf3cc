import numpy as np
import pytest
from errors import one_line_error

import keras_resnet
from keras_resnet import export


@pytest.fixture(scope="module")
def model():
    return keras_resnet.CIFARResNet(8)


@pytest.fixture(scope="module")
def paths(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    quiet = {"verified": False, "verbose": False}
    return [
        export.saved_model(model, folder / "cifar", **quiet).path,
        export.litert(model, folder / "cifar.tflite", **quiet).path,
    ]


def test_every_model_at_every_batch_size(paths):
    found = export.latencies(paths, batch_sizes=(1, 3), seconds=0.1)
    assert [(each.path, each.batch_size) for each in found] == [
        (path, size) for size in (1, 3) for path in paths
    ]
    assert [each.runtime for each in found] == ["TensorFlow", "LiteRT"] * 2
    for each in found:
        assert 0 < each.p50 <= each.p95 <= each.p99
        assert each.calls >= 1
        assert each.images_per_second > 0
        assert each.mebibytes == export.load(each.path).mebibytes


def test_images_are_repeated_where_there_are_too_few(paths):
    images = np.zeros((2, 32, 32, 3), "uint8")
    found = export.latencies(paths, images, batch_sizes=[5], seconds=0.05)
    assert [each.batch_size for each in found] == [5, 5]


def test_models_of_fixed_batches_keep_to_them(tmp_path, model):
    options = {"batch_size": 2, "verified": False, "verbose": False}
    path = export.litert(model, tmp_path / "a.tflite", **options)
    (found,) = export.latencies([path], batch_sizes=[1], seconds=0.05)
    assert found.batch_size == 2


def test_raw_images_of_any_size(tmp_path, model):
    options = {"image_dtype": "uint8", "resize": True, "verified": False, "verbose": False}
    path = export.saved_model(model, tmp_path, preprocessing="tf", **options)
    (found,) = export.latencies([path], batch_sizes=[1], seconds=0.05)
    assert found.p50 > 0


def test_arguments_out_of_range(tmp_path, paths):
    for options, message in (
        ({"batch_sizes": [0]}, "batch_size=0 must be"),
        ({"seconds": 0}, "seconds=0 must be above 0"),
    ):
        with one_line_error(message):
            export.latencies(paths, **options)
    with one_line_error("name at least one model"):
        export.latencies([])
    with one_line_error("is not an exported model"):
        export.latencies([*paths, tmp_path / "gone"])
