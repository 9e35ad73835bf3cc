"""Cardinality at equal complexity, on CIFAR-10: `python -m benchmarks.cardinality DATA`.

Trains 20-layer models with the cardinality and width pairs of Xie et al. (2017), table 2, on 5,000
images, and compares them on a quarter of the test images. DATA is anything that
`keras-resnet train --data` accepts. Takes twenty minutes on two cores.
"""

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.machine import describe

RESULTS = Path(__file__).parents[1] / "docs" / "cardinality.md"
EPOCHS = 6
SPACE = {
    "block": "bottleneck",
    # 8x14d needs a width of at least 2 for a whole number of channels per group. Most blocks are in
    # the last stage: the more of the parameters lie in blocks of equal size, the closer the models.
    "width": 2.0,
    "conv2_blocks": 1,
    "conv3_blocks": 1,
    "conv4_blocks": 4,
    "shortcut": "B",
    "learning_rate": 0.2,
    "weight_decay": 1e-4,
    "label_smoothing": 0.0,
    "augmentation_strength": "light",
}
PAGE = """# Cardinality at equal complexity

The five pairs of cardinality and width from Xie et al. (2017), table 2, in 20-layer models for the
32x32 images of CIFAR-10: 1, 1 and 4 bottleneck blocks with 32, 64 and 128 filters, shortcut B.

{table}

Trained on {train:,} images for {epochs} epochs with a batch size of 64. The accuracy is on
{validation:,} test images, with a standard error of {error:.1%}. With one seed each, early in
training, the accuracies do not rank the pairs. The last column shows what grouped convolutions cost
on a CPU.
{machine}

`python -m benchmarks.cardinality 'cifar10_jpeg_*.tfrecord.gz'` writes this page. To compare the
paper's five 50-layer models on photographs:

```
keras-resnet tune --data pets --algorithm random --trials 5 --output runs/cardinality \\
    --set block=bottleneck --set width=1 --set shortcut=B \\
    --set conv2_blocks=3 --set conv3_blocks=4 --set conv4_blocks=6 --set conv5_blocks=3 \\
    --set learning_rate=0.2 --set weight_decay=1e-4 \\
    --set label_smoothing=0 --set augmentation_strength=light
```

This is an ordinary [search](search.md) with cardinality as its only choice, and tries every value.
"""


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """Format a Markdown table of numbers."""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [columns, rule, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    options = parser.parse_args()

    import numpy as np

    from keras_resnet import data, training, tuning

    source = data.load(options.data)
    source = replace(
        source,
        train=source.train.take(np.arange(5000)),
        validation=source.test.take(np.arange(2500)),
    )
    recipe = training.Recipe(epochs=EPOCHS)
    hypermodel = tuning.ResNetHyperModel((32, 32, 3), 10, SPACE, recipe=recipe)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tuning.search(
            hypermodel,
            source,
            algorithm="random",
            trials=len(tuning.CARDINALITIES),
            epochs=EPOCHS,
            directory=folder,
            cache="memory",
        )
        trials = {trial.values["cardinality"]: trial for trial in tuner.record().trials}
    found = [(name, trials[name]) for name in tuning.CARDINALITIES]
    first = found[0][1]
    rows = [
        [
            name,
            f"{trial.parameters:,}",
            f"{trial.parameters / first.parameters - 1:+.1%}",
            f"{trial.macs / 1e6:.1f} M",
            f"{trial.score:.1%}",
            f"{trial.seconds / EPOCHS:.0f}",
        ]
        for name, trial in found
    ]
    columns = ["", "parameters", "", "multiply-adds", "accuracy", "seconds per epoch"]
    accuracy = np.mean([trial.score for trial in trials.values()])
    page = PAGE.format(
        table=markdown(columns, rows),
        train=len(source.train),
        validation=len(source.validation),
        epochs=EPOCHS,
        error=np.sqrt(accuracy * (1 - accuracy) / len(source.validation)),
        machine=describe(),
    )
    RESULTS.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
