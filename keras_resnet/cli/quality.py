"""How good a model is, in tables."""

from keras_resnet.cli.console import CONFUSION_SHOWN, extremes, say, table


def show_quality(title, quality, task):
    """Print how good a model is, as suits its task."""
    _TABLES[task](title, quality)


def _show_classes(title, quality):
    """Scores by class and, where it fits, the confusion matrix."""
    _scores(f"{title}, {quality.accuracy:.2%} right", "class", quality.per_class())
    if len(quality.class_names) <= CONFUSION_SHOWN:
        table(
            "Confusion: a row for each true class",
            ["", *quality.class_names],
            [
                [name, *row]
                for name, row in zip(quality.class_names, quality.confusion().tolist(), strict=True)
            ],
        )


def _show_labels(title, quality):
    """Scores by label."""
    mean = quality.metrics().get("mean_average_precision")
    mean = "no image has a label" if mean is None else f"mean average precision {mean:.4f}"
    _scores(f"{title}, {mean}", "label", quality.per_label())
    say(f"All labels are right for {quality.accuracy:.2%} of the images.")


def _show_values(title, quality):
    """Errors by value."""
    columns = {"r2": "R²", "mean_absolute_error": "MAE", "root_mean_squared_error": "RMSE"}
    found, shown = quality.per_value(), quality.metrics()
    table(
        title,
        ["", *(columns[score] for score in shown)],
        [
            [name, *(f"{scores[score]:.4g}" if score in scores else "" for score in shown)]
            for name, scores in found.items()
        ],
    )


def _show_objects(title, quality):
    """Average precision by class, overlap and size, and errors by kind."""
    found, errors = quality.metrics(), quality.details()["errors"]
    columns = {
        **dict(AP="AP", AP50="AP50", AP75="AP75", VOC_AP50="VOC AP50"),
        **dict(precision="precision", recall="recall", f1="F1"),
    }
    scores = quality.per_class()
    title, places = extremes(
        f"{title}, AP {found['AP']:.3f}, AP50 {found['AP50']:.3f}",
        [each["AP"] for each in scores.values()],
        "the highest AP",
        "the lowest",
    )
    rows = [
        [name, *(_decimals(each[column]) for column in columns), each["objects"]]
        for name, each in scores.items()
    ]
    table(title, ["class", *columns.values(), "objects"], [rows[place] for place in places])
    of_all = {"overlap .5 to .95": "AP", ".5": "AP50", ".75": "AP75"}
    of_all |= {name: f"AP_{name}" for name in ("small", "medium", "large")}
    of_all |= {"VOC, .5": "VOC_AP50", "VOC 2007, .5": "VOC07_AP50"}
    values = [_decimals(found[name]) for name in of_all.values()]
    table("AP of all classes", ["", *of_all], [["", *values]])
    table(
        "Errors in detections with a score of 0.5 or more, and the AP50 that each kind costs",
        ["", "errors", "AP50 lost"],
        [
            [kind, count, _decimals(errors["AP50_gained"].get(kind, float("nan")))]
            for kind, count in errors["counts"].items()
        ],
    )
    for note in quality.notes():
        say(note)


def _decimals(value):
    """A score; nothing for NaN."""
    return "" if value != value else f"{value:.3f}"


def _scores(title, noun, found):
    """A row of scores for every class or label, or for the best and the worst of many."""
    columns = {
        "average_precision": "AP",
        "precision": "precision",
        "recall": "recall",
        "f1-score": "F1",
        "threshold": "threshold",
    }
    shown = [score for score in columns if score in next(iter(found.values()))]
    rows = [
        [name, *(f"{scores[score]:.3f}" for score in shown), int(scores["support"])]
        for name, scores in found.items()
    ]
    f1 = [scores["f1-score"] for scores in found.values()]
    title, places = extremes(title, f1, "the highest F1", "the lowest")
    table(
        title,
        [noun, *(columns[score] for score in shown), "images"],
        [rows[place] for place in places],
    )


_TABLES = {
    "classification": _show_classes,
    "multilabel": _show_labels,
    "regression": _show_values,
    "detection": _show_objects,
}


def show_skipped(source):
    """Print what was seen and is not used, and why."""
    if source.skipped:
        from keras_resnet.data.skipped import summary

        count = len(source.skipped)
        say("1 file was skipped:" if count == 1 else f"{count:,} files were skipped:")
        for reason in summary(source.skipped):
            say(f"  {reason}")


def show_calibration(found):
    """Print how well calibrated the probabilities are, if that is known."""
    if not found:
        return
    line = f"Expected calibration error {found['expected_error']:.2%}"
    if found.get("temperature") is not None:
        after, temperature = found["expected_error_at_temperature"], found["temperature"]
        line += f"; {after:.2%} at temperature {temperature:.3g}"
    say(f"{line}.")


def show_training(record):
    """Print how a trained model does, and what was written."""
    from keras_resnet.data.labels_file import LABELS_FILE
    from keras_resnet.runs.choices import MODEL_FILE, PAGE_FILE

    show_quality("Test images", record.evaluation, record.source.task)
    result, same = record.result, record.exported.verification
    epochs = len(result.history["loss"])
    say(f"Best epoch {result.best_epoch} of {epochs}, {result.seconds:.0f} s of training.")
    show_calibration(record.calibration)
    show_skipped(record.source)
    say(f"{record.output}: {MODEL_FILE}, {LABELS_FILE}, history.csv, metrics.json, curves.png")
    say(
        f"{record.exported.path}: SavedModel, loaded back and compared on {same.images} images: "
        f"largest difference {same.largest_difference:.1e}, same answer {same.agreement:.0%}"
    )
    say(f"{record.output / 'predictions.png'}: predictions on test images, the worst first")
    if (page := record.output / PAGE_FILE).is_file():
        say(f"{page}: the page of the run; open it in a browser")
