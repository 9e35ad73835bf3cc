"""Multiply-adds of detectors, against those that torchvision publishes."""

import json

import pytest
from commands import run

import keras_resnet
from keras_resnet import detection


def gigas(head, size, proposals=None, **options):
    backbone = keras_resnet.ResNet50(weights=None, include_top=False, input_shape=(None, None, 3))
    model = detection.FasterRCNN(backbone, 90, head, **options)
    stages = detection.complexity(model, size, proposals)
    return {stage.name: stage.macs / 1e9 for stage in stages}


@pytest.mark.parametrize(("head", "published"), [("fpn", 134.38), ("fpn_v2", 280.37)])
def test_is_what_torchvision_counts(head, published):
    """`_ops` of its weights' metadata: 1e9 multiply-adds of an image of 800 x 800."""
    assert sum(gigas(head, 800).values()) == pytest.approx(published, rel=2e-4)


def test_conv5_runs_on_every_proposal_of_c4():
    found = gigas("c4", (600, 800), 300, min_size=600, max_size=800)
    # 14 x 14 x 1024 numbers in: a 1x1 of stride 2, then 3 x (1x1, 3x3, 1x1) and a projection.
    of_a_roi = (
        49 * (1024 * 512 + 2 * 2048 * 512 + 3 * 9 * 512 * 512 + 3 * 512 * 2048 + 1024 * 2048)
        + 3 * 49 * 1024 * 512
    )
    assert found["conv5"] == pytest.approx(300 * of_a_roi / 1e9)
    assert list(found) == ["conv1", "conv2", "conv3", "conv4", "rpn", "conv5", "box_head"]


def test_summary_shows_them():
    result = run("summary", "FasterRCNN_ResNet18_FPN", "--image-size", "64x96", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["input_shape"] == [64, 96, 3]
    assert found["proposals"] == 1000
    assert found["macs"] == sum(stage["macs"] for stage in found["stages"])
    assert [stage["name"] for stage in found["stages"]][-3:] == ["fpn", "rpn", "box_head"]
