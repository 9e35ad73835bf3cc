import shutil
import sys

import keras
import numpy as np
import pytest
from errors import one_line_error

import keras_resnet
from keras_resnet import export


def net(seed=0, **options):
    keras.utils.set_random_seed(seed)
    return keras_resnet.CIFARResNet(8, **options)


@pytest.fixture(scope="module")
def model():
    return net()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return export.saved_model(model, folder, verified=False, verbose=False).path


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(19, 32, 32, 3)).astype("float32")


class TestVerify:
    def test_measures_agreement_latency_and_size(self, exported, model, images):
        result = export.verify(exported, model, images, verbose=False)
        assert (result.images, result.agreement, result.runtime) == (19, 1.0, "TensorFlow")
        assert result.largest_difference < 1e-5
        assert [*result.milliseconds] == [1, 16]
        assert min(result.milliseconds.values()) > 0
        size = sum(file.stat().st_size for file in exported.rglob("*") if file.is_file())
        assert result.mebibytes == pytest.approx(size / 2**20)

    def test_prints_a_table(self, exported, model, images, capsys):
        result = export.verify(exported, model, images)
        name, heads, cells = capsys.readouterr().out.splitlines()
        assert name == str(exported)
        assert f"{heads}\n{cells}" == str(result)
        assert len(heads) == len(cells)
        assert {"runtime", "images", "same class", "difference", "size"} <= {
            *map(str.strip, heads.split("  "))
        }
        assert "100.0%" in cells
        export.verify(exported, model, images, verbose=False)
        assert capsys.readouterr().out == ""

    def test_asks_functions_too(self, exported, model, images):
        result = export.verify(exported, lambda batch: np.asarray(model(batch)), images)
        assert result.agreement == 1.0

    def test_gives_the_signature_the_images_that_it_takes(self, tmp_path):
        inputs = keras.Input((16, 16, 3), dtype="uint8")
        model = net(input_tensor=inputs, include_preprocessing=True)
        new = export.saved_model(model, tmp_path, verified=False)
        images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3))
        assert export.verify(new, model, images.astype("uint8")).largest_difference < 1e-6

    def test_whole_batches_where_their_size_is_fixed(self, tmp_path, model, images):
        new = export.saved_model(model, tmp_path, batch_size=4, verified=False)
        result = export.verify(new, model, images)
        assert (result.images, result.agreement) == (19, 1.0)
        assert [*result.milliseconds] == [4]

    def test_takes_the_highest_version(self, tmp_path, exported, model, images):
        other = export.saved_model(net(seed=1), tmp_path / "9", verified=False).path
        shutil.copytree(exported, tmp_path / "10")
        assert export.verify(tmp_path, model, images).largest_difference < 1e-5
        with one_line_error("chooses the same class as the original for"):
            export.verify(other, model, images)

    def test_refuses_what_differs_more_than_tolerated(self, tmp_path, model, images):
        new = export.saved_model(model, tmp_path, precision="bfloat16", verified=False)
        result = export.verify(new, model, images, agreement=0.5)
        assert result.largest_difference > 1e-4
        with one_line_error("differs from the original by", "tolerance=0.0001"):
            export.verify(new, model, images, agreement=0.5, tolerance=1e-4)

    def test_refuses_other_outputs(self, exported, images):
        with one_line_error("gives outputs of shape (19, 10), the original (19, 3)"):
            export.verify(exported, net(classes=3), images)

    def test_refuses_a_model_of_one_output_that_decides_otherwise(self, tmp_path, images):
        options = {"classes": 1, "classifier_activation": "sigmoid"}
        model = net(**options)
        new = export.saved_model(model, tmp_path, verified=False)
        decisions = np.asarray(model(images))
        with one_line_error("the original for"):
            export.verify(new, lambda batch: 1 - np.asarray(model(batch)), images)
        assert decisions.shape == (19, 1)

    def test_refuses_outputs_that_are_no_numbers(self, exported, images):
        with pytest.raises(ValueError, match=r"original|NaN or infinite"):
            export.verify(exported, lambda batch: np.full((len(batch), 10), np.nan), images)

    def test_outputs_that_are_all_nothing_are_the_same(self, tmp_path, images):
        model = net(classifier_activation=None)
        for variable in model.get_layer("predictions").weights:
            variable.assign(np.zeros(variable.shape))
        new = export.saved_model(model, tmp_path, verbose=False)
        assert new.verification.largest_difference == 0

    def test_wants_images(self, exported, model):
        with one_line_error("images: at least one is needed"):
            export.verify(exported, model, [])

    def test_wants_images_that_the_model_takes(self, exported, model):
        with one_line_error("images"):
            export.verify(exported, model, np.zeros((1, 31, 31, 3), "float32"))

    def test_finds_no_model_and_broken_ones(self, tmp_path, exported, model, images):
        with one_line_error("is not an exported model"):
            export.verify(tmp_path, model, images)
        with one_line_error("gone' is not an exported model"):
            export.verify(tmp_path / "gone", model, images)
        for part in ("saved_model.pb", "variables/variables.index"):
            broken = tmp_path / "broken" / part.replace("/", "-")
            shutil.copytree(exported, broken)
            (broken / part).write_bytes((broken / part).read_bytes()[:100])
            with one_line_error("cannot be loaded"):
                export.verify(broken, model, images)

    @pytest.mark.parametrize("name", ["a.tflite", "a.onnx"])
    def test_finds_broken_files(self, tmp_path, model, images, name):
        if name == "a.onnx":
            pytest.importorskip("onnxruntime")
        (tmp_path / name).write_bytes(b"nothing of use")
        with one_line_error(f"{name}' cannot be loaded"):
            export.verify(tmp_path / name, model, images)


def body(*layers):
    return keras.Sequential([keras.Input((16, 16, 3)), *layers])


class TestMadeUpImages:
    """What noise cannot show is said, and no noise is what a model hardly sees."""

    def head(self, scale=1.0):
        keras.utils.set_random_seed(0)
        head = keras.layers.Dense(3, "softmax", bias_initializer="normal")
        pool = keras.layers.GlobalAveragePooling2D()
        model = body(keras.layers.Conv2D(4, 3, activation="relu"), pool, head)
        head.bias.assign(np.array([scale, 0.0, 0.0]))
        return model

    def test_that_are_all_the_same_to_a_model_prove_nothing(self, tmp_path, caplog):
        model = self.head(scale=1e4)  # sure of the first class, whatever it is shown
        new = export.saved_model(model, tmp_path / "1", verbose=False)
        assert new.verification.alike
        assert "alike" in str(new.verification)
        assert "cannot show whether the export is right" in caplog.text
        caplog.clear()
        new = export.saved_model(self.head(), tmp_path / "2", verbose=False)
        assert not new.verification.alike
        assert "cannot show" not in caplog.text

    @pytest.mark.parametrize("batch_size", [None, 1])
    def test_are_raw_too_where_a_model_does_not_say_what_it_takes(
        self, tmp_path, monkeypatch, batch_size
    ):
        """EfficientNet's normalization, lost, passed: all the noise lay within -1 ... 1."""
        normalization = keras.layers.Normalization(mean=[124.0] * 3, variance=[3600.0] * 3)
        model = body(normalization, self.head())
        lost = body(self.head())
        new = export.saved_model(
            model, tmp_path / "1", batch_size=batch_size, image_dtype="float32", verbose=False
        )
        assert (new.verification.images, new.verification.alike) == (16, False)
        module = sys.modules["keras_resnet.export.saved_model"]  # the function has its name
        monkeypatch.setattr(module, "fold_batch_norm", lambda model: lost)
        with one_line_error("differs from the original"):
            export.saved_model(model, tmp_path / "2", batch_size=batch_size, verbose=False)
