"""Thousands of requests at once to a SavedModel, and the memory that the process has meanwhile.

    python endurance.py saved_models/resnet50/1 [--requests 10000] [--clients 8]

The model runs in this process, as TensorFlow Serving runs it. A fifth of the requests cannot be
answered.
"""

import argparse
import io
import itertools
import os
import statistics
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import PIL.Image
import serving
import tensorflow as tf

SETTLED = 1000  # requests after which memory has to stay as it is
EVERY = 500  # requests from one look at the memory to the next


@dataclass(frozen=True)
class Memory:
    """Resident memory in MiB, after every 500 requests from the 1,000th on."""

    samples: list[float]

    @property
    def growth(self):
        """From the median of the first quarter to that of the last, as a part of the former."""
        quarter = max(1, len(self.samples) // 4)
        first, last = self.samples[:quarter], self.samples[-quarter:]
        return statistics.median(last) / statistics.median(first) - 1

    @property
    def spread(self):
        """From the least to the most, as a part of the former."""
        return max(self.samples) / min(self.samples) - 1

    def __str__(self):
        samples = " ".join(f"{sample:.1f}" for sample in self.samples)
        return f"{samples} MiB\ngrowth {self.growth:+.2%}, spread {self.spread:.2%}"


def endure(path, requests=10_000, clients=8):
    """Send requests of all signatures from several threads.

    Raises AssertionError for a request that is not answered and should be, or is and should not.
    """
    served = serving.Served(path)
    questions = _questions(served.signatures)
    turns, answered = iter(range(requests)), itertools.count(1)
    samples, surprises = [], []

    def client():
        for turn in turns:
            name, inputs, is_right = questions[turn % len(questions)]
            try:
                served(name, inputs)
                code = "OK"
            except tf.errors.OpError as error:
                code = serving.code_of(error).name
            except Exception as error:
                code = repr(error)
            if code != ("OK" if is_right else "INVALID_ARGUMENT"):
                surprises.append((turn % len(questions), name, code))
            count = next(answered)
            if count >= SETTLED and count % EVERY == 0:
                samples.append(_resident())

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not surprises, f"{len(surprises)} surprises: {surprises[:5]}"
    assert next(answered) == requests + 1
    return Memory(samples)


def _questions(signatures):
    """Signatures, their inputs, and whether these can be answered."""
    generator = np.random.default_rng(0)
    (tensor,) = signatures["serving_default"].inputs.values()
    size, channels = (tensor.tensor_shape.dim[axis].size for axis in (1, 3))
    any_size = size < 0
    size = 48 if any_size else size
    (of_files,) = (name for name in signatures if name.endswith("_bytes"))
    of_images = [name for name in signatures if name != of_files]
    dtype = tf.as_dtype(tensor.dtype).as_numpy_dtype

    def images(count, size=size):
        return generator.integers(0, 256, (count, size, size, channels)).astype(dtype)

    def file(kind, mode="RGB", width=640, height=480):
        smooth = PIL.Image.fromarray(generator.integers(0, 256, (6, 8, 3), "uint8"))
        buffer = io.BytesIO()
        smooth.resize((width, height)).convert(mode).save(buffer, kind)
        return buffer.getvalue()

    jpeg, png = file("JPEG"), file("PNG", "RGBA")
    right = [
        *((name, images(count)) for name in of_images for count in (1, 2, 4)),
        *((of_files, [each]) for each in (jpeg, png, file("GIF"), file("BMP"))),
        (of_files, [file("JPEG", "L"), file("JPEG", width=300, height=900), png]),
        (of_files, [file("JPEG", width=1600, height=1200)]),
    ]
    wrong = [
        (of_files, [jpeg[: len(jpeg) // 2]]),
        (of_files, [png, b""]),
        (of_files, [b"no image"]),
        (of_files, []),
        ("serving_default", images(1, 0 if any_size else size // 2)),
        (of_images[-1], images(1)[0]),
    ]
    questions = [(*each, True) for each in [*right, *right]] + [(*each, False) for each in wrong]
    return [questions[index] for index in generator.permutation(len(questions))]


def _resident():
    """Resident memory of this process, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", help="the folder of one version")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    memory = endure(arguments.path, arguments.requests, arguments.clients)
    print(memory)
    return 0 if max(memory.spread, abs(memory.growth)) <= 0.02 else 1


if __name__ == "__main__":
    sys.exit(main())
