"""Images of one to four handwritten digits, each somewhere in a quarter of its own."""

import csv
from pathlib import Path

import numpy as np
import PIL.Image
from sklearn.datasets import load_digits

SIDE = 32
"""Height and width of an image in pixels."""


def write_canvases(folder: Path, train: int, test: int, seed: int = 0) -> tuple[Path, Path]:
    """Write PNG files, and two CSV files that list them: the digits in each, and their sum.

    No digit of a test image is in a training image.
    """
    random = np.random.default_rng(seed)
    digits, labels = load_digits(return_X_y=True)
    digits = np.round(digits.reshape(-1, 8, 8) * (255 / 16)).astype("uint8")
    order = random.permutation(len(digits))
    held_out = len(digits) // 5
    which = [["path", "label", "split"]]
    total = [["path", "value", "split"]]
    for split, count, members in (
        ("train", train, order[held_out:]),
        ("test", test, order[:held_out]),
    ):
        (folder / split).mkdir(parents=True)
        for index in range(count):
            chosen = random.choice(members, size=random.integers(1, 5), replace=False)
            path = f"{split}/{index}.png"
            PIL.Image.fromarray(_canvas(digits[chosen], random)).save(folder / path)
            which.append([path, "|".join(sorted({str(labels[i]) for i in chosen})), split])
            total.append([path, f"{labels[chosen].sum():.1f}", split])
    return _written(folder / "which.csv", which), _written(folder / "sum.csv", total)


def _canvas(digits, random):
    """Digits on black, each at a random place in a quarter of the image."""
    canvas = np.zeros((SIDE, SIDE), "uint8")
    half = SIDE // 2
    for digit, quarter in zip(digits, random.permutation(4), strict=False):
        top, left = np.multiply(divmod(quarter, 2), half) + random.integers(0, half - 8 + 1, 2)
        canvas[top : top + 8, left : left + 8] = digit
    return canvas


def _written(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path
