import io
import struct
import zlib

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from errors import one_line_error
from exported import encoded, signatures
from keras import layers

import keras_resnet
from keras_resnet import data, export, graphs
from keras_resnet.data.sources import Split
from keras_resnet.layers import Preprocessing

EXIF_ORIENTATION = 0x0112
SIZE = 32


@pytest.fixture(scope="module", autouse=True)
def repeatable():
    keras.utils.set_random_seed(0)


@pytest.fixture
def picture():
    """An image that is another one after every turn and reflection, and not square."""
    y, x = np.mgrid[:48, :64]
    return np.stack((4 * x, 5 * y, 128 + x - y), -1).clip(0, 255).astype("uint8")


def net(**options):
    options = {"include_preprocessing": True, **options}
    return keras_resnet.CIFARResNet(8, **options)


@pytest.fixture(scope="module")
def model():
    return net()


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    """All signatures of a net that takes raw images."""
    return signatures(model, tmp_path_factory.mktemp("models"))


def evaluated(model, files, folder, **options):
    """What an evaluation of these files' contents makes of them."""
    paths = []
    for number, contents in enumerate(files):
        paths.append(folder / f"{number}.image")
        paths[-1].write_bytes(contents)
    split = Split(paths, np.zeros(len(paths), "int64"))
    options = {"image_size": SIZE, "channels": model.input_shape[-1], **options}
    return model.predict(data.batches(split, **options), verbose=0)


def assert_classified(answer, expected):
    order = np.argsort(-expected, kind="stable")[:, :5]
    np.testing.assert_allclose(
        answer["probabilities"], np.take_along_axis(expected, order, -1), rtol=1e-3, atol=1e-5
    )
    assert answer["labels"].astype(int).tolist() == order.tolist()


def grey(image):
    return image[..., 1]


def with_alpha(image):
    return np.dstack((image, image[..., :1]))


def png_of_16_bits(image):
    """Pillow writes 16 bits for grey ones only."""
    height, width, _ = image.shape
    lines = (257 * image.astype(">u2")).reshape(height, -1)
    rows = b"".join(b"\0" + line.astype(">u2").tobytes() for line in lines)
    return png(struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0), rows)


def png(header, rows, *between):
    chunks = ((b"IHDR", header), *between, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def tiff(orientation, order):
    """The directory that says so, in little ("<") or big (">") endian."""
    beginning = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    return beginning + struct.pack(order + "HHHIHHI", 1, EXIF_ORIENTATION, 3, 1, orientation, 0, 0)


FILES = {
    "JPEG": lambda image: encoded(image, "JPEG"),
    "progressive JPEG": lambda image: encoded(image, "JPEG", progressive=True, subsampling=0),
    "grey JPEG": lambda image: encoded(grey(image), "JPEG"),
    "JPEG with a thumbnail's worth of tags": lambda image: encoded(
        image, "JPEG", exif=b"Exif\0\0" + tiff(6, "<") + bytes(40_000), icc_profile=bytes(70_000)
    ),
    "PNG": lambda image: encoded(image, "PNG"),
    "grey PNG": lambda image: encoded(grey(image), "PNG"),
    "PNG with alpha": lambda image: encoded(with_alpha(image), "PNG"),
    "PNG of 16 bits": png_of_16_bits,
    "grey PNG of 16 bits": lambda image: encoded(257 * grey(image).astype("uint16"), "PNG"),
    "GIF": lambda image: encoded(image, "GIF"),
    "BMP": lambda image: encoded(image, "BMP"),
    "upright image": lambda image: encoded(image.swapaxes(0, 1), "PNG"),
    "image of one pixel": lambda image: encoded(image[:1, :1], "PNG"),
}


class TestClassifyBytes:
    @pytest.mark.parametrize("kind", FILES)
    def test_is_an_evaluation(self, tmp_path, model, served, picture, kind):
        contents = FILES[kind](picture)
        expected = evaluated(model, [contents], tmp_path)
        assert_classified(served["classify_bytes"]([contents]), expected)

    def test_a_jpeg_of_four_inks(self, tmp_path, model, served, picture):
        buffer = io.BytesIO()
        PIL.Image.fromarray(picture).convert("CMYK").save(buffer, "JPEG")
        expected = evaluated(model, [buffer.getvalue()], tmp_path)
        assert_classified(served["classify_bytes"]([buffer.getvalue()]), expected)

    @pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA"])
    def test_other_bitmaps_are_seen_alike_or_refused(self, tmp_path, model, served, picture, mode):
        buffer = io.BytesIO()
        PIL.Image.fromarray(picture).convert(mode).save(buffer, "BMP")
        try:
            answer = served["classify_bytes"]([buffer.getvalue()])
        except tf.errors.InvalidArgumentError:
            return
        assert_classified(answer, evaluated(model, [buffer.getvalue()], tmp_path))

    def test_a_bitmap_from_top_to_bottom(self, tmp_path, model, served, picture):
        contents = bytearray(encoded(picture, "BMP"))
        contents[22:26] = struct.pack("<i", -len(picture))  # its height
        expected = evaluated(model, [bytes(contents)], tmp_path)
        assert_classified(served["classify_bytes"]([bytes(contents)]), expected)

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    def test_images_stand_upright(self, tmp_path, model, served, picture, kind, order):
        files = [
            encoded(picture, kind, exif=b"Exif\0\0" + tiff(number, order)) for number in range(1, 9)
        ]
        expected = evaluated(model, files, tmp_path)
        # Every orientation shows the net another image.
        assert (
            np.abs(expected[:, None] - expected[None])[~np.eye(8, dtype=bool)].max(-1).min() > 1e-3
        )
        assert_classified(served["classify_bytes"](files), expected)

    def test_images_of_a_batch_may_be_of_any_sizes_and_formats(
        self, tmp_path, model, served, picture
    ):
        files = [make(picture) for make in FILES.values()]
        assert_classified(served["classify_bytes"](files), evaluated(model, files, tmp_path))

    def test_shows_the_part_that_the_model_was_tested_with(self, tmp_path, picture):
        model = keras_resnet.ResNet(
            (1, 1), filters=(8, 16), input_shape=(SIZE, SIZE, 3), classes=7,
            include_preprocessing=True,
        )  # fmt: skip
        files = [encoded(picture, "PNG")]
        for options, crop in (({}, 0.875), ({"crop": 0.5}, 0.5)):
            ask = signatures(model, tmp_path, **options)["classify_bytes"]
            assert_classified(ask(files), evaluated(model, files, tmp_path, crop=crop))

    def test_grey_models_see_grey(self, tmp_path, picture):
        model = net(input_shape=(SIZE, SIZE, 1), preprocessing="tf")
        files = [encoded(picture, "PNG"), encoded(grey(picture), "JPEG")]
        ask = signatures(model, tmp_path)["classify_bytes"]
        assert_classified(ask(files), evaluated(model, files, tmp_path))

    def test_names_classes_the_likeliest_first(self, tmp_path, model, served, picture):
        files, names = [encoded(picture, "PNG")], [f"class {number}ö" for number in range(10)]
        numbers = served["classify_bytes"](files)["labels"][0].astype(int)
        answer = signatures(model, tmp_path, labels=names, top=3)["classify_bytes"](files)
        assert [each.decode("utf-8") for each in answer["labels"][0]] == [
            names[number] for number in numbers[:3]
        ]

    def test_gives_no_more_classes_than_there_are(self, tmp_path, picture):
        ask = signatures(net(classes=2), tmp_path, top=9)["classify_bytes"]
        assert ask([encoded(picture, "PNG")])["labels"].shape == (1, 2)

    def test_logits_become_probabilities(self, tmp_path, picture):
        model = net(classifier_activation=None)
        files = [encoded(picture, "PNG")]
        served = signatures(model, tmp_path)
        logits = evaluated(model, files, tmp_path)
        expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        assert_classified(served["classify_bytes"](files), expected)
        assert [*served["serving_default"](np.zeros((1, SIZE, SIZE, 3)))] == ["logits"]

    def test_sigmoids_stay(self, tmp_path, picture):
        model = net(classifier_activation="sigmoid")
        files = [encoded(picture, "PNG")]
        ask = signatures(model, tmp_path)["classify_bytes"]
        assert_classified(ask(files), evaluated(model, files, tmp_path))

    @pytest.mark.parametrize("mode", ["torch", "caffe", "tf"])
    def test_normalizes_for_models_that_do_not(self, tmp_path, picture, mode):
        inside, outside = (net(include_preprocessing=each, preprocessing=mode) for each in (1, 0))
        outside.set_weights(inside.get_weights())
        files = [encoded(picture, "PNG")]
        ask = signatures(outside, tmp_path)["classify_bytes"]
        assert_classified(ask(files), evaluated(inside, files, tmp_path))

    def test_normalizes_as_told_for_models_of_others(self, tmp_path, picture):
        x = inputs = keras.Input((SIZE, SIZE, 3))
        for layer in (
            layers.Conv2D(4, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(7, activation="softmax"),
        ):
            x = layer(x)
        model = keras.Model(inputs, x)
        assert {*signatures(model, tmp_path)} == {"serving_default", "features"}
        files = [encoded(picture, "PNG")]
        for mode, scale in (("tf", layers.Rescaling(1 / 127.5, -1)), ("raw", layers.Identity())):
            ask = signatures(model, tmp_path, preprocessing=mode)["classify_bytes"]
            whole = keras.Model(inputs, model(scale(inputs)))
            assert_classified(ask(files), evaluated(whole, files, tmp_path))

    def test_says_what_is_wrong(self, served, picture):
        whole = encoded(picture, "JPEG")
        huge = bytearray(encoded(picture, "PNG"))
        huge[16:24] = struct.pack(">II", 50_000, 50_000)
        huge_jpeg = bytearray(whole)
        at = whole.index(b"\xff\xc0") + 5
        huge_jpeg[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
        for files, reason in [
            ([], "no images were sent"),
            ([b""], "is none of JPEG, PNG, GIF, BMP: it has.*0.*bytes"),
            ([whole, b"a letter"], "image.*1.*is none of JPEG, PNG, GIF, BMP: it has.*8.*bytes"),
            ([whole[: len(whole) // 2]], "jpeg"),
            ([whole[:20]], "jpeg"),
            ([encoded(picture, "PNG")[:-40]], "png"),
            ([encoded(picture, "PNG")[:20]], ""),
            ([encoded(picture, "BMP")[:100]], "size"),
            ([encoded(picture, "GIF")[:50]], "gif"),
            ([bytes(huge)], "2500000000.*pixels, 100000000 are allowed"),
            ([bytes(huge_jpeg)], "4225000000.*pixels, 100000000 are allowed"),
        ]:
            with pytest.raises(tf.errors.InvalidArgumentError, match=f"(?i){reason}"):
                served["classify_bytes"](np.array(files, object).reshape(-1))

    def test_twenty_megapixels(self, served):
        large = encoded(np.full((4000, 5000, 3), 200, "uint8"), "JPEG")
        small = encoded(np.full((40, 50, 3), 200, "uint8"), "JPEG")
        first, second = served["classify_bytes"]([large, small])["probabilities"]
        np.testing.assert_allclose(first, second, rtol=1e-3)


def images(*shape, dtype="uint8"):
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


class TestImages:
    def test_floats_enter_the_model_as_they_are(self, model, served):
        given = images(3, SIZE, SIZE, 3, dtype="float32")
        answer = served["serving_default"](given)["probabilities"]
        np.testing.assert_allclose(answer, model(given), rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("inside", [True, False])
    def test_raw_ones_are_normalized(self, tmp_path, inside):
        model, reference = net(include_preprocessing=inside), net()
        model.set_weights(reference.get_weights())
        given = images(3, SIZE, SIZE, 3)
        ask = signatures(model, tmp_path, image_dtype="uint8")["serving_default"]
        np.testing.assert_allclose(
            ask(given)["probabilities"], reference(given.astype("float32")), rtol=1e-4, atol=1e-6
        )

    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_resized_as_in_an_evaluation(self, tmp_path, model, dtype):
        served = signatures(model, tmp_path, image_dtype=dtype, resize=True)
        given = images(2, 50, 81, 3)
        split = Split(given, np.zeros(2, "int64"))
        expected = model.predict(data.batches(split, image_size=SIZE), verbose=0)
        answer = served["serving_default"](given)["probabilities"]
        np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize("inside", [True, False])
    def test_bicubic_ones_stay_between_black_and_white(self, tmp_path, inside):
        model = net(include_preprocessing=inside)
        graphs.remember(model, interpolation="bicubic")
        normalize = (lambda images: images) if inside else Preprocessing(model.preprocessing)
        served = signatures(model, tmp_path, resize=True)
        given = images(2, 50, 81, 3)
        split = Split(given, np.zeros(2, "int64"))
        ((shown, _),) = data.batches(split, **vars(graphs.view_of(model)))
        answer = served["serving_default"](normalize(given.astype("float32")))["probabilities"]
        np.testing.assert_allclose(answer, model(normalize(shown)), rtol=1e-4, atol=1e-6)

    def test_any_size_where_the_model_takes_any(self, tmp_path):
        model = net(input_shape=(None, None, 3))
        served = signatures(model, tmp_path)
        given = images(2, 40, 24, 3, dtype="float32")
        np.testing.assert_allclose(
            served["serving_default"](given)["probabilities"], model(given), rtol=1e-4, atol=1e-6
        )
        resized = signatures(model, tmp_path, resize=True, image_size=48)
        assert resized["features"](images(1, 90, 70, 3))["features"].shape == (1, 64)

    def test_as_many_as_agreed(self, tmp_path, model):
        served = signatures(model, tmp_path, batch_size=2)
        given = images(2, SIZE, SIZE, 3, dtype="float32")
        np.testing.assert_allclose(
            served["serving_default"](given)["probabilities"], model(given), rtol=1e-4, atol=1e-6
        )
        contents = encoded(images(9, 9, 3), "PNG")
        assert served["classify_bytes"]([contents] * 2)["labels"].shape == (2, 5)
        with pytest.raises(tf.errors.InvalidArgumentError):
            served["serving_default"](given[:1])
        with pytest.raises(tf.errors.InvalidArgumentError):
            served["classify_bytes"]([contents] * 3)

    @pytest.mark.parametrize("name", ["serving_default", "features"])
    def test_wrong_ones_are_told_so(self, served, name):
        with pytest.raises(tf.errors.InvalidArgumentError, match="no images were sent"):
            served[name](np.zeros((0, SIZE, SIZE, 3)))
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[1,33,32,3\].*\[\?,32,32,3\]"):
            served[name](np.zeros((1, SIZE + 1, SIZE, 3)))

    def test_the_same_image_gives_the_same_answer_in_every_batch(self, served):
        given = images(9, SIZE, SIZE, 3, dtype="float32")
        together = served["serving_default"](given)["probabilities"]
        alone = [served["serving_default"](each[None])["probabilities"][0] for each in given]
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)


class TestFeatures:
    def test_are_what_enters_the_classifier(self, model, served):
        given = images(3, SIZE, SIZE, 3, dtype="float32")
        submodel = keras.Model(model.input, model.get_layer("avg_pool").output)
        np.testing.assert_allclose(
            served["features"](given)["features"], submodel(given), rtol=1e-3, atol=1e-4
        )

    @pytest.mark.parametrize("pooling", [None, "avg", "max"])
    def test_of_a_model_without_a_head(self, tmp_path, pooling):
        model = net(include_top=False, input_shape=(SIZE, SIZE, 3), pooling=pooling)
        served = signatures(model, tmp_path)
        assert {*served} == {"serving_default", "features"}
        given = images(2, SIZE, SIZE, 3, dtype="float32")
        expected = np.asarray(model(given))
        np.testing.assert_allclose(
            served["serving_default"](given)["features"], expected, rtol=1e-3, atol=1e-4
        )
        pooled = expected if pooling else expected.mean((1, 2))
        np.testing.assert_allclose(
            served["features"](given)["features"], pooled, rtol=1e-3, atol=1e-4
        )

    def test_of_a_new_head_on_a_backbone(self, tmp_path):
        backbone = keras_resnet.CIFARResNet(8, include_top=False, input_shape=(SIZE, SIZE, 3))
        model = keras_resnet.transfer.classifier(backbone, 2, dropout=0.5)
        given = images(2, SIZE, SIZE, 3, dtype="float32") / 255
        features = signatures(model, tmp_path)["features"](given)["features"]
        np.testing.assert_allclose(
            features, np.asarray(backbone(given)).mean((1, 2)), rtol=1e-3, atol=1e-4
        )


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"preprocessing": "pytorch"}, "preprocessing='pytorch' must be one of 'torch'"),
            ({"preprocessing": "torch"}, "preprocessing='torch': model 'cifar_resnet8' normalizes"),
            ({"image_dtype": "int8"}, "image_dtype='int8' must be one of 'float32', 'uint8'"),
            ({"image_size": 64}, "image_size=64: model 'cifar_resnet8' takes images of 32x32"),
            ({"crop": 0}, "crop=0 must be above 0 and at most 1"),
            ({"crop": 1.5}, "crop=1.5 must be above 0 and at most 1"),
            ({"labels": ["a"]}, "labels: 1 names came for the 10 outputs"),
            ({"labels": []}, "labels: 0 names came for the 10 outputs"),
            ({"top": 0}, "top=0 must be a whole number of at least 1"),
            ({"batch_size": 0}, "batch_size=0 must be a whole number of at least 1"),
            ({"precision": "float16"}, "precision='float16' must be one of"),
        ],
        ids=repr,
    )
    def test_out_of_range(self, tmp_path, model, options, message):
        with one_line_error(message):
            export.saved_model(model, tmp_path, **options)
        assert [*tmp_path.iterdir()] == []

    @pytest.mark.parametrize("size", [0, -1, 32.5, "64"])
    def test_a_size_is_a_positive_number(self, tmp_path, size):
        with one_line_error(f"image_size={size!r}"):
            export.saved_model(net(input_shape=(None, None, 3)), tmp_path, image_size=size)

    @pytest.mark.parametrize(
        "names",
        [tuple("abcdefghij"), np.array([*"abcdefghij"]), dict.fromkeys("abcdefghij").keys()],
    )
    def test_names_come_in_any_collection(self, tmp_path, model, names):
        new = export.saved_model(model, tmp_path, names, verified=False, verbose=False)
        assert [*new.card["labels"]] == [*"abcdefghij"]

    def test_raw_images_of_a_model_that_says_nothing_of_them(self, tmp_path):
        inputs = keras.Input((8, 8, 3))
        model = keras.Model(inputs, layers.Conv2D(2, 3)(inputs), name="foreign")
        with one_line_error("image_dtype='uint8' is for raw images: say with preprocessing="):
            export.saved_model(model, tmp_path, image_dtype="uint8")

    def test_no_model_of_images(self, tmp_path):
        image, vector = keras.Input((8, 8, 3)), keras.Input((8,))
        pooled = layers.GlobalAveragePooling2D()(image)
        for model in (
            keras.Model([image, vector], layers.Concatenate()([pooled, vector])),
            keras.Model(image, [pooled, image]),
            keras.Model(vector, layers.Dense(2)(vector)),
        ):
            with one_line_error("must take one batch of images", "and give one output"):
                export.saved_model(model, tmp_path)

    def test_images_of_four_channels_come_from_no_file(self, tmp_path):
        model = net(input_shape=(SIZE, SIZE, 4), preprocessing="tf")
        assert "classify_bytes" not in signatures(model, tmp_path)
