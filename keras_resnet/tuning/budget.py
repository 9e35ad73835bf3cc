"""What a net may cost."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

import keras
import tensorflow as tf

from keras_resnet import names
from keras_resnet.blocks import EXPANSION

_WARM_UP, _CALLS = 2, 9


@dataclass(frozen=True)
class Budget:
    """Bounds that no net of a search may go beyond.

    Parameters
    ----------
    params : float, optional
        Trainable parameters.
    macs : float, optional
        Multiply-adds for one image.
    ms : float, optional
        Milliseconds that the prediction for one image takes on this machine, measured.

    Examples
    --------
    >>> from keras_resnet.tuning import Budget
    >>> Budget.parse("params=3e5, ms=20")
    Budget(params=300000.0, macs=None, ms=20.0)
    """

    params: float | None = None
    macs: float | None = None
    ms: float | None = None

    def __post_init__(self):
        for field in fields(self):
            bound = getattr(self, field.name)
            if bound is not None and (not isinstance(bound, Real) or not bound > 0):
                raise ValueError(f"budget: {field.name}={bound!r} must be a number above 0.")

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read a budget as people type it.

        Parameters
        ----------
        text : str
            Such as "params=1e6,macs=50e6".

        Returns
        -------
        Budget

        Raises
        ------
        ValueError
            For a name or a number that is none.
        """
        bounds = {}
        for part in text.split(","):
            name, _, bound = part.partition("=")
            known = [field.name for field in fields(cls)]
            name = names.find("budget", name.strip(), known)
            try:
                bounds[name] = float(bound)
            except ValueError as error:
                raise ValueError(
                    f"budget {part.strip()!r} must be NAME=NUMBER, such as params=1e6."
                ) from error
        return cls(**bounds)

    def __str__(self):
        bounds = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ",".join(f"{name}={bound:.12g}" for name, bound in bounds if bound is not None)

    def exceeded(self, params: float, macs: float, ms: float | None = None) -> str | None:
        """Say which bound a net is beyond.

        Parameters
        ----------
        params, macs : float
            What the net has.
        ms : float, optional
            What it takes, where that is known.

        Returns
        -------
        str or None
            None for a net within all bounds.
        """
        for name, amount in (("params", params), ("macs", macs), ("ms", ms)):
            bound = getattr(self, name)
            if None not in (bound, amount) and amount > bound:
                return f"{name}={amount:,.6g} is over {bound:,.6g}"
        return None


def cost(
    options: Mapping[str, Any], input_shape: tuple[int, int, int], classes: int
) -> tuple[int, int]:
    """Parameters and multiply-adds of a net that has not been built.

    Parameters
    ----------
    options : mapping
        As `space.net_of` returns them.
    input_shape : tuple of (height, width, channels)
        Shape of one image.
    classes : int
        Outputs of the classifier.

    Returns
    -------
    tuple of (parameters, multiply-adds)
        Trainable parameters, and multiply-adds of convolutions and the classifier for one image:
        what `keras_resnet.analysis.complexity` counts in the net itself, a thousand times quicker.

    Examples
    --------
    >>> from keras_resnet.tuning.budget import cost
    >>> net = dict(stem="cifar", block="basic", block_counts=(3, 3, 3), filters=(16, 32, 64))
    >>> cost({**net, "shortcut": "A"}, (32, 32, 3), classes=10)
    (269722, 40551040)
    """
    parameters = macs = 0

    def convolution(size, inputs, outputs, kernel_size=1, strides=1, groups=1):
        """And the BatchNormalization behind it; returns the size of the result."""
        nonlocal parameters, macs
        size = tuple(-(-side // strides) for side in size)
        weights = kernel_size**2 * inputs // groups * outputs
        parameters += weights + 2 * outputs
        macs += weights * size[0] * size[1]
        return size

    *size, inputs = input_shape
    shortcut, cardinality = options["shortcut"], options.get("cardinality", 1)
    basic = options["block"] == "basic"
    first, second = (2, 1) if options.get("stride_in") == "1x1" else (1, 2)
    imagenet = options["stem"] == "imagenet"
    filters = options["filters"][0]
    size = convolution(size, inputs, filters, 7 if imagenet else 3, 2 if imagenet else 1)
    if imagenet:
        size = tuple(-(-side // 2) for side in size)
    inputs = filters
    for stage, (count, filters) in enumerate(
        zip(options["block_counts"], options["filters"], strict=True)
    ):
        outputs = filters if basic else EXPANSION * filters
        for block in range(count):
            shrinks = block == 0 < stage
            strides = 1 + shrinks
            if shortcut == "C" or (shortcut == "B" and (shrinks or inputs != outputs)):
                convolution(size, inputs, outputs, strides=strides)
            if basic:
                size = convolution(size, inputs, filters, 3, strides)
                convolution(size, filters, filters, 3)
            else:
                width = filters * options.get("base_width", 64) * cardinality // 64
                size = convolution(size, inputs, width, strides=first if shrinks else 1)
                size = convolution(size, width, width, 3, second if shrinks else 1, cardinality)
                convolution(size, width, outputs)
            inputs = outputs
    return parameters + (inputs + 1) * classes, macs + inputs * classes


def milliseconds(model: keras.Model) -> float:
    """Measure what the prediction for one image takes.

    Parameters
    ----------
    model : keras.Model
        A model of images whose size is known.

    Returns
    -------
    float
        The median of several calls.
    """
    image = tf.zeros((1, *model.input_shape[1:]))
    predict = tf.function(lambda image: model(image, training=False), autograph=False)
    predict = predict.get_concrete_function(image)
    taken = []
    for _ in range(_WARM_UP + _CALLS):
        start = time.perf_counter()
        predict(image).numpy()
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken[_WARM_UP:])
