"""Models compiled for this process."""

import functools
import threading

import detectors
import keras
import numpy as np
import pytest
from errors import one_line_error
from keras import layers

import keras_resnet
from keras_resnet import export, machine
from keras_resnet.export.compiled import RUNTIMES

pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")


def small(seed=0):
    keras.utils.set_random_seed(seed)
    return keras_resnet.CIFARResNet(8, classes=5, include_preprocessing=True)


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 255, (40, 32, 32, 3)).astype("float32")


def available(name):
    for module in RUNTIMES[name].modules:
        pytest.importorskip(module)


@pytest.mark.parametrize("name", RUNTIMES)
class TestEveryRuntime:
    @pytest.fixture(autouse=True)
    def is_installed(self, name):
        available(name)

    @pytest.fixture(scope="class")
    def ask(self, model):
        """The model in a runtime, each compiled once."""
        return functools.cache(lambda name: export.compiled(model, name, verbose=False))

    def test_gives_what_the_model_gives(self, model, images, name, ask):
        ask = ask(name)
        expected = model.predict(images, verbose=0)
        for count in (1, 7, 2, 40):
            given = ask(images[:count])
            assert given.dtype == np.float32
            np.testing.assert_allclose(given, expected[:count], atol=1e-4)
        assert ask(images[:0]).shape == (0, 5)
        assert ask(images[:2].astype("uint8")).shape == (2, 5)
        assert ask.verification.largest_difference < 1e-3

    def test_an_answer_is_not_overwritten_by_the_next(self, images, name, ask):
        ask = ask(name)
        first = ask(images[:1])
        kept = first.copy()
        ask(images[1:2])
        np.testing.assert_array_equal(first, kept)

    def test_threads_get_their_own_answers(self, images, name, ask):
        ask = ask(name)
        expected, wrong = ask(images[:20]), []

        def repeat(index):
            for _ in range(20):
                if not np.allclose(ask(images[index : index + 1]), expected[index], atol=1e-4):
                    wrong.append(index)

        threads = [threading.Thread(target=repeat, args=(index,)) for index in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert not wrong


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow][name == "tensorflow" :]) for name in RUNTIMES],
)
def test_two_models_of_one_architecture_give_their_own_answers(images, name):
    """Even if one is trained in between: caches must not go by shapes alone."""
    available(name)
    models = [small(0), small(1)]
    asks = [export.compiled(each, name, verified=False, verbose=False) for each in models]
    for ask, model in zip(asks, models, strict=True):
        np.testing.assert_allclose(ask(images[:3]), model(images[:3]), atol=1e-4)
    before = asks[0](images[:3])
    models[0].set_weights(models[1].get_weights())
    np.testing.assert_allclose(asks[0](images[:3]), before, atol=1e-6)
    np.testing.assert_allclose(models[0](images[:3]), asks[1](images[:3]), atol=1e-4)


@pytest.mark.parametrize("name", ["tensorflow", "openvino"])
def test_bfloat16(model, images, name):
    available(name)
    if not machine.cpu().bfloat16:
        pytest.skip("this processor has no bfloat16")
    ask = export.compiled(model, name, precision="bfloat16", verbose=False)
    given, expected = ask(images), model.predict(images, verbose=0)
    assert 1e-6 < np.abs(given - expected).max() < 0.05


@pytest.mark.parametrize("name", ["litert", pytest.param("openvino", marks=pytest.mark.slow)])
def test_int8(model, images, name):
    available(name)
    options = dict(precision="int8", agreement=0.5, verbose=False)
    ask = export.compiled(model, name, calibrate=images, **options)
    assert ask.verification.images == len(images) // 5
    given, expected = ask(images), model.predict(images, verbose=0)
    assert 1e-6 < np.abs(given - expected).max() < 0.1


def test_auto_says_what_it_chose_and_why(model, images, capsys, monkeypatch):
    monkeypatch.setitem(RUNTIMES, "openvino", RUNTIMES["openvino"].__class__("OpenVINO", (), None))
    ask = export.compiled(model, images=images[:2], agreement=0.5)
    out = capsys.readouterr().out
    assert ask.runtime in ("tensorflow", "litert")
    assert "for 2 images, TensorFlow " in out
    assert RUNTIMES[ask.runtime].name in out.splitlines()[0].split(",")[0]
    assert f"{ask.verification}" in out
    assert ask.verification.images == 2


def test_auto_takes_what_can_run_the_model(model, monkeypatch, caplog):
    def failing(*_):
        raise RuntimeError("no such operation")

    kind = RUNTIMES["litert"].__class__
    monkeypatch.setitem(RUNTIMES, "openvino", kind("OpenVINO", ("float32",), failing))
    ask = export.compiled(model, verbose=False)
    assert ask.runtime == "tensorflow"
    assert "runtime='openvino' cannot run model 'cifar_resnet8': no such operation" in caplog.text
    with one_line_error("runtime='openvino' cannot run model", "no such operation"):
        export.compiled(model, "openvino")


def test_one_that_disagrees_is_refused(model, images, monkeypatch):
    kind = RUNTIMES["litert"].__class__
    wrong = kind("wrong", ("float32",), lambda *_: lambda images: np.ones((len(images), 5)))
    monkeypatch.setitem(RUNTIMES, "litert", wrong)
    with one_line_error("differs from the original"):
        export.compiled(model, "litert")


def test_models_of_other_libraries_and_of_any_size():
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(x))
    images = np.random.default_rng(0).normal(size=(3, 20, 24, 3)).astype("float32")
    ask = export.compiled(model, "tensorflow", images, verbose=False)
    np.testing.assert_allclose(ask(images), model(images), atol=1e-5)
    assert ask(images[:, :16]).shape == (3, 2)


@pytest.mark.parametrize(
    ("runtime", "options", "message"),
    [
        ("torch", {}, "runtime='torch' must be one of 'auto', 'openvino'"),
        ("auto", {"precision": "int4"}, "precision='int4' must be one of 'float32'"),
        (
            "litert",
            {"precision": "bfloat16"},
            "runtime='litert' computes in float32, int8; precision='bfloat16' is for openvino",
        ),
        ("litert", {"precision": "int8"}, "needs images"),
        ("auto", {"images": np.zeros((2, 16, 16, 3))}, "images have the shape (2, 16, 16, 3)"),
        ("auto", {"images": np.zeros((32, 32, 3))}, "images have the shape (32, 32, 3)"),
    ],
)
def test_mistakes(model, runtime, options, message, monkeypatch):
    monkeypatch.setattr(machine, "cpu", lambda: machine.CPU("EPYC", 2, frozenset(["avx512_bf16"])))
    with one_line_error(message):
        export.compiled(model, runtime, **options)


def test_images_of_another_size(model, images):
    ask = export.compiled(model, "tensorflow", verified=False, verbose=False)
    with one_line_error("images have the shape (2, 16, 32, 3); the model takes (None, 32, 32, 3)"):
        ask(images[:2, :16])


def test_a_processor_without_bfloat16(model, monkeypatch):
    monkeypatch.setattr(machine, "cpu", lambda: machine.CPU("Old One", 2, frozenset(["avx2"])))
    with one_line_error("precision='bfloat16': Old One has no instructions for it"):
        export.compiled(model, precision="bfloat16")


def test_what_is_not_installed(model, monkeypatch):
    kind = RUNTIMES["openvino"].__class__
    row = kind("OpenVINO", ("float32",), None, ("not_there",), "pip install openvino")
    monkeypatch.setitem(RUNTIMES, "openvino", row)
    with pytest.raises(ImportError, match="needs not_there, not installed here: pip install op"):
        export.compiled(model, "openvino")


def test_detectors_are_not_compiled():
    with one_line_error("is a detector, which cannot be compiled"):
        export.compiled(detectors.tiny(), "tensorflow")
