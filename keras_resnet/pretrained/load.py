"""`weights=` of the builders: from a path to a loaded model."""

import os
import zipfile
from collections import Counter
from pathlib import Path

import h5py
import keras

FORMATS = (".weights.h5", ".keras")


def load_weights(model: keras.Model, weights: str | os.PathLike | None) -> keras.Model:
    """Load what the `weights=` argument of a builder names.

    Parameters
    ----------
    model : keras.Model
        A net of this package.
    weights : None or path
        None leaves the fresh weights; a path is that of a `.weights.h5` or `.keras` file of the
        same architecture. A classifier in the file is left out where the model has none.

    Returns
    -------
    keras.Model
        The same model.

    Raises
    ------
    ValueError
        If there is no such file, if it is of another format, or if it does not fit the model.

    Examples
    --------
    >>> import os, tempfile
    >>> import keras_resnet
    >>> net = keras_resnet.CIFARResNet(8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     net.save_weights(os.path.join(folder, "net.weights.h5"))
    ...     same = keras_resnet.CIFARResNet(8, weights=os.path.join(folder, "net.weights.h5"))
    """
    if weights is None:
        return model
    if not isinstance(weights, str | os.PathLike):
        raise ValueError(f"weights={weights!r} must be None or a path.")
    path = Path(weights)
    argument = f"weights={str(path)!r}"
    if not path.is_file():
        raise ValueError(
            f"{argument}: there is no such file. Pass None for fresh weights, or the path of a "
            f"{' or '.join(FORMATS)} file; no pretrained weights come with this version."
        )
    if not path.name.endswith(FORMATS):
        raise ValueError(f"{argument}: the file's name must end in {' or '.join(FORMATS)}.")
    before = model.get_weights()
    try:
        _check_shapes(model, path)
        model.load_weights(path)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        model.set_weights(before)
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{argument} do not fit {model.name}: {reason}") from error
    return model


def _check_shapes(model, path):
    """Compare a file's tensors with the model's: Keras passes over those it has no use for."""
    needed = Counter(tuple(variable.shape) for variable in model.weights)
    found = Counter(_shapes(path))
    if not any(isinstance(layer, keras.layers.Dense) for layer in model.layers):
        found -= _head(found - needed)
    if needed.total() != found.total():
        raise ValueError(f"it has {found.total()} tensors, {needed.total()} are needed.")
    for variable in model.weights:
        shape = tuple(variable.shape)
        if needed[shape] > found[shape]:
            others = ", ".join(str(other) for other in found - needed)
            raise ValueError(f"no tensor for {variable.path} of shape {shape}; it has {others}.")


def _head(unneeded):
    """Kernel and bias of a classifier, where they are all that is not needed."""
    for kernel in unneeded:
        if unneeded == Counter([kernel, kernel[1:]]) and len(kernel) == 2:
            return unneeded
    return Counter()


def _shapes(path):
    """Shapes of the tensors of layers in a weights file; those of an optimizer do not count."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as file:
            return _shapes_in_hdf5(file)
    return _shapes_in_hdf5(path)


def _shapes_in_hdf5(file):
    shapes = []

    def visit(name, node):
        if isinstance(node, h5py.Dataset):
            shapes.append(node.shape)

    with h5py.File(file, "r") as hdf5:
        hdf5["layers"].visititems(visit)
    return shapes
