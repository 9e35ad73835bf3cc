import numpy as np
import PIL.Image
import tensorflow as tf

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


def test_prediction_sheet_shows_mistakes_first(tmp_path, monkeypatch):
    sheets = []
    monkeypatch.setattr(
        analysis.plots, "contact_sheet", lambda *arguments: sheets.append(arguments)
    )
    images = np.arange(5.0).reshape(5, 1, 1, 1)
    labels = np.array([0, 1, 1, 0, 1])
    quality = analysis.Evaluation(labels, np.eye(2)[[0, 1, 0, 0, 0]], ("cat", "dog"))
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(2)
    analysis.prediction_sheet(tmp_path / "sheet.png", dataset, quality, count=3)
    ((path, pictures, captions, right),) = sheets
    assert path == tmp_path / "sheet.png"
    assert [float(picture.item()) for picture in pictures] == [2, 4, 0]
    assert captions == ["cat (100%)\nis dog", "cat (100%)\nis dog", "cat (100%)"]
    assert right.tolist() == [False, False, True]


def test_training_curves_are_a_picture(tmp_path):
    history = {key: [0.5, 0.6] for key in ("loss", "val_loss", "accuracy", "val_accuracy")}
    analysis.training_curves(tmp_path / "curves.png", history)
    with PIL.Image.open(tmp_path / "curves.png") as image:
        assert image.size == (1100, 440)
