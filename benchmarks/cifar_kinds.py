"""Kinds of blocks on CIFAR-10: `python -m benchmarks.cifar_kinds DATA OUTPUT [--seeds N]`.

Trains the plain, the residual, the pre-activation, the squeeze-and-excitation and the "D" model of
56 layers, and the residual and the pre-activation one of 164, by the same short schedule. Then
writes docs/kinds.md. DATA is anything that `keras-resnet train --data` accepts; what is in OUTPUT
already is not trained again.
"""

import argparse
import json
import os
import statistics
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.cardinality import markdown
from benchmarks.machine import describe

RESULTS = Path(__file__).parents[1] / "docs" / "kinds.md"
TRAIN, VALIDATION, TEST = 10_000, 1_000, 5_000
EPOCHS, BATCH = 6, 64
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
        epochs=EPOCHS, batch_size=BATCH, learning_rate=0.2, weight_decay=1e-4, warm_up=0.1
    )
    result = training.train(model, source, recipe, seed=seed, cache="memory")
    images = data.batches(test, image_size=32, batch_size=250)
    quality = analysis.evaluate(model, images, source.class_names)
    found = {
        "parameters": int(sum(np.prod(each.shape) for each in model.trainable_weights)),
        "training_loss": result.history["loss"][-1],
        "accuracy": quality.metrics()["accuracy"],
        "seconds_per_epoch": result.seconds / EPOCHS,
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


if __name__ == "__main__":
    main()
