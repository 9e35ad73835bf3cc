"""Peak memory and time of a training step of a detector: `python -m benchmarks.detection_memory`.

By default what the bar is for: ResNet-50 with a C4 head, two images of 600 x 800 pixels, 512 RoIs
of each.
"""

import argparse
import resource
import time
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

import keras_resnet
from keras_resnet import detection, training
from keras_resnet.detection.task import DetectionObjective
from keras_resnet.training.loop import training_function

CLASSES, BOXES = 80, 20


def peak_memory(
    head: Literal["fpn", "fpn_v2", "c4"] = "c4",
    *,
    images: int = 2,
    size: tuple[int, int] = (600, 800),
    rois: int = 512,
    steps: int = 2,
) -> dict[str, float]:
    """Take some steps in this process, which should have done nothing else.

    Parameters
    ----------
    head : {"fpn", "fpn_v2", "c4"}, default "c4"
        As in `detection.FasterRCNN`.
    images : int, default 2
        Images of a batch.
    size : tuple of (int, int), default (600, 800)
        Their height and width.
    rois : int, default 512
        RoIs of each that the loss is of.
    steps : int, default 2
        Steps; the first one is not timed.

    Returns
    -------
    dict of str to float
        "before" and "peak", in MiB: the memory of the process when the model was made, and the most
        that it has taken; "seconds" of a step.
    """
    keras.utils.set_random_seed(0)
    backbone = keras_resnet.ResNet50(weights=None, include_top=False)
    detector = detection.FasterRCNN(
        backbone,
        CLASSES,
        head,
        min_size=min(size),
        max_size=max(size),
        box_batch_size_per_image=rois,
    )
    detector.compile(training.recipe("detection").make_optimizer())
    detector.optimizer.build(detector.trainable_variables)
    before = _peak()
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 0.7, (images, BOXES, 2)) * size[::-1]
    sides = generator.uniform(0.05, 0.3, (images, BOXES, 2)) * size[::-1]
    inputs = {
        "images": generator.uniform(0, 255, (images, *size, 3)).astype("float32"),
        "sizes": np.array([size] * images, "int32"),
    }
    labels = {
        "boxes": np.concatenate([corners, corners + sides], -1).astype("float32"),
        "classes": generator.integers(0, CLASSES, (images, BOXES)).astype("int32"),
        "ignored": np.zeros((images, BOXES), bool),
        "seeds": np.array([[0, index] for index in range(images)], "int32"),
    }
    batches = iter(tf.data.Dataset.from_tensors((inputs, labels)).repeat())
    objective: Any = DetectionObjective()
    step = training_function(detector, objective)
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        loss = step(batches, tf.constant(0.0), 1).numpy()[0, 0]
        seconds.append(time.perf_counter() - start)
        print(f"loss {loss / images:.4f}, {seconds[-1]:.1f} s, peak {_peak():,.0f} MiB", flush=True)
    return {"before": before, "peak": _peak(), "seconds": min(seconds[1:] or seconds)}


def _peak():
    """The most memory that this process has taken, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    """Print the figures of the head, size and number of RoIs that are asked for."""
    parser = argparse.ArgumentParser(description="Peak memory of a training step.")
    parser.add_argument("--head", default="c4")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--rois", type=int, default=512)
    parser.add_argument("--steps", type=int, default=2)
    print(peak_memory(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
