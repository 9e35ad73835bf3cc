"""Detectors: where their time goes, and beside KerasHub's: `python -m benchmarks.detection`.

1. The profile of an inference of an image of 600 x 800, and of a training step of two: what is
   convolutions and dense layers, what else is in the same networks (normalization, ReLU, pooling,
   additions), and what only detectors have (anchors, proposals, NMS, RoIAlign, masks, losses).
2. An inference of C4 with 300 proposals, in turns with ResNet-50 without its classifier on the same
   image: the time over what its multiply-adds take at the rate of that.
3. Images per second and peak memory of inference and training, in turns with KerasHub's
   RetinaNet-R50, each in a process of its own. `--hub PYTHON` is an interpreter that has keras-hub.

Images are padded to 608 x 800, as detectors do. Writes `results/detection.json` and
`results/detection.txt`.
"""

import argparse
import collections
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.machine import describe, interleaved
from benchmarks.profile import events_of
from benchmarks.worker import peak_mebibytes

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "detection.json"
SIZE, PADDED = (600, 800), (608, 800)
CLASSES, PROPOSALS = 90, 300  # as in COCO; of C4, as in the paper
ROUNDS, TURN = 5, 2.0  # turns, and seconds of each at least

# The parts of a detector that are networks, and the operations in them that count.
NETWORKS = ("features", "rpn", "box_head")
PARTS = (*NETWORKS, "transform", "anchors", "proposals", "roi_align", "detections")
MULTIPLIES = re.compile(r"(_?Mkl)?(Native)?_?(Pad)?(With)?(Fused)?(Depthwise)?(Conv2D|MatMul)")


def detector(head: str, **options):
    """A detector with random weights, as it is trained from those of a classifier."""
    import keras

    import keras_resnet
    from keras_resnet import detection

    # With residual branches of zero, features stay in a range that gives as many proposals as a
    # trained detector's, and all convolutions are computed all the same.
    keras.utils.set_random_seed(0)
    backbone = keras_resnet.ResNet50(
        include_top=False, weights=None, input_shape=(None, None, 3), zero_init_residual=True
    )
    shorter, longer = SIZE
    return detection.FasterRCNN(
        backbone, CLASSES, head, min_size=shorter, max_size=longer, **options
    )


def inputs_of(count: int) -> dict:
    """Images of 600 x 800 as a detector takes them."""
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (count, *SIZE, 3)).astype("float32")
    return {"images": images, "sizes": np.array([SIZE] * count, "int32")}


def boxes_of(count: int):
    """Ten boxes in every image, and their classes."""
    import numpy as np

    random = np.random.default_rng(1)
    corners = random.uniform(0, 1, (count, 10, 2)) * (SIZE[1] - 200, SIZE[0] - 200)
    boxes = np.concatenate([corners, corners + random.uniform(20, 200, (count, 10, 2))], -1)
    return boxes.astype("float32"), random.integers(0, CLASSES, (count, 10)).astype("int32")


def proposals_of(model) -> int:
    """How many proposals a detector makes of an image."""
    from keras_resnet import detection

    parts, inputs = detection.parts_of(model), inputs_of(1)
    batch, sizes = parts.transform(inputs["images"], inputs["sizes"])
    levels = parts.levels(batch)
    _, kept = parts.proposals(*parts.rpn(levels), *parts.anchors(batch, levels), sizes)
    return int(kept[0])


class Ours:
    """A detector of this package."""

    def __init__(self, head: str):
        self.model = detector(head)

    def infer(self, count: int):
        from keras_resnet.detection.detect import function_of

        answer, inputs = function_of(self.model), inputs_of(count)
        return lambda: answer(inputs["images"], inputs["sizes"])["count"].numpy()

    def train(self, count: int):
        """The step of `training.train`, without what is around it."""
        import numpy as np
        import tensorflow as tf

        from keras_resnet import data, training
        from keras_resnet.detection.task import DetectionObjective
        from keras_resnet.training.loop import training_function

        boxes, classes = boxes_of(count)
        labels = {
            "boxes": boxes,
            "classes": classes,
            "ignored": np.zeros(classes.shape, bool),
            "seeds": np.array([(0, index) for index in range(count)], "int32"),
        }
        batches = tf.data.Dataset.from_tensors((inputs_of(count), labels)).repeat()
        recipe = training.recipe("detection")
        self.model.compile(recipe.make_optimizer(), jit_compile=False)
        rows = np.concatenate([boxes, classes[..., None], np.zeros((*classes.shape, 1))], -1)
        split = data.Split(inputs_of(count)["images"].astype("uint8"), rows.astype("float32"))
        objective = DetectionObjective(split)
        step, iterator = training_function(self.model, objective), iter(batches)
        return lambda: step(iterator, tf.constant(0.0), 1).numpy()


class RetinaNet:
    """KerasHub's RetinaNet over ResNet-50, built as its preset retinanet_resnet50_fpn_coco."""

    def __init__(self, _head: str):
        import keras_hub
        from keras_hub.src.models.retinanet.retinanet_label_encoder import RetinaNetLabelEncoder

        encoder = keras_hub.models.ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 128, 256, 512],
            stackwise_num_blocks=[3, 4, 6, 3],
            stackwise_num_strides=[1, 2, 2, 2],
            block_type="bottleneck_block",
        )
        backbone = keras_hub.models.RetinaNetBackbone(encoder, 3, 7, use_p5=False)
        anchors = keras_hub.layers.AnchorGenerator("xyxy", 3, 7, 3, [0.5, 1.0, 2.0], 4.0)
        self.model = keras_hub.models.RetinaNetObjectDetector(
            backbone,
            label_encoder=RetinaNetLabelEncoder(anchors, "xyxy"),
            num_classes=CLASSES + 1,
            bounding_box_format="xyxy",
        )

    @staticmethod
    def images(count):
        import numpy as np

        height, width = (after - before for before, after in zip(SIZE, PADDED, strict=True))
        return np.pad(inputs_of(count)["images"], ((0, 0), (0, height), (0, width), (0, 0)))

    def infer(self, count: int):
        import tensorflow as tf

        images, model = tf.constant(self.images(count)), self.model

        @tf.function
        def answer(images):
            return model.decode_predictions(model(images, training=False), images)

        return lambda: answer(images)["num_detections"].numpy()

    def train(self, count: int):
        import keras

        boxes, classes = boxes_of(count)
        images, labels = self.images(count), {"boxes": boxes, "labels": classes.astype("float32")}
        for layer in self.model.backbone.image_encoder.layers:  # as ours
            frozen = layer.name.startswith(("conv1", "stack0", "conv_", "pool1"))
            layer.trainable = not (frozen or isinstance(layer, keras.layers.BatchNormalization))
        self.model.compile(optimizer=keras.optimizers.SGD(1e-4), jit_compile=False)
        # KerasHub's own makes one tensor of the labels, which are a dictionary.
        return lambda: keras.Model.train_on_batch(self.model, images, labels)


CONTENDERS = {
    "Faster R-CNN R50-FPN": (Ours, "fpn"),
    "Faster R-CNN R50-C4": (Ours, "c4"),
    "KerasHub RetinaNet-R50": (RetinaNet, ""),
}
WORK = {"inference": ("infer", 1), "training step": ("train", 2)}


class Process:
    """A contender in a process of its own, which takes a piece of work at a time."""

    def __init__(self, name: str, python: str):
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed by __exit__
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.detection", "--serve", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def do(self, work: str, seconds: float) -> dict:
        """Repeat a piece of work for at least so many seconds."""
        print(json.dumps({"work": work, "seconds": seconds}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(self._errors.read()[-2000:])
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def serve(name: str) -> None:
    """The other side of `Process`."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keep the output of libraries out of the answers
    kind, head = CONTENDERS[name]
    contender, steps = kind(head), {}
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["work"] not in steps:
            method, count = WORK[asked["work"]]
            steps[asked["work"]] = getattr(contender, method)(count)
        step, taken = steps[asked["work"]], []
        while not taken or sum(taken) < asked["seconds"]:
            start = time.perf_counter()
            step()
            taken.append(time.perf_counter() - start)
        print(
            json.dumps({"seconds": taken, "peak_mebibytes": peak_mebibytes()}),
            file=answers,
            flush=True,
        )


def side_by_side(hub: str, rounds: int) -> list[dict]:
    """Seconds of each piece of work, in turns, and the peak memory of each contender after it."""
    found = []
    for work, (_, images) in WORK.items():
        entrants = {}
        for name, (kind, _) in CONTENDERS.items():
            entrants[name] = Process(name, hub if kind is RetinaNet else sys.executable)
        seconds, peaks = {name: [] for name in entrants}, {}
        for turn in range(rounds + 1):
            for name, process in [*entrants.items()]:
                try:
                    answer = process.do(work, TURN if turn else 0.0)  # the first one traces
                except RuntimeError as error:
                    print(f"{name} is left out: {error}", file=sys.stderr)
                    del entrants[name]
                    continue
                if turn:
                    seconds[name] += answer["seconds"]
                peaks[name] = answer["peak_mebibytes"]
        for name, process in entrants.items():
            process.__exit__()
            found.append(
                {
                    "work": work,
                    "contender": name,
                    "images": images,
                    "seconds": statistics.median(seconds[name]),
                    "peak_mebibytes": peaks[name],
                }
            )
    return found


def part_of(operation: str) -> str:
    """The part of a detector that an operation belongs to, by its name."""
    for name in operation.split("/"):
        if (part := re.sub(r"_\d+$", "", name)) in PARTS:
            return part
    return "losses and optimizer"


def profile(head: str, work: str) -> dict:
    """Where the time of a piece of work goes; the operations of a step, one at a time."""
    method, count = WORK[work]
    contender = Ours(head)
    proposals = proposals_of(contender.model)
    step = getattr(contender, method)(count)
    for _ in range(2):
        step()
    taken, parts = collections.Counter(), collections.Counter()
    for name, operation, seconds in events_of(step):
        # Loops and conditions are run by operations of their own, which are listed, too.
        if operation in ("While", "StatelessWhile", "If", "StatelessIf", "PartitionedCall"):
            continue
        part = part_of(name)
        multiplies = MULTIPLIES.match(operation) is not None and part in NETWORKS
        kind = "convolutions and dense layers" if multiplies else "what else networks have"
        taken[kind if part in NETWORKS else "what only detectors have"] += seconds
        parts[part if part not in NETWORKS else f"{part}, {kind}"] += seconds
    found = {"head": head, "work": work, "proposals": proposals}
    return {**found, "kinds": dict(taken), "parts": dict(parts)}


def against_multiply_adds(rounds: int) -> dict:
    """C4 with 300 proposals, in turns with its backbone alone: seconds, multiply-adds of both."""
    import numpy as np
    import tensorflow as tf

    import keras_resnet
    from keras_resnet import analysis, detection
    from keras_resnet.detection.detect import function_of

    # As many as the paper, of as many before suppression as detectron2 takes.
    options = dict(rpn_pre_nms_top_n_test=6000, rpn_post_nms_top_n_test=PROPOSALS)
    model = detector("c4", **options)
    backbone = keras_resnet.ResNet50(
        include_top=False, weights=None, input_shape=(*PADDED, 3), include_preprocessing=True
    )
    inputs = inputs_of(1)
    images = tf.constant(np.zeros((1, *PADDED, 3), "float32"))
    detect, alone = function_of(model), tf.function(lambda images: backbone(images, training=False))
    kept = proposals_of(model)
    seconds = interleaved(
        [
            lambda: detect(inputs["images"], inputs["sizes"])["count"].numpy(),
            lambda: alone(images).numpy(),
        ],
        rounds,
        repeats=[1, 4],
    )
    return {
        "proposals": kept,
        "seconds": dict(zip(("detector", "backbone"), seconds, strict=True)),
        "macs": {
            "detector": sum(each.macs for each in detection.complexity(model, SIZE, kept)),
            "backbone": sum(each.macs for each in analysis.complexity(backbone)),
        },
    }


def report(results: dict) -> str:
    """The results in words."""
    lines = [results["machine"], ""]
    for each in results.get("profiles", ()):
        total = sum(each["kinds"].values())
        _, count = WORK[each["work"]]
        images = "an image" if count == 1 else f"{count} images"
        lines.append(
            f"{each['head']}, {each['work']}, {images} of 600 x 800, {each['proposals']} proposals "
            f"in inference: {total:.2f} s"
        )
        for table in ("kinds", "parts"):
            for name, seconds in sorted(each[table].items(), key=lambda item: -item[1]):
                indent = "  " if table == "kinds" else "      "
                lines.append(f"{indent}{name:48} {seconds:7.3f} s {seconds / total:6.1%}")
        lines.append("")
    if c4 := results.get("c4"):
        rate = c4["macs"]["backbone"] / c4["seconds"]["backbone"]
        ideal = c4["macs"]["detector"] / rate
        lines += [
            f"C4 with {c4['proposals']} proposals: {c4['seconds']['detector']:.2f} s for "
            f"{c4['macs']['detector'] / 1e9:.0f} G multiply-adds; ResNet-50 alone: "
            f"{c4['seconds']['backbone']:.3f} s for {c4['macs']['backbone'] / 1e9:.1f} G, at whose "
            f"rate C4 would take {ideal:.2f} s: {c4['seconds']['detector'] / ideal:.2f} x.",
            "",
        ]
    for each in results.get("side by side", ()):
        lines.append(
            f"{each['work']:14} {each['contender']:24} {each['images'] / each['seconds']:6.2f} "
            f"images/s, peak {each['peak_mebibytes']:6,.0f} MiB"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hub", default=sys.executable, help="an interpreter with keras-hub")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", choices=("profiles", "c4", "side by side"), action="append")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    import tensorflow as tf

    # One operation at a time, so that their times add up.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if options.hub == sys.executable and not importlib.util.find_spec("keras_hub"):
        print(
            "There is no keras-hub here: name an interpreter that has it, --hub.", file=sys.stderr
        )
        CONTENDERS.pop("KerasHub RetinaNet-R50")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["machine"] = describe()
    pieces = {
        "profiles": lambda: [profile(head, work) for head in ("fpn", "c4") for work in WORK],
        "c4": lambda: against_multiply_adds(options.rounds),
        "side by side": lambda: side_by_side(options.hub, options.rounds),
    }
    for name, measure in pieces.items():
        if name in (options.only or pieces):
            results[name] = measure()
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    text = report(results)
    RESULTS.with_suffix(".txt").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
