"""What a model may cost."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import keras
import tensorflow as tf

from keras_resnet import names
from keras_resnet.checks import is_within
from keras_resnet.resnet import Architecture

_WARM_UP, _CALLS = 2, 9


@dataclass(frozen=True)
class Budget:
    """Limits for the models of a search.

    Parameters
    ----------
    params : float, optional
        Trainable parameters.
    macs : float, optional
        Multiply-adds for one image.
    ms : float, optional
        Milliseconds per prediction of one image, measured on this machine.

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
            if bound is not None and not is_within("limit", bound):
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
            For an unknown name, or a value that is not a number.
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
        """Say which limit a model exceeds.

        Parameters
        ----------
        params, macs : float
            Parameters and multiply-adds of the model.
        ms : float, optional
            Milliseconds it takes, if known.

        Returns
        -------
        str or None
            None for a model within all limits.
        """
        for name, amount in (("params", params), ("macs", macs), ("ms", ms)):
            bound = getattr(self, name)
            if None not in (bound, amount) and amount > bound:
                return f"{name}={amount:,.6g} is over {bound:,.6g}"
        return None


def cost(
    options: Mapping[str, Any], input_shape: tuple[int, int, int], classes: int
) -> tuple[int, int]:
    """Count parameters and multiply-adds of a model without building it.

    Parameters
    ----------
    options : mapping
        Those of `keras_resnet.resnet.Architecture`, as `space.net_of` returns them.
    input_shape : tuple of (height, width, channels)
        Shape of one image.
    classes : int
        Outputs of the classifier.

    Returns
    -------
    tuple of (parameters, multiply-adds)
        Trainable parameters, and multiply-adds of convolutions and the classifier for one image:
        what `keras_resnet.analysis.complexity` counts in the model itself, a thousand times faster.

    Raises
    ------
    ValueError
        For options that no model has.

    Examples
    --------
    >>> from keras_resnet.tuning.budget import cost
    >>> options = dict(stem="cifar", block="basic", block_counts=(3, 3, 3), filters=(16, 32, 64))
    >>> cost({**options, "shortcut": "A"}, (32, 32, 3), classes=10)
    (269722, 40551040)
    """
    height, width, channels = input_shape
    architecture = Architecture(**options)
    plan = list(architecture.convolutions(channels))
    parameters = sum(each.parameters for each in plan)
    macs = sum(each.multiply_adds(height, width) for each in plan)
    features = architecture.features
    return parameters + (features + 1) * classes, macs + features * classes


def milliseconds(model: keras.Model) -> float:
    """Measure how long the prediction of one image takes.

    Parameters
    ----------
    model : keras.Model
        A model of images of a known size.

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
