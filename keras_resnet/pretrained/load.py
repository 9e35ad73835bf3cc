"""`weights=` of the builders: from a tag or a path to a loaded model."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras

from keras_resnet.graphs import preprocessing_layer
from keras_resnet.preprocessing import CIFAR10_CLASSES, imagenet_classes
from keras_resnet.pretrained import mapping, readers, registry
from keras_resnet.pretrained.fetch import fetch


@dataclasses.dataclass(frozen=True)
class Source:
    """What `weights=` names.

    Parameters
    ----------
    argument : str
        `weights=...`, as errors begin.
    options : mapping
        Options of the builder that the weights imply.
    crop : float or None
        The part of an image that a model of these weights is to be shown, where that is known.
    row : Weights or None
        The row of the registry, for a tag or a file of that name.
    read : callable
        Takes whether the classifier is needed; returns the tensors by their names in the file. It
        is only now that a tag's file is looked for.
    """

    argument: str
    options: Mapping[str, Any]
    crop: float | None
    row: registry.Weights | None
    read: Callable[[bool], Mapping[str, Any]]


def find(weights: str | os.PathLike, architecture: str | None = None) -> Source:
    """Find out what a tag or a path means.

    Parameters
    ----------
    weights : str or path
        A tag of the registry, or the path of a file: with a suffix, or in a folder ("./file").
    architecture : str, optional
        Name of the builder, which tags need.

    Returns
    -------
    Source

    Raises
    ------
    ValueError
        For an unknown tag, one that the architecture has not, or a file that is not there or is
        damaged.

    Examples
    --------
    >>> from keras_resnet.pretrained import load
    >>> load.find("imagenet_caffe", "ResNet50").options
    {'stride_in': '1x1', 'preprocessing': 'caffe'}
    """
    if not isinstance(weights, str | os.PathLike):
        raise ValueError(f"weights={weights!r} must be None, a tag or a path.")
    path = Path(weights)
    argument = f"weights={str(weights)!r}"
    # A bare word is a tag, whatever lies in this folder.
    if isinstance(weights, str) and not path.suffix and len(path.parts) < 2:
        row = registry.find_tag(weights, architecture)

        def read_tag(top):
            with _blamed(argument):
                path = fetch(row, top=top)
            with _blamed(f"{argument}: {path}"):
                return readers.read(path)

        return Source(argument, row.options, row.crop, row, read_tag)

    with _blamed(argument):
        exists = path.is_file()
    if not exists:
        raise ValueError(
            f"{argument}: there is no such file. Pass None for fresh weights, a path, or one of "
            f"{', '.join(map(repr, [*registry.ALIASES, *registry.TAGS]))}."
        )
    with _blamed(argument):
        tensors = readers.read(path)
        options = readers.recorded_options(path)
    crop = options.pop("crop", None)
    row = registry.find_file(path.name)
    if row:
        options, crop = row.options, row.crop
    elif mapping.is_caffe(tensors):
        options = registry.CAFFE_OPTIONS
    return Source(argument, options, crop, row, lambda top: tensors)


def load_weights(
    model: keras.Model,
    weights: str | os.PathLike | None,
    *,
    architecture: str | None = None,
    new_head: bool = False,
) -> keras.Model:
    """Load pretrained weights into a net.

    All of the model's tensors must be there, each in its shape; nothing is changed before all of
    them have been checked. A classifier in the file is left out where the model has none.

    Parameters
    ----------
    model : keras.Model
        A net of this package.
    weights : str, path or None
        A tag ("imagenet", "imagenet_v2", "imagenet_caffe", "cifar10": see
        `keras_resnet.list_weights`), or the path of a PyTorch checkpoint (`.pth`, `.th`),
        `.safetensors`, the `.h5` of keras.applications, `.weights.h5` or `.keras`. None leaves the
        model as it is.
    architecture : str, optional
        Name of the builder, which tags need. Default: what the model is called.
    new_head : bool, default False
        Whether the model may keep its own head where the one in the file is for another number of
        classes, or not there. This is logged.

    Returns
    -------
    keras.Model
        The same model. Its `preprocessing` is the mode of `preprocess_input` that the weights
        expect, and its preprocessing layer, if it has one, knows what `crop` they were tested with.

    Raises
    ------
    ValueError
        For an unknown tag, one that the model has not, or a file that is damaged or does not fit.
    OSError
        If weights cannot be downloaded.

    Warns
    -----
    RuntimeWarning
        For tensors that hold NaN or infinity.

    Examples
    --------
    >>> import os, tempfile
    >>> import keras_resnet
    >>> net = keras_resnet.CIFARResNet(8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "net.safetensors")
    ...     _ = keras_resnet.pretrained.to_torch(net, path)
    ...     same = keras_resnet.CIFARResNet(8, weights=path)
    """
    if weights is None:
        return model
    return load_source(model, find(weights, architecture or model.name), new_head=new_head)


def class_names(source: Source) -> list[str]:
    """The names of the classes that weights have a classifier for.

    Parameters
    ----------
    source : Source
        What `find` returned.

    Returns
    -------
    list of str
        Those of ImageNet or CIFAR-10 where the weights are in the registry or for 1,000 classes;
        numbers where nothing is known.

    Raises
    ------
    ValueError
        For weights without a classifier.

    Examples
    --------
    >>> from keras_resnet.pretrained import load
    >>> load.class_names(load.find("cifar10", "CIFARResNet20"))[:3]
    ['airplane', 'automobile', 'bird']
    """
    imagenet = [name for _, name in imagenet_classes()]
    if source.row:
        return {"ImageNet": imagenet, "CIFAR-10": list(CIFAR10_CLASSES)}[source.row.data]
    count = mapping.classes_of(source.read(True))
    if not count:
        raise ValueError(f"{source.argument}: there is no classifier in it.")
    return imagenet if count == len(imagenet) else [str(index) for index in range(count)]


def load_source(model: keras.Model, source: Source, *, new_head: bool = False) -> keras.Model:
    """Load what `find` has found: the second half of `load_weights`.

    Parameters
    ----------
    model : keras.Model
        A net of this package.
    source : Source
        What `find` returned.
    new_head : bool, default False
        As in `load_weights`.

    Returns
    -------
    keras.Model
        The same model.

    Raises
    ------
    ValueError, OSError
        As `load_weights` does.
    """
    with _blamed(source.argument):
        mapping.check_options(model, source.options)
    heads = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    classes = len(class_names(source)) if source.row else None
    tensors = source.read(any(not new_head or head.units == classes for head in heads))
    mapping.load_tensors(model, tensors, source.argument, new_head=new_head)
    if "preprocessing" in source.options:
        model.preprocessing = source.options["preprocessing"]
    layer = preprocessing_layer(model)
    if layer and source.crop:
        layer.crop = source.crop
    return model


@contextlib.contextmanager
def _blamed(argument: str) -> Iterator[None]:
    """Say in errors which argument they are about."""
    try:
        yield
    except (ValueError, OSError) as error:
        kind = ValueError if isinstance(error, ValueError) else OSError
        raise kind(f"{argument}: {' '.join(str(error).split())}") from error
