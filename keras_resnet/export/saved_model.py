"""SavedModels as TensorFlow Serving wants them: NAME/VERSION."""

import itertools
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_resnet.checks import check_unicode
from keras_resnet.data.labels_file import check_labels, write_labels
from keras_resnet.export.card import CARD_FILE, Exported, model_card
from keras_resnet.export.disk import full_disk_named
from keras_resnet.export.folding import Precision, fold_batch_norm, in_precision
from keras_resnet.export.formats import LiteRTPrecision
from keras_resnet.export.interface import TOP
from keras_resnet.export.kinds import kind_of
from keras_resnet.export.litert_served import (
    FILE,
    SIGNATURE,
    check_served,
    write_served,
)
from keras_resnet.export.runtimes import is_version, versions
from keras_resnet.export.verify import verify_export
from keras_resnet.export.warmup import write_requests
from keras_resnet.files import json_text, write_text, written_beside
from keras_resnet.progress import task
from keras_resnet.resnet import deep_graphs

_logger = logging.getLogger("keras_resnet")

_OF_PATTERNS = {"[", "\\"}
_PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}


@deep_graphs()
@task("Exporting")
def saved_model(
    model: keras.Model,
    path: str | os.PathLike,
    labels: Sequence[str] | None = None,
    *,
    precision: Precision = "float32",
    preprocessing: Literal["torch", "caffe", "detectron2", "tf", "raw"] | None = None,
    crop: float | None = None,
    image_dtype: Literal["float32", "uint8"] = "float32",
    image_size: int | tuple[int, int] | None = None,
    resize: bool = False,
    batch_size: int | None = None,
    top: int = TOP,
    with_litert: LiteRTPrecision | None = None,
    calibrate: np.ndarray | None = None,
    images: np.ndarray | Sequence[np.ndarray] | None = None,
    agreement: float = 0.99,
    verified: bool = True,
    verbose: bool = True,
) -> Exported:
    """Write a model as a SavedModel that a stock TensorFlow Serving loads, and verify it.

    Normalizations are folded into the convolutions. The folder appears whole: it is written and
    verified beside its place, under a name that a watching server ignores, and then renamed.

    "serving_default" takes `images` and returns what the model gives: "probabilities" of classes or
    labels, "logits", "values", "features" of a model without a head, or else "outputs". "features"
    takes `images` and returns pooled features. "classify_bytes", of a model of classes or labels,
    takes `image_bytes`, the contents of JPEG, PNG, GIF or BMP files, and returns the `top` "labels"
    and their "probabilities", and "thresholds" if the labels have some; "predict_bytes", of a model
    of values, takes the same and returns "values". Both turn, crop, resize and normalize the images
    as an evaluation does. A request that cannot be answered gets INVALID_ARGUMENT and the reason.

    Of a detector, "serving_default" takes raw `images` of one size and returns "boxes" in pixels
    of them, "scores", "labels", which are numbers of classes, and the "count" of the objects in
    each image. "detect_bytes" takes `image_bytes` of any sizes and returns the same for the upright
    images, with the names of the classes as "labels". Padding has the label -1, or "".

    Parameters
    ----------
    model : keras.Model
        A functional model of images, of this package or any other, or a detector.
    path : path
        The folder of all versions, "saved_models/pets", for the next version that is free; or a new
        version, "saved_models/pets/1".
    labels : sequence of str, optional
        Names of the classes, labels or values; also written to `assets/labels.txt`, one per line.
        A single output that decides between two classes has two names, the second for 1. Where a
        model does not say what it gives, a name for each output tells that they are logits.
        Default: numbers.
    precision : {"float32", "bfloat16"}, default "float32"
        What feature maps are computed in, and what their weights are stored in. "bfloat16" is
        faster where the processor has instructions for it (AVX512-BF16, AMX), and much slower
        elsewhere.
    preprocessing : {"torch", "caffe", "detectron2", "tf", "raw"}, optional
        What raw images need before they enter the model: "raw" for nothing. Default: what the model
        says. Where that is not known, there is no signature for image files.
    crop : float, optional
        Fraction of an image that is kept when it is resized, as in `data.batches`. Default: what
        the model says, or all of it.
    image_dtype : {"float32", "uint8"}, default "float32"
        What `images` are: as the model takes them, or raw.
    image_size : int or tuple of (int, int), optional
        Height and width of the images that the model gets, if it takes any size. Default: what the
        model says.
    resize : bool, default False
        Take `images` of any size, and resize them as an evaluation does.
    batch_size : int, optional
        Images per request. Default: any number.
    top : int, default 5
        Number of labels that "classify_bytes" returns.
    with_litert : {"float32", "float16", "dynamic", "int8"}, optional
        Also write `model.tflite` into the folder, a LiteRT file of this precision, as in `litert`,
        whose input and output are those of "serving_default". TensorFlow Serving serves it in place
        of the SavedModel if it is started with `--prefer_tflite_model`, which is experimental: then
        there are no other signatures. Warm-up requests are for "serving_default" only. Default: no
        file.
    calibrate : array of shape (images, height, width, channels), optional
        For `with_litert="int8"`: images as "serving_default" takes them, to find the ranges of the
        feature maps. A hundred from the training split are plenty.
    images : array of shape (images, height, width, channels), optional
        What to verify with, as the signature takes them; best those of a test split. Of a detector
        also a list of images of any sizes. Default: made-up ones, for which outputs are compared
        but no classes.
    agreement : float, default 0.99
        Fraction of `images` for which the exported model has to give the same answer: the same
        class, the same labels, or nearly the same values. For a detector: the fraction of objects
        that both must find. For the LiteRT file, 0.95 is enough.
    verified : bool, default True
        Whether to run the exported model and compare it with `model`.
    verbose : bool, default True
        Print the result of that.

    Returns
    -------
    Exported
        The path of the new version, and its model card, which it holds as `model_card.json`.

    Raises
    ------
    ValueError
        For a model that is not functional or not one of images, arguments that do not fit it, a
        version that exists already, a folder that holds something else, a model that the server
        would refuse, or an exported model that disagrees with the original.

    References
    ----------
    TensorFlow Serving, "Serving a TensorFlow Model".

    Examples
    --------
    >>> import os, tempfile
    >>> import keras_resnet
    >>> net = keras_resnet.CIFARResNet(8, classes=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     new = keras_resnet.export.saved_model(net, folder, ["cat", "dog"], verbose=False)
    ...     new.path.name, sorted(os.listdir(new))  # doctest: +NORMALIZE_WHITESPACE
    ('1', ['assets', 'assets.extra', 'fingerprint.pb', 'model_card.json', 'saved_model.pb',
           'variables'])
    """
    kind = kind_of(model)
    interface = kind.interface(
        model,
        labels=labels,
        preprocessing=preprocessing,
        crop=crop,
        image_dtype=image_dtype,
        image_size=image_size,
        resize=resize,
        batch_size=batch_size,
        top=top,
    )
    if interface.labels is not None:
        check_labels(interface.labels)
    if with_litert is not None:
        check_served(model, with_litert, calibrate, resize, verified and images is None)
    path = place_of(path)
    folded = fold_batch_norm(model)
    served = kind.signatures(in_precision(folded, precision), interface)
    if interface.kind == "unknown":
        _logger.info(
            "%s: there is no classify_bytes, as the model does not say what its outputs are. For "
            "logits, labels= names the class of each.",
            model.name,
        )
    with written_beside(path) as partial:
        archive = keras.export.ExportArchive()
        for name, (function, spec) in served.items():
            archive.add_endpoint(name, function, [spec])
        with full_disk_named(path):
            archive.write_out(partial, verbose=False)
        _check_servable(partial)
        if interface.labels is not None:
            write_labels(partial / "assets", interface.labels)
        with full_disk_named(path):
            # The server refuses a model that cannot answer all of them.
            only = with_litert and (SIGNATURE,)
            write_requests(partial, interface.image_size, kind.batch_sizes, only)
        verification, beside = None, {}
        if verified:
            verification = verify_export(partial, model, interface, precision, images, agreement)
        card = model_card(model, interface, precision, verification)
        if with_litert is not None:
            compared, card["litert"] = write_served(
                partial,
                model,
                folded,
                interface,
                with_litert,
                calibrate=calibrate,
                images=images,
                agreement=agreement,
                verified=verified,
            )
            beside = {FILE: compared} if compared else {}
        write_text(partial / CARD_FILE, json_text(card) + "\n")
    exported = Exported(path, card, verification, beside)
    if verbose:
        print(exported)
    return exported


def next_version(folder: str | os.PathLike) -> Path:
    """The next free version in a model's folder.

    Parameters
    ----------
    folder : path
        The folder of all versions: "saved_models/pets". It need not exist.

    Returns
    -------
    pathlib.Path
        "saved_models/pets/1", or one more than the highest version there.

    Examples
    --------
    >>> from keras_resnet.export import next_version
    >>> next_version("saved_models/unheard-of").name
    '1'
    """
    numbers = [int(path.name) for path in versions(folder)]
    return Path(folder) / str(max(numbers, default=0) + 1)


def place_of(path: str | os.PathLike) -> Path:
    """Find the folder to write a model to, which does not exist yet.

    Parameters
    ----------
    path : path
        As `saved_model` takes it.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    ValueError
        For a version that exists already, a folder that holds something else, or a path that
        TensorFlow could not load a model from.
    """
    path = Path(path)
    check_unicode(path=str(path))
    if _OF_PATTERNS & {*str(path)}:
        raise ValueError(
            f"path {str(path)!r}: TensorFlow reads [ and \\ as parts of a pattern and could not "
            "load the model. Choose a path without them."
        )
    existing = next(each for each in [path, *path.absolute().parents] if os.path.lexists(each))
    if not existing.is_dir():
        raise ValueError(
            f"path {str(path)!r}: {str(existing)!r} is there already, and is not a folder."
        )
    if is_version(path):
        if existing == path:
            raise ValueError(
                f"path {str(path)!r} is there already: choose another version number, or the "
                "folder of all versions for the next one."
            )
        return path
    held = [version for version in versions(path) if (version / "saved_model.pb").exists()]
    others = path.is_dir() and any(not each.name.startswith(".") for each in path.iterdir())
    if others and not held:
        raise ValueError(
            f"path {str(path)!r} is there already and is no folder of a model's versions: choose "
            "another one."
        )
    return next_version(path)


def _check_servable(path):
    """Refuse now what a stock server would refuse at the first request."""
    contents = (path / "saved_model.pb").read_bytes()
    (graph,) = saved_model_pb2.SavedModel.FromString(contents).meta_graphs
    functions = graph.graph_def.library.function
    compiled = [each.signature.name for each in functions if "_XlaMustCompile" in each.attr]
    if compiled:
        raise ValueError(
            f"model: {compiled[0]} can be run by XLA only, which TensorFlow Serving switches off. "
            "Convolutions with groups and channels first do that."
        )
    nodes = itertools.chain(graph.graph_def.node, *(each.node_def for each in functions))
    foreign = {node.op for node in nodes} - {each.signature.name for each in functions}
    foreign = {op for op in foreign if op in _PYTHON_OPS or not hasattr(tf.raw_ops, op)}
    if foreign:
        raise ValueError(
            f"model: the operation {min(foreign)} is not one of TensorFlow Serving's: leave out "
            "the layer that needs it."
        )
