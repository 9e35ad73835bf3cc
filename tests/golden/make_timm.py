"""Compute `timm.npz` with timm: ``python tests/golden/make_timm.py``.

Needs PyTorch, torchvision and timm, which the tests do not: they read the file that this script
writes next to itself, and repeat ``rule.py`` for the parameters and the input. For each of `NETS`,
whose output stride may follow an "@":

``{net}/parameters``
    Number of trainable parameters.
``{net}/inference``, ``{net}/training``
    Every `STEP`-th logit on ``rule.image(INPUT)`` in inference and in training mode; not for the
    nets with more than `LARGEST` parameters.

All values are computed in float64 and rounded once to float32. The script prints how far timm's own
float32 is from them, as a fraction of the largest: a tolerance in a test has to stay above it.
"""

import sys
from pathlib import Path

import numpy as np
import rule
import timm
import torch

INPUT = (4, 64, 64, 3)
STEP = 10
LARGEST = 200_000_000

NETS = """
resnet10t resnet14t resnet18d resnet26 resnet26d resnet26t resnet34d resnet50c resnet50d resnet50s
resnet50t resnet101c resnet101d resnet101s resnet152c resnet152d resnet152s resnet200 resnet200d
resnet50_gn resnext50d_32x4d resnext101_32x4d resnext101_32x16d resnext101_32x32d seresnet18
seresnet34 seresnet50 seresnet50t seresnet101 seresnet152 seresnet152d seresnet200d seresnet269d
seresnext26d_32x4d seresnext26t_32x4d seresnext50_32x4d seresnext101_32x4d seresnext101_32x8d
seresnext101d_32x8d seresnext101_64x4d seresnetaa50d seresnextaa101d_32x8d seresnextaa201d_32x8d
ecaresnet26t ecaresnet50d ecaresnet50t ecaresnet101d ecaresnet200d ecaresnet269d ecaresnetlight
ecaresnext26t_32x4d ecaresnext50t_32x4d resnetaa34d resnetaa50 resnetaa50d resnetaa101d resnetblur18
resnetblur50 resnetblur50d resnetblur101d resnetrs50 resnetrs101 resnetrs152 resnetrs200 resnetrs270
resnetrs350 resnetrs420 resnetv2_18 resnetv2_18d resnetv2_34 resnetv2_34d resnetv2_50 resnetv2_50d
resnetv2_101 resnetv2_101d resnetv2_152 resnetv2_152d resnetv2_50d_gn resnetv2_50x1_bit
resnetv2_50x3_bit resnetv2_101x1_bit resnetv2_101x3_bit resnetv2_152x2_bit resnetv2_152x4_bit
"""


def logits(model: torch.nn.Module, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """Return the chosen logits of a model in both modes, computed in one precision."""
    model.to(dtype)
    x = torch.from_numpy(rule.image(INPUT)).to(dtype).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        # Inference comes first: the pass in training mode moves the statistics.
        inference = model.eval()(x)
        training = model.train()(x)
    return {"inference": inference[:, ::STEP].numpy(), "training": training[:, ::STEP].numpy()}


def created(net: str) -> torch.nn.Module:
    """Return a net of timm; what stands behind an "@" is its output stride."""
    name, _, stride = net.partition("@")
    return timm.create_model(name, output_stride=int(stride or 32))


def drawn(net: str) -> torch.nn.Module:
    """Return a net of timm with the parameters that the rule draws."""
    model = created(net)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    state = {key: torch.from_numpy(array) for key, array in rule.state_dict(shapes).items()}
    missing, _ = model.load_state_dict(state, strict=False)
    assert all(key.endswith("num_batches_tracked") for key in missing), missing
    return model


def main() -> None:
    """Write the file for the nets that are named, or all of them."""
    path = Path(__file__).with_name("timm.npz")
    arrays = dict(np.load(path)) if path.exists() else {}
    print(f"{'Rounding error of float32':28}{'parameters':>12}{'inference':>11}{'training':>11}")
    for name in sys.argv[1:] or NETS.split():
        with torch.device("meta"):
            count = sum(each.numel() for each in created(name).parameters())
        golden, errors = {}, []
        if count <= LARGEST:
            golden = logits(drawn(name), torch.float64)
            single = logits(drawn(name), torch.float32)
            errors = [np.abs(single[k] - golden[k]).max() / np.abs(golden[k]).max() for k in golden]
        print(f"{name:28}{count:12,}", *(f"{each:10.1e}" for each in errors), flush=True)
        arrays[f"{name}/parameters"] = np.array(count)
        arrays |= {f"{name}/{key}": value.astype(np.float32) for key, value in golden.items()}
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    main()
