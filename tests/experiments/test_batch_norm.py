"""`keras-resnet experiment batch-norm`."""

import math

import keras
import numpy as np
import pytest

from keras_resnet import CIFARResNet, data, experiments, training
from keras_resnet.experiments import batch_norm_trials, trainings
from keras_resnet.experiments.batch_norm_report import PUBLISHED, _of_sizes, compared
from keras_resnet.experiments.batch_norm_trials import (
    KINDS,
    BatchNormSettings,
    Examined,
    Images,
    Run,
)

EPSILON = 1e-5
TINY = {
    **{"seeds": 1, "epochs": 1, "images": 100, "test_images": 40, "batch_size": 20},
    **{"learning_rates": (0.1, 1e4), "batch_sizes": (4, 20), "momenta": (0.9, 1.0)},
    **{"test_batch_sizes": (1, 8), "tuning_steps": (0, 2)},
}


def normalized(x, gamma, beta, mean=None, variance=None):
    """Batch normalization as Ioffe and Szegedy define it, of the statistics of x by default."""
    mean = x.mean((0, 1, 2)) if mean is None else mean
    variance = x.var((0, 1, 2)) if variance is None else variance
    return gamma * (x - mean) / np.sqrt(variance + EPSILON) + beta


@pytest.fixture(scope="module")
def tested():
    """A convolution, a normalization and a pooling, and random images."""
    random = np.random.default_rng(0)
    x = keras.Input((6, 6, 3))
    y = keras.layers.Conv2D(4, 1, use_bias=False, name="conv")(x)
    y = keras.layers.BatchNormalization(epsilon=EPSILON, name="bn")(y)
    model = keras.Model(x, keras.layers.GlobalMaxPooling2D()(y))
    model.set_weights([random.uniform(0.5, 2, each.shape) for each in model.weights])
    pixels = random.normal(size=(10, 6, 6, 3)).astype("float32")
    return Examined(model, Images(pixels, np.repeat([1, 0], 5)))


def by_hand(tested, batch):
    """What the model answers in training mode, in float64."""
    kernel, gamma, beta, *_ = (each.astype("float64") for each in tested.model.get_weights())
    features = tested.images.pixels[batch].astype("float64") @ kernel[0, 0]
    return normalized(features, gamma, beta).max((1, 2))


def test_answers_in_training_mode_depend_on_the_neighbours_as_the_formula_says(tested):
    before = tested.model.get_weights()
    order = np.array([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    answers = tested.answers(order, 4, training=True)
    # The last batch is filled up with the first two images.
    for batch, counted in (([3, 1, 4, 0], 4), ([5, 9, 2, 6], 4), ([8, 7, 3, 1], 2)):
        expected = by_hand(tested, batch)[:counted]
        np.testing.assert_allclose(answers[batch[:counted]], expected, rtol=1e-4, atol=1e-5)
    other = tested.answers(tested.by_class(), 4, training=True)
    assert np.abs(other - answers).max() > 0.1
    for kept, weights in zip(before, tested.model.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, weights)


def test_answers_in_inference_mode_do_not(tested):
    kernel, gamma, beta, mean, variance = tested.model.get_weights()
    features = tested.images.pixels @ kernel[0, 0]
    expected = normalized(features, gamma, beta, mean, variance).max((1, 2))
    for order, size in ((None, 250), (tested.by_class(), 1), (tested.shuffled(0), 3)):
        np.testing.assert_allclose(tested.answers(order, size), expected, rtol=1e-4, atol=1e-5)


def test_errors_are_of_the_images_that_are_asked_for(tested):
    right = tested.classes(tested.shuffled(1), 4, training=True)
    shown = Examined(tested.model, Images(tested.images.pixels, right))
    assert shown.error(tested.shuffled(1), 4, training=True) == 0.0
    assert tested.by_class().tolist() == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]


def test_biases_cancel_in_the_formula_and_the_moving_mean_follows_them(monkeypatch):
    monkeypatch.setattr(batch_norm_trials, "PASSES", 9)
    random = np.random.default_rng(0)
    x, gamma, beta, bias = random.normal(size=(8, 3, 3, 4)), *random.normal(size=(3, 4))
    np.testing.assert_allclose(
        normalized(x, gamma, beta), normalized(x + bias, gamma, beta), atol=1e-12
    )
    pixels = np.asarray(data.load("digits").train.images[:8], "float64")
    model = CIFARResNet(8, input_shape=(8, 8, 1), include_preprocessing=True)
    bare, biased = (
        batch_norm_trials._copy(model, "float64", 0, biases) for biases in (False, True)
    )
    assert biased.count_params() - bare.count_params() == 16 * 3 + 32 * 2 + 64 * 2
    found = batch_norm_trials._bias_measures(bare, biased, pixels, np.arange(8))
    assert found["training"] < 1e-12 < 1e-3 < found["inference"][0]
    assert found["gradient"] < 1e-12
    assert found["shifted"] < 1e-12
    np.testing.assert_allclose(found["gap"], 0.9 ** np.arange(10), rtol=1e-6)


def test_kinds_begin_alike():
    model = trainings.built(0, CIFARResNet, 8)
    kernels = {
        kind: make(model).get_layer("conv2_block1_1_conv").kernel for kind, make in KINDS.items()
    }
    for kernel in kernels.values():
        np.testing.assert_allclose(kernel, kernels["batch"], rtol=1e-5)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    # Fresh statistics normalize nothing, so that a model without normalization computes the same.
    np.testing.assert_allclose(KINDS["none"](model)(images), model(images), rtol=1e-3, atol=1e-5)
    layers = {
        kind: {type(each).__name__ for each in make(model).layers} for kind, make in KINDS.items()
    }
    assert not {"BatchNormalization", "GroupNormalization"} & layers["none"]
    assert "BatchNormalization" not in layers["group"] > {"GroupNormalization"}


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batch-norm")
    return experiments.run("batch-norm", folder, data.load("digits"), **TINY)


@pytest.mark.slow
def test_every_trial_runs_and_a_loss_of_nan_is_a_result(record):
    assert record.values["batch_diverged"] == record.values["none_diverged"] == [1e4]
    assert record.results["none-10000-20-0.9-0"]["diverged"] is True
    for name in ("rates", "sizes", "neighbours", "momenta", "tuning", "biases"):
        assert (record.output / f"{name}.csv").exists()
        assert (record.output / f"{name}.svg").exists()
    assert record.values["guessing"] == pytest.approx(0.9)
    assert record.values["resnet50_biases"] == 26_560


@pytest.mark.slow
def test_statistics_of_a_momentum_of_1_are_never_updated(record):
    """Two ways to the same number: a momentum of 1, and statistics that are set back."""
    reference, frozen = (record.results[f"batch-0.1-20-{momentum}-0"] for momentum in ("0.9", "1"))
    assert frozen["loss"] == pytest.approx(reference["loss"], rel=1e-3)
    assert frozen["moving"] == pytest.approx(reference["never"], abs=0.051)
    assert reference["changed"][0] == 0.0  # an image alone has no neighbours


@pytest.mark.slow
def test_pages_say_nothing_about_one_seed(record):
    for suffix, words in (("", "without two seeds"), (".zh", "种子不足两个")):
        text = (record.output / f"report{suffix}.md").read_text(encoding="utf-8")
        assert words in text
        assert ("the spread over seeds", "离散程度")[bool(suffix)] not in text.split("\n## ")[1]


def test_what_has_not_learned_is_named():
    """A training loss counts that ends 5% below log 2, which is that of guessing two classes."""
    losses = {2: (0.5, 0.66), 4: (0.5, 0.65)}

    def of(run):
        errors = {"error": [0.5], "moving": 0.5, "batch": 0.5}
        return [{"loss": [1.0, loss], **errors} for loss in losses[run.batch_size]]

    values = _of_sizes(BatchNormSettings(batch_sizes=(2, 4)), of, 0.5).values
    assert values["batch_sizes_not_learned"] == values["group_sizes_not_learned"] == [2]


def test_verdicts_ask_for_more_than_the_scatter():
    assert compared([0.50, 0.52], [0.40, 0.41]) == "higher"
    assert compared([0.40, 0.41], [0.50, 0.52]) == "lower"
    assert compared([0.40, 0.50], [0.42, 0.44]) == "alike"
    assert compared([0.1], [0.9, 0.8]) == compared([], [0.9, 0.8]) == "unknown"


def test_all_see_the_same_images_at_proportional_learning_rates():
    settings = BatchNormSettings(batch_size=64, learning_rate=0.1, batch_sizes=(2, 64, 128))
    rates = [run.learning_rate for run in batch_norm_trials.runs_by_size(settings, "group")]
    assert rates == pytest.approx([0.1 / 32, 0.1, 0.2])
    # Whatever several figures need is trained once.
    trials = [trial.name for trial in batch_norm_trials.trials(settings)]
    assert len(trials) == len({*trials})
    assert trials.count(Run("batch", 0.1, 64).trial(0)) == 1


def test_published_gap_is_that_of_the_abstract():
    """Wu and He 2018: GN has 10.6 % lower error than BN with a batch size of 2."""
    assert math.isclose(PUBLISHED["batch"][2] - PUBLISHED["group"][2], 10.6, abs_tol=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 9}, "depth"),
        ({"batch_sizes": (0,)}, "batch_sizes=0 must be a whole number of at least 1"),
        ({"batch_sizes": ()}, r"batch_sizes=\(\) must be different numbers"),
        ({"learning_rates": (0.1, 0.1)}, "must be different numbers"),
        ({"momenta": (1.5,)}, "momenta=1.5"),
        ({"tuning_steps": (-1,)}, "tuning_steps=-1"),
    ],
)
def test_settings_out_of_range_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        BatchNormSettings(**changes)


@pytest.mark.slow
def test_a_reference_that_diverges_is_an_error(tmp_path):
    settings = BatchNormSettings(**{**TINY, "learning_rate": 1e5})
    context = experiments.Context(settings.images_of(data.load("digits")), tmp_path)
    with pytest.raises(training.DivergedError, match="Use a lower learning rate"):
        batch_norm_trials._measured(settings, 0, context)
