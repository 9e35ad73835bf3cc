"""What a 1x1 convolution is: the numbers of its page."""

import json

import numpy as np
import PIL.Image
import pytest
from commands import refused, run

from keras_resnet import experiments
from keras_resnet.experiments import one_by_one

SMALL = {"size": 5, "inputs": 6, "outputs": 4, "batch_size": 2, "repetitions": 2}


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    return experiments.run("one-by-one", tmp_path_factory.mktemp("one"), **SMALL)


def test_all_ways_are_one(record):
    values = record.values
    assert values["largest_difference"] < 1e-14
    assert values["largest_difference_of_stride"] < 1e-14
    assert values["largest_difference_of_padding"] == 0
    # Of 5x5 pixels, 3x3 are looked at.
    assert values["pixels_without_gradient"] == pytest.approx(1 - 9 / 25)
    assert (values["outputs_of_a_pixel"], values["outputs_of_a_pixel_3x3"]) == (1, 9)


def test_a_difference_would_be_seen(monkeypatch):
    def wrong(x, kernel):
        return one_by_one._product(x, kernel * (1 + 1e-9))

    monkeypatch.setitem(one_by_one.WAYS, "matrix product", wrong)
    settings = one_by_one.OneByOneSettings(**SMALL)
    found = one_by_one._equality(settings, 0, None)["differences"]
    assert min(found["matrix product"][:2]) == pytest.approx(1e-9, rel=0.5)
    assert max(found["dense layer"]) < 1e-14


def test_gradients_are_differences_of_outputs():
    """By a step in one number of the map, and in one of the kernel."""
    settings = one_by_one.OneByOneSettings(**SMALL)
    x, kernel, weights = one_by_one._drawn(settings, 1)
    _, of_map, of_kernel = one_by_one._by_hand(x, kernel, weights)
    step = 1e-6

    def total(x, kernel):
        return sum(
            float(weights[image, row, column] @ (x[image, row, column] @ kernel))
            for image, row, column in np.ndindex(x.shape[:3])
        )

    for numbers, gradient, place in ((x, of_map, (1, 2, 3, 4)), (kernel, of_kernel, (5, 2))):
        before = total(x, kernel)
        numbers[place] += step
        assert (total(x, kernel) - before) / step == pytest.approx(gradient[place], rel=1e-5)


def test_the_arithmetic_is_that_of_the_documents(record):
    values = record.values
    assert values["bottleneck_weights"] == 69_632 == 256 * 64 + 9 * 64 * 64 + 64 * 256
    assert values["wide_weights"] == 1_179_648 == 2 * 9 * 256 * 256
    assert f"{values['wide_to_bottleneck']:.2f}" == "16.94"
    assert values["formula_is_what_keras_counts"]


def test_mixtures_are_those_of_pillow(record):
    assert record.values["largest_difference_from_pillow"] < 0.51
    image = one_by_one.photograph()
    grey = one_by_one.mixed(image, one_by_one.MIXTURES["grey"])[..., 0]
    theirs = np.asarray(PIL.Image.fromarray(image).convert("L"), float)  # in whole numbers
    assert abs(grey - theirs).max() < 1.01
    swapped = one_by_one.mixed(image, one_by_one.MIXTURES["red and blue swapped"])
    assert (swapped == image[..., ::-1]).all()


def test_its_page_says_so(record):
    english = (record.output / "report.md").read_text(encoding="utf-8")
    assert "69,632" in english
    assert "16.94 times" in english
    assert "All are the same to rounding" in english
    chinese = (record.output / "report.zh.md").read_text(encoding="utf-8")
    assert "16.94 倍" in chinese


def test_a_page_of_other_numbers_says_that(record):
    results = json.loads(json.dumps(record.results))
    results["equality-0"]["differences"]["NumPy"] = [1e-3, 0, 0]
    results["equality-1"]["differences"]["stride 2"] = [1e-3, 0, 0]
    report = one_by_one._report(one_by_one.OneByOneSettings(**SMALL), results)
    assert report.values["largest_difference"] == 1e-3
    assert report.values["largest_difference_of_stride"] == 1e-3


def test_settings_out_of_range_are_refused(tmp_path):
    for setting, complaint in (
        ("size=3", "maps must have at least 4x4 pixels"),
        ("inputs=0", "inputs=0 must be"),
        ("sizes=8", "Did you mean"),
    ):
        result = run("experiment", "one-by-one", "--set", setting, "--output", tmp_path / "out")
        assert complaint in refused(result)
