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


def _scores(title, noun, found):
    """A row of scores for every class or label, or for the best and the worst of many."""
    columns = {
        "average_precision": "AP",
        "precision": "precision",
        "recall": "recall",
        "f1-score": "F1",
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
}


def show_skipped(source):
    """Print what was seen and is not used, and why."""
    if source.skipped:
        from keras_resnet.data.skipped import summary

        count = len(source.skipped)
        say("1 file was skipped:" if count == 1 else f"{count:,} files were skipped:")
        for reason in summary(source.skipped):
            say(f"  {reason}")


def show_training(record):
    """Print how a trained model does, and what was written."""
    from keras_resnet.data.labels_file import LABELS_FILE
    from keras_resnet.runs.choices import MODEL_FILE

    show_quality("Test images", record.evaluation, record.source.task)
    result, same = record.result, record.exported.verification
    epochs = len(result.history["loss"])
    say(f"Best epoch {result.best_epoch} of {epochs}, {result.seconds:.0f} s of training.")
    show_skipped(record.source)
    say(f"{record.output}: {MODEL_FILE}, {LABELS_FILE}, history.csv, metrics.json, curves.png")
    say(
        f"{record.exported.path}: SavedModel, loaded back and compared on {same.images} images: "
        f"largest difference {same.largest_difference:.1e}, same answer {same.agreement:.0%}"
    )
    say(f"{record.output / 'predictions.png'}: predictions on test images, the worst first")
