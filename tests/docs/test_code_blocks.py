"""Every block of Python in the README and the documentation runs, as a reader would run it."""

import re
from pathlib import Path

import detectors
import numpy as np
import PIL.Image
import pytest
import small

import keras_resnet
from keras_resnet import data, detection, pretrained, tuning, zoo

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md")]
QUICK = {"docs/index.md", "docs/index.zh.md", "docs/guides/weights.md"}


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


WITH_CODE = [
    pytest.param(page, id=name, marks=() if name in QUICK else pytest.mark.slow)
    for page in sorted(PAGES)
    if blocks(page) and (name := page.relative_to(ROOT).as_posix())
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with what a reader has: photographs of two classes, and a checkpoint."""
    folder, random = tmp_path_factory.mktemp("reader"), np.random.default_rng(0)
    for number in range(60):
        for place in ("photographs", "pets"):
            file = folder / place / ("cat", "dog")[number % 2] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(random.integers(0, 256, (48, 48, 3), dtype="uint8")).save(file)
    pretrained.to_torch(keras_resnet.ResNet18(weights=None), folder / "checkpoint.safetensors")
    (folder / "checkpoint.safetensors").rename(folder / "checkpoint.pth")
    return folder


@pytest.fixture
def no_network(monkeypatch):
    """Published weights, which would have to be downloaded, are fresh ones."""
    build_net, build_detector = zoo._pretrained, detection.zoo.build

    def local(weights):
        return weights if weights and Path(weights).exists() else None

    def built(name, weights, options, usual):
        if weights and not local(weights):
            # Fresh blocks pass their input on, so that what they compute does not explode.
            options = {**options, "zero_init_residual": True}
        return build_net(name, local(weights), options, usual)

    monkeypatch.setattr(zoo, "_pretrained", built)
    monkeypatch.setattr(
        detection.zoo,
        "build",
        lambda name, weights, backbone, classes, **options: build_detector(
            name, local(weights), local(backbone), classes, **options
        ),
    )


@pytest.fixture
def short_searches(monkeypatch):
    """A search of one model, for an epoch."""
    search, retrain = tuning.search, tuning.retrain

    def one(hypermodel, source, **options):
        return search(hypermodel, source, **{**options, "trials": 1, "epochs": 1, "verbose": 0})

    monkeypatch.setattr(tuning, "search", one)
    monkeypatch.setattr(tuning, "retrain", lambda tuner, source: retrain(tuner, source, epochs=1))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of a checkpoint that says nothing of images
@pytest.mark.usefixtures("no_network", "short_searches")
@pytest.mark.parametrize("page", WITH_CODE)
def test_run(page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    images = [np.zeros((90, 120, 3), "uint8"), np.zeros((64, 64, 3), "uint8")]
    # What pages speak of as the reader's own.
    given = {"keras_resnet": keras_resnet, "photographs": images, "images": images}
    if page.name == "explain.md":
        given["model"] = keras_resnet.ResNet18(weights=None, include_preprocessing=True)
        given["images"] = given["raw_images"] = np.full((2, 224, 224, 3), 100.0, "float32")
        given["detector"] = detectors.tiny()
    if page.name == "export.md":
        given["model"] = small.model()
        given["photographs"] = data.load("digits").test.images[:60]
    for block in blocks(page):
        exec(compile(block, str(page), "exec"), given)
