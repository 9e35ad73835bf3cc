"""Models in single files: a row describes a format; `written` writes and verifies a file of it."""

import contextlib
import glob
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.checks import check_choice, check_installed
from keras_resnet.export.calibration import calibration_of, check_calibration, check_shape
from keras_resnet.export.card import Exported, model_card
from keras_resnet.export.disk import full_disk_named
from keras_resnet.export.folding import fold_batch_norm, in_precision
from keras_resnet.export.interface import Interface
from keras_resnet.export.kinds import kind_of
from keras_resnet.export.verify import DisagreementError, verify_export
from keras_resnet.files import remove_leftovers, written_beside
from keras_resnet.graphs import plain
from keras_resnet.progress import task


@dataclass(frozen=True)
class Asked:
    """What a writer gets.

    Parameters
    ----------
    model : keras.Model
        The model, folded, in float32.
    interface : Interface
        How clients call it.
    precision : str
        What it computes in.
    calibrate : array of shape (images, height, width, channels) or None
        For "int8": images to find the ranges of the feature maps on.
    agreement : float
        Fraction of images for which the exported model has to give the same answer.
    """

    model: keras.Model
    interface: Interface
    precision: Any
    calibrate: Any
    agreement: float


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Parameters
    ----------
    key : str
        What it is chosen by.
    name : str
        What messages call it.
    suffix : str
        What its files end in.
    precisions : tuple of str
        The precisions that it computes in.
    writers : tuple of callable
        Each writes what was asked for to a path, and returns what the card should say about it. The
        first is called; the next one only if "int8" changes more answers than it may.
    weights : str, optional
        The suffix of the file of the weights, which is written beside it.
    extra : str, optional
        The extra of this package that installs what it needs.
    writes, quantizes, runs : tuple of str
        The modules that write it, that quantize it, and that run it.
    machine : dict of str to callable
        By precision, what raises ValueError if this machine cannot verify it.
    """

    key: str
    name: str
    suffix: str
    precisions: tuple[str, ...]
    writers: tuple[Callable[[Asked, Path], dict], ...]
    weights: str | None = None
    extra: str = ""
    writes: tuple[str, ...] = ()
    quantizes: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    machine: Mapping[str, Callable[[], None]] = field(default_factory=dict)

    def check_kind(self, model: keras.Model) -> None:
        """Raise ValueError for a model of a kind that is not written in this format."""
        kind = kind_of(model)
        if self.key not in kind.formats:
            raise ValueError(
                f"model {model.name!r} is a {kind.name}, which cannot be written as {self.name}: "
                "write a SavedModel, export.saved_model (--format saved_model)."
            )

    def check(self, precision: str, verified: bool = True) -> None:
        """Raise ValueError or ImportError for what cannot be written or verified here."""
        check_choice(self.precisions, precision=precision)
        quantizes, runs = self.quantizes * (precision == "int8"), self.runs * verified
        check_installed(self.extra, *dict.fromkeys((*self.writes, *quantizes, *runs)))
        if verified and precision in self.machine:
            self.machine[precision]()


@task("Exporting")
def written(
    format: Format,
    model: keras.Model,
    path: str | os.PathLike,
    labels: Sequence[str] | None,
    *,
    precision: str = "float32",
    calibrate: Any = None,
    batch_size: int | None,
    image_size: int | tuple[int, int] | None,
    images: np.ndarray | None,
    agreement: float,
    verified: bool,
    verbose: bool,
) -> Exported:
    """Write a model as a file of some format, and verify it.

    Parameters
    ----------
    format : Format
        What to write.
    model, path, labels, precision, calibrate, batch_size, image_size, images, agreement
        As in `formats.litert`.
    verified, verbose : bool
        As there, too.

    Returns
    -------
    Exported

    Raises
    ------
    ValueError, ImportError
        As there.
    """
    interface = _interface(model, format, labels, batch_size, image_size)
    path = _new_file(path, format)
    format.check(precision, verified)
    calibration = None
    if precision == "int8":
        check_calibration(calibrate, model, alone=verified and images is None)
        calibration = calibration_of(calibrate, images, agreement, verified)
        images = calibration.images
    elif images is None:
        images = calibrate
    if verified and images is not None:
        check_shape(model, images=images)
    model = plain(model)
    folded = in_precision(fold_batch_norm(model), "float32")
    fitted, reached = None, agreement
    if calibration is not None:
        fitted, reached = calibration.calibrate, calibration.agreement
    asked = Asked(folded, interface, precision, fitted, agreement)
    writers = format.writers if precision == "int8" else format.writers[:1]
    with _in_place(path, format) as partial:

        def verify():
            if verified:
                return verify_export(partial, model, interface, precision, images, reached)

        facts, verification = _first_right(writers, asked, partial, verify)
    card = model_card(model, interface, precision, verification)
    if calibration is not None:
        card["quantization"] = {**calibration.to_json(), **facts}
    exported = Exported(path, card, verification)
    if verbose:
        print(exported)
    return exported


def _first_right(writers, asked, path, verify):
    """Write, with the next writer if answers differ; returns its facts, and the verification."""
    write, *others = writers
    facts = write(asked, path)
    try:
        return facts, verify()
    except DisagreementError:
        if not others:
            raise
    return _first_right(others, asked, path, verify)


def asking(
    asked: Asked, batch_size: int | None
) -> tuple[Callable[[tf.Tensor], dict[str, tf.Tensor]], tf.TensorSpec]:
    """What is written, as a function from "images" to the output by its name.

    Parameters
    ----------
    asked : Asked
        What is written.
    batch_size : int or None
        Images per request; None for any number.

    Returns
    -------
    function : callable
    spec : tf.TensorSpec
        What it takes.
    """
    _, *shape = asked.model.inputs[0].shape
    spec = tf.TensorSpec((batch_size, *shape), "float32", "images")
    return lambda images: {asked.interface.output: asked.model(images, training=False)}, spec


@contextlib.contextmanager
def archived(function: Callable, spec: tf.TensorSpec) -> Iterator[str]:
    """A temporary SavedModel of one function.

    Parameters
    ----------
    function : callable
        From a tensor to a dict of tensors.
    spec : tf.TensorSpec
        What it takes.

    Yields
    ------
    str
        Its folder.
    """
    with tempfile.TemporaryDirectory() as folder:
        archive = keras.export.ExportArchive()
        archive.add_endpoint("serving_default", function, [spec])
        with full_disk_named(folder):
            archive.write_out(folder, verbose=False)
        yield folder


def _interface(model, format, labels, batch_size, image_size):
    format.check_kind(model)
    nothing_else = dict.fromkeys(("preprocessing", "crop"))
    return kind_of(model).interface(
        model,
        labels=labels,
        batch_size=batch_size,
        image_size=image_size,
        image_dtype="float32",
        resize=False,
        top=1,
        **nothing_else,
    )


def _new_file(path, format):
    path = Path(path)
    if path.suffix != format.suffix:
        raise ValueError(f"path {str(path)!r} must end in {format.suffix}.")
    for each in (path, path.with_suffix(format.weights or format.suffix)):
        if each.exists():
            raise ValueError(f"path {str(each)!r} is there already: choose another name or folder.")
    return path


@contextlib.contextmanager
def _in_place(path, format):
    """Where to write a file; its weights, written beside it, are put in place before it."""
    with written_beside(path) as partial:
        if format.weights is None:
            yield partial
            return
        weights = partial.with_suffix(format.weights)
        remove_leftovers(path.parent, glob.escape(path.with_suffix(format.weights).name))
        try:
            yield partial
            os.replace(weights, path.with_suffix(format.weights))
        finally:
            weights.unlink(missing_ok=True)
