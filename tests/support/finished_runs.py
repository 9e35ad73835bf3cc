"""Made-up folders of finished runs, as training would leave them."""

import csv
import json

import numpy as np

from keras_resnet.analysis.evaluation import EVALUATIONS
from keras_resnet.data.image_sets import digests_of_files
from keras_resnet.data.labels import LABELS
from keras_resnet.data.labels_file import write_labels
from keras_resnet.detection import DetectionEvaluation
from keras_resnet.files import json_text


def write_run(
    folder, files, labels, answers, names, *, task="classification", settings=None, train=(),
    thresholds=None, seconds=90.0,
):  # fmt: skip
    """Write the folder of a run that was tested on some files.

    `answers` are outputs or, of boxes, detections. `train` are pairs of a file and a label's text.
    """
    folder.mkdir(parents=True)
    (folder / "model.keras").touch()  # whose answers are written down
    labels = np.asarray(labels)
    if task == "detection":
        quality = DetectionEvaluation(labels, answers, names)
    else:
        options = {} if thresholds is None else {"thresholds": thresholds}
        answers = np.asarray(answers, "float32")
        quality = EVALUATIONS[task](labels, answers, tuple(names), **options)
        np.savez(
            folder / "answers.npz", test=answers, test_labels=labels, validation=answers[:0],
            validation_labels=labels[:0],
        )  # fmt: skip
    written = LABELS[task].written
    rows = [("train", file, text) for file, text in train]
    rows += [
        ("test", file, written(label, names)) for file, label in zip(files, labels, strict=True)
    ]
    digests = digests_of_files([file for _, file, _ in rows])
    with (folder / "images.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["split", "image", "label", "digest"])
        table.writerows([*row, digest] for row, digest in zip(rows, digests, strict=True))
    write_labels(folder, names)
    quality.save(folder)
    found = quality.metrics()
    if task == "classification":
        found = {f"test_{name}": value for name, value in found.items()}
    metrics = {
        "model": "resnet", "data": "made up", "task": task, **found, **quality.details(),
        "best_epoch": 2, "seconds": seconds, "loaded": None,
    }  # fmt: skip
    (folder / "metrics.json").write_text(json_text(metrics))
    (folder / "history.csv").write_text(
        "epoch,loss,accuracy,val_loss,val_accuracy\n1,2.0,0.3,2.1,0.2\n2,1.0,0.6,1.2,0.5\n"
    )
    if settings is not None:
        run = {"command": "keras-resnet train", "settings": settings, "versions": {}}
        (folder / "run.json").write_text(json.dumps(run))
    return quality
