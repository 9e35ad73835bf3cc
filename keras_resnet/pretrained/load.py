"""The `weights=` argument of the builders: finds a tag or a file and loads it into a model."""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras

from keras_resnet.graphs import remember, wants_of
from keras_resnet.layers.view import VIEW
from keras_resnet.preprocessing import CIFAR10_CLASSES, imagenet_classes
from keras_resnet.pretrained import finding, first_kernel, mapping, needs, readers, registry
from keras_resnet.pretrained.fetch import fetch
from keras_resnet.pretrained.notices import warn

logger = logging.getLogger("keras_resnet")


@dataclasses.dataclass(frozen=True)
class Source:
    """The weights that `weights=` refers to.

    Parameters
    ----------
    argument : str
        `weights=...`, the start of error messages.
    options : mapping
        Builder options that the weights require.
    view : mapping
        How images are shown to a model with these weights, as far as that is known: `crop`,
        `image_size` and `interpolation`, as `graphs.remember` takes them.
    row : Weights or None
        The row of the registry, for a tag or a file with a registered name.
    read : callable
        Takes whether the classifier is needed, and returns the tensors by their names in the file.
        For a tag, finds the file first.
    silent : bool, default False
        Whether the file does not say how images have to be normalized, as Keras' files of weights
        alone do not. PyTorch's models are trained on images that are normalized as "torch".
    channels : int or None, default 3
        Channels of the images that the weights are for; None if that is not known.
    path : Path, optional
        The file, if it was given by its path.
    prefix : str, optional
        Which model of several in the file, as in `load_weights`.
    """

    argument: str
    options: Mapping[str, Any]
    view: Mapping[str, Any]
    row: registry.Weights | None
    read: Callable[[bool], Mapping[str, Any]]
    silent: bool = False
    channels: int | None = 3
    path: Path | None = None
    prefix: str | None = None


def find(weights: str | os.PathLike, architecture: str | None = None) -> Source:
    """Find the weights that a tag or a path refers to.

    Parameters
    ----------
    weights : str or path
        A tag of the registry, or the path of a file, with a suffix or a folder ("./file"), and
        behind a "#" which model of several in it.
    architecture : str, optional
        Name of the builder; required for tags.

    Returns
    -------
    Source
        The weights; a tag's file is not downloaded yet.

    Raises
    ------
    ValueError
        If the tag is unknown or not available for the architecture, or the file is missing or
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
    if isinstance(weights, str) and registry.is_tag(weights):
        row = registry.find_tag(weights, architecture)

        def read_tag(top):
            with _errors_for(argument):
                path = fetch(row, top=top)
            with _errors_for(f"{argument}: {path}"):
                return readers.read(path)

        return Source(argument, row.options, row.view, row, read_tag)

    with _errors_for(argument):
        path, prefix = _split(path)
        exists = path.is_file()
    if not exists:
        tags = map(repr, [*registry.ALIASES, *registry.TAGS])
        timm = f"{registry.TIMM}{weights}"
        if timm not in registry.TAGS_OF_TIMM:
            timm = f"{registry.TIMM}resnet50.a1_in1k"
        raise ValueError(
            f"{argument}: there is no such file. Pass None for random weights, a path, or one of "
            f"{', '.join(tags)}, or a tag of timm, such as {timm!r}."
        )
    with _errors_for(argument):
        tensors = readers.read(path)
        options = readers.recorded_options(path)
        model, *_ = finding.models_in(tensors, prefix)
    view = {name: options.pop(name) for name in VIEW if name in options}
    row = registry.find_file(path.name)
    if row:
        # Of a detector, which has its own way to read a file, the backbone's options.
        options = {name: value for name, value in row.options.items() if name != "epsilon"}
        view = row.view
    elif of_keras := needs.options_of_keras(model.tensors):
        options = of_keras
        if not needs.is_caffe(model.tensors):  # a model of ours can have such biases, too
            warn(
                f"{argument}: taken for weights of keras.applications, which are for images "
                f"normalized as {options['preprocessing']!r}."
            )
    silent = "preprocessing" not in options and needs.is_of_keras(model.tensors)
    channels = first_kernel.channels_of(model.tensors)
    return Source(argument, options, view, row, lambda top: tensors, silent, channels, path, prefix)


def _split(path):
    """Split the path of a file from what is behind "#", unless that is part of its name."""
    name, mark, prefix = path.name.rpartition("#")
    if not mark or path.exists():
        return path, None
    if not name or not prefix:
        raise ValueError("write the path of a file before the #, and a prefix in it behind.")
    return path.with_name(name), prefix


def load_weights(
    model: keras.Model,
    weights: str | os.PathLike | None,
    *,
    architecture: str | None = None,
    new_head: bool = False,
) -> keras.Model:
    """Load pretrained weights into a model.

    The weights must contain every tensor of the model, with the same shape. All tensors are checked
    before the first one changes. If the model has no head, the head in the file is ignored. If the
    weights are for RGB images and the model is for others, the first kernel is adapted, as
    `first_kernel.adapted_kernel` says, and this is logged.

    A PyTorch checkpoint may be of a larger model, or of several: one of Lightning, a detector or a
    segmenter, MoCo, SwAV, DINO, BYOL or SimCLR. The model is found in it, and what was set aside is
    logged. Where several fit, say which: "checkpoint.pth#teacher" is the one whose names begin with
    "teacher.", or "module.teacher.backbone."; "checkpoint.pth#." the one without a prefix.

    Parameters
    ----------
    model : keras.Model
        A model of this package.
    weights : str, path or None
        A tag ("imagenet", "imagenet_v2", "imagenet_caffe", "imagenet_keras" or "cifar10", see
        `keras_resnet.list_weights`), or the path of a PyTorch checkpoint (`.pth` or `.th`), a
        `.safetensors` file, an `.h5` file of keras.applications, a `.weights.h5` file or a `.keras`
        file; behind a "#", which model in it. None leaves the model unchanged.
    architecture : str, optional
        Name of the builder, for tags. Default: the name of the model.
    new_head : bool, default False
        Whether to keep the model's own head if the file has none, or one for another number of
        classes. This is logged.

    Returns
    -------
    keras.Model
        The same model. `preprocessing` is set to the mode of `preprocess_input` that the weights
        expect, and the `crop` of its preprocessing layer, if any, to the one they were tested with.

    Raises
    ------
    ValueError
        If the tag is unknown or not available for the model, or the file is damaged, does not fit,
        or has several models that do.
    OSError
        If the weights cannot be downloaded.

    Warns
    -----
    RuntimeWarning
        If tensors contain NaN or infinity; if weights for RGB images do not say how these were
        normalized, and the model, which is for others, normalizes as "tf".

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
    source = find(weights, architecture or model.name)
    model = load_source(model, source, new_head=new_head)
    mode = needs.options_of(layer.get_config() for layer in model.layers).get("preprocessing")
    if source.channels == 3 != wants_of(model).channels and mode == "tf" and not source.options:
        warn(
            f"{source.argument}: the file does not say how RGB images were normalized for these "
            f"weights, and {model.name} normalizes as 'tf'. PyTorch's models need 'torch': build "
            "with preprocessing='torch', or with weights=, which chooses it."
        )
    return model


def class_names(source: Source) -> list[str]:
    """Return the class names of the classifier in the weights.

    Parameters
    ----------
    source : Source
        The result of `find`.

    Returns
    -------
    list of str
        The ImageNet or CIFAR-10 names for weights of these in the registry, the ImageNet names for
        files with 1,000 classes, and otherwise the class indices.

    Raises
    ------
    ValueError
        If the weights have no classifier.

    Examples
    --------
    >>> from keras_resnet.pretrained import load
    >>> load.class_names(load.find("cifar10", "CIFARResNet20"))[:3]
    ['airplane', 'automobile', 'bird']
    """
    imagenet = [name for _, name in imagenet_classes()]
    if source.row and source.row.data in ("ImageNet", "CIFAR-10"):
        return {"ImageNet": imagenet, "CIFAR-10": list(CIFAR10_CLASSES)}[source.row.data]
    if source.row:
        count = source.row.classes
    else:
        tensors = source.read(True)
        with _errors_for(source.argument):
            count = mapping.classes_of(finding.the_model(tensors, source.prefix).tensors)
    if not count:
        raise ValueError(f"{source.argument}: the weights have no classifier.")
    return imagenet if count == len(imagenet) else [str(index) for index in range(count)]


def load_source(model: keras.Model, source: Source, *, new_head: bool = False) -> keras.Model:
    """Load the result of `find` into a model: the second half of `load_weights`.

    Parameters
    ----------
    model : keras.Model
        A model of this package.
    source : Source
        The result of `find`.
    new_head : bool, default False
        As in `load_weights`.

    Returns
    -------
    keras.Model
        The same model.

    Raises
    ------
    ValueError, OSError
        As `load_weights`.
    """
    with _errors_for(source.argument):
        needs.check_options(model, source.options)
    epsilon = source.row.options.get("epsilon", 1e-5) if source.row else 1e-5
    if epsilon != 1e-5:
        warn(
            f"{source.argument}: trained with epsilon={epsilon!r} in BatchNormalization, which is "
            "1e-05 here: answers differ a little."
        )
    heads = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    classes = source.row.classes if source.row else None
    tensors = source.read(any(not new_head or head.units == classes for head in heads))
    mapping.load_tensors(
        *(model, tensors, source.argument),
        new_head=new_head,
        new_channels=True,
        prefix=source.prefix,
    )
    remember(model, normalization=source.options.get("preprocessing"), **source.view)
    if source.row and not source.row.commercial:
        licence = source.row.licence
        logger.warning(
            "%s: %s.",
            source.argument,
            f"their licence, {licence}, does not allow commercial use"
            if licence
            else "no licence is published for them",
        )
    return model


@contextlib.contextmanager
def _errors_for(argument: str) -> Iterator[None]:
    """Prefix errors with the argument that they are about."""
    try:
        yield
    except (ValueError, OSError) as error:
        kind = ValueError if isinstance(error, ValueError) else OSError
        raise kind(f"{argument}: {' '.join(str(error).split())}") from error
