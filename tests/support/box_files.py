"""Small detection sets in every format in which they may be."""

import csv
import json

import numpy as np
import PIL.Image
from hypothesis import strategies as st

WIDTH, HEIGHT = 64, 48


def write_image(path, number, size=(WIDTH, HEIGHT), **options):
    """Write an image of one color, which is that of its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    color = (number % 251, number // 251 % 251, 7)
    PIL.Image.new("RGB", size, color).save(path, **options)


def write_images(folder, count, start=0):
    """Write 0.png, 1.png, ... into a folder."""
    for number in range(start, start + count):
        write_image(folder / f"{number}.png", number)


def write_csv(path, rows, header="path,xmin,ymin,xmax,ymax,label", delimiter=","):
    """Write a table of boxes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header.split(","), *rows])
    return path


def write_xml(path, boxes, size=(WIDTH, HEIGHT), difficult=()):
    """Write the XML file of an image: boxes are (xmin, ymin, xmax, ymax, name)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(
        f"<object><name>{name}</name><difficult>{int(index in difficult)}</difficult><bndbox>"
        f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        "</bndbox></object>"
        for index, (x1, y1, x2, y2, name) in enumerate(boxes)
    )
    width, height = size
    path.write_text(
        f"<annotation><size><width>{width}</width><height>{height}</height></size>{objects}"
        "</annotation>",
        encoding="utf-8",
    )


def coco(images, names, crowds=(), first_id=1):
    """COCO's content: images are {file_name: [(xmin, ymin, xmax, ymax, name), ...]}."""
    ids = {name: first_id + 3 * index for index, name in enumerate(names)}
    boxes = [(image, box) for image, of_image in enumerate(images.values()) for box in of_image]
    return {
        "images": [
            {"id": 100 + index, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for index, name in enumerate(images)
        ],
        "annotations": [
            {
                "id": 1000 + index,
                "image_id": 100 + image,
                "category_id": ids[name],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "iscrowd": int(index in crowds),
            }
            for index, (image, (x1, y1, x2, y2, name)) in enumerate(boxes)
        ],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }


def write_json(path, content):
    """Write JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def boxes_of(split, class_names):
    """The boxes of every image, by its file's name: (x1, y1, x2, y2, name, ignored)."""
    return {
        file.name: [
            (*box[:4].tolist(), class_names[int(box[4])], int(box[5]))
            for box in label[label[:, 4] >= 0]
        ]
        for file, label in zip(split.images, split.labels, strict=True)
    }


NAMES = ("cell", 'd"ot', "n\u00f6tig, ja")


@st.composite
def images_of_boxes(draw, numbers):
    """Boxes of some images, from numbers up to 40; one image has a box of every class."""

    def span():
        first = draw(numbers)
        return first, float(np.float32(first + 1.125 + draw(numbers) / 6))

    def box(name=None):
        (x1, x2), (y1, y2) = span(), span()
        return x1, y1, x2, y2, name or draw(st.sampled_from(NAMES))

    counts = draw(st.lists(st.integers(0, 4), max_size=6))
    found = {f"{number}.png": [box() for _ in range(count)] for number, count in enumerate(counts)}
    return found | {"9.png": [(1.0, 1.0, 20.0, 20.0, NAMES[0]), *map(box, NAMES)]}
