"""`keras-resnet explain` of a detector: a picture of each object."""

import json

import detectors
import numpy as np
import PIL.Image
import pytest
from commands import refused, run

from keras_resnet import detection, explain

NAMES = ("ant", "bee <script>alert(1)</script> $x^", "عنكبوت " + "spider " * 30)
FILES = ("a/1.png", "a/2.png", "b/1.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A detector of three classes with odd names, and three images in two folders."""
    folder = tmp_path_factory.mktemp("objects")
    detectors.tiny("c4").save(folder / "model.keras")
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in NAMES), encoding="utf-8")
    random = np.random.default_rng(0)
    for path, size in zip(FILES, ((50, 70), (64, 40), (50, 70)), strict=True):
        file = folder / path
        file.parent.mkdir(exist_ok=True)
        PIL.Image.fromarray(random.integers(0, 256, (*size, 3)).astype("uint8")).save(file)
    return folder


def pixels(path):
    return np.asarray(PIL.Image.open(path).convert("RGB"), "float32")


def test_draws_what_python_maps(place, tmp_path):
    out = tmp_path / "out"
    result = run(
        "explain", place, place / "a", place / "b", "--output", out, "--score", 0, "--top", 2,
        "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["task"], found["method"], found["empty"]) == ("detection", "hirescam", [])
    assert found["layer"] == "conv4_block1_out"
    assert [each["file"] for each in found["maps"]] == [
        str(out / f"{path.removesuffix('.png')}_{number}.png")
        for path in FILES
        for number in (1, 2)
    ]
    # A row for each image: the image, and two objects.
    assert PIL.Image.open(found["sheet"]).size == (3 * (224 + 20), 3 * (224 + 53))
    model = detectors.tiny("c4")
    for index, each in enumerate(found["maps"]):
        image = pixels(each["image"])
        (expected,) = detection.detect(model, [image])
        number = index % 2
        np.testing.assert_allclose(each["box"], expected["boxes"][number], atol=1e-2)
        assert each["score"] == pytest.approx(expected["scores"][number], abs=1e-4)
        assert each["class"] == " ".join(NAMES[expected["labels"][number]].split())
        (mapped,) = explain.box_maps(model, [image], score=0, top=2)
        factor = 224 // max(image.shape[:2])
        large = image.repeat(factor, axis=0).repeat(factor, axis=1)
        drawn = explain.overlay(large[None], mapped.maps[number : number + 1])[0]
        picture = pixels(each["file"])
        assert picture.shape == drawn.shape
        same = np.abs(picture - drawn).max(axis=-1) <= 2  # all but the box and its text
        assert 0.3 < same.mean() < 1


def test_class_layer_and_method(place, tmp_path):
    (expected,) = detection.detect(detectors.tiny("c4"), [pixels(place / FILES[2])])
    label = expected["labels"][0]
    arguments = ["explain", place, place / "b", "--output", tmp_path / "out", "--score", 0]
    pictures = []
    for options in ([], ["--layer", "conv3"], ["--method", "grad-cam"]):
        name = NAMES[label].strip()
        result = run(*arguments, "--class", name, *options, "--json")
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)["maps"]
        assert len(found) == min(5, (expected["labels"] == label).sum())
        pictures.append(pixels(found[0]["file"]))
    assert (pictures[0] != pictures[1]).any()
    assert (pictures[0] != pictures[2]).any()
    for missing in {*range(3)} - {*expected["labels"].tolist()}:
        message = refused(run(*arguments, "--class", NAMES[missing].strip()))
        assert "none was found in 1.png with a score of 0 or more, only" in message


def test_images_without_objects_are_named(place, tmp_path):
    best = [
        detection.detect(detectors.tiny("c4"), [pixels(place / path)])[0]["scores"][0]
        for path in FILES[:2]
    ]
    middle = float(np.mean(best))
    arguments = ["explain", place, place / "a", "--output", tmp_path / "out"]
    result = run(*arguments, "--score", middle)
    assert result.exit_code == 0, result.output
    assert f"no objects found: {place / FILES[int(np.argmin(best))]}" in result.stdout
    message = refused(run(*arguments[:-1], tmp_path / "none", "--score", 0.999))
    assert "no object with a score of 0.999 or more was found in the 2 images" in message
    assert f"the highest is {max(best):.2g}, of " in message
    assert not (tmp_path / "none").exists()


def test_mistakes_are_one_line_and_nothing_is_written(place, tmp_path):
    out = tmp_path / "out"
    for options, complaint in (
        (["--class", "wasp"], "class_name='wasp' is not known to the model, which knows ant"),
        (["--layer", "conv9"], "Its layers begin with input, conv1"),
        (["--method", "cam"], "method 'cam' is not known"),
        (["--crop", 0.5], "a detector sees whole images"),
        (["--image-size", 80], "was built to resize images"),
    ):
        assert complaint in refused(run("explain", place, place / "a", "--output", out, *options))
        assert not out.exists()


def test_odd_file_names(place, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    names = ("<b>&$a^b$", "صورة", "-x", "sheet", "long " * 49 + "a", "long " * 49 + "b")
    for name in names:
        (folder / f"{name}.png").write_bytes((place / FILES[0]).read_bytes())
    out = tmp_path / "out"
    result = run("explain", place, folder, "--output", out, "--score", 0, "--top", 1, "--json")
    assert result.exit_code == 0, result.output
    files = [each["file"] for each in json.loads(result.stdout)["maps"]]
    assert len({*files}) == len(names)
    written = {path.name for path in out.iterdir()}
    assert {f"{name}_1.png" for name in names[:4]} < written
    assert len(written) == len(names) + 1
