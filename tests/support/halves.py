"""Small images whose halves are bright or dark, for models that learn in seconds."""

import csv

import numpy as np
import PIL.Image

NAMES = ("left", "top")


def write_halves(folder, count=48):
    """Write PNG files, and a CSV file for each task: which halves are bright, and how bright."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "classes": [["path", "label"]],
        "which": [["path", "label"]],
        "how": [["path", "value"]],
    }
    for index in range(count):
        left, top = index % 2, index // 2 % 2
        light = random.uniform(0, 60, (16, 16, 3))
        light[:, :8] += 90 * left
        light[:8] += 90 * top
        name = f"{index}.png"
        PIL.Image.fromarray(light.astype("uint8")).save(folder / name)
        bright = [half for half, is_bright in zip(NAMES, (left, top), strict=True) if is_bright]
        tables["classes"].append([name, NAMES[left]])
        tables["which"].append([name, "|".join(bright)])
        tables["how"].append([name, f"{1000 + light.mean():.2f}"])
    for table, rows in tables.items():
        with (folder / f"{table}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder
