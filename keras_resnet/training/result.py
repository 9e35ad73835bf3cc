"""The result of a training run, and how else it may end."""

import csv
import os
from dataclasses import dataclass, field
from pathlib import Path

from keras_resnet.files import written_beside


class DivergedError(ValueError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class Result:
    """The result of a training run.

    Parameters
    ----------
    history : dict of str to list of float
        "loss" and the metrics of the task, such as "accuracy", for every epoch; the same with
        "val_" in front where there are validation images.
    best_epoch : int
        The epoch, from 1, whose weights the model has now: the one of the lowest validation loss,
        or the last one if nothing was validated.
    seconds : float
        Duration of the training, without interruptions.
    images_per_second : float
        Training images per second, without validation.
    stages : dict of str to int
        For training in stages, the epochs of each.
    checkpoints : pathlib.Path, optional
        Where the state of the run is.
    smoothed : bool, default False
        Whether the validation loss is of smooth labels, as in a run with `label_smoothing` that an
        earlier version began. Otherwise it is of plain labels, as in all other runs.
    """

    history: dict[str, list[float]]
    best_epoch: int
    seconds: float
    images_per_second: float = 0.0
    stages: dict[str, int] = field(default_factory=dict)
    checkpoints: Path | None = None
    smoothed: bool = False

    def save(self, path: str | os.PathLike) -> None:
        """Write the history as a CSV file with one line per epoch.

        Parameters
        ----------
        path : path
            The file.
        """
        stages = [name for name, epochs in self.stages.items() for _ in range(epochs)]
        columns = {"stage": stages, **self.history} if stages else self.history
        with written_beside(path) as partial, partial.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["epoch", *columns])
            for epoch, values in enumerate(zip(*columns.values(), strict=True), start=1):
                writer.writerow([epoch, *values])
