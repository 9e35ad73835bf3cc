import numpy as np
import PIL.Image
import pytest

from keras_resnet import data


def collect(dataset):
    images, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


@pytest.fixture
def split():
    return data.load("digits").validation


def test_evaluation_keeps_order_and_pixels(split):
    images, labels = collect(data.batches(split, image_size=8, channels=1, batch_size=50))
    np.testing.assert_array_equal(images, split.images.astype("float32"))
    np.testing.assert_array_equal(labels, split.labels)


def test_training_shuffles_anew_every_epoch_and_repeats_with_the_seed(split):
    def epochs(seed):
        dataset = data.batches(
            split, image_size=8, channels=1, augmentation="handwriting", seed=seed
        )
        return [collect(dataset) for _ in range(2)]

    (first, labels), (second, _) = epochs(seed=3)
    (again, _), _ = epochs(seed=3)
    (other, _), _ = epochs(seed=4)
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()
    assert (first != other).any()
    np.testing.assert_array_equal(np.bincount(labels), np.bincount(split.labels))


def test_augmented_digits_stay_what_they_are(split):
    dataset = data.batches(split, image_size=16, channels=1, augmentation="handwriting")
    images, _ = collect(dataset)
    plain, _ = collect(data.batches(split, image_size=16, channels=1))
    assert images.min() >= 0
    assert images.max() <= 255
    assert abs(images.mean() - plain.mean()) < 0.1 * plain.mean()


def test_a_crop_shows_the_middle(split):
    whole, _ = collect(data.batches(split, image_size=8, channels=1))
    middle, _ = collect(data.batches(split, image_size=6, channels=1, crop=6 / 8))
    np.testing.assert_array_equal(middle, whole[:, 1:-1, 1:-1])


@pytest.mark.parametrize("crop", [0, -1, 1.01, float("nan")])
def test_a_crop_out_of_range_is_refused(split, crop):
    with pytest.raises(ValueError, match="crop="):
        data.batches(split, image_size=8, crop=crop)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif"])
def test_files_are_cropped_around_their_centre(tmp_path, suffix):
    pixels = np.zeros((6, 10, 3), "uint8")
    pixels[:, 2:8] = (255, 0, 0)
    PIL.Image.fromarray(pixels).save(tmp_path / f"image{suffix}")
    split = data.Split([tmp_path / f"image{suffix}"], np.array([1]))
    images, labels = collect(data.batches(split, image_size=6))
    np.testing.assert_array_equal(images, np.broadcast_to([255.0, 0, 0], (1, 6, 6, 3)))
    assert labels.tolist() == [1]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *((".png", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
        *((".jpg", mode) for mode in ("L", "RGB", "CMYK")),
        (".gif", "P"),
        (".bmp", "RGB"),
    ],
)
def test_files_of_every_mode_are_read_as_pil_reads_them(tmp_path, suffix, mode, channels):
    ramp = np.linspace(0, 255, 16 * 16 * 3).reshape(16, 16, 3).astype("uint8")
    image = PIL.Image.fromarray(ramp).convert(mode)
    image.save(tmp_path / f"image{suffix}")
    data.check_images([tmp_path / f"image{suffix}"], whole=True)
    split = data.Split([tmp_path / f"image{suffix}"], np.array([0]))
    (ours,), _ = collect(data.batches(split, image_size=16, channels=channels))
    with PIL.Image.open(tmp_path / f"image{suffix}") as image:
        theirs = np.asarray(image.convert("RGB").convert("L" if channels == 1 else "RGB"))
    assert np.abs(ours - theirs.reshape(ours.shape)).mean() < 2


def test_photographs_are_varied(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), "uint8")
    PIL.Image.fromarray(pixels).save(tmp_path / "image.png")
    split = data.Split([tmp_path / "image.png"] * 8, np.zeros(8, int))
    images, _ = collect(data.batches(split, image_size=16, augmentation="photograph"))
    assert images.shape == (8, 16, 16, 3)
    assert len({image.tobytes() for image in images}) == 8


def test_an_unknown_augmentation_is_refused(split):
    with pytest.raises(ValueError, match="augmentation='weak' must be None or one of"):
        data.batches(split, image_size=8, augmentation="weak")


def test_real_photographs_are_read_as_pil_reads_them(assets):
    source = data.load(assets / "cats_dogs")
    assert source.class_names == ("cats", "dogs")
    assert (len(source.train), len(source.validation), len(source.test)) == (1700, 300, 1000)
    files = source.test.images[::100]
    images, _ = collect(data.batches(data.Split(files, np.zeros(10, int)), image_size=64))
    for image, file in zip(images, files, strict=True):
        photograph = PIL.Image.open(file)
        side = min(photograph.size)
        left, top = ((size - side) / 2 for size in photograph.size)
        box = (left, top, left + side, top + side)
        expected = photograph.resize(
            (64, 64), PIL.Image.Resampling.BILINEAR, box, reducing_gap=None
        )
        assert np.abs(image - np.asarray(expected)).mean() < 4
