"""The experiments, by name."""

import importlib

from keras_resnet import names
from keras_resnet.experiments.experiment import Experiment

EXPERIMENTS = {
    "degradation": "Deeper plain models train worse; residual ones do not.",
    "responses": "Layers of residual models respond weakly, the more so the deeper they are.",
    "gradients": "Gradients of deep plain models are white noise; shortcuts keep them alike.",
    "shortcuts": "No shortcut, or one of the kinds A, B and C.",
    "cardinality": "More groups of fewer channels, at equal cost.",
    "bottleneck": "Basic against bottleneck blocks, at equal cost.",
    "batch-norm": "With and without BatchNormalization, and the mistakes people make with it.",
    "one-by-one": "A 1x1 convolution is a dense layer applied to every pixel.",
}
"""What each experiment shows: module `keras_resnet.experiments.NAME` (with "_" for "-")."""


def find(name: str) -> Experiment:
    """Look an experiment up.

    Parameters
    ----------
    name : str
        A key of `EXPERIMENTS`.

    Returns
    -------
    Experiment

    Raises
    ------
    ValueError
        For an unknown name.

    Examples
    --------
    >>> from keras_resnet.experiments import find
    >>> find("degradation").takes_data
    True
    """
    module = names.find("experiment", name, EXPERIMENTS).replace("-", "_")
    return importlib.import_module(f"keras_resnet.experiments.{module}").EXPERIMENT
