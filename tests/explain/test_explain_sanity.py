"""The sanity check of maps, and the page that quotes it."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_resnet
from benchmarks import explain_sanity

PAGE = Path(__file__).parents[2] / "docs" / "explain.md"


def test_the_middle_is_half_of_the_area():
    maps = np.zeros((49, 7, 7), "float32")
    maps[np.arange(49), np.arange(49) // 7, np.arange(49) % 7] = 1
    inside = explain_sanity.in_the_middle(maps).reshape(7, 7)
    assert inside[1:6, 1:6].all()
    assert inside.sum() == 25


def test_a_quarter_is_hidden_where_the_map_is_highest():
    images = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3))
    maps = np.zeros((2, 4, 4), "float32")
    maps[0, 0], maps[1, :, 3] = 1, 1
    hidden = explain_sanity.hidden(images, maps)
    changed = (hidden != images).any(axis=-1)
    assert changed[0, :4].all()
    assert changed[1, :, 12:].all()
    assert changed.sum() == 2 * 64


def test_levels_are_shuffled_from_the_top():
    keras.utils.set_random_seed(0)
    model = keras_resnet.CIFARResNet(8)
    levels = explain_sanity.levels(model)
    assert levels == ["predictions", "conv4_block1", "conv3_block1", "conv2_block1", "conv1"]
    before = [weight.numpy() for weight in model.trainable_weights]
    explain_sanity.shuffle(model, "conv4_block1", np.random.default_rng(0))
    for weight, former in zip(model.trainable_weights, before, strict=True):
        np.testing.assert_array_equal(np.sort(weight, axis=None), np.sort(former, axis=None))
        moved = (weight.numpy() != former).any()
        assert moved == ("conv4_block1" in weight.path and "kernel" in weight.path)


def test_a_map_is_like_itself_and_an_empty_one_like_none():
    maps = np.random.default_rng(0).uniform(size=(3, 7, 7)).astype("float32")
    for measure, similar in explain_sanity.similarities(maps, 2 * maps).items():
        assert similar == pytest.approx([1.0] * 3), measure
    assert explain_sanity.similarities(maps, 0 * maps)["rank correlation"] == [0.0] * 3


def test_the_page_says_what_was_measured():
    found, text = json.loads(explain_sanity.RESULTS.read_text()), PAGE.read_text()
    hidden, cascade = found["hidden"], {each["level"]: each for each in found["cascade"]}
    ratio = found["seconds"]["maps"] / found["seconds"]["inference"]
    for said in (
        f"{found['peaks in the middle']} of {found['images']} images",
        f"{found['shuffled: peaks in the middle']} of {found['images']}",
        f"{hidden['lower with its own map']} of {found['images of the rest']} images",
        *(f"{hidden[key]:.2f}" for key in ("nothing", "its own map", "another map")),
        *(f"{cascade['predictions'][name]['mean']:.2f}" for name in ("rank correlation", "SSIM")),
        *(f"{cascade['conv5_block1'][name]['mean']:.2f}" for name in ("rank correlation", "SSIM")),
        *(f"{found['other images'][name]['mean']:.2f}" for name in ("rank correlation", "SSIM")),
        f"({ratio:.2f} times in this run",
    ):
        assert said in " ".join(text.split()), said
    # What the page claims of these numbers.
    assert found["p"] < 1e-3
    assert hidden["p"] < 1e-3
    for name, other in found["other images"].items():
        assert all(each[name]["mean"] < other["mean"] for each in found["cascade"])
