"""Exported ResNet-50s with the same weights, ours and others': `python -m benchmarks.export`.

    python -m benchmarks.export H5 IMAGES CALIBRATION

H5 is the weights file of `keras.applications.ResNet50`, IMAGES a folder of `CLASS_*.jpg` where
CLASS is the class index, CALIBRATION a folder of other photographs. Exports the model in every
available format and runs each export in its own process, in turns. Reports the milliseconds per
batch, the speed-up over the `keras.applications` SavedModel, the top-1 accuracy, and the fraction
of images with the same class as `keras.applications`. Then compares ResNeXt-50, with random
weights, with the same model built from stock Keras layers. Includes ONNX Runtime and OpenVINO if
installed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.contenders import installed, stock_twin
from benchmarks.machine import describe
from benchmarks.worker import ROOT

RESULTS = Path(__file__).parent / "results" / "export.txt"
BATCHES = (1, 16)
ROUNDS, TURN = 9, 0.5  # turns per entrant, minimum seconds per turn
# Makes oneDNN keep reordered weights. A server-side switch: an exported model cannot set it.
FROZEN = {"TF_ONEDNN_ASSUME_FROZEN_WEIGHTS": "1"}


@dataclass(frozen=True)
class Entrant:
    """An exported model and how to run it.

    `raw` is whether it takes raw images; `precision` is what OpenVINO computes in.
    """

    name: str
    path: Path
    raw: bool = True
    environment: tuple[tuple[str, str], ...] = ()
    precision: str = ""


class Process:
    """The running process of an entrant."""

    def __init__(self, entrant: Entrant):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.export", "--run", entrant.path, entrant.precision],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env={**os.environ, **dict(entrant.environment)},
        )

    def do(self, **command):
        print(json.dumps(command), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()


def run(path: str, precision: str) -> None:
    """Run an entrant: answer each JSON command with call times, or save the outputs for images."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keep library output out of the answers
    import numpy as np

    if precision:
        import openvino

        options = {"INFERENCE_PRECISION_HINT": precision}
        compiled = openvino.compile_model(path, "CPU", options)
        shape, ask = compiled.input().partial_shape, lambda images: compiled(images)[0]
        size = shape[1].get_length()
    else:
        from keras_resnet.export import load

        ask = load(path)
        size = ask.image_shape[1]
    for line in sys.stdin:
        command = json.loads(line)
        if "images" in command:
            images = np.load(command["images"], mmap_mode="r")
            step = command["batch"]
            parts = [ask(images[start : start + step]) for start in range(0, len(images), step)]
            np.save(command["outputs"], np.concatenate(parts))
            print(json.dumps(len(parts)), file=answers, flush=True)
            continue
        batch = np.random.default_rng(0).uniform(0, 255, (command["batch"], size, size, 3))
        batch, taken = batch.astype("float32"), []
        ask(batch)  # the other entrants have filled the caches
        while sum(taken) < TURN:
            start = time.perf_counter()
            ask(batch)
            taken.append(time.perf_counter() - start)
        print(json.dumps(taken), file=answers, flush=True)


def photographs(folder: Path, size: int = 224):
    """Load the centre crops of all photographs, unresized, and their names before the first `_`."""
    import numpy as np
    import PIL.Image

    files, images = sorted(folder.rglob("*.jpg")), []
    for file in files:
        with PIL.Image.open(file) as image:
            left, top = (image.width - size) // 2, (image.height - size) // 2
            box = (left, top, left + size, top + size)
            images.append(np.asarray(image.convert("RGB").crop(box)))
    return np.stack(images).astype("float32"), [file.name.partition("_")[0] for file in files]


def resnet50s(folder: Path, weights: str, calibration) -> Iterator[Entrant]:
    """Export ResNet-50 from keras.applications, then from keras_resnet in every format."""
    import keras

    import keras_resnet
    from keras_resnet import export

    stock = keras.applications.ResNet50(weights=weights)
    stock.export(folder / "stock", format="tf_saved_model", verbose=False)
    yield Entrant("keras.applications, SavedModel", folder / "stock", raw=False)
    frozen = tuple(FROZEN.items())
    yield Entrant("keras.applications, SavedModel *", folder / "stock", False, frozen)
    stock.export(folder / "stock.tflite", format="litert", verbose=False)
    yield Entrant("keras.applications, LiteRT", folder / "stock.tflite", raw=False)
    if installed("onnxruntime", "tf2onnx"):
        spec = [keras.InputSpec(shape=stock.input_shape, dtype="float32")]
        stock.export(folder / "stock.onnx", format="onnx", input_signature=spec, verbose=False)
        yield Entrant("keras.applications, ONNX Runtime", folder / "stock.onnx", raw=False)
        for precision in ("f32", "bf16") if installed("openvino") else ():
            name = f"keras.applications, OpenVINO {precision}"
            yield Entrant(name, folder / "stock.onnx", raw=False, precision=precision)

    net = keras_resnet.ResNet50(weights=weights, include_preprocessing=True)
    options = dict(verified=False, verbose=False)
    for precision in ("float32", "bfloat16"):
        path = export.saved_model(net, folder / precision, precision=precision, **options).path
        yield Entrant(f"keras_resnet, SavedModel {precision}", path)
        yield Entrant(f"keras_resnet, SavedModel {precision} *", path, environment=frozen)
    for precision in ("float32", "float16", "dynamic", "int8"):
        path = folder / f"{precision}.tflite"
        export.litert(net, path, precision=precision, calibrate=calibration, **options)
        yield Entrant(f"keras_resnet, LiteRT {precision}", path)
    if installed("onnxruntime", "tf2onnx"):
        export.onnx(net, folder / "net.onnx", **options)
        yield Entrant("keras_resnet, ONNX Runtime", folder / "net.onnx")


def resnexts(folder: Path) -> Iterator[Entrant]:
    """Export ResNeXt-50 from stock Keras layers, and from ours."""
    import keras_resnet
    from keras_resnet import export

    net = keras_resnet.ResNeXt50_32x4d(weights=None)
    options = dict(verified=False, verbose=False)
    stock_twin(net).export(folder / "twin", format="tf_saved_model", verbose=False)
    yield Entrant("stock Keras twin, SavedModel", folder / "twin")
    for precision in ("float32", "bfloat16"):
        path = export.saved_model(net, folder / precision, precision=precision, **options).path
        yield Entrant(f"keras_resnet, SavedModel {precision}", path)


def folding(weights: str, images) -> str:
    """Describe how folding batch normalization changes the logits."""
    import numpy as np
    import tensorflow as tf

    import keras_resnet
    from keras_resnet import export

    net = keras_resnet.ResNet50(
        weights=weights, include_preprocessing=True, classifier_activation=None
    )
    outputs = []
    for model in (net, export.fold_batch_norm(net)):
        ask = tf.function(lambda batch, model=model: model(batch, training=False))
        parts = [ask(images[start : start + 16]) for start in range(0, len(images), 16)]
        outputs.append(np.concatenate(parts))
    before, after = outputs
    difference = np.abs(before - after).max() / np.abs(before).max()
    same = np.mean(before.argmax(-1) == after.argmax(-1))
    return (
        f"Batch normalization folded: largest logit difference {difference:.1e} of the largest "
        f"logit, same class for {same:.1%} of {len(images)} images."
    )


def compared(entrants: list[Entrant], folder: Path, images=None, labels=None) -> Iterator[str]:
    """Yield a table: each entrant's median times, and its speed-up over the first entrant."""
    import numpy as np

    import keras_resnet

    seconds = {(entrant.name, batch): [] for entrant in entrants for batch in BATCHES}
    accuracy, classes = {}, None
    processes = {}
    try:
        for entrant in entrants:
            processes[entrant.name] = Process(entrant)
        if images is not None:
            np.save(folder / "raw.npy", images)
            normalized = keras_resnet.preprocess_input(images, "caffe").numpy()
            np.save(folder / "normalized.npy", normalized)
            for entrant in entrants:
                file = folder / ("raw.npy" if entrant.raw else "normalized.npy")
                result = folder / "outputs.npy"
                processes[entrant.name].do(images=str(file), outputs=str(result), batch=BATCHES[-1])
                chosen = np.load(result).argmax(-1)
                classes = chosen if classes is None else classes
                accuracy[entrant.name] = np.mean(chosen == labels), np.mean(chosen == classes)
        for batch in BATCHES:
            for counts in [False] + [True] * ROUNDS:
                for entrant in entrants:
                    taken = processes[entrant.name].do(batch=batch)
                    if counts:
                        seconds[entrant.name, batch] += taken
    finally:
        for process in processes.values():
            process.__exit__()
    medians = {key: statistics.median(taken) for key, taken in seconds.items()}
    width = max(len(entrant.name) for entrant in entrants)
    heads = [f"{'batch ' + str(batch):>18}" for batch in BATCHES]
    heads += ["   top-1   same class"] if images is not None else []
    yield " ".join([" " * width, *heads])
    for entrant in entrants:
        cells = [f"{entrant.name:{width}}"]
        for batch in BATCHES:
            ratio = medians[entrants[0].name, batch] / medians[entrant.name, batch]
            cells.append(f"{1000 * medians[entrant.name, batch]:7.1f} ms {ratio:6.2f}x")
        if accuracy:
            cells.append("  {:6.1%}      {:7.1%}".format(*accuracy[entrant.name]))
        yield " ".join(cells)


def report(weights: str, images: Path, calibration: Path) -> Iterator[str]:
    yield describe()
    pictures, names = photographs(images)
    others, _ = photographs(calibration)
    labels = [int(name) for name in names]
    yield folding(weights, pictures)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield f"\nResNet-50, {len(pictures)} images (* with {next(iter(FROZEN))}=1)"
        entrants = list(resnet50s(folder, weights, others[:: max(1, len(others) // 100)]))
        yield from compared(entrants, folder, pictures, labels)
    with tempfile.TemporaryDirectory() as name:
        yield "\nResNeXt-50 32x4d, random weights"
        yield from compared(list(resnexts(Path(name))), Path(name))


def main() -> None:
    if "--run" in sys.argv:
        run(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", metavar="H5")
    parser.add_argument("images", metavar="IMAGES", type=Path)
    parser.add_argument("calibration", metavar="CALIBRATION", type=Path)
    options = parser.parse_args()
    lines = []
    for line in report(**vars(options)):
        print(line, flush=True)
        lines.append(f"{line}\n")
    RESULTS.write_text("".join(lines))


if __name__ == "__main__":
    main()
