"""Do maps show what a model has learned? `python -m benchmarks.explain_sanity IMAGES WEIGHTS`.

Grad-CAM of a ResNet-50 on photographs, for the class that it predicts. First, how often the peak of
a map is in the middle, where photographers put what they photograph. Second, how probable the class
still is when the quarter of the image with the highest values is hidden, and when it is the quarter
that another image's map marks, which is in the middle as often. Third, the test of Adebayo et al.,
Sanity Checks for Saliency Maps, NeurIPS 2018: the weights are shuffled layer by layer from the top,
and maps of the same classes are compared with those of the intact model. A map that stays the same
shows edges, not what the model knows.

Writes `results/explain_sanity.json` and the pictures of `docs/explain.md`.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import PIL.Image
import scipy.stats
import tensorflow as tf
from matplotlib.figure import Figure

import keras_resnet
from benchmarks.machine import describe
from keras_resnet import analysis, data, explain, graphs

RESULTS = Path(__file__).parent / "results" / "explain_sanity.json"
PICTURES = Path(__file__).parents[1] / "docs"
SHOWN = ("intact", "predictions", "conv5_block3", "conv5_block1", "conv4_block1", "conv1")
EXAMPLES = 6
BATCH = 25


def read(model: keras.Model, folder: Path, count: int | None) -> np.ndarray:
    """The images of a folder as the model is shown them; with a count, some from all over."""
    files = data.image_files([folder])
    if count is not None:
        files = [files[index] for index in np.linspace(0, len(files) - 1, count).astype(int)]
    split = data.Split(files, np.zeros(len(files), int))
    view = graphs.view_of(model)
    return np.concatenate([images for images, _ in data.batches(split, **vars(view))])


def maps_of(explained, images: np.ndarray, classes: np.ndarray | None = None) -> explain.Explained:
    """Maps of many images, as large as the feature map."""
    found = [
        explained(
            images[start : start + BATCH],
            None if classes is None else classes[start : start + BATCH],
        )
        for start in range(0, len(images), BATCH)
    ]
    return explain.Explained(
        *(
            np.concatenate([getattr(each, name) for each in found])
            for name in ("maps", "classes", "outputs")
        ),
        found[0].layer,
    )


def seconds(model: keras.Model, explained, images: np.ndarray) -> dict[str, float]:
    """The time of inference and that of maps, in turns."""
    infer = tf.function(lambda batch: model(batch, training=False))
    work = {"inference": lambda batch: infer(tf.constant(batch)).numpy(), "maps": explained}
    spent = dict.fromkeys(work, 0.0)
    for each in work.values():
        each(images[:BATCH])  # which compiles
    for start in range(0, len(images) - len(images) % BATCH, BATCH):
        for name, function in work.items():
            begin = time.perf_counter()
            function(images[start : start + BATCH])
            spent[name] += time.perf_counter() - begin
    return spent


def in_the_middle(maps: np.ndarray) -> np.ndarray:
    """Which maps have their peak in the central half of the area, as (images,) of bool."""
    side = maps.shape[1]
    row, column = np.unravel_index(maps.reshape(len(maps), -1).argmax(axis=1), maps.shape[1:])
    middle = _middle(side)
    return middle[row] & middle[column]


def _middle(side: int) -> np.ndarray:
    """Which cells of a side have their centres in the middle: sqrt(1/2) of the side."""
    return abs((np.arange(side) + 0.5) / side - 0.5) <= np.sqrt(0.5) / 2


def hidden(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Images without the quarter of their cells that is highest in a map: in its place, grey."""
    rows, columns = (
        size // side for size, side in zip(images.shape[1:3], maps.shape[1:], strict=True)
    )
    ranks = maps.reshape(len(maps), -1).argsort(axis=1).argsort(axis=1).reshape(maps.shape)
    highest = ranks >= ranks[0].size - ranks[0].size // 4
    where = highest.repeat(rows, axis=1).repeat(columns, axis=2)[..., None]
    return np.where(where, images.mean(axis=(1, 2), keepdims=True), images)


def probable(explained, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The probability of a class for each image."""
    return maps_of(explained, images, classes).outputs[np.arange(len(images)), classes]


def hiding(explained, images: np.ndarray, intact: explain.Explained) -> dict:
    """How probable the class still is, and how often hiding what the map marks lowers that more."""
    own = probable(explained, hidden(images, intact.maps), intact.classes)
    other = probable(explained, hidden(images, np.roll(intact.maps, 1, axis=0)), intact.classes)
    lower = int((own < other).sum())
    return {
        "nothing": float(intact.outputs[np.arange(len(images)), intact.classes].mean()),
        "its own map": float(own.mean()),
        "another map": float(other.mean()),
        "lower with its own map": lower,
        "p": float(scipy.stats.binomtest(lower, len(images), alternative="greater").pvalue),
    }


def levels(model: keras.Model) -> list[str]:
    """The head, the blocks and the stem, from the top, by what their layers' names begin with."""
    named = [layer.name for layer in graphs.flat_layers(model) if layer.weights]
    return list(
        dict.fromkeys(
            "_".join(name.split("_")[:2]) if "block" in name else name.split("_")[0]
            for name in named[::-1]
        )
    )


def shuffle(model: keras.Model, level: str, rng: np.random.Generator) -> None:
    """Shuffle the numbers of every weight of a level's layers, in place."""
    for layer in graphs.flat_layers(model):
        if layer.name == level or layer.name.startswith(f"{level}_"):
            for weight in layer.trainable_weights:
                weight.assign(rng.permutation(weight.numpy().ravel()).reshape(weight.shape))


def similarities(maps: np.ndarray, others: np.ndarray) -> dict[str, list[float]]:
    """Spearman's rank correlation over the cells, and SSIM at 224 pixels, of each pair of maps."""
    ranks = [
        scipy.stats.spearmanr(one.ravel(), other.ravel()).statistic
        if np.ptp(one) and np.ptp(other)
        else 0.0
        for one, other in zip(maps, others, strict=True)
    ]
    return {
        "rank correlation": ranks,
        "SSIM": tf.image.ssim(_unit(maps), _unit(others), 1.0).numpy().tolist(),
    }


def _unit(maps):
    """Maps from 0 to 1, of 224 pixels."""
    highest = maps.max(axis=(1, 2), keepdims=True)
    return tf.image.resize(
        np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0)[..., None], (224, 224)
    )


def cascade(model, explained, images, intact, seed) -> Iterator[tuple[str, np.ndarray]]:
    """Maps of the intact classes after each level is shuffled on top of those before."""
    rng = np.random.default_rng(seed)
    for level in levels(model):
        shuffle(model, level, rng)
        yield level, maps_of(explained, images, intact.classes).maps


def summary(values: list[float]) -> dict[str, float]:
    return {
        "mean": float(np.mean(values)),
        "error": float(np.std(values, ddof=1) / np.sqrt(len(values))),
    }


def draw(found: dict) -> None:
    """The similarity to the intact maps by what has been shuffled."""
    figure = Figure(figsize=(7, 3.8), layout="tight")
    axis = figure.subplots()
    names = ["nothing", *(each["level"] for each in found["cascade"])]
    for colour, measure in zip(("#1f5fbf", "#c2410c"), ("rank correlation", "SSIM"), strict=True):
        means = [1.0, *(each[measure]["mean"] for each in found["cascade"])]
        errors = [0.0, *(each[measure]["error"] for each in found["cascade"])]
        axis.errorbar(
            range(len(names)),
            means,
            errors,
            color=colour,
            marker="o",
            markersize=3.5,
            label=measure,
        )
        axis.axhline(
            found["other images"][measure]["mean"],
            color=colour,
            linestyle="--",
            linewidth=1,
            label=f"{measure}, maps of other images",
        )
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axis.set_xlabel("shuffled down to")
    axis.set_ylabel("similarity to the intact map")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    analysis.plots.save_figure(figure, PICTURES / "explain_sanity.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="folder of photographs")
    parser.add_argument("weights", help="tag or file of weights of ResNet50")
    parser.add_argument("--count", type=int, help="images.  [default: all]")
    parser.add_argument(
        "--some", type=int, default=100, help="images to hide parts of, and to shuffle weights for"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    model = keras_resnet.ResNet50(weights=options.weights, include_preprocessing=True)
    images = read(model, options.images, options.count)
    explained = explain.Explainer(model)
    intact = maps_of(explained, images)
    peaks = in_the_middle(intact.maps)
    chance = float(_middle(intact.maps.shape[1]).mean() ** 2)
    found: dict = {
        "machine": describe(),
        "images": len(images),
        "seconds": seconds(model, explained, images),
        "peaks in the middle": int(peaks.sum()),
        "chance": chance,
        "p": float(
            scipy.stats.binomtest(
                int(peaks.sum()), len(peaks), chance, alternative="greater"
            ).pvalue
        ),
    }
    print(json.dumps(found, indent=2), flush=True)

    some = np.linspace(0, len(images) - 1, min(options.some, len(images))).astype(int)
    few = explain.Explained(
        intact.maps[some], intact.classes[some], intact.outputs[some], intact.layer
    )
    others = similarities(few.maps, np.roll(few.maps, 1, axis=0))
    found["images of the rest"] = len(some)
    found["hidden"] = hiding(explained, images[some], few)
    found["other images"] = {name: summary(values) for name, values in others.items()}
    found["cascade"], shown = [], {"intact": few.maps}
    for level, maps in cascade(model, explained, images[some], few, options.seed):
        similar = {name: summary(values) for name, values in similarities(few.maps, maps).items()}
        empty = int((maps.max(axis=(1, 2)) == 0).sum())
        found["cascade"].append({"level": level, **similar, "maps of zeros": empty})
        shown[level] = maps
        print(json.dumps(found["cascade"][-1]), flush=True)
    shuffled = in_the_middle(maps_of(explained, images, intact.classes).maps)
    found["shuffled: peaks in the middle"] = int(shuffled.sum())
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    draw(found)

    rows = np.linspace(0, len(some) - 1, EXAMPLES).astype(int)
    tiles, captions = [], []
    for row in rows:
        image = images[some[row]][None]
        tiles += [image[0], *(explain.overlay(image, shown[name][row][None])[0] for name in SHOWN)]
        captions += ["", *SHOWN]
    with tempfile.TemporaryDirectory() as folder:
        sheet = Path(folder) / "sheet.png"
        analysis.contact_sheet(sheet, tiles, captions, columns=1 + len(SHOWN))
        PIL.Image.open(sheet).convert("RGB").save(PICTURES / "explain_shuffled.jpg", quality=88)


if __name__ == "__main__":
    main()
