"""Precision on blood cells: `python -m benchmarks.blood_cells SOURCE OUTPUT [--seeds N]`.

Trains Faster R-CNN on ResNet-50 on the 205 training images of BCCD, chooses the epoch by the loss
of its 87 validation images, and looks at the 72 test images once at the end. Prints average
precision by COCO's protocol for each seed, their mean and spread, and what the errors are made of.
Skips seeds whose metrics are already in OUTPUT.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.machine import describe

# Cells are 30 to 250 pixels wide in images of 640 x 480, so that a pyramid needs no stride of 4.
HEADS = {
    "fpn": dict(
        epochs=8,
        min_size=384,
        max_size=512,
        returned_layers=(2, 3, 4),
        rpn_anchor_sizes=(24, 48, 96, 192),
        box_batch_size_per_image=256,
    ),
    "c4": dict(
        epochs=6,
        min_size=384,
        max_size=512,
        rpn_anchor_sizes=(24, 48, 96, 192),
        rpn_post_nms_top_n_test=300,
        box_batch_size_per_image=48,
    ),
}
LEARNING_RATE = 0.01 * 256 / 2  # of 256 images; a step has two
SHOWN = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def train(source, output: Path, head: str, weights: str, seed: int) -> dict:
    """Train and test one detector, and write what was found."""
    import keras

    import keras_resnet
    from keras_resnet import data, detection, training

    start = time.perf_counter()
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy("mixed_bfloat16")
    cells = data.load(source)
    options = dict(HEADS[head])
    recipe = training.recipe(
        "detection",
        epochs=options.pop("epochs"),
        learning_rate=LEARNING_RATE,
        clip_norm=5.0,
        # Under a microscope there is no up.
        augmentation=detection.Augmentation(
            flip=True, upside_down=True, brightness=0.1, contrast=0.1, saturation=0.1
        ),
    )
    backbone = keras_resnet.ResNet50(
        weights=weights, include_top=False, input_shape=(None, None, 3)
    )
    model = detection.FasterRCNN(backbone, len(cells.class_names), head, **options)
    result = training.train(
        model, cells, recipe, seed=seed, cache="memory", checkpoints=output / "checkpoints"
    )
    minutes = (time.perf_counter() - start) / 60
    output.mkdir(parents=True, exist_ok=True)
    model.save(output / "model.keras")
    result.save(output / "history.csv")
    quality = detection.evaluate(model, cells.test, cells.class_names)
    quality.save(output)
    found = {
        "head": head,
        "seed": seed,
        "minutes": round(minutes, 1),
        "best_epoch": result.best_epoch,
        **quality.metrics(),
        **quality.details(),
        "machine": describe(),
    }
    (output / "metrics.json").write_text(json.dumps(found, indent=1) + "\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("output", type=Path)
    parser.add_argument("--weights", default="imagenet_caffe")
    parser.add_argument("--heads", nargs="+", default=["fpn"], choices=HEADS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    for head in options.heads:
        found = []
        for seed in options.seeds:
            output = options.output / f"{head}-{seed}"
            if (output / "metrics.json").exists():
                found.append(json.loads((output / "metrics.json").read_text()))
            else:
                found.append(train(options.source, output, head, options.weights, seed))
            figures = ", ".join(f"{name} {found[-1][name]:.3f}" for name in SHOWN)
            print(f"{head}, seed {seed}: {figures}; {found[-1]['minutes']} minutes", flush=True)
        for name in SHOWN:
            values = [each[name] for each in found]
            print(f"{head} {name}: mean {statistics.mean(values):.3f}, "
                  f"{min(values):.3f} to {max(values):.3f}")  # fmt: skip
    print(describe())


if __name__ == "__main__":
    main()
