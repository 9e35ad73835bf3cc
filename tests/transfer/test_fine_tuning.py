import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from errors import one_line_error
from nets import QUICK, changed, nested_net, small_net, snapshot, three_layers

from keras_resnet import data, training, transfer

PLAN = [
    transfer.Stage("head", dataclasses.replace(QUICK, epochs=3), views=2),
    transfer.Stage("conv4", QUICK),
    transfer.Stage("all", dataclasses.replace(QUICK, rates={"conv1": 0.1})),
]


class InterruptionError(Exception):
    pass


class InterruptAfter(keras.callbacks.Callback):
    """Ends a run as an interruption would, after so many epochs of all stages."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        if self.epochs == 0:
            raise InterruptionError
        self.epochs -= 1


@pytest.fixture(scope="module")
def uninterrupted(digits):
    """A model after all of PLAN, and the result."""
    model = small_net()
    return model, transfer.fine_tune(model, digits, PLAN, verbose=0)


class TestFineTune:
    def test_goes_through_its_stages(self, uninterrupted):
        model, result = uninterrupted
        assert result.stages == {"head": 3, "conv4": 2, "all": 2}
        losses = result.history["val_loss"]
        assert len(losses) == 7
        assert result.best_epoch == 1 + int(np.argmin(losses))
        assert all(layer.trainable for layer in model.layers)

    def test_keeps_the_best_weights_of_all_stages(self, digits):
        model = small_net()
        ruin = dataclasses.replace(QUICK, epochs=1, learning_rate=50.0, warm_up=0.0)
        plan = [*PLAN[:1], transfer.Stage("conv4", ruin, normalization=True)]
        result = transfer.fine_tune(model, digits, plan, verbose=0)
        assert result.best_epoch <= 3
        model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        validation = data.batches(digits.validation, image_size=8, channels=1)
        loss, _ = model.evaluate(validation, verbose=0)
        assert loss == pytest.approx(min(result.history["val_loss"]), rel=1e-3)

    @pytest.mark.parametrize(
        "epochs",
        [
            pytest.param(0, marks=pytest.mark.slow),
            2,  # the last one of its stage
            3,
            pytest.param(6, marks=pytest.mark.slow),
        ],
    )
    def test_an_interrupted_run_goes_on_as_it_would_have_gone(
        self, digits, uninterrupted, tmp_path, epochs
    ):
        _, expected = uninterrupted
        options = dict(checkpoints=tmp_path, verbose=0)
        with pytest.raises(InterruptionError):
            transfer.fine_tune(
                small_net(), digits, PLAN, callbacks=[InterruptAfter(epochs)], **options
            )
        count = InterruptAfter(100)
        result = transfer.fine_tune(small_net(), digits, PLAN, callbacks=[count], **options)
        assert 100 - count.epochs == 7 - epochs  # none is repeated
        np.testing.assert_allclose(
            result.history["val_loss"], expected.history["val_loss"], rtol=0.02
        )

    def test_another_run_in_the_same_folder_is_refused(self, digits, tmp_path):
        with pytest.raises(InterruptionError):
            transfer.fine_tune(
                small_net(), digits, PLAN, checkpoints=tmp_path, callbacks=[InterruptAfter(1)]
            )
        with one_line_error("interrupted run with other settings", "seed was 0, is 1"):
            transfer.fine_tune(small_net(), digits, PLAN, checkpoints=tmp_path, seed=1)

    def test_features_of_another_run_are_not_taken_for_these(self, digits, tmp_path):
        plan, options = PLAN[:1], dict(checkpoints=tmp_path, verbose=0)
        expected = transfer.fine_tune(small_net(), digits, plan, crop=1.0, **options)
        with one_line_error("interrupted run with other settings", "crop was 1.0, is 0.5"):
            transfer.fine_tune(small_net(), digits, plan, crop=0.5, **options)
        # Killed between the features and the first checkpoint:
        shutil.rmtree(tmp_path / "1-head")
        folder = tmp_path / "1-head"
        folder.mkdir()
        np.savez(folder / "features.npz", "other settings", *[np.zeros(1)] * 4)
        result = transfer.fine_tune(small_net(), digits, plan, crop=1.0, **options)
        np.testing.assert_allclose(
            result.history["val_loss"], expected.history["val_loss"], rtol=0.02
        )

    @pytest.mark.parametrize("views", [0, 1])
    def test_a_model_that_was_frozen_learns(self, digits, views):
        model = small_net()
        model.trainable = False
        before = snapshot(model)
        plan = [transfer.Stage("head", dataclasses.replace(QUICK, epochs=1), views=views)]
        transfer.fine_tune(model, digits, plan, verbose=0)
        assert changed(before, snapshot(model)) == {"predictions"}

    def test_a_model_within_the_model_is_tuned(self, digits):
        model = nested_net()
        before = snapshot(model)
        plan = [
            dataclasses.replace(stage, recipe=QUICK, views=0) for stage in transfer.stages()[:2]
        ]
        result = transfer.fine_tune(model, digits, plan, verbose=0)
        assert list(result.stages) == ["head", "conv4"]
        assert {name[:5] for name in changed(before, snapshot(model))} == {"conv4", "predi"}

    def test_after_a_failure_all_layers_may_learn(self, digits):
        model = small_net()
        with pytest.raises(InterruptionError):
            transfer.fine_tune(model, digits, PLAN[1:], callbacks=[InterruptAfter(0)], verbose=0)
        assert all(layer.trainable for layer in model.layers)

    def test_refuses_no_stages(self, digits):
        with one_line_error("plan=[]"):
            transfer.fine_tune(small_net(), digits, [])

    def test_refuses_a_stage_that_the_model_lacks(self, digits):
        with one_line_error("back_to='conv5'", "conv4"):
            transfer.fine_tune(small_net(), digits, [transfer.Stage("conv5", QUICK)])

    @pytest.mark.parametrize("views", [0, 1])
    def test_the_head_of_a_classifier_in_a_model_is_all_that_learns(self, digits, views):
        inner = nested_net(three_layers())
        model = keras.Sequential([keras.Input((8, 8, 1)), inner])
        before = snapshot(model)
        plan = [transfer.Stage("head", dataclasses.replace(QUICK, epochs=1), views=views)]
        result = transfer.fine_tune(model, digits, plan, verbose=0)
        assert changed(before, snapshot(model)) == {"hidden", "hidden_norm", "classes"}
        model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        validation = data.batches(digits.validation, image_size=8, channels=1)
        loss, _ = model.evaluate(validation, verbose=0)
        assert loss == pytest.approx(result.history["val_loss"][0], rel=1e-3)

    def test_takes_its_options_as_one(self, digits):
        execution = training.Execution(seed=3, verbose=0, crop=0.9)
        plan = [transfer.Stage("head", dataclasses.replace(QUICK, epochs=1), views=1)]
        one = transfer.fine_tune(small_net(), digits, plan, execution=execution)
        each = transfer.fine_tune(small_net(), digits, plan, seed=3, verbose=0, crop=0.9)
        np.testing.assert_allclose(each.history["loss"], one.history["loss"], rtol=1e-3)
        with one_line_error("seed=1 cannot be combined with execution"):
            transfer.fine_tune(small_net(), digits, plan, execution=execution, seed=1)


@pytest.mark.slow
class TestKilled:
    """The command line, killed with SIGKILL and started again."""

    def command(self, photographs, weights, output):
        return [
            *(sys.executable, "-m", "keras_resnet.cli", "train", "--data", photographs),
            *("--model", "cifar_resnet8", "--weights", weights, "--image-size", "16"),
            *("--epochs", "6", "--output", output, "--json"),
        ]

    def test_goes_on_and_repeats_no_epoch(self, tmp_path, digits):
        import PIL.Image

        photographs = tmp_path / "digits"
        for label in (0, 1):
            (photographs / f"{label}").mkdir(parents=True)
            images = digits.train.images[digits.train.labels == label][:60]
            for index, image in enumerate(images):
                pixels = np.repeat(image, 3, axis=-1).repeat(2, axis=0).repeat(2, axis=1)
                PIL.Image.fromarray(pixels).save(photographs / f"{label}" / f"{index}.png")
        weights = tmp_path / "net.weights.h5"
        small_net(input_shape=(16, 16, 3)).save_weights(weights)

        whole = subprocess.run(
            self.command(photographs, weights, tmp_path / "whole"), capture_output=True, text=True
        )
        assert whole.returncode == 0, whole.stderr
        command = self.command(photographs, weights, tmp_path / "killed")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        folder = tmp_path / "killed" / "checkpoints"
        patience = time.monotonic() + 300
        while not list(folder.glob("2-conv4/after-2")) and time.monotonic() < patience:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert list(folder.glob("2-conv4/after-*")), "it was not interrupted half-way"
        done = [
            json.loads((folder / "2-conv4" / name / "progress.json").read_text())
            for name in os.listdir(folder / "2-conv4")
            if name.startswith("after-")
        ]
        finished = max(len(each["history"]["loss"]) for each in done)

        other = subprocess.run(
            [*command, "--precision", "bfloat16"], capture_output=True, text=True
        )
        assert other.returncode == 2
        assert "precision was 'float32', is 'bfloat16'" in other.stderr
        again = subprocess.run(command, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
        lines = [line for line in again.stderr.splitlines() if line.startswith("Epoch ")]
        metrics = [json.loads(run.stdout) for run in (whole, again)]
        total = sum(metrics[0]["stages"].values())
        assert len(lines) == total - metrics[0]["stages"]["head"] - finished
        assert metrics[0]["stages"] == metrics[1]["stages"]
        assert metrics[1]["test_accuracy"] == pytest.approx(metrics[0]["test_accuracy"], abs=0.003)
        assert not folder.exists()
