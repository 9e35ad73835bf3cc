import numpy as np
import PIL.Image

from keras_resnet import analysis


def colours(path):
    with PIL.Image.open(path) as image:
        return {pixel for _, pixel in image.convert("RGB").getcolors(1 << 20)}


def test_contact_sheet_shows_every_image_and_marks_mistakes(tmp_path):
    red, blue = (np.full((8, 8, 3), colour, "uint8") for colour in [(255, 0, 0), (0, 0, 255)])
    grey = np.full((5, 5, 1), 128.0)
    path = tmp_path / "sheet.png"
    analysis.contact_sheet(path, [red, blue, grey], ["cat", "dog", "cow"], [True, False, True])
    shown = colours(path)
    assert {(255, 0, 0), (0, 0, 255)} <= shown
    assert {(0x1A, 0x7F, 0x37), (0xCF, 0x22, 0x2E)} <= shown
    assert [file.name for file in tmp_path.iterdir()] == ["sheet.png"]


def test_training_curves_are_a_picture(tmp_path):
    history = {key: [0.5, 0.6] for key in ("loss", "val_loss", "accuracy", "val_accuracy")}
    analysis.training_curves(tmp_path / "curves.png", history)
    with PIL.Image.open(tmp_path / "curves.png") as image:
        assert image.size == (1100, 440)
