"""Files of torchvision's own sizes, by the named detectors: what comes of them is torchvision's."""

import zlib

import drawn_detectors as drawn
import numpy as np
import pytest
from checkpoints import as_safetensors, as_zip

from keras_resnet import detection

# Of the state dicts of torchvision 0.28 (of "c4", of its FasterRCNN over conv1 to layer3): how many
# tensors, and the checksum of their names and shapes.
NETS = {
    "fpn": ("FasterRCNN_ResNet50_FPN", (295, 1728217891)),
    "fpn_v2": ("FasterRCNN_ResNet50_FPN_V2", (339, 2217674703)),
    "c4_50": ("FasterRCNN_ResNet50_C4", (275, 3810363126)),
    "c4_101": ("FasterRCNN_ResNet101_C4", (530, 2444048056)),
}


@pytest.mark.parametrize(
    ("net", "write"),
    [
        ("c4_50", as_zip),
        pytest.param("c4_50", as_safetensors, marks=pytest.mark.slow),
        *(
            pytest.param(net, write, marks=pytest.mark.slow)
            for net in ("fpn", "fpn_v2", "c4_101")
            for write in (as_zip, as_safetensors)
        ),
    ],
)
def test_features_of_a_file_by_its_path_are_torchvision_s(tmp_path, net, write):
    name, (count, checksum) = NETS[net]
    # Everything follows from the names, so that none can be mistaken for another.
    shapes = {
        key: each.shape
        for key, each in detection.to_torch(detection.builder(name)(classes=3)).items()
        if not key.endswith("num_batches_tracked")
    }
    lines = sorted(f"{key} {shape}" for key, shape in shapes.items())
    assert (len(lines), zlib.crc32("\n".join(lines).encode())) == (count, checksum)
    state = drawn.rule.state_dict(shapes)
    path = tmp_path / "detector"
    path.write_bytes(write(state | {"backbone.counter.num_batches_tracked": np.array(0)}))
    model = detection.builder(name)(weights=f"{path}", **drawn.OPTIONS)
    assert detection.parts_of(model).classes == 3
    with np.load(drawn.FIXTURES) as file:
        levels = detection.parts_of(model).levels(file["batch"])
        expected = [file[key] for key in sorted(file.files) if key.startswith(f"{net}/feature/")]
    assert len(levels) == len(expected)
    for level, feature in zip(levels, expected, strict=True):
        differs = np.abs(np.asarray(level)[:, ::3, ::3, ::32] - feature).max()
        assert differs < 1e-4 * np.abs(feature).max()
