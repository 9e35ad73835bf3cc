import numpy as np
import pytest
from errors import one_line_error
from pictures import write_images

from keras_resnet import data
from keras_resnet.data import sources


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "pets"
    for name in ("cat", "dog"):
        write_images(folder / name, 10)
    return folder


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"on_error": "ignore"}, "on_error='ignore' must be one of 'raise', 'skip'"),
        ({"validation": 1}, "validation=1 must be at least 0 and below 1"),
        ({"validation": float("nan")}, "validation=nan must be a number of at least 0 and below 1"),
        ({"seed": -1}, "seed=-1 must be a whole number of at least 0"),
        ({"seed": 0.5}, "seed=0.5 must be a whole number of at least 0"),
        ({"task": "detection"}, "task='detection' must be one of None, 'classification'"),
    ],
)
def test_options_are_checked(options, complaint):
    with one_line_error(complaint):
        data.load("digits", **options)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_folders_have_classes_alone(pets, task):
    for source in (pets, "digits"):
        with one_line_error(f"task={task!r}", "one class an image", "CSV file"):
            data.load(source, task=task)
    assert data.load(pets, task="classification").class_names == ("cat", "dog")


def test_every_kind_has_a_function_of_its_own(pets):
    loaded, own = data.load(pets, 3, validation=0.3), sources.folder(pets, 3, validation=0.3)
    assert loaded.fingerprint() == own.fingerprint()
    np.testing.assert_array_equal(
        sources.digits(1, 0).train.images, data.load("digits", 1, validation=0).train.images
    )
