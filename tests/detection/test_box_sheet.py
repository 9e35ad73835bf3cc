"""A sheet of a detection set."""

import numpy as np
import PIL.Image
import pytest

from keras_resnet import analysis, data
from keras_resnet.data.boxes import padded


@pytest.fixture
def source():
    """Grey images of three sizes of boxes; one has none."""
    images = np.full((4, 64, 64, 3), 90, "uint8")
    labels = padded(
        [
            [(8, 8, 40, 24, 0, 0), (32, 32, 63, 63, 1, 0)],
            [(0, 0, 64, 64, 1, 1)],
            [],
            [(16, 16, 48, 48, 1, 0)],
        ]
    )
    split = data.Split(images, labels)
    return data.Source("two", ("a", "b"), 3, 64, "none", split, split, split, task="detection")


def test_a_sheet_has_the_boxes_of_every_class(source, tmp_path):
    analysis.box_sheet(tmp_path / "sheet.png", source, per_class=2)
    with PIL.Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image.convert("RGB"))
    tile, beside, above = 320, 20, 53
    assert sheet.shape == (2 * (tile + above), 2 * (tile + beside), 3)
    # The first tile: at 5 times its size, the first box is from (40, 40) to (200, 120).
    first = sheet[above - 5 : above - 5 + tile, beside // 2 : beside // 2 + tile]
    grey = (first == 90).all(-1)
    assert not grey[40:120, [40, 199]].any()
    assert not grey[[40, 119], 40:200].any()
    assert grey[45:118, 42:158].all()  # the second box begins at (160, 160), its name above
    assert grey[:25].all()
