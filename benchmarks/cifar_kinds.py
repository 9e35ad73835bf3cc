"""Kinds of blocks on CIFAR-10: `python -m benchmarks.cifar_kinds DATA OUTPUT [--seeds N]`.

Trains the plain, the residual, the pre-activation, the squeeze-and-excitation and the "D" model of
56 layers, and the residual and the pre-activation one of 164, by short schedules. Then writes
docs/kinds.md. DATA is anything that `keras-resnet train --data` accepts; what is in OUTPUT already
is not trained again.
"""

import argparse
import json
import os
import statistics
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.machine import describe

RESULTS = Path(__file__).parents[1] / "docs" / "kinds.md"
TRAIN, VALIDATION, TEST = 10_000, 1_000, 5_000
BATCH, EPOCHS = 64, {56: 6, 164: 3}
# Name in the table: depth, second version or first, options.
MODELS = {
    "plain-56": (56, False, {"shortcut": None}),
    "v1-56": (56, False, {"shortcut": "B"}),
    "v2-56": (56, True, {}),
    "SE-56": (56, False, {"shortcut": "B", "attention": "se", "attention_ratio": 0.25}),
    "D-56": (56, False, {"shortcut": "D"}),
    "v1-164": (164, False, {"block": "bottleneck"}),
    "v2-164": (164, True, {}),
}


PAGE = """# Kinds of blocks on CIFAR-10

Short schedules, equal at each depth: {train:,} images, {epochs} epochs at 56 and
{deep_epochs} at 164 layers, {batch} images per step, SGD with momentum, warm-up and
cosine decay, in bfloat16.

{table}

Accuracy is on {test:,} test images, with a standard error of {error:.1%}, for seed{seeds}.

What this says: early in training, shortcuts are what makes 56 layers learn at all ({v1}
with them, {plain} without), and pre-activation learns faster: {ahead} at 56 layers,
{deep_ahead} at 164.

What it does not say: which is better at the end of a training of 64,000 steps, as in the
papers, where the second version gains little at 110 layers and more at 164 and 1,001 (He et
al., Identity Mappings in Deep Residual Networks, 2016). Nor does one seed rank SE and D,
which differ from v1 by a few percent.

"v1" and "v2" are `CIFARResNet` and `CIFARResNetV2` with projections (shortcut B), "plain"
has no shortcuts, "SE" has squeeze-and-excitation with a quarter of the channels, "D"
average pooling on the shortcut. The models of 164 layers have bottleneck blocks. [Every
ResNet](models.md) explains the options.

{machine}

`python -m benchmarks.cifar_kinds 'cifar10_jpeg_*.tfrecord.gz' OUTPUT` writes this page.
"""


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """Format a Markdown table of numbers."""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [columns, rule, *rows])


def train(data_name: str, name: str, seed: int, path: Path) -> None:
    """Train one model, test it, and write what was found."""
    import keras
    import numpy as np

    import keras_resnet
    from keras_resnet import analysis, data, training

    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy("mixed_bfloat16")
    source = data.load(data_name)
    test = source.test.take(np.arange(TEST))
    source = replace(
        source,
        train=source.train.take(np.arange(TRAIN)),
        validation=source.train.take(np.arange(TRAIN, TRAIN + VALIDATION)),
    )
    depth, second, options = MODELS[name]
    build = keras_resnet.CIFARResNetV2 if second else keras_resnet.CIFARResNet
    model = build(depth, include_preprocessing=True, **options)
    # 0.1 for 128 images, as in the paper.
    recipe = training.Recipe(
        epochs=EPOCHS[depth], batch_size=BATCH, learning_rate=0.2, weight_decay=1e-4, warm_up=0.1
    )
    result = training.train(model, source, recipe, seed=seed, cache="memory")
    images = data.batches(test, image_size=32, batch_size=250)
    quality = analysis.evaluate(model, images, source.class_names)
    found = {
        "parameters": int(sum(np.prod(each.shape) for each in model.trainable_weights)),
        "training_loss": result.history["loss"][-1],
        "accuracy": quality.metrics()["accuracy"],
        "seconds_per_epoch": result.seconds / EPOCHS[depth],
        "machine": describe(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("output", type=Path)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    for seed in options.seeds:
        for name in options.models:
            path = options.output / f"{name}-{seed}.json"
            if not path.exists():
                train(options.data, name, seed, path)
            print(f"{name}, seed {seed}: {json.loads(path.read_text())}", flush=True)
    write_page(options.output, options.seeds)


def write_page(output: Path, seeds: list[int]) -> None:
    """Write what the trainings found as a page of the documentation."""
    found = {
        name: [json.loads((output / f"{name}-{seed}.json").read_text()) for seed in seeds]
        for name in MODELS
    }
    mean = {
        name: {
            key: statistics.mean(run[key] for run in runs)
            for key in ("accuracy", "training_loss", "parameters", "seconds_per_epoch")
        }
        for name, runs in found.items()
    }
    rows = [
        [
            name,
            f"{its['parameters']:,.0f}",
            f"{its['training_loss']:.3f}",
            f"{its['accuracy']:.1%}",
            f"{its['seconds_per_epoch']:.0f}",
        ]
        for name, its in mean.items()
    ]
    accuracy = {name: its["accuracy"] for name, its in mean.items()}
    usual = statistics.mean(accuracy.values())
    page = PAGE.format(
        train=TRAIN,
        epochs=EPOCHS[56],
        deep_epochs=EPOCHS[164],
        batch=BATCH,
        test=TEST,
        error=(usual * (1 - usual) / TEST) ** 0.5,
        seeds=f" {seeds[0]}" if len(seeds) == 1 else f"s {', '.join(map(str, seeds))} (means)",
        table=markdown(["", "parameters", "training loss", "accuracy", "seconds per epoch"], rows),
        v1=f"{accuracy['v1-56']:.1%}",
        plain=f"{accuracy['plain-56']:.1%}",
        ahead=f"{accuracy['v2-56'] - accuracy['v1-56']:+.1%}",
        deep_ahead=f"{accuracy['v2-164'] - accuracy['v1-164']:+.1%}",
        machine=found["v1-56"][0]["machine"],
    )
    RESULTS.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
