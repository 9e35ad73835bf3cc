import keras
import numpy as np
import pytest

from keras_resnet import blocks, data, experiments, tuning
from keras_resnet.experiments import cardinality, forms
from keras_resnet.experiments.experiment import Context
from tests.support.errors import one_line_error
from tests.support.experiments_made_up import curve, page_of

PAIRS = ("1x64d", "2x40d", "4x24d", "8x14d", "32x4d")


def made_up(*errors):
    """Results with two seeds: an error of each pair, and one percent more."""
    return {
        "forms": {"split": [1e-16] * 5, "concatenated": [2e-16] * 5},
        **{
            f"{pair}-{seed}": curve(error + 0.01 * seed, error + 0.01 * seed)
            for pair, error in zip(PAIRS, errors, strict=True)
            for seed in range(2)
        },
    }


ALIKE = made_up(0.5, 0.504, 0.502, 0.501, 0.503)
APART = made_up(0.9, 0.8, 0.7, 0.6, 0.5)


class TestBlocks:
    def test_pairs_are_those_of_the_paper_under_both_names(self):
        assert tuple(blocks.CARDINALITIES) == PAIRS
        assert tuning.CARDINALITIES is blocks.CARDINALITIES

    @pytest.mark.parametrize("pair", PAIRS)
    def test_weights_are_those_of_the_formula(self, pair):
        groups, channels = (int(each) for each in pair.rstrip("d").split("x"))
        formula = groups * (256 * channels + 9 * channels**2 + channels * 256)
        assert cardinality.block_weights(pair) == formula
        assert formula == pytest.approx(70_000, rel=0.025)


class TestForms:
    @pytest.mark.parametrize("pair", PAIRS)
    def test_are_one_function(self, pair):
        block, features = forms.random_block(*blocks.CARDINALITIES[pair])
        outputs = np.asarray(block(features))
        assert outputs.dtype == "float64"
        assert 0.2 < (outputs > 0).mean() < 0.8
        for form in (forms.split_transform_merge, forms.early_concatenation):
            np.testing.assert_allclose(form(block, features), outputs, rtol=0, atol=1e-12)

    def test_split_paths_are_those_of_the_block(self):
        block, features = forms.random_block(4, 24, filters=16)
        before = forms.split_transform_merge(block, features)
        layer = block.get_layer("block_2_conv")
        kernel = np.asarray(layer.kernel)
        layer.kernel.assign(np.roll(kernel, kernel.shape[-1] // 4, axis=-1))  # to the next path
        assert np.abs(np.asarray(block(features)) - before).max() > 1e-2
        np.testing.assert_allclose(
            forms.split_transform_merge(block, features), np.asarray(block(features)), atol=1e-12
        )

    def test_agree_with_numpy(self):
        block, features = forms.random_block(2, 32, filters=4)
        hidden, (w1, w2, w3) = (
            features,
            (np.asarray(block.get_layer(f"block_{index}_conv").kernel) for index in (1, 2, 3)),
        )

        def normalized(x, index):
            layer = block.get_layer(f"block_{index}_bn")
            gamma, beta, mean, variance = map(np.asarray, layer.weights)
            return gamma * (x - mean) / np.sqrt(variance + layer.epsilon) + beta

        hidden = np.maximum(normalized(hidden @ w1[0, 0], 1), 0)
        padded = np.pad(hidden, ((0, 0), (1, 1), (1, 1), (0, 0)))
        half, sums = w2.shape[-1] // 2, 0
        for row, column in np.ndindex(3, 3):
            part, kernel = padded[:, row : row + 8, column : column + 8], w2[row, column]
            sums = sums + np.concatenate(
                [part[..., :half] @ kernel[:, :half], part[..., half:] @ kernel[:, half:]], -1
            )
        hidden = np.maximum(normalized(sums, 2), 0)
        expected = np.maximum(normalized(hidden @ w3[0, 0], 3) + features, 0)
        np.testing.assert_allclose(
            forms.split_transform_merge(block, features), expected, rtol=0, atol=1e-12
        )

    def test_leave_the_precision_as_it_was(self):
        former = keras.config.dtype_policy().name
        forms.random_block(2, 32, filters=4)
        assert keras.config.dtype_policy().name == former


class TestPage:
    def test_says_what_is_within_the_spread(self, tmp_path):
        page, record = page_of(tmp_path, "cardinality", ALIKE)
        assert "Between 1x64d, which has the lowest test error here (50.5%), and 2x40d" in page
        assert "this run does not rank the pairs" in page
        assert "every step of cardinality" not in page
        assert "the same up to rounding: the largest difference is 2 " in page
        assert "10⁻¹⁶ of the largest output" in page
        assert record.values["test_error_between"] == pytest.approx(0.004)

    def test_says_what_is_clear(self, tmp_path):
        page, _ = page_of(tmp_path, "cardinality", APART)
        assert "difference is 40.00 percentage points. That is more than the spread" in page
        assert "does not rank" not in page
        assert (
            "and falls with every step of cardinality. The difference between these two is" in page
        )
        assert "1x64d rises from 23.9% to 31.2%, and that of ResNeXt-50 32x4d rises" in page

    def test_does_not_call_equal_what_differs(self, tmp_path):
        results = {**APART, "forms": {"split": [1e-16] * 5, "concatenated": [0.1] * 5}}
        page, _ = page_of(tmp_path, "cardinality", results)
        assert "give something else: the largest difference is 0.1 of" in page

    def test_of_one_seed_does_not_rank(self, tmp_path):
        page, _ = page_of(tmp_path, "cardinality", APART, seeds=1)
        assert "With one seed, it cannot be said" in page

    def test_in_chinese_says_the_same(self, tmp_path):
        page, _ = page_of(tmp_path, "cardinality", ALIKE, ".zh")
        assert "不能给出排名" in page
        assert "在舍入误差之内完全相同" in page
        page, _ = page_of(tmp_path, "cardinality", APART, ".zh")
        assert "这超出了" in page


@pytest.fixture(scope="module")
def tables():
    settings = cardinality.CardinalitySettings(epochs=2)
    return cardinality.EXPERIMENT.report(settings, ALIKE).tables


class TestSizes:
    def test_of_models_for_imagenet_are_the_known_ones(self, tables):
        found = {row[0]: row[1:] for row in tables["larger"].rows}
        # Parameters as torchvision counts them, billions of multiply-adds as the authors do.
        assert found["ResNet-101 1x64d"][0] == 44_549_160
        assert found["ResNeXt-101 64x4d"][0] == 83_455_272
        assert found["ResNet-101 1x64d"][1] == pytest.approx(7.8e9, rel=0.02)
        assert found["ResNeXt-101 64x4d"][1] == pytest.approx(15.6e9, rel=0.02)
        assert all(1.9 < row[3] < 2 for row in tables["larger"].rows[2:])
        (first, *_, last) = tables["published"].rows
        assert (first[2], last[2]) == (25_557_032, 25_028_904)
        assert first[3:] == pytest.approx([4.1e9, 0.239, 0.22], rel=0.02)
        assert last[3:] == pytest.approx([4.2e9, 0.222, 0.212], rel=0.02)

    @pytest.mark.slow
    def test_of_ours_are_those_of_the_built_model(self, tables, tmp_path):
        settings = cardinality.EXPERIMENT.chosen(dict(epochs=1, images=32, test_images=16))
        source = settings.images_of(data.load("digits"))
        (trial,) = [
            each for each in cardinality.EXPERIMENT.trials(settings) if each.name == "32x4d-0"
        ]
        found = trial.work(Context(source, tmp_path))
        row = next(row for row in tables["errors"].rows if row[0] == "32x4d")
        # Those of the stem are for three channels here, and for one there.
        assert row[1] == found["parameters"] + 2 * 9 * settings.width


@pytest.mark.slow
def test_runs(tmp_path):
    record = experiments.run(
        "cardinality",
        tmp_path,
        data.load("digits"),
        epochs=3,
        images=320,
        test_images=200,
        cardinalities=("1x64d", "32x4d"),
    )
    assert record.values["forms_difference"] < 1e-12
    assert (tmp_path / "report.zh.html").exists()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (dict(cardinalities=("1x64d",)), ["cardinalities=('1x64d',)", "at least two different"]),
        (dict(cardinalities=("1x64d", "3x3d")), ["'3x3d'", "'32x4d'"]),
        (dict(width=48), ["width=48", "8x14d", "multiple of 32"]),
        (dict(width=0), ["width=0"]),
        (dict(block_counts=(1, 0)), ["block_counts=0"]),
        (dict(block_counts=3), ["block_counts=3"]),
    ],
    ids=str,
)
def test_wrong_settings_are_named(changes, parts):
    with one_line_error(*parts):
        cardinality.EXPERIMENT.chosen(changes)


def test_full_is_the_schedule_of_the_authors():
    settings = cardinality.EXPERIMENT.chosen({}, full=True)
    assert (settings.epochs, settings.batch_size, settings.weight_decay) == (300, 128, 5e-4)
    assert settings.architecture("8x14d").block_counts == (3, 3, 3)
