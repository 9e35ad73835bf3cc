"""What training chooses by default, and what an interrupted run keeps when it continues."""

import dataclasses
import json
import logging
import types

import pytest
from errors import one_line_error

from keras_resnet import data, machine, runs, transfer
from keras_resnet.runs.kinds import kind_of
from keras_resnet.runs.training import as_train, settled
from keras_resnet.training.checkpoints import bind, interrupted

TUNED = {"weights": "imagenet_caffe", "model": "ResNet50"}


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture
def photographs(digits):
    """Data that is shown as photographs are."""
    return dataclasses.replace(digits, image_size=224, augmentation="photograph")


@pytest.fixture
def fast(monkeypatch):
    """A machine that is fast in bfloat16, where TensorFlow uses oneDNN."""
    monkeypatch.setenv(machine.OVERRIDE, "bfloat16")
    monkeypatch.setenv(machine.ONEDNN, "1")


def choice(images, former=None, **options):
    return settled(as_train(options), images, former)


@pytest.mark.usefixtures("fast")
class TestPrecision:
    def test_is_the_machines_and_told_in_a_line(self, digits, caplog):
        with caplog.at_level(logging.INFO, "keras_resnet"):
            assert choice(digits).precision == "bfloat16"
        (line,) = caplog.messages
        assert line.startswith("Computing in bfloat16, as ")
        assert "(--precision float32) overrides this." in line

    def test_that_is_given_counts(self, digits, caplog):
        with caplog.at_level(logging.INFO, "keras_resnet"):
            assert choice(digits, precision="float32").precision == "float32"
        assert not caplog.messages

    def test_of_an_interrupted_run_stays(self, digits, caplog):
        for former in ({"precision": "float32"}, {"precision": "float32", "chosen": {}}):
            with caplog.at_level(logging.INFO, "keras_resnet"):
                assert choice(digits, former).precision == "float32"
        assert not caplog.messages

    def test_is_that_of_the_model(self, tmp_path):
        options = {"model": "CIFARResNet8", "epochs": 1, "image_size": 8}
        record = runs.train("digits", tmp_path, **options)
        assert record.model.get_layer("conv2_block1_1_conv").compute_dtype == "bfloat16"

    def test_unknown_is_refused(self, digits):
        with one_line_error("precision 'float8' is not known"):
            choice(digits, precision="float8")


class TestOneDNN:
    """Older CPUs train faster with it, but TensorFlow leaves it off there."""

    @pytest.fixture(autouse=True)
    def old_cpu(self, fast, monkeypatch):
        monkeypatch.setattr(machine, "cpu", lambda: machine.CPU("Old", 2, frozenset({"avx2"})))
        monkeypatch.delenv(machine.ONEDNN)

    def test_is_recommended(self, digits, caplog):
        with caplog.at_level(logging.INFO, "keras_resnet"):
            choice(digits, precision="float32")
        (line,) = caplog.messages
        assert "TF_ENABLE_ONEDNN_OPTS=1 in the environment makes training faster" in line

    def test_is_not_recommended_for_boxes_or_to_those_who_have_chosen(
        self, digits, caplog, monkeypatch
    ):
        with caplog.at_level(logging.INFO, "keras_resnet"):
            choice(types.SimpleNamespace(task="detection"), precision="float32")
            monkeypatch.setenv(machine.ONEDNN, "0")
            choice(digits, precision="float32")
        assert not caplog.messages


class TestView:
    def test_of_photographs_is_what_weights_are_most_accurate_at(self, photographs):
        found = choice(photographs, **TUNED).execution
        assert (found.image_size, found.crop) == (288, 1.0)
        assert transfer.view_for(photographs, *TUNED.values()) == {"image_size": 288, "crop": 1.0}

    @pytest.mark.parametrize(
        "options", [{}, {**TUNED, "recipe": "modern"}], ids=["from scratch", "all at once"]
    )
    def test_of_other_trainings_is_the_datas(self, photographs, options):
        found = choice(photographs, **options)
        assert (found.execution.image_size, found.execution.crop) == (None, None)
        assert found.chosen == {}

    def test_that_is_given_counts(self, photographs):
        found = choice(photographs, **TUNED, image_size=160)
        assert (found.execution.image_size, found.execution.crop) == (160, 1.0)
        found = choice(photographs, **TUNED, image_size=160, crop=0.9)
        assert (found.execution.image_size, found.execution.crop) == (160, 0.9)

    def test_of_an_interrupted_run_stays(self, photographs):
        former = {"precision": "float32", "chosen": {"image_size": 256, "crop": 0.95}}
        found = choice(photographs, former, **TUNED)
        assert (found.execution.image_size, found.execution.crop) == (256, 0.95)


class TestRunOfAnEarlierVersion:
    def test_goes_on_at_the_size_and_for_the_epochs_that_were_its_defaults(self, photographs):
        found = choice(photographs, {"precision": "float32"}, **TUNED)
        assert (found.execution.image_size, found.execution.crop) == (None, None)
        plan, _ = kind_of(photographs).planned(found.order)
        assert [stage.recipe.epochs for stage in plan] == [20, 4, 2]
        assert not any(stage.optional or stage.patience for stage in plan)
        assert "chosen" not in found.settings()

    def test_new_ones_are_thrifty(self, photographs):
        plan, _ = kind_of(photographs).planned(choice(photographs, **TUNED).order)
        assert [stage.optional for stage in plan] == [False, True, True]

    def test_its_settings_fit(self, photographs, tmp_path):
        """As `learn` compares them: repeating a run gives the same settings."""
        for former in (None, {"precision": "float32"}):
            asked = choice(photographs, former, **TUNED)
            bind(tmp_path, asked.settings())
            (tmp_path / "1-head" / "after-1").mkdir(parents=True, exist_ok=True)
            again = choice(photographs, interrupted(tmp_path), **TUNED)
            bind(tmp_path, again.settings())
            assert again == dataclasses.replace(asked, strategy=again.strategy)
            other = choice(photographs, interrupted(tmp_path), **TUNED, image_size=96)
            if former is None:
                with one_line_error("interrupted run with other settings", "chosen was"):
                    bind(tmp_path, other.settings())
            settings = json.loads((tmp_path / "settings.json").read_text())
            settings.pop("chosen", None)
            (tmp_path / "settings.json").write_text(json.dumps(settings))
