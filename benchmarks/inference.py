"""Inference, ours and others': `python -m benchmarks.inference`.

    python -m benchmarks.inference H5 PHOTOGRAPHS [--part PART]... [--turns N]

H5 is the weights file of `keras.applications.ResNet50`, PHOTOGRAPHS a folder of JPEG files. Each
contender runs in its own process, in turns with the others. A ratio is a peer's time over ours,
above 1 where ours is faster. OpenVINO and ONNX Runtime are included if they
are installed. On a CPU without instructions for bfloat16, all contenders compute in float32.

- process: `export.compiled`, float32 and bfloat16, batches of 1 and 32, against PyTorch and
  OpenVINO of the same precision.
- predict: `keras-resnet predict` on 1,000 photographs, from start to end, against a PyTorch and a
  Keras script (`benchmarks.predicting`).
- served: what TensorFlow Serving runs, batch 1, against `model.export` of `keras.applications`; a
  LiteRT file in one thread, as there.
- first: from starting Python to the first prediction of an export.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.contenders import EVERYONE, WEIGHTS, installed, torch_net
from benchmarks.machine import describe, precisions, results_of
from benchmarks.measure import Entrant
from benchmarks.worker import ROOT

NET, SIZE = "ResNet-50", 224
PHOTOGRAPHS = 1000
OURS = "keras_resnet compiled"
PEERS = (
    "PyTorch compiled channels_last",
    "PyTorch compiled channels_last, frozen",
    "OpenVINO",
    "keras_resnet",
)


def process(options) -> Iterator[str]:
    """Yield a line for each peer, precision and batch size."""
    os.environ[WEIGHTS] = str(options.weights)  # of the processes of contenders
    for precision in precisions():
        names = [OURS, *(name for name in PEERS if installed(*EVERYONE[name][2]))]
        with contextlib.ExitStack() as stack:
            entrants = {}
            for name in names:
                entrants[name] = Entrant(name, NET, precision, SIZE, None)
                stack.enter_context(entrants[name].process)
            for batch in (1, 32):
                for entrant in entrants.values():
                    entrant.warm_up("infer", batch)
                turns = {
                    name: lambda entrant=entrant, batch=batch: entrant.turn("infer", batch)
                    for name, entrant in entrants.items()
                }
                yield from compared(f"{precision}, batch {batch}", turns, options.turns)


def compared(title: str, turns: Mapping[str, Callable], rounds: int) -> Iterator[str]:
    """Run timed turns; yield medians, and ratios to the first."""
    taken = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            taken[name] += turn()
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    ours = next(iter(medians.values()))
    for name, seconds in medians.items():
        yield f"{title:<34} {name:<42} {1000 * seconds:9.1f} ms {seconds / ours:6.2f}x"


def whole(*command: str) -> Callable[[], list[float]]:
    """A turn that times a whole command."""

    def turn():
        start = time.perf_counter()
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"{command}: {ended.stderr[-2000:]}")
        return [time.perf_counter() - start]

    return turn


def predict(options) -> Iterator[str]:
    """Yield a line for each way to get answers for a folder."""
    import keras_resnet

    files = sorted(options.photographs.rglob("*.jpg"))[:PHOTOGRAPHS]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, model = folder / "images", folder / "model.keras"
        images.mkdir()
        for number, file in enumerate(files):
            (images / f"{number}.jpg").symlink_to(file.resolve())
        net = keras_resnet.ResNet50(weights=options.weights, include_preprocessing=True)
        net.save(model)
        ours = (sys.executable, "-m", "keras_resnet.cli", "predict", str(model), str(images))
        ours += ("--task", "classification", "--csv", str(folder / "answers.csv"))
        script, best = (sys.executable, "-m", "benchmarks.predicting"), precisions()[-1]
        flags = {
            f"predict --runtime {runtime} --precision {best}": (
                *("--runtime", runtime, "--precision", best),
            )
            for runtime in ("auto", "openvino")
            if runtime != "openvino" or installed("openvino")
        }
        turns = {name: whole(*ours, *each) for name, each in flags.items()}
        turns["predict"] = whole(*ours)
        turns["Keras script"] = whole(*script, "keras", str(options.weights), str(images))
        if installed("torch"):
            import torch

            torch.save(torch_net("ResNet50").state_dict(), folder / "model.pth")
            turns[f"PyTorch script, {best}"] = whole(
                *script, "torch", str(folder / "model.pth"), str(images), best
            )
        turns |= alone(net, files, best)
        title = f"predict, {len(files)} photographs"
        yield from compared(title, turns, max(1, options.turns // 3))
        rows = len((folder / "answers.csv").read_text().splitlines()) - 1
        if rows != len(files):
            raise RuntimeError(f"{rows} answers for {len(files)} photographs")


def alone(net, files: list[Path], precision: str) -> dict[str, Callable[[], list[float]]]:
    """Turns of the two halves of `predict`, which overlap there: decoding, and the model."""
    import numpy as np

    from keras_resnet import data, export

    split = data.Split(files, np.zeros(len(files), int))
    batches = data.batches(split, image_size=SIZE, crop=1.0, batch_size=32)
    batch = next(iter(batches))[0].numpy()
    ask = export.compiled(net, "auto", batch, precision=precision)

    def decoding():
        start = time.perf_counter()
        for _ in batches:
            pass
        return [time.perf_counter() - start]

    def answering():
        start = time.perf_counter()
        for _ in range(-(-len(files) // len(batch))):
            ask(batch)
        return [time.perf_counter() - start]

    return {"decoding alone": decoding, f"{ask.runtime} alone": answering}


def served(options) -> Iterator[str]:
    """Yield the table of what TensorFlow Serving runs."""
    import keras
    import numpy as np

    import keras_resnet
    from benchmarks.export import FROZEN, THREADS, Entrant, compared
    from keras_resnet import data, export

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = sorted(options.photographs.rglob("*.jpg"))[:100]
        split = data.Split(files, np.zeros(len(files), int))
        images = np.concatenate([batch for batch, _ in data.batches(split, image_size=SIZE)])
        stock = keras.applications.ResNet50(weights=options.weights)
        stock.export(folder / "stock", format="tf_saved_model", verbose=False)
        net = keras_resnet.ResNet50(weights=options.weights, include_preprocessing=True)
        frozen = tuple(FROZEN.items())
        best = precisions()[-1]
        path = export.saved_model(
            *(net, folder / "ours" / "1"),
            **dict(precision=best, with_litert="int8", calibrate=images),
            **dict(verified=False, verbose=False),
        ).path
        entrants = [
            Entrant("keras.applications, model.export", folder / "stock", raw=False),
            Entrant(f"keras_resnet, SavedModel {best} *", path, environment=frozen),
            Entrant(
                "keras_resnet, model.tflite int8, 1 thread",
                path / "model.tflite",
                environment=((THREADS, "1"),),
            ),
        ]
        yield f"served (* with {next(iter(FROZEN))}=1)"
        yield from compared(entrants, folder, images, options.turns, "caffe")


_FIRST = {
    "keras_resnet": (
        "from keras_resnet import export; import numpy as np; "
        "export.load({0!r})(np.zeros((1, 224, 224, 3), 'float32'))"
    ),
    "OpenVINO": (
        "import openvino, numpy as np; "
        "openvino.compile_model({0!r}, 'CPU')(np.zeros((1, 224, 224, 3), 'float32'))"
    ),
    "ONNX Runtime": (
        "import onnxruntime, numpy as np; "
        "session = onnxruntime.InferenceSession({0!r}, providers=['CPUExecutionProvider']); "
        "session.run(None, {{'images': np.zeros((1, 224, 224, 3), 'float32')}})"
    ),
}
"""Python from its start to the first answer."""


def first(options) -> Iterator[str]:
    """Yield a line for each export and what loads it."""
    import keras_resnet
    from keras_resnet import export

    net = keras_resnet.ResNet50(weights=options.weights, include_preprocessing=True)
    with tempfile.TemporaryDirectory() as name:
        quiet = dict(verified=False, verbose=False)
        turns = {}

        def enter(library, path):
            code = _FIRST[library].format(str(path))
            turns[f"{library}, {Path(path).name}"] = whole(sys.executable, "-c", code)

        if installed("openvino") and hasattr(export, "openvino"):
            path = export.openvino(net, Path(name) / "float32.xml", **quiet).path
            enter("keras_resnet", path)
            enter("OpenVINO", path)
        enter("keras_resnet", export.litert(net, Path(name) / "float32.tflite", **quiet).path)
        if installed("onnxruntime", "tf2onnx"):
            path = export.onnx(net, Path(name) / "float32.onnx", **quiet).path
            enter("keras_resnet", path)
            enter("ONNX Runtime", path)
            if installed("openvino"):
                enter("OpenVINO", path)
        yield from compared("first prediction", turns, options.turns)


PARTS = {"process": process, "predict": predict, "served": served, "first": first}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("weights", metavar="H5", type=Path)
    parser.add_argument("photographs", metavar="PHOTOGRAPHS", type=Path)
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--turns", type=int, default=9)
    options = parser.parse_args()
    lines = [f"{describe()}\n"]
    print(lines[0], end="")
    for part in options.part or PARTS:
        for line in PARTS[part](options):
            print(line, flush=True)
            lines.append(f"{line}\n")
    if not options.part:
        (results_of() / "inference.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()
