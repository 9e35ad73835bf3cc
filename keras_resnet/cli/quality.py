"""How good a model is, in tables."""

from keras_resnet.cli.console import CONFUSION_SHOWN, say, table


def show_quality(title, quality):
    """Print scores by class and, where it fits, the confusion matrix."""
    table(
        f"{title}, {quality.accuracy:.2%} right",
        ["class", "precision", "recall", "F1", "images"],
        [
            [
                label,
                *(f"{scores[score]:.3f}" for score in ("precision", "recall", "f1-score")),
                int(scores["support"]),
            ]
            for label, scores in quality.per_class().items()
        ],
    )
    if len(quality.class_names) <= CONFUSION_SHOWN:
        table(
            "Confusion: a row for each true class",
            ["", *quality.class_names],
            [
                [name, *row]
                for name, row in zip(quality.class_names, quality.confusion().tolist(), strict=True)
            ],
        )


def show_skipped(source):
    """Print which files were skipped, and why."""
    if source.skipped:
        say(f"{len(source.skipped)} files were skipped:")
        for reason in source.skipped:
            say(f"  {reason}")


def show_training(record):
    """Print how a trained model does, and what was written."""
    from keras_resnet.files import LABELS_FILE
    from keras_resnet.runs.choices import MODEL_FILE

    show_quality("Test images", record.evaluation)
    result, same = record.result, record.exported.verification
    epochs = len(result.history["loss"])
    say(f"Best epoch {result.best_epoch} of {epochs}, {result.seconds:.0f} s of training.")
    show_skipped(record.source)
    say(f"{record.output}: {MODEL_FILE}, {LABELS_FILE}, history.csv, metrics.json, curves.png")
    say(
        f"{record.exported.path}: SavedModel, loaded back and compared on {same.images} images: "
        f"largest difference {same.largest_difference:.1e}, same class {same.agreement:.0%}"
    )
    say(f"{record.output / 'predictions.png'}: predictions on test images, mistakes first")
