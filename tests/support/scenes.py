"""Pictures of squares and bars with boxes, laid out like Pascal VOC."""

from pathlib import Path

import numpy as np
import PIL.Image

NAMES = ("bar", "square")
SIZE = (48, 64)
SHAPES = {"bar": (8, 24), "square": (16, 16)}  # height and width

_OBJECT = (
    "<object><name>{}</name><difficult>0</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin>"
    "<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


def scene(random: np.random.Generator) -> tuple[np.ndarray, list[tuple]]:
    """An image, and (name, x1, y1, x2, y2) of what is in it: one of each, apart."""
    image = random.integers(0, 60, (*SIZE, 3)).astype("uint8")
    found = []
    for half, name in enumerate(random.permutation(NAMES)):
        height, width = SHAPES[name]
        y = int(random.integers(0, SIZE[0] - height + 1))
        x = int(random.integers(0, SIZE[1] // 2 - width + 1)) + half * SIZE[1] // 2
        image[y : y + height, x : x + width] = random.integers(180, 256, 3)
        found.append((str(name), x, y, x + width, y + height))
    return image, found


def write_scenes(folder: Path, train: int = 6, val: int = 2, test: int = 3, seed: int = 0) -> Path:
    """Write a folder of images with boxes."""
    random = np.random.default_rng(seed)
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    counts, number = {"train": train, "val": val, "test": test}, 0
    for split, count in counts.items():
        names = [f"{number + index:06d}" for index in range(count)]
        number += count
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            image, found = scene(random)
            PIL.Image.fromarray(image).save(folder / "JPEGImages" / f"{name}.jpg", quality=95)
            height, width = SIZE
            objects = "".join(
                _OBJECT.format(kind, x1 + 1, y1 + 1, x2, y2) for kind, x1, y1, x2, y2 in found
            )
            (folder / "Annotations" / f"{name}.xml").write_text(
                f"<annotation><filename>{name}.jpg</filename><size><width>{width}</width>"
                f"<height>{height}</height><depth>3</depth></size>{objects}</annotation>"
            )
    return folder
