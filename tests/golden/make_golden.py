"""Compute the golden fixtures with PyTorch: ``python tests/golden/make_golden.py``.

Needs PyTorch, which the tests do not: they read the files that this script writes next to itself,
and repeat ``rule.py`` for the parameters and the input.

``logits.npz``, on the input ``rule.image(IMAGENET_INPUT)`` or ``rule.image(CIFAR_INPUT)``:

``{net}/inference``
    Logits in inference mode.
``{net}/training``
    Logits in training mode, where BatchNorm uses the statistics of the batch.
``{net}/bn1.running_mean``, ``{net}/bn1.running_var``
    Moving statistics of the first BatchNorm after that one pass in training mode:
    0.9 * drawn value + 0.1 * statistic of the batch. PyTorch normalises with the biased variance
    of the batch, but what it moves ``running_var`` towards is the unbiased one,
    n / (n - 1) times as large with n = images * height * width.

``gradients.npz``, for single residual blocks in training mode:

``{block}/output``
    Output, (images, height, width, channels).
``{block}/input_gradient``
    Gradient of the loss with respect to the input, in the same layout.
``{block}/gradient/{parameter}``
    Gradient with respect to each parameter, in PyTorch's layout. The parameter is drawn under
    the name ``{block}.{parameter}``.

The loss is ``sum(output * cos(arange(output.size)).reshape(output.shape))``, with the output in
the layout in which it is stored. The input is ``rule.image(BLOCK_INPUT + (channels,))``.

All values are computed in float64 and rounded once to float32, so that the reference does not
carry the rounding errors of one implementation. The script also computes everything in float32,
prints how far the results are from the reference, and writes nothing unless all of them are
within ``ROUNDING_LIMIT``: a tolerance in a test is meaningful only if rounding stays below it.

``checkpoint.pth`` and ``checkpoint_legacy.pth`` are one checkpoint in the two formats that
``torch.save`` writes, with the kinds of tensors that state dicts hold, counting upwards from 0:
see `checkpoint`.
"""

from collections import OrderedDict
from functools import partial
from pathlib import Path

import numpy as np
import rule
import torch
from torch import nn
from torch.nn import functional

IMAGENET_INPUT = (4, 64, 64, 3)
CIFAR_INPUT = (4, 32, 32, 3)
# Odd, so that a wrong padding in a convolution of stride 2 shows, and not square, so that height
# taken for width does. Not every such size keeps all inputs of ReLUs off zero by JUMP_DISTANCE.
BLOCK_INPUT = (2, 7, 9)

# Largest difference between float32 and float64, as a fraction of the largest value.
ROUNDING_LIMIT = 2e-5

# Smallest magnitude of the input of a ReLU in a block. Its gradient jumps at zero, so an input
# within rounding of zero, about 1e-6 here, would let rounding choose between two gradients.
JUMP_DISTANCE = 1e-5


class Projection(nn.Sequential):
    """Shortcut of a block that changes the shape: 1x1 convolution and BatchNorm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
            nn.BatchNorm2d(out_channels),
        )


class Subsampling(nn.Module):
    """Option A of the paper: a shortcut without parameters.

    Keeps every second row and column, and adds channels of zeros, half of them before the
    channels of the input and half after.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.stride = stride
        self.padding = (out_channels - in_channels) // 2

    def forward(self, x):
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, self.padding, self.padding))


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions.

    Parameters
    ----------
    in_channels : int
        Channels of the input.
    planes : int
        Channels of both convolutions, and so of the output.
    stride : int
        Stride of the first convolution and of the shortcut.
    groups, width_per_group : int
        Must keep their defaults; here for the signature of `Bottleneck`.
    shortcut : type
        Module for the shortcut where the block changes the shape.
    """

    expansion = 1

    def __init__(
        self, in_channels, planes, stride=1, groups=1, width_per_group=64, shortcut=Projection
    ):
        super().__init__()
        if (groups, width_per_group) != (1, 64):
            raise ValueError("a basic block has no groups and no width of its own")
        self.conv1 = nn.Conv2d(in_channels, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(shortcut, in_channels, planes, stride)
        self.relu = nn.ReLU()

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """Residual block of a 1x1, a 3x3 and a 1x1 convolution.

    Parameters
    ----------
    in_channels : int
        Channels of the input.
    planes : int
        A quarter of the channels of the output.
    stride : int
        Stride of the 3x3 convolution and of the shortcut.
    groups : int
        Groups of the 3x3 convolution.
    width_per_group : int
        Channels of each group where ``planes`` is 64, and in proportion elsewhere.
    shortcut : type
        Module for the shortcut where the block changes the shape.
    """

    expansion = 4

    def __init__(
        self, in_channels, planes, stride=1, groups=1, width_per_group=64, shortcut=Projection
    ):
        super().__init__()
        width = int(planes * width_per_group / 64) * groups
        out_channels = planes * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(shortcut, in_channels, out_channels, stride)
        self.relu = nn.ReLU()

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + self.downsample(x))


def _shortcut(shortcut, in_channels, out_channels, stride):
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return shortcut(in_channels, out_channels, stride)


def _stage(block, in_channels, planes, count, stride, **options):
    """Chain ``count`` blocks, of which the first has the stride."""
    out_channels = planes * block.expansion
    return nn.Sequential(
        block(in_channels, planes, stride, **options),
        *(block(out_channels, planes, **options) for _ in range(count - 1)),
    )


class ResNet(nn.Module):
    """ResNet, ResNeXt or wide ResNet for ImageNet, with 1000 classes.

    Parameters
    ----------
    block : type
        `BasicBlock` or `Bottleneck`.
    counts : tuple of int
        Number of blocks in each of the four stages.
    groups, width_per_group : int
        See `Bottleneck`.
    """

    def __init__(self, block, counts, groups, width_per_group):
        super().__init__()
        stage = partial(_stage, block, groups=groups, width_per_group=width_per_group)
        expansion = block.expansion
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = stage(64, 64, counts[0], stride=1)
        self.layer2 = stage(64 * expansion, 128, counts[1], stride=2)
        self.layer3 = stage(128 * expansion, 256, counts[2], stride=2)
        self.layer4 = stage(256 * expansion, 512, counts[3], stride=2)
        self.fc = nn.Linear(512 * expansion, 1000)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class CIFARResNet(nn.Module):
    """ResNet of the paper for CIFAR-10, with shortcuts without parameters.

    Parameters
    ----------
    depth : int
        Number of layers with weights: 6n + 2 for n blocks in each of the three stages.
    """

    def __init__(self, depth):
        super().__init__()
        count = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(BasicBlock, 16, 16, count, stride=1, shortcut=Subsampling)
        self.layer2 = _stage(BasicBlock, 16, 32, count, stride=2, shortcut=Subsampling)
        self.layer3 = _stage(BasicBlock, 32, 64, count, stride=2, shortcut=Subsampling)
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


# Name to block, blocks in each stage, groups, width per group.
IMAGENET_NETS = {
    "ResNet18": (BasicBlock, (2, 2, 2, 2), 1, 64),
    "ResNet34": (BasicBlock, (3, 4, 6, 3), 1, 64),
    "ResNet50": (Bottleneck, (3, 4, 6, 3), 1, 64),
    "ResNet101": (Bottleneck, (3, 4, 23, 3), 1, 64),
    "ResNet152": (Bottleneck, (3, 8, 36, 3), 1, 64),
    "ResNeXt50_32x4d": (Bottleneck, (3, 4, 6, 3), 32, 4),
    "ResNeXt101_32x8d": (Bottleneck, (3, 4, 23, 3), 32, 8),
    "ResNeXt101_64x4d": (Bottleneck, (3, 4, 23, 3), 64, 4),
    "WideResNet50_2": (Bottleneck, (3, 4, 6, 3), 1, 128),
    "WideResNet101_2": (Bottleneck, (3, 4, 23, 3), 1, 128),
}

# Name to depth.
CIFAR_NETS = {"CIFARResNet20": 20, "CIFARResNet56": 56}

# Each kind of block twice: with a stride, and with an identity shortcut.
BLOCKS = {
    "basic": partial(BasicBlock, 16, 32, stride=2),
    "basic_identity": partial(BasicBlock, 16, 16),
    "bottleneck": partial(Bottleneck, 32, 16, stride=2),
    "bottleneck_identity": partial(Bottleneck, 64, 16),
    "grouped_bottleneck": partial(Bottleneck, 64, 32, stride=2, groups=8, width_per_group=16),
    "grouped_bottleneck_identity": partial(Bottleneck, 128, 32, groups=8, width_per_group=16),
}


def draw(module: nn.Module, prefix: str = "") -> None:
    """Set all parameters and moving statistics of a module by the rule.

    Parameters
    ----------
    module : torch.nn.Module
        The module to set.
    prefix : str
        Put before every name in the module's state dict to make the name for the rule.
    """
    shapes = {prefix + name: tuple(array.shape) for name, array in module.state_dict().items()}
    arrays = {
        name.removeprefix(prefix): torch.from_numpy(array)
        for name, array in rule.state_dict(shapes).items()
    }
    missing, _ = module.load_state_dict(arrays, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing), missing


def to_torch(images: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Move the channels in front of height and width."""
    return torch.from_numpy(images).to(dtype).permute(0, 3, 1, 2).contiguous()


def logits(net: nn.Module, images: np.ndarray, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """Compute what ``logits.npz`` holds of one net.

    Parameters
    ----------
    net : torch.nn.Module
        The net, fresh: its parameters are replaced, its moving statistics change.
    images : numpy.ndarray
        Input of the net, (images, height, width, channels).
    dtype : torch.dtype
        Precision of the computation.

    Returns
    -------
    dict of str to numpy.ndarray
        Arrays in the given precision by their keys without the name of the net.
    """
    draw(net)
    net.to(dtype)
    x = to_torch(images, dtype)
    with torch.no_grad():
        # Inference comes first: the pass in training mode moves the statistics.
        inference = net.eval()(x)
        training = net.train()(x)
    return {
        "inference": inference.numpy(),
        "training": training.numpy(),
        "bn1.running_mean": net.bn1.running_mean.numpy(),
        "bn1.running_var": net.bn1.running_var.numpy(),
    }


def gradients(name: str, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """Compute what ``gradients.npz`` holds of one block.

    Parameters
    ----------
    name : str
        Name of the block in ``BLOCKS``.
    dtype : torch.dtype
        Precision of the computation.

    Returns
    -------
    dict of str to numpy.ndarray
        Arrays in the given precision by their keys without the name of the block.
    """
    block = BLOCKS[name]()
    draw(block, prefix=f"{name}.")
    block.to(dtype).train()
    block.relu.register_forward_pre_hook(_refuse_near_zero)
    images = rule.image((*BLOCK_INPUT, block.conv1.in_channels))
    x = to_torch(images, dtype).requires_grad_()
    output = block(x).permute(0, 2, 3, 1)
    cosines = torch.cos(torch.arange(output.numel(), dtype=torch.float64))
    torch.sum(output * cosines.reshape(output.shape).to(dtype)).backward()
    return {
        "output": output.detach().numpy(),
        "input_gradient": x.grad.permute(0, 2, 3, 1).numpy(),
        **{f"gradient/{key}": value.grad.numpy() for key, value in block.named_parameters()},
    }


def _refuse_near_zero(relu, inputs):
    smallest = inputs[0].abs().min().item()
    if smallest < JUMP_DISTANCE:
        raise SystemExit(f"input of a ReLU is {smallest:.1e} from zero")


def rounding_error(single: np.ndarray, double: np.ndarray) -> float:
    """Return the largest difference as a fraction of the largest value."""
    return float(np.abs(single - double).max() / np.abs(double).max())


def make_logits() -> tuple[dict[str, np.ndarray], float]:
    """Compute all arrays of ``logits.npz`` and print a table of rounding errors.

    Returns
    -------
    arrays : dict of str to numpy.ndarray
        float32 arrays by their keys.
    worst : float
        The largest rounding error.
    """
    nets = {
        name: (partial(ResNet, *setting), IMAGENET_INPUT) for name, setting in IMAGENET_NETS.items()
    } | {name: (partial(CIFARResNet, depth), CIFAR_INPUT) for name, depth in CIFAR_NETS.items()}
    arrays = {}
    errors = []
    print(f"{'Rounding error of float32':28}{'parameters':>12}{'inference':>11}{'training':>11}")
    for name, (build, shape) in nets.items():
        images = rule.image(shape)
        double = logits(build(), images, torch.float64)
        single = logits(build(), images, torch.float32)
        count = sum(array.numel() for array in build().parameters())
        inference, training, *moving = (rounding_error(single[key], double[key]) for key in double)
        print(f"{name:28}{count:12,}{inference:11.1e}{training:11.1e}", flush=True)
        errors += [inference, training, *moving]
        arrays |= {f"{name}/{key}": value.astype(np.float32) for key, value in double.items()}
    return arrays, max(errors)


def make_gradients() -> tuple[dict[str, np.ndarray], float]:
    """Compute all arrays of ``gradients.npz`` and print a table of rounding errors.

    Returns
    -------
    arrays : dict of str to numpy.ndarray
        float32 arrays by their keys.
    worst : float
        The largest rounding error.
    """
    arrays = {}
    errors = []
    print(f"{'Rounding error of float32':28}{'output':>12}{'gradients':>11}")
    for name in BLOCKS:
        double = gradients(name, torch.float64)
        single = gradients(name, torch.float32)
        output, *rest = (rounding_error(single[key], double[key]) for key in double)
        print(f"{name:28}{output:12.1e}{max(rest):11.1e}")
        errors += [output, *rest]
        arrays |= {f"{name}/{key}": value.astype(np.float32) for key, value in double.items()}
    return arrays, max(errors)


def checkpoint() -> dict:
    """Make what both checkpoint files hold.

    Returns
    -------
    dict
        A checkpoint as training scripts write it. Some of its tensors are views of others.
    """
    weight = torch.arange(24.0).reshape(2, 3, 4)
    state = OrderedDict(
        {
            "weight": weight,
            "transposed": weight.permute(2, 0, 1),
            "sliced": weight[:, 1:, ::2],
            "parameter": nn.Parameter(torch.arange(6.0).reshape(2, 3)),
            "half": torch.arange(5, dtype=torch.float16),
            "bfloat16": torch.arange(6, dtype=torch.bfloat16).reshape(3, 2),
            "double": torch.arange(3, dtype=torch.float64),
            "num_batches_tracked": torch.tensor(7),
            "empty": torch.zeros(0, 3),
        }
    )
    return {"epoch": 3, "state_dict": state, "best_acc1": torch.tensor(76.5)}


def make_checkpoints(folder: Path) -> None:
    """Write ``checkpoint.pth`` and ``checkpoint_legacy.pth``.

    Parameters
    ----------
    folder : pathlib.Path
        Where to write them.
    """
    torch.save(checkpoint(), folder / "checkpoint.pth")
    legacy = folder / "checkpoint_legacy.pth"
    torch.save(checkpoint(), legacy, _use_new_zipfile_serialization=False)


def main() -> None:
    """Write all files, unless a rounding error exceeds the limit."""
    # One thread adds in one order, so that a second run writes the same bytes.
    torch.set_num_threads(1)
    logit_arrays, logit_error = make_logits()
    gradient_arrays, gradient_error = make_gradients()
    worst = max(logit_error, gradient_error)
    if worst > ROUNDING_LIMIT:
        raise SystemExit(f"rounding error {worst:.1e} exceeds {ROUNDING_LIMIT:.0e}")
    folder = Path(__file__).parent
    np.savez_compressed(folder / "logits.npz", **logit_arrays)
    np.savez_compressed(folder / "gradients.npz", **gradient_arrays)
    make_checkpoints(folder)


if __name__ == "__main__":
    main()
