"""Exported models, in their own runtimes, compared with the originals."""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_resnet.export.comparison import COARSE, TOLERANCES, Verification, traced
from keras_resnet.export.kinds import kind_of, kind_of_loaded
from keras_resnet.export.runtimes import Loaded, alone, load
from keras_resnet.graphs import flat_layers, is_functional, thresholds_of
from keras_resnet.progress import task

_VERBS = {"class": "chooses", "objects": "finds"}

_logger = logging.getLogger("keras_resnet")


class DisagreementError(ValueError):
    """An exported model gives different answers from the original."""


def verify(
    exported: str | os.PathLike,
    model: keras.Model | Callable[[np.ndarray], Any],
    images: np.ndarray | Sequence[np.ndarray],
    agreement: float = 0.99,
    tolerance: float | None = None,
    verbose: bool = True,
) -> Verification:
    """Run an exported model in its own runtime and compare it with the original.

    Parameters
    ----------
    exported : path
        A SavedModel's folder (its signature "serving_default" is called), or a .tflite, .onnx or
        .xml file, which LiteRT's interpreter, ONNX Runtime or OpenVINO run.
    model : keras.Model or callable
        The original, or a function from images to its outputs.
    images : array of shape (images, height, width, channels)
        Images as both of them take them; best those of a test split. Of a detector also a list of
        images of any sizes.
    agreement : float, default 0.99
        Fraction of the images for which both have to give the same answer: the same class, the same
        labels, or nearly the same values, whatever the model gives. A function gives classes, or
        with one output, the decision between two. Of a detector: fraction of the objects that both
        have to find, as `DetectorVerification` says.
    tolerance : float, optional
        Largest difference of an output, as a fraction of the largest output; of a detector, of a
        score. Default: any.
    verbose : bool, default True
        Print the result as a table.

    Returns
    -------
    Verification

    Raises
    ------
    ValueError
        If they agree on fewer images or differ by more, or if there are no images or the exported
        model does not take images of their shape.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import keras_resnet
    >>> net = keras_resnet.CIFARResNet(8)
    >>> images = np.random.default_rng(0).normal(size=(2, 32, 32, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = keras_resnet.export.saved_model(net, os.path.join(folder, "1"), verbose=False)
    ...     keras_resnet.export.verify(path, net, images, verbose=False).agreement
    1.0
    """
    loaded = load(exported)
    kind = kind_of_loaded(loaded)
    output, decided = None, {}
    if isinstance(model, keras.Model):
        if kind_of(model) is not kind:
            raise ValueError(
                f"model {model.name!r} is a {kind_of(model).name}, {str(loaded.path)!r} a "
                f"{kind.name}: they cannot be compared."
            )
        output = kind.output_of(model) if is_functional(model) else None
        decided = _decided(thresholds_of(model))
        model = kind.asking(model)
    result = kind.compare(loaded, model, images, output, **decided)
    if verbose:
        print(f"{loaded.path}\n{result}")
    _check_agreement(result, agreement, tolerance)
    return result


def _decided(thresholds):
    """How a comparison decides which labels are present, where a model says that."""
    return {} if thresholds is None else {"thresholds": thresholds}


def _check_agreement(result, agreement, tolerance):
    if not result.agreement >= agreement:
        verb = _VERBS.get(result.answer, "gives")
        raise DisagreementError(
            f"the exported model {verb} the same {result.answer} as the original for only "
            f"{result.agreement:.1%} of {result.compared}, agreement={agreement:.1%}."
        )
    if tolerance is not None and not result.largest_difference <= tolerance:
        raise DisagreementError(
            f"the exported model differs from the original by {result.largest_difference:.2g} of "
            f"the largest output, tolerance={tolerance:.2g}."
        )


@task("Verifying")
def verify_export(
    path: str | os.PathLike,
    model: keras.Model,
    interface: Any,
    precision: str,
    images: np.ndarray | Sequence[np.ndarray] | None,
    agreement: float,
    threads: int | None = None,
) -> Verification:
    """Verify a new export: by its answers for images, or by its outputs for made-up ones.

    Parameters
    ----------
    path : path
        The exported model.
    model : keras.Model
        The original.
    interface : Interface or DetectorInterface
        How clients call it.
    precision : str
        The precision that it computes in.
    images : array, optional
        Images as it takes them.
    agreement : float
        Fraction of the images for which both have to give the same answer.
    threads : int, optional
        As `load` takes it.

    Returns
    -------
    Verification

    Raises
    ------
    ValueError
        If they disagree.
    """
    return verify_loaded(load(path, threads), model, interface, precision, images, agreement)


def verify_loaded(
    loaded: Loaded,
    model: keras.Model,
    interface: Any,
    precision: str,
    images: np.ndarray | Sequence[np.ndarray] | None,
    agreement: float,
) -> Verification:
    """Verify a model that is loaded; arguments, result and errors are those of `verify_export`."""
    kind = kind_of(model)
    function, spec = kind.signatures(model, interface)["serving_default"]
    tolerance = None
    if images is None:
        # They show nothing that the model knows, and its choice of a class means nothing.
        computed_in = {layer.compute_dtype for layer in flat_layers(model)}
        tolerance = max(TOLERANCES[each] for each in {precision, *computed_in} & {*TOLERANCES})
        images, agreement = kind.made_up(spec, interface, tolerance < COARSE)
    original = traced(lambda images: alone(function(images)), spec)
    decided = _decided(thresholds_of(model))
    result = kind.compare(loaded, original, images, interface.kind, tolerance, **decided)
    _check_agreement(result, agreement, tolerance)
    if result.alike:
        _logger.warning(kind.says_nothing, model.name)
    return result
