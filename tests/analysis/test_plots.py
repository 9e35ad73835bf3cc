import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from keras_resnet import analysis, data


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


def test_prediction_sheet_of_numbers_is_neither_green_nor_red(tmp_path):
    images, values = np.full((2, 8, 8, 3), 255.0), np.array([1.0, 2.0])
    quality = analysis.RegressionEvaluation(values, np.array([[1.0], [5.0]]), ("age",))
    dataset = tf.data.Dataset.from_tensor_slices((images, values)).batch(2)
    analysis.prediction_sheet(tmp_path / "sheet.png", dataset, quality)
    assert {(0x1A, 0x7F, 0x37), (0xCF, 0x22, 0x2E)}.isdisjoint(colours(tmp_path / "sheet.png"))


def test_training_curves_show_any_metric(tmp_path):
    names = ("loss", "mean_absolute_error", "val_loss", "val_mean_absolute_error", "other")
    analysis.training_curves(tmp_path / "curves.png", {name: [0.5, 0.6] for name in names})
    with PIL.Image.open(tmp_path / "curves.png") as image:
        assert image.size == (3 * 550, 440)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_class_sheet_has_rows_of_labels_and_of_values_in_order(tmp_path, monkeypatch, task):
    sheets = []
    monkeypatch.setattr(
        analysis.plots, "contact_sheet", lambda *arguments, **options: sheets.append(arguments)
    )
    images = np.arange(8, dtype="uint8").repeat(64).reshape(8, 8, 8, 1)
    names = ("small", "even") if task == "multilabel" else ("value",)
    number = np.arange(8)
    labels = np.stack([number < 4, number % 2 == 0], -1) if task == "multilabel" else -number
    split = data.Split(images, labels.astype("float32"))
    source = data.Source("s", names, 1, 8, "none", split, split, split, task=task)
    analysis.class_sheet(tmp_path / "sheet.png", source, per_class=2)
    ((_, pictures, captions),) = sheets
    shown = [int(np.unique(picture).item()) for picture in pictures]
    if task == "multilabel":
        assert shown == [0, 3, 0, 6]
        assert captions == ["small, even", "small", "small, even", "even"]
    else:
        assert shown == [7, 6, 5, 4, 3, 2, 1, 0]
        assert captions[:2] == ["-7", "-6"]


def test_training_curves_are_a_picture(tmp_path):
    history = {key: [0.5, 0.6] for key in ("loss", "val_loss", "accuracy", "val_accuracy")}
    analysis.training_curves(tmp_path / "curves.png", history)
    with PIL.Image.open(tmp_path / "curves.png") as image:
        assert image.size == (1100, 440)


@pytest.mark.parametrize("way", ["arrays", "stream"])
def test_class_sheet_shows_images_of_every_class_from_all_over(tmp_path, monkeypatch, way):
    sheets = []
    monkeypatch.setattr(
        analysis.plots, "contact_sheet", lambda *arguments, **options: sheets.append(arguments)
    )
    # Classes take turns, so that their order is not that of the images.
    labels = np.arange(40) % 2
    images = np.arange(40, dtype="uint8").repeat(8 * 8 * 3).reshape(40, 8, 8, 3)
    if way == "stream":
        contents = [tf.io.encode_png(image).numpy() for image in images]
        split = data.Split(tf.data.Dataset.from_tensor_slices(contents), labels)
    else:
        split = data.Split(images, labels)
    source = data.Source("shades", ("even", "odd"), 3, 8, "photograph", split, split, split)
    analysis.class_sheet(tmp_path / "sheet.png", source, per_class=3)
    ((path, pictures, captions),) = sheets
    assert path == tmp_path / "sheet.png"
    assert captions == ["even"] * 3 + ["odd"] * 3
    shades = [set(np.unique(picture)) for picture in pictures]
    assert all(len(shade) == 1 for shade in shades)
    numbers = [int(*shade) for shade in shades]
    assert [number % 2 for number in numbers] == [0, 0, 0, 1, 1, 1]
    assert numbers[::3] == [0, 1]
    assert numbers[2::3] == [38, 39]


def test_class_sheet_shows_few_images_again(tmp_path):
    images = np.zeros((3, 8, 8, 1), "uint8")
    split = data.Split(images, np.array([0, 1, 1]))
    source = data.Source("blank", ("a", "b"), 1, 8, "handwriting", split, split, split)
    analysis.class_sheet(tmp_path / "sheet.png", source, per_class=4)
    with PIL.Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (660, 396)


def test_training_curves_mark_the_stages(tmp_path):
    history = {key: [0.5] * 5 for key in ("loss", "val_loss", "accuracy", "val_accuracy")}
    analysis.training_curves(tmp_path / "plain.png", history)
    analysis.training_curves(tmp_path / "staged.png", history, {"head": 2, "all": 3})
    plain, staged = (
        np.asarray(PIL.Image.open(tmp_path / name)).astype(int)
        for name in ("plain.png", "staged.png")
    )
    assert plain.shape == staged.shape
    assert (plain != staged).any()


def test_names_of_classes_may_look_like_mathematics(tmp_path):
    """Matplotlib raised an error for them."""
    names = ["A$$B", r"$\frac$", "100 %"]
    images = [np.full((8, 8, 3), 255, "uint8")] * len(names)
    analysis.contact_sheet(tmp_path / "sheet.png", images, names)
    history = {"loss": [1.0, 2.0], names[0]: [1.0, 2.0]}
    analysis.training_curves(tmp_path / "curves.png", history, {names[1]: 2})


def test_letters_that_no_font_has_are_named_once(tmp_path, caplog, recwarn):
    for names in (["cat", "dog"], ["\u732b", "\u72ac"]):
        images = [np.zeros((8, 8, 3), "uint8")] * 2
        analysis.contact_sheet(tmp_path / "sheet.png", images, names)
    assert not [str(each.message) for each in recwarn if "Glyph" in str(each.message)]
    assert len(caplog.messages) <= 1  # none where a font has them
    assert all("no font on this machine has the letters \u72ac\u732b" in m for m in caplog.messages)


def test_grey_is_as_bright_as_it_is(tmp_path):
    analysis.contact_sheet(tmp_path / "sheet.png", [np.full((8, 8, 1), 128)], [""])
    assert (128, 128, 128) in colours(tmp_path / "sheet.png")


def test_a_sheet_does_not_grow_with_the_classes(tmp_path):
    labels = np.arange(1200)
    split = data.Split(np.zeros((1200, 8, 8, 1), "uint8"), labels)
    names = tuple(map(str, labels))
    source = data.Source("many", names, 1, 8, "handwriting", split, split, split)
    analysis.class_sheet(tmp_path / "sheet.png", source)
    with PIL.Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (8 * 165, 32 * 198)
