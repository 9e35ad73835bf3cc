"""SavedModels as TensorFlow Serving wants them: NAME/VERSION."""

import os
from collections.abc import Sequence
from pathlib import Path

import keras

from keras_resnet.files import write_labels, written_beside


def saved_model(
    model: keras.Model, path: str | os.PathLike, labels: Sequence[str] | None = None
) -> Path:
    """Write a model as a SavedModel that a stock TensorFlow Serving loads.

    The folder appears whole: it is written beside its place under a name that a watching server
    passes over, and then renamed.

    Parameters
    ----------
    model : keras.Model
        The model. Its images enter by the signature "serving_default".
    path : path
        The new folder. TensorFlow Serving wants its name to be a version number:
        "saved_models/pets/1".
    labels : sequence of str, optional
        Names of the classes, written to `assets/labels.txt`, one a line.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    ValueError
        If the folder is there already, there are not as many labels as outputs, or one has a line
        break.

    Examples
    --------
    >>> import os, tempfile
    >>> import keras_resnet
    >>> net = keras_resnet.CIFARResNet(8, classes=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = keras_resnet.export.saved_model(net, os.path.join(folder, "1"), ["cat", "dog"])
    ...     sorted(os.listdir(path))
    ['assets', 'fingerprint.pb', 'saved_model.pb', 'variables']
    """
    path = Path(path)
    if path.exists():
        raise ValueError(f"path {str(path)!r} is there already: choose the next version number.")
    if labels is not None and len(labels) != model.output_shape[-1]:
        raise ValueError(
            f"labels: {len(labels)} names came for the {model.output_shape[-1]} outputs of "
            f"{model.name}."
        )
    with written_beside(path) as partial:
        model.export(partial, format="tf_saved_model", verbose=False)
        if labels is not None:
            write_labels(partial / "assets", labels)
    return path


def next_version(folder: str | os.PathLike) -> Path:
    """The first version number of a model's folder that is still free, counted from the highest.

    Parameters
    ----------
    folder : path
        The folder of all versions: "saved_models/pets". It need not exist.

    Returns
    -------
    pathlib.Path
        "saved_models/pets/1", or one more than the highest there.

    Examples
    --------
    >>> from keras_resnet.export import next_version
    >>> next_version("saved_models/unheard-of").name
    '1'
    """
    folder = Path(folder)
    versions = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    return folder / str(max(versions, default=0) + 1)
