import numpy as np
import PIL.Image
import pytest
from commands import run

from keras_resnet import data


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A folder of class/image: the digits 0 and 1 as RGB files."""
    folder = tmp_path_factory.mktemp("zeros-and-ones")
    digits = data.load("digits").train
    for label, name in enumerate(("one", "zero")):
        (folder / name).mkdir()
        images = digits.images[digits.labels == 1 - label][:60]
        for index, image in enumerate(images):
            pixels = np.repeat(image, 3, axis=-1).repeat(2, axis=0).repeat(2, axis=1)
            PIL.Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def trained(photographs, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "pair"
    arguments = ["--model", "cifar_resnet8", "--image-size", 16, "--epochs", 8, "--batch-size", 8]
    arguments += ["--learning-rate", 0.4]
    result = run("train", "--data", photographs, *arguments, "--output", output, "--json")
    assert result.exit_code == 0, result.output
    return output, result
