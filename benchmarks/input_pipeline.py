"""Training images per second from a folder: `python -m benchmarks.input_pipeline FOLDER`.

Compares our input pipeline with the one in Keras tutorials (`image_dataset_from_directory` and
augmentation layers) and, if PyTorch is installed, with its `DataLoader` and Pillow. All decode the
same files, flip and crop them at random, and produce float32 batches of 32. FOLDER contains
class/image or split/class/image; `--size` sets the image size in pixels, by default 224. The
contenders run in separate processes, in turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.contenders import installed
from benchmarks.machine import describe

ROOT = Path(__file__).parents[1]
BATCH, ROUNDS = 32, 5


def ours(folder, size):
    """Crop a random window of 35 to 100 % of the image, resize it, and flip it at random."""
    from keras_resnet import data

    return data.batches(
        data.Split(*_files(folder)),
        image_size=size,
        batch_size=BATCH,
        augmentation="photograph",
    )


def keras_idiom(folder, size):
    """Resize the whole image, flip it at random, and take a random crop of the output size."""
    import keras
    import tensorflow as tf

    images = keras.utils.image_dataset_from_directory(
        folder, image_size=(round(size * 256 / 224),) * 2, batch_size=BATCH, verbose=False
    )
    vary = keras.Sequential(
        [keras.layers.RandomFlip("horizontal"), keras.layers.RandomCrop(size, size)]
    )
    images = images.map(
        lambda images, labels: (vary(images, training=True), labels),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return images.prefetch(tf.data.AUTOTUNE)


def keras_windows(folder, size):
    """Do the same work as ours with a Keras layer: crop a random window, and resize it."""
    import keras
    import tensorflow as tf

    images = keras.utils.image_dataset_from_directory(
        folder, image_size=(round(size * 256 / 224),) * 2, batch_size=BATCH, verbose=False
    )
    vary = keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomZoom((-0.4, 0.0)),
            keras.layers.CenterCrop(size, size),
        ]
    )
    images = images.map(
        lambda images, labels: (vary(images, training=True), labels),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return images.prefetch(tf.data.AUTOTUNE)


def pytorch(folder, size):
    """Crop a random window of 35 to 100 %, resize it with Pillow, and flip it at random."""
    import PIL.Image
    import torch

    files, labels = _files(folder)

    class Files(torch.utils.data.Dataset):
        def __len__(self):
            return len(files)

        def __getitem__(self, index):
            with PIL.Image.open(files[index]) as image:
                width, height = image.size
                fraction, ratio, x, y = torch.rand(4).tolist()
                area = (0.35 + 0.65 * fraction) * width * height
                ratio = (3 / 4) * (16 / 9) ** ratio
                across = min(width, round((area * ratio) ** 0.5))
                down = min(height, round((area / ratio) ** 0.5))
                left, top = x * (width - across), y * (height - down)
                pixels = image.convert("RGB").resize(
                    (size, size),
                    PIL.Image.Resampling.BILINEAR,
                    (left, top, left + across, top + down),
                )
            if torch.rand(()) < 0.5:
                pixels = pixels.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
            tensor = torch.frombuffer(bytearray(pixels.tobytes()), dtype=torch.uint8)
            return tensor.view(size, size, 3).permute(2, 0, 1).float(), int(labels[index])

    return torch.utils.data.DataLoader(
        Files(),
        batch_size=BATCH,
        shuffle=True,
        num_workers=len(os.sched_getaffinity(0)),
        persistent_workers=True,
    )


def _files(folder):
    """List the image files in a folder of classes, and their labels."""
    import numpy as np

    from keras_resnet import data

    classes = sorted(child for child in Path(folder).iterdir() if child.is_dir())
    files = [data.image_files([child]) for child in classes]
    labels = np.repeat(np.arange(len(classes)), [len(each) for each in files])
    return [file for each in files for file in each], labels


CONTENDERS = {
    "keras_resnet": (ours, ("tensorflow",)),
    "image_dataset_from_directory, RandomFlip, RandomCrop": (keras_idiom, ("keras",)),
    "image_dataset_from_directory, RandomFlip, RandomZoom": (keras_windows, ("keras",)),
    "DataLoader with Pillow": (pytorch, ("torch",)),
}


def serve(name: str, folder: str, size: int) -> None:
    """Run one epoch per line of standard input; print its image count and seconds."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    batches = CONTENDERS[name][0](folder, size)
    for _ in sys.stdin:
        start, images = time.perf_counter(), 0
        for batch, _ in batches:
            images += len(batch)
        print(json.dumps([images, time.perf_counter() - start]), file=answers, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder / "train" if (options.folder / "train").is_dir() else options.folder
    if options.serve:
        serve(options.serve, folder, options.size)
        return

    command = [sys.executable, "-m", "benchmarks.input_pipeline"]
    processes = {
        name: subprocess.Popen(
            [*command, folder, "--size", str(options.size), "--serve", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )
        for name, (_, modules) in CONTENDERS.items()
        if installed(*modules)
    }
    rates = {name: [] for name in processes}
    for turn in range(ROUNDS + 1):
        for name, process in processes.items():
            print("again", file=process.stdin, flush=True)
            images, seconds = json.loads(process.stdout.readline())
            if turn:  # the first epoch starts threads and fills the disk cache
                rates[name].append(images / seconds)
    for process in processes.values():
        process.kill()
        process.communicate()

    print(describe())
    print(f"{images} images, {options.size} px, batch size {BATCH}, medians of {ROUNDS} epochs.")
    best = statistics.median(rates["keras_resnet"])
    for name, each in rates.items():
        median = statistics.median(each)
        print(f"{name:56} {median:7,.0f} images/s   ours / theirs: {best / median:.2f}")


if __name__ == "__main__":
    main()
