"""Exported ResNet-50s with the same weights, ours and others': `python -m benchmarks.export`.

    python -m benchmarks.export H5 IMAGES CALIBRATION [--turns N] [--only PATTERN]

H5 is the weights file of `keras.applications.ResNet50`, IMAGES a folder of `CLASS_*.jpg` where
CLASS is the class index, CALIBRATION a folder of other photographs. Exports the model in every
available format and runs each export in its own process, in turns. Reports the milliseconds per
batch, the speed-up over the `keras.applications` SavedModel, the top-1 accuracy, and the fraction
of images with the same class as `keras.applications`; then the time from an import to the first
prediction. Then compares ResNeXt-50, with random weights, with the same model built from stock
Keras layers. Includes ONNX Runtime, OpenVINO and PyTorch if installed. Closes with our fastest
format against the fastest of theirs.
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.contenders import NETS, installed, stock_twin, torch_net
from benchmarks.machine import describe, precisions, results_of
from benchmarks.worker import ROOT

BATCHES = (1, 16)
TURN = 0.5  # seconds, at least
STARTS = 7  # processes per entrant, of the first prediction
CALIBRATED = 100  # images
HINTS = {"float32": "f32", "bfloat16": "bf16"}  # as OpenVINO calls them
# Makes oneDNN keep reordered weights. A server-side switch: an exported model cannot set it.
FROZEN = {"TF_ONEDNN_ASSUME_FROZEN_WEIGHTS": "1"}
THREADS = "BENCHMARKS_THREADS"  # LiteRT threads, to match a server


@dataclass(frozen=True)
class Entrant:
    """An exported model and how to run it.

    `raw` is whether it takes raw images; `precision` is what OpenVINO or PyTorch computes in.
    PyTorch runs a path that names weights of keras.applications, or a net of `contenders`.
    """

    name: str
    path: Path
    raw: bool = True
    environment: tuple[tuple[str, str], ...] = ()
    precision: str = ""

    @property
    def ours(self) -> bool:
        return self.name.startswith("keras_resnet")


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
        """What it answers; None if it has failed."""
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(command), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        return json.loads(answer) if answer else None

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

    if path.endswith(".h5"):
        ask, size = keras_in_torch(path, precision), 224
    elif path in NETS:
        ask, size = torch_net_of(path, precision), NETS[path].size
    elif precision:
        import openvino

        options = {"INFERENCE_PRECISION_HINT": HINTS[precision]}
        compiled = openvino.compile_model(path, "CPU", options)
        shape, ask = compiled.input().partial_shape, lambda images: compiled(images)[0]
        size = shape[1].get_length()
    else:
        from keras_resnet.export import load

        ask = load(path, int(os.environ.get(THREADS, 0)) or None)
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


def keras_in_torch(weights: str, precision: str):
    """ResNet-50 of keras.applications in PyTorch, compiled; Keras runs on PyTorch."""
    import keras

    keras.config.set_image_data_format("channels_first")
    keras.config.set_dtype_policy(precision)
    return torch_compiled(keras.applications.ResNet50(weights=weights), precision)


def torch_net_of(name: str, precision: str):
    """A net of `contenders` in PyTorch, compiled."""
    import torch

    net = torch_net(NETS[name].builder)
    return torch_compiled(torch.nn.Sequential(net, torch.nn.Softmax(-1)), precision)


def torch_compiled(module, precision: str):
    """A module as a function of channels-last arrays."""
    import numpy as np
    import torch
    import torch._inductor.config

    torch._inductor.config.freezing = True  # weights are reordered once
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    module = module.eval().to(memory_format=torch.channels_last)
    forward = torch.compile(module)

    def ask(images):
        # Channels-last images as they are, in the order of dimensions that PyTorch wants.
        images = torch.from_numpy(np.require(images, requirements="W")).permute(0, 3, 1, 2)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, precision == "bfloat16"):
            return forward(images).float().numpy()

    return ask


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
    yield from others(folder, stock)
    keras_on_torch = (("KERAS_BACKEND", "torch"),)
    for precision in precisions() if installed("torch") else ():
        name = f"keras.applications, PyTorch compiled {precision}"
        yield Entrant(name, Path(weights), False, keras_on_torch, precision)
    yield from torch_nets("ResNet-50")

    net = keras_resnet.ResNet50(weights=weights, include_preprocessing=True)
    options = dict(verified=False, verbose=False)
    for precision in precisions():
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
    yield from openvinos(folder, net, calibration, raw=True)


def spaced(images, count: int):
    """`count` images, evenly spaced."""
    return images[:: max(1, len(images) // count)][:count]


def torch_nets(net: str) -> Iterator[Entrant]:
    """A net of `contenders`, with random weights, in PyTorch."""
    for precision in precisions() if installed("torch") else ():
        name = f"PyTorch compiled {precision}, random weights"
        yield Entrant(name, Path(net), raw=False, precision=precision)


def others(folder: Path, stock) -> Iterator[Entrant]:
    """A model of stock Keras layers in ONNX Runtime, and as OpenVINO converts it by itself."""
    import keras

    name = "stock Keras twin" if "twin" in stock.name else "keras.applications"
    if installed("onnxruntime", "tf2onnx"):
        spec = [keras.InputSpec(shape=stock.input_shape, dtype="float32")]
        stock.export(folder / "stock.onnx", format="onnx", input_signature=spec, verbose=False)
        yield Entrant(f"{name}, ONNX Runtime", folder / "stock.onnx", raw=False)
    if installed("openvino"):
        import openvino

        try:
            converted = openvino.convert_model(folder / "stock")
        except Exception as error:  # grouped convolutions of Keras are XLA's
            print(f"{name}: OpenVINO does not convert it: {error}", file=sys.stderr)
            return
        openvino.save_model(converted, folder / "stock.xml", compress_to_fp16=False)
        for precision in precisions():
            path = folder / "stock.xml"
            yield Entrant(f"{name}, OpenVINO {precision}", path, False, precision=precision)


def openvinos(folder: Path, net, calibration, raw: bool) -> Iterator[Entrant]:
    """Our model in OpenVINO, in every precision."""
    if not installed("openvino", "nncf"):
        return
    from keras_resnet import export

    options = dict(verified=False, verbose=False)
    for precision in (*precisions(), "int8"):
        path = folder / f"{precision}.xml"
        images = calibration if precision == "int8" else None
        export.openvino(net, path, precision=precision, calibrate=images, **options)
        yield Entrant(f"keras_resnet, OpenVINO {precision}", path, raw)


def resnexts(folder: Path, calibration) -> Iterator[Entrant]:
    """Export ResNeXt-50 from stock Keras layers, and from ours."""
    import keras

    import keras_resnet
    from keras_resnet import export

    keras.utils.set_random_seed(0)
    net = keras_resnet.ResNeXt50_32x4d(weights=None)
    settled(net, spaced(calibration, 64))
    options = dict(verified=False, verbose=False)
    twin = stock_twin(net)
    twin.name = "stock_twin"
    twin.export(folder / "stock", format="tf_saved_model", verbose=False)
    yield Entrant("stock Keras twin, SavedModel", folder / "stock", raw=False)
    yield from others(folder, twin)
    yield from torch_nets("ResNeXt-50")
    for precision in precisions():
        path = export.saved_model(net, folder / precision, precision=precision, **options).path
        yield Entrant(f"keras_resnet, SavedModel {precision}", path, raw=False)
    yield from openvinos(folder, net, calibration, raw=False)


def settled(net, images) -> None:
    """Set the BatchNormalization statistics of an untrained model from images."""
    for layer in net.layers:
        if hasattr(layer, "moving_mean"):
            layer.momentum = 0.0
    net(images, training=True)


FIRST_OF_OURS = """
import sys, time
start = time.perf_counter()
import numpy as np
from keras_resnet import export
export.load(sys.argv[1])(np.ones((1, 224, 224, 3), "float32"))
print(time.perf_counter() - start)
"""
FIRST_OF_THEIRS = """
import sys, time
start = time.perf_counter()
import numpy as np
import openvino
options = {"INFERENCE_PRECISION_HINT": sys.argv[2]}
openvino.compile_model(sys.argv[1], "CPU", options)(np.ones((1, 224, 224, 3), "float32"))
print(time.perf_counter() - start)
"""


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


def compared(
    entrants: list[Entrant], folder: Path, images, turns: int, normalization: str, labels=None
) -> Iterator[str]:
    """Yield a table: each entrant's median times, and its speed-up over the first entrant."""
    import numpy as np

    import keras_resnet

    seconds = {(entrant.name, batch): [] for entrant in entrants for batch in BATCHES}
    accuracy, classes = {}, None
    processes = {}
    try:
        for entrant in entrants:
            processes[entrant.name] = Process(entrant)
        np.save(folder / "raw.npy", images)
        normalized = keras_resnet.preprocess_input(images, normalization).numpy()
        np.save(folder / "normalized.npy", normalized)
        for entrant in [*entrants]:
            file = folder / ("raw.npy" if entrant.raw else "normalized.npy")
            result = folder / "outputs.npy"
            asked = dict(images=str(file), outputs=str(result), batch=BATCHES[-1])
            if processes[entrant.name].do(**asked) is None:
                yield f"{entrant.name} does not run here and is skipped."
                entrants.remove(entrant)
                continue
            chosen = np.load(result).argmax(-1)
            classes = chosen if classes is None else classes
            if str(entrant.path) not in NETS:  # these have random weights
                right = "" if labels is None else f"{np.mean(chosen == labels):.1%}"
                accuracy[entrant.name] = right, np.mean(chosen == classes)
        for batch in BATCHES:
            for counts in [False] + [True] * turns:
                for entrant in entrants:
                    taken = processes[entrant.name].do(batch=batch)
                    if counts:
                        seconds[entrant.name, batch] += taken
    finally:
        for process in processes.values():
            process.__exit__()
    yield from table(
        entrants,
        accuracy,
        {key: statistics.median(taken) for key, taken in seconds.items() if taken},
    )


def table(entrants: list[Entrant], accuracy, medians) -> Iterator[str]:
    """Yield a line for every entrant, and our fastest against their fastest of every batch."""
    width = max(len(entrant.name) for entrant in entrants)
    heads = [f"{'batch ' + str(batch):>18}" for batch in BATCHES]
    heads += ["   top-1   same class"] if accuracy else []
    yield " ".join([" " * width, *heads])
    for entrant in entrants:
        cells = [f"{entrant.name:{width}}"]
        for batch in BATCHES:
            ratio = medians[entrants[0].name, batch] / medians[entrant.name, batch]
            cells.append(f"{1000 * medians[entrant.name, batch]:7.1f} ms {ratio:6.2f}x")
        if entrant.name in accuracy:
            cells.append("  {:>6}      {:7.1%}".format(*accuracy[entrant.name]))
        yield " ".join(cells)
    for batch in BATCHES:
        fastest = sorted(entrants, key=lambda each: medians[each.name, batch])
        ours, theirs = (
            next(each.name for each in fastest if each.ours is whose) for whose in (True, False)
        )
        ratio = medians[theirs, batch] / medians[ours, batch]
        yield f"batch {batch}: {ours} is {ratio:.2f}x as fast as {theirs}"


def first_predictions(entrants: list[Entrant]) -> Iterator[str]:
    """Yield how long a new process takes from its first import to its first prediction."""
    programs = {
        each.name: FIRST_OF_OURS if each.ours else FIRST_OF_THEIRS
        for each in entrants
        if each.path.suffix == ".xml"
    }
    taken = {name: [] for name in programs}
    for counts in [False] + [True] * STARTS:
        for each in entrants:
            if each.name in programs:
                hint = HINTS.get(each.precision, "")
                command = [sys.executable, "-c", programs[each.name], each.path, hint]
                process = subprocess.run(
                    command, capture_output=True, text=True, cwd=ROOT, check=True
                )
                if counts:
                    taken[each.name].append(float(process.stdout))
    width = max(map(len, taken))
    for name, seconds in taken.items():
        yield f"{name:{width}} {1000 * statistics.median(seconds):7.0f} ms"


def report(weights: str, images: Path, calibration: Path, turns: int, only: str) -> Iterator[str]:
    import keras_resnet

    yield describe()
    pictures, names = photographs(images)
    calibrating, _ = photographs(calibration)
    calibrating = spaced(calibrating, CALIBRATED)
    labels = [int(name) for name in names]

    def chosen(entrant):
        return re.search(only, entrant.name)

    yield folding(weights, pictures)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield f"\nResNet-50, {len(pictures)} images (* with {next(iter(FROZEN))}=1)"
        entrants = [each for each in resnet50s(folder, weights, calibrating) if chosen(each)]
        yield from compared(entrants, folder, pictures, turns, "caffe", labels)
        yield "\nFrom the first import to the first prediction, in a process of its own"
        yield from first_predictions(entrants)
    with tempfile.TemporaryDirectory() as name:
        yield "\nResNeXt-50 32x4d, random weights, so accuracy is meaningless"
        folder = Path(name)
        normalized = keras_resnet.preprocess_input(calibrating, "torch").numpy()
        entrants = [each for each in resnexts(folder, normalized) if chosen(each)]
        yield from compared(entrants, folder, pictures, turns, "torch")


def main() -> None:
    if "--run" in sys.argv:
        run(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", metavar="H5")
    parser.add_argument("images", metavar="IMAGES", type=Path)
    parser.add_argument("calibration", metavar="CALIBRATION", type=Path)
    parser.add_argument("--turns", type=int, default=9, help="of every entrant")
    parser.add_argument("--only", default="", help="a pattern in the names of entrants")
    options = parser.parse_args()
    lines = []
    for line in report(**vars(options)):
        print(line, flush=True)
        lines.append(f"{line}\n")
    (results_of() / "export.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()
