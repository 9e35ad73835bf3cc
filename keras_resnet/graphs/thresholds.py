"""Which labels are present: those whose probability exceeds a threshold that the model says."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_resnet.graphs.heads import head_of
from keras_resnet.graphs.structure import input_of, is_functional
from keras_resnet.layers import Thresholds
from keras_resnet.resnet import deep_graphs

THRESHOLD = 0.5
"""What a probability must exceed where a model says nothing else."""


def thresholds_of(model: keras.Model) -> tuple[float, ...] | None:
    """Find out from which probabilities on a model's labels are present.

    Parameters
    ----------
    model : keras.Model
        Any model.

    Returns
    -------
    tuple of float or None
        One for each label; None for a model that does not say.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet import graphs
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "sigmoid")])
    >>> graphs.thresholds_of(model), graphs.thresholds_of(graphs.with_thresholds(model, 0.25))
    (None, (0.25, 0.25))
    """
    if not is_functional(model) or len(model.outputs) != 1:
        return None
    return head_of(model).thresholds


@deep_graphs()
def with_thresholds(model: keras.Model, thresholds: float | Sequence[float] | None) -> keras.Model:
    """Make a model say from which probabilities on its labels are present.

    Evaluations, predictions and exports of the new model go by that.

    Parameters
    ----------
    model : keras.Model
        A model that gives a probability of each label.
    thresholds : float or sequence of float or None
        What probabilities must exceed, from 0 to 1: one number for all labels, or one for each.
        None for a model that does not say.

    Returns
    -------
    keras.Model
        A model of the same layers that ends in `layers.Thresholds`, unless `thresholds` is None. It
        is compiled, with a new optimizer, if the original was.

    Raises
    ------
    ValueError
        For a model of other outputs, a threshold outside of [0, 1], or too few or too many.
    """
    head = head_of(model)
    if head.output != "multilabel" or head.units is None:
        raise ValueError(
            f"thresholds={thresholds!r} are for models that give a probability of each label, from "
            f"a sigmoid: {model.name} does not."
        )
    former = [isinstance(layer, Thresholds) for layer in head.layers]
    outputs = head.entering(former.index(True)) if any(former) else model.outputs[0]
    if thresholds is not None:
        each: Any = [thresholds] * head.units if np.ndim(thresholds) == 0 else thresholds
        outputs = Thresholds(each, dtype=outputs.dtype, name="thresholds")(outputs)
    decided = keras.Model(input_of(model), outputs, name=model.name)
    if hasattr(model, "preprocessing"):
        decided.preprocessing = model.preprocessing
    if model.compiled:
        decided.compile_from_config(model.get_compile_config())
    return decided


def present(probabilities: Any, thresholds: Sequence[float] | None = None) -> Any:
    """Decide which labels are present.

    Parameters
    ----------
    probabilities : array of shape (..., labels)
        Probabilities.
    thresholds : sequence of float, optional
        As `thresholds_of` returns them. Default: 0.5 for all.

    Returns
    -------
    bool array of the same shape

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet import graphs
    >>> graphs.present(np.array([0.4, 0.6])), graphs.present(np.array([0.4, 0.6]), (0.3, 0.7))
    (array([False,  True]), array([ True, False]))
    """
    # In float64, as they were chosen.
    return probabilities > (THRESHOLD if thresholds is None else np.asarray(thresholds, "float64"))
