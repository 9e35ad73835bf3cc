"""A trained model on images that nobody has labelled."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_resnet import analysis, data
from keras_resnet.runs.guards import damaged_images_named
from keras_resnet.runs.models import input_of, load_model


@dataclass(frozen=True)
class PredictRecord:
    """What `predict` has found.

    Parameters
    ----------
    files : tuple of pathlib.Path
        The images.
    class_names : tuple of str
        Names of the model's classes.
    outputs : array of shape (images, classes)
        Their probabilities.
    top : int
        Classes to tell of every image.
    csv : pathlib.Path, optional
        The file that was written.
    """

    files: tuple[Path, ...]
    class_names: tuple[str, ...]
    outputs: np.ndarray
    top: int = 5
    csv: Path | None = None

    def to_json(self) -> dict:
        """What `keras-resnet predict --json` prints."""
        predictions = [
            {
                "image": str(file),
                "classes": [
                    {"class": self.class_names[index], "probability": float(row[index])}
                    for index in np.argsort(-row)[: self.top]
                ],
            }
            for file, row in zip(self.files, self.outputs, strict=True)
        ]
        return {"predictions": predictions, **({"csv": str(self.csv)} if self.csv else {})}


def predict(
    model: str | os.PathLike,
    images: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    top: int = 5,
    csv: str | os.PathLike | None = None,
    positive: str | None = None,
    probability: bool = False,
    weights: str | os.PathLike | None = None,
) -> PredictRecord:
    """Classify images with a trained model, as `keras-resnet predict` does.

    Parameters
    ----------
    model : str or path
        A .keras file of a model that takes raw images, a folder with a model.keras, or the name of
        a builder.
    images : path or sequence of path
        Image files, or folders of them.
    top : int, default 5
        Classes to tell of every image.
    csv : path, optional
        Write id,label of every image: Kaggle's file. The id of 7.jpg is 7; lines are in the order
        of numbers where all names are numbers.
    positive : str, optional
        With `csv`: the label is 1 for this class and 0 for others.
    probability : bool, default False
        With `positive`: the label is the class' probability.
    weights : str or path, optional
        For the name of a builder: a tag of `keras_resnet.list_weights`, or a file. Default: its
        first.

    Returns
    -------
    PredictRecord

    Raises
    ------
    ValueError
        For a model or images that cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np, PIL.Image
    >>> from keras_resnet import runs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     image = Path(folder) / "image.png"
    ...     PIL.Image.fromarray(np.zeros((8, 8), "uint8")).save(image)
    ...     _ = runs.train("digits", folder, model="CIFARResNet8", epochs=1)
    ...     record = runs.predict(folder, image, top=3)
    >>> len(record.to_json()["predictions"][0]["classes"])
    3
    """
    if (positive and not csv) or (probability and not positive):
        raise ValueError("positive needs csv, and probability needs positive.")
    places = [images] if isinstance(images, str | os.PathLike) else images
    places = [Path(each) for each in places]
    files = data.image_files(places)
    if not files:
        raise ValueError(f"no images in {', '.join(map(str, places))}.")
    data.check_images(files, whole=True)
    net, labels = load_model(model, weights)
    if positive and positive not in labels:
        raise ValueError(f"positive={positive!r}: the model knows {', '.join(labels)}.")
    split = data.Split(files, np.zeros(len(files), int))
    with damaged_images_named(split, may_skip=False):
        outputs = net.predict(data.batches(split, **input_of(net)), verbose=0)
    if csv:
        csv = Path(csv)
        analysis.submission(csv, files, outputs, labels, positive, probability=probability)
    return PredictRecord(tuple(files), tuple(labels), outputs, top, csv)
