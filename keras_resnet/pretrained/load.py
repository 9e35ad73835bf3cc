"""`weights=` of the builders: from a path to a loaded model."""

import os
from pathlib import Path

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
        same architecture.

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
    path = Path(weights)
    if not path.is_file():
        raise ValueError(
            f"weights={str(weights)!r}: there is no such file. Pass None for fresh weights, or the "
            f"path of a {' or '.join(FORMATS)} file; no pretrained weights come with this version."
        )
    if not path.name.endswith(FORMATS):
        raise ValueError(
            f"weights={str(weights)!r}: the file's name must end in {' or '.join(FORMATS)}."
        )
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"weights={str(weights)!r} do not fit {model.name}: {reason}") from error
    return model
