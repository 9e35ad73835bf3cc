"""Write down what timm publishes of this family: ``python tests/golden/make_timm_published.py``.

Needs PyTorch, torchvision and timm 1.0.31, which the tests do not: they read the file that this
script writes next to itself, ``timm_published.json.xz``:

``published``
    By NAME.TAG: where the weights are, what they are for, and how images are shown to them, as
    timm's own configuration has it.
``shapes``
    By architecture: the shape of every tensor in a state dict, but for batch counters, of a model
    with the number of classes that the architecture has by default.
"""

import json
import lzma
from pathlib import Path

import timm
import torch
from timm.models import get_pretrained_cfg

FAMILY = ("resnet*", "resnext*", "wide_resnet*", "seresn*", "senet154*", "ecaresn*", "test_resnet*")
FIELDS = (
    *("input_size", "test_input_size", "crop_pct", "test_crop_pct", "interpolation"),
    *("mean", "std", "num_classes", "license", "url"),
)


def main():
    tags = timm.list_models([*FAMILY], pretrained=True)
    modules = {tag: timm.models.model_entrypoint(tag).__module__ for tag in tags}
    tags = [tag for tag in tags if modules[tag].rpartition(".")[2] in ("resnet", "resnetv2")]
    published, shapes = {}, {}
    for tag in tags:
        configuration = get_pretrained_cfg(tag)
        published[tag] = {field: getattr(configuration, field) for field in FIELDS}
        architecture = tag.partition(".")[0]
        if architecture not in shapes:
            with torch.device("meta"):
                state = timm.create_model(architecture).state_dict()
            shapes[architecture] = {
                name: [*tensor.shape]
                for name, tensor in state.items()
                if not name.endswith("num_batches_tracked")
            }
    content = {"timm": timm.__version__, "published": published, "shapes": shapes}
    path = Path(__file__).with_name("timm_published.json.xz")
    path.write_bytes(lzma.compress(json.dumps(content).encode(), preset=9 | lzma.PRESET_EXTREME))
    print(len(published), "weights of", len(shapes), "architectures,", path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
