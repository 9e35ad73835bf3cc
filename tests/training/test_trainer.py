import csv
import dataclasses
import inspect
import json
import os
import signal
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import small
import tensorflow as tf
from errors import one_line_error

import keras_resnet
from keras_resnet import data, training, transfer
from keras_resnet.files import locked
from keras_resnet.training.run import Termination

RECIPE = training.Recipe(epochs=3, batch_size=32, learning_rate=0.8)
QUIETLY = dict(image_size=8, verbose=0)


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


class At(keras.callbacks.Callback):
    """Does something before a step, both counted from 1."""

    def __init__(self, epoch, step, action):
        super().__init__()
        self.moment, self.action, self.epoch = (epoch, step), action, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch + 1) == self.moment:
            self.action(self.model)


class Steps(keras.callbacks.Callback):
    """Steps that were taken: their epochs and numbers, from 1."""

    def __init__(self):
        super().__init__()
        self.taken, self.epoch = [], 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        self.taken.append((self.epoch, batch + 1))


def poison(model):
    kernel = model.get_layer("predictions").kernel
    kernel.assign(kernel * np.nan)


def interrupt(_):
    raise InterruptedError


def of(digits, images):
    """Fewer of them."""
    return dataclasses.replace(digits, train=digits.train.take(np.arange(images)))


@pytest.fixture(scope="module")
def trained(digits):
    model = small.model(filters=small.LEARNS)
    return model, training.train(model, digits, RECIPE, **QUIETLY)


class TestTrain:
    def test_learns(self, trained):
        _, result = trained
        assert result.history["loss"][-1] < 0.7 * result.history["loss"][0]
        assert result.seconds > 0
        assert result.images_per_second > 0

    def test_leaves_the_best_weights(self, trained, digits):
        model, result = trained
        losses = result.history["val_loss"]
        assert result.best_epoch == 1 + int(np.argmin(losses))
        validation = data.batches(digits.validation, image_size=8, channels=1, batch_size=64)
        loss, _ = model.evaluate(validation, verbose=0)
        assert loss == pytest.approx(min(losses), rel=1e-4)

    @pytest.mark.parametrize("steps_at_once", [1, 7])
    def test_repeats_with_the_seed_however_many_steps_it_takes_at_once(
        self, trained, digits, steps_at_once
    ):
        _, expected = trained
        result = training.train(
            small.model(filters=small.LEARNS),
            digits,
            RECIPE,
            steps_per_execution=steps_at_once,
            **QUIETLY,
        )
        np.testing.assert_allclose(result.history["loss"], expected.history["loss"], rtol=1e-2)

    def test_history_is_saved_with_one_line_per_epoch(self, trained, tmp_path):
        _, result = trained
        result.save(tmp_path / "history.csv")
        with (tmp_path / "history.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["epoch"] for row in rows] == ["1", "2", "3"]
        assert [float(row["val_loss"]) for row in rows] == result.history["val_loss"]

    def test_options_are_given_together_or_one_by_one(self, trained, digits):
        _, expected = trained
        execution = training.Execution(**QUIETLY)
        model = small.model(filters=small.LEARNS)
        result = training.train(model, digits, RECIPE, execution=execution)
        np.testing.assert_allclose(result.history["loss"], expected.history["loss"], rtol=1e-2)
        with one_line_error("seed=1 cannot be combined with execution: set it there"):
            training.train(small.model(), digits, execution=execution, seed=1)
        with pytest.raises(TypeError, match="unexpected keyword argument 'sede'"):
            training.train(small.model(), digits, sede=1)

    def test_refuses_a_model_of_other_classes(self, digits):
        with one_line_error("has 4 outputs, digits has 10 classes"):
            training.train(small.model(4), digits)

    def test_refuses_a_model_without_probabilities(self, digits):
        with one_line_error("build it with classifier_activation='softmax'"):
            training.train(small.model(activation=None), digits)

    def test_refuses_a_model_that_does_not_normalize_raw_images(self, digits):
        """It would learn from raw images, and be served normalized ones."""
        model = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 1))
        with one_line_error("takes images that are normalized as", "include_preprocessing=True"):
            training.train(model, digits)
        backbone = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 1), include_top=False)
        with one_line_error("takes images that are normalized as", "include_preprocessing=True"):
            transfer.fine_tune(transfer.classifier(backbone, 10), digits)

    def test_refuses_a_model_with_nothing_to_train(self, digits):
        model = small.model()
        model.trainable = False
        with one_line_error("small has nothing to train: all of its layers are frozen"):
            training.train(keras.Model(model.input, model.output, name="small"), digits)

    def test_trains_at_the_size_of_the_model(self, digits):
        recipe = training.Recipe(epochs=1, batch_size=512)
        assert training.train(small.model(), digits, recipe, verbose=0).best_epoch == 1

    def test_takes_recipes_and_strategies_by_name(self, digits):
        result = training.train(
            small.model(), digits, "paper", "auto", callbacks=[Stop()], **QUIETLY
        )
        assert len(result.history["loss"]) == 1

    def test_shows_one_line_per_epoch(self, digits, capsys):
        recipe = training.Recipe(epochs=2, batch_size=256)
        training.train(small.model(), digits, recipe, image_size=8, verbose=2)
        first, second = capsys.readouterr().out.splitlines()
        assert first.startswith("Epoch 1/2: loss ")
        assert ", accuracy 0." in first
        assert second.endswith(" images/s")


class TestDivergence:
    def test_names_the_step_and_the_last_good_checkpoint(self, digits, tmp_path):
        recipe = training.Recipe(epochs=2, batch_size=50)
        options = dict(checkpoints=tmp_path, callbacks=[At(2, 5, poison)], **QUIETLY)
        with pytest.raises(training.DivergedError, match="Use a lower learning rate") as caught:
            training.train(small.model(), digits, recipe, **options)
        assert "the loss became NaN or infinite at step 5 of epoch 2" in str(caught.value)
        assert f"The last good checkpoint is {str(tmp_path / 'after-1')!r}" in str(caught.value)

    def test_keeps_no_state_whose_weights_are_lost(self, digits, tmp_path):
        class Poison(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                poison(self.model)

        options = dict(checkpoints=tmp_path, save_every=1, callbacks=[Poison()], **QUIETLY)
        with pytest.raises(ValueError, match="No checkpoint was saved here"):
            training.train(small.model(), digits, **options)
        assert not list(tmp_path.glob("after-*"))

    @pytest.mark.parametrize("kept", [False, True])
    def test_is_noticed_in_validation(self, digits, tmp_path, kept):
        recipe = training.Recipe(epochs=1, learning_rate=1e38, warm_up=0.0)
        options = dict(checkpoints=tmp_path if kept else None, **QUIETLY)
        with pytest.raises(ValueError, match="NaN or infinite at step 1 of epoch 1"):
            training.train(small.model(), of(digits, 64), recipe, **options)


class TestResumption:
    def test_a_run_that_a_callback_has_ended_is_over(self, digits, tmp_path):
        options = dict(checkpoints=tmp_path, callbacks=[Stop()], **QUIETLY)
        recipe = training.Recipe(epochs=4, batch_size=512)
        for _ in range(2):
            result = training.train(small.model(), digits, recipe, **options)
            assert len(result.history["loss"]) == 1

    def test_is_refused_for_another_model(self, digits, tmp_path):
        options = dict(checkpoints=tmp_path, **QUIETLY)
        recipe = training.Recipe(epochs=1, batch_size=512)
        nets = (
            keras_resnet.CIFARResNet(
                8, shortcut=shortcut, input_shape=(8, 8, 1), include_preprocessing=True
            )
            for shortcut in ("A", None)
        )
        training.train(next(nets), digits, recipe, **options)
        with one_line_error("holds an interrupted run with other settings: layers was"):
            training.train(next(nets), digits, recipe, **options)

    def test_is_refused_in_another_precision(self, digits, tmp_path):
        options = dict(checkpoints=tmp_path, **QUIETLY)
        recipe = training.Recipe(epochs=1, batch_size=512)
        training.train(small.model(), digits, recipe, **options)
        with one_line_error("precision was 'float32', is 'bfloat16, float32'"):
            training.train(small.model(dtype="mixed_bfloat16"), digits, recipe, **options)

    # The state in float16 is that of the others, and a scale of the loss.
    @pytest.mark.parametrize(
        "dtype",
        [
            pytest.param("float32", marks=pytest.mark.slow),
            pytest.param("mixed_bfloat16", marks=pytest.mark.slow),
            "mixed_float16",
        ],
    )
    def test_works_in_every_precision(self, digits, tmp_path, dtype):
        few, recipe = of(digits, 128), training.Recipe(epochs=2, ema=0.9)
        expected = training.train(small.model(dtype=dtype), few, recipe, **QUIETLY)
        options = dict(checkpoints=tmp_path, **QUIETLY)
        with pytest.raises(InterruptedError):
            training.train(
                small.model(dtype=dtype), few, recipe, callbacks=[At(2, 1, interrupt)], **options
            )
        steps = Steps()
        result = training.train(small.model(dtype=dtype), few, recipe, callbacks=[steps], **options)
        assert steps.taken == [(2, 1), (2, 2)]
        for name, values in expected.history.items():
            np.testing.assert_allclose(result.history[name], values, rtol=1e-3)

    def test_is_within_the_epoch_that_was_interrupted(self, trained, digits, tmp_path):
        """SIGTERM is noticed after the step, and the state is saved; nothing is done twice."""
        _, expected = trained
        options = dict(checkpoints=tmp_path, save_every=4, **QUIETLY)
        callbacks, steps = [At(2, 6, lambda _: os.kill(os.getpid(), signal.SIGTERM))], Steps()
        with pytest.raises(training.Interrupted) as caught:
            training.train(
                small.model(filters=small.LEARNS), digits, RECIPE, callbacks=callbacks, **options
            )
        assert caught.value.code == 0
        message = "the state after step 6 of 10 in epoch 2 is saved. The same command continues"
        assert message in str(caught.value)
        model = small.model(filters=small.LEARNS)
        result = training.train(model, digits, RECIPE, callbacks=[steps], **options)
        assert steps.taken[0] == (2, 7)
        assert len(steps.taken) == 14
        for name, values in expected.history.items():
            np.testing.assert_allclose(result.history[name], values, rtol=1e-2)

    def test_may_have_fewer_steps_per_epoch(self, digits, tmp_path):
        few, recipe = of(digits, 100), training.Recipe(epochs=2)
        options = dict(checkpoints=tmp_path, **QUIETLY)
        training.train(small.model(), few, recipe, **options)
        progress = max(tmp_path.glob("after-*")) / "progress.json"
        content = json.loads(progress.read_text())
        progress.write_text(
            json.dumps({**content, "epoch": 1, "step": 3, "totals": [3.0, 1.0, 3.0]})
        )
        steps = Steps()
        result = training.train(small.model(), few, recipe, callbacks=[steps], **options)
        assert not steps.taken  # only the validation was left
        assert len(result.history["loss"]) == 3


def test_without_validation_the_last_epoch_is_kept(digits):
    few = dataclasses.replace(of(digits, 64), validation=digits.validation.take(np.arange(0)))
    result = training.train(small.model(), few, training.Recipe(epochs=2), **QUIETLY)
    assert result.best_epoch == 2
    assert not any(name.startswith("val_") for name in result.history)


@pytest.mark.usefixtures("signals")
class TestStopping:
    @pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGHUP", 0)])
    def test_a_signal_saves_the_state(self, digits, tmp_path, name, code):
        few, recipe = of(digits, 64), training.Recipe(epochs=1, batch_size=32)
        callbacks = [At(1, 1, lambda _: os.kill(os.getpid(), getattr(signal, name)))]
        options = dict(checkpoints=tmp_path, **QUIETLY)
        former = signal.getsignal(getattr(signal, name))
        with pytest.raises(training.Interrupted, match="after step 1 of 2") as caught:
            training.train(small.model(), few, recipe, callbacks=callbacks, **options)
        assert caught.value.code == code
        assert signal.getsignal(getattr(signal, name)) == former
        steps = Steps()
        training.train(small.model(), few, recipe, callbacks=[steps], **options)
        assert steps.taken == [(1, 2)]

    def test_a_second_ctrl_c_is_obeyed(self, caplog):
        with Termination(active=True) as termination:
            os.kill(os.getpid(), signal.SIGINT)
            assert termination.requested
            assert "Press Ctrl-C again" in caplog.text
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)

    def test_what_is_ignored_stays_ignored(self, monkeypatch):
        """As `nohup` has it."""
        former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with Termination(active=True) as termination:
                os.kill(os.getpid(), signal.SIGHUP)
            assert not termination.requested
        finally:
            signal.signal(signal.SIGHUP, former)

    def test_without_checkpoints_ctrl_c_is_pythons(self, digits):
        callbacks = [At(1, 1, lambda _: os.kill(os.getpid(), signal.SIGINT))]
        with pytest.raises(KeyboardInterrupt):
            training.train(small.model(), of(digits, 32), callbacks=callbacks, **QUIETLY)


class TestChoosing:
    @pytest.mark.parametrize("changes", [{"label_smoothing": 0.5}, {"mixup": 0.4}])
    def test_validation_is_of_plain_labels(self, digits, changes):
        """However a model was trained, its validation loss can be compared with others'."""
        recipe, model = training.Recipe(epochs=1, **changes), small.model()
        result = training.train(model, of(digits, 64), recipe, **QUIETLY)
        validation = data.batches(digits.validation, image_size=8, channels=1, batch_size=64)
        loss, _ = model.evaluate(validation, verbose=0)
        assert result.history["val_loss"] == [pytest.approx(loss, rel=1e-4)]

    def test_what_an_earlier_version_began_is_measured_as_it_did(self, digits, tmp_path):
        recipe = training.Recipe(epochs=4, batch_size=32, label_smoothing=0.5, learning_rate=0.8)
        options = dict(checkpoints=tmp_path, **QUIETLY)
        for epoch in (3, 4):
            callbacks = [At(epoch, 1, interrupt)]
            with pytest.raises(InterruptedError):
                training.train(small.model(), digits, recipe, callbacks=callbacks, **options)
            progress = max(tmp_path.glob("after-*")) / "progress.json"
            content = json.loads(progress.read_text())
            if epoch == 3:
                assert content.pop("smoothed") is False
                content["history"]["val_loss"] = [9.0, 9.0]
                progress.write_text(json.dumps(content))
            assert content.get("smoothed", True)
        model = small.model()
        result = training.train(model, digits, recipe, **options)
        assert result.smoothed
        assert result.best_epoch > 2
        labels = keras.utils.to_categorical(digits.validation.labels, 10)
        outputs = model.predict(digits.validation.images.astype("float32"), verbose=0)
        plain, smooth = (
            float(keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)(labels, outputs))
            for smoothing in (0.0, 0.5)
        )
        assert plain != pytest.approx(smooth, rel=0.01)
        assert min(result.history["val_loss"]) == pytest.approx(smooth, rel=1e-4)

    def test_the_model_can_go_on_learning(self, digits, tmp_path):
        few, recipe = of(digits, 64), training.Recipe(epochs=1, batch_size=64, learning_rate=0.4)
        for strategy in (None, tf.distribute.MirroredStrategy(["CPU:0"])):
            model = small.model()
            training.train(model, few, recipe, strategy, **QUIETLY)
            model.save(tmp_path / "model.keras")
            again = keras.models.load_model(tmp_path / "model.keras")
            assert float(again.optimizer.learning_rate) == pytest.approx(0.1)
            images, labels = few.train.images.astype("float32"), few.train.labels
            before = again.evaluate(images, labels, verbose=0)[0]
            again.fit(images, labels, epochs=3, verbose=0)
            assert again.evaluate(images, labels, verbose=0)[0] < before


class TestLock:
    def test_a_folder_is_for_one_run_at_a_time(self, digits, tmp_path):
        with locked(tmp_path / "run"), one_line_error("run' is in use: another process"):
            training.train(small.model(), digits, checkpoints=tmp_path / "run", **QUIETLY)
        assert not (tmp_path / "run").exists()


class TestDevices:
    def test_a_strategy_of_one_device_is_one(self, digits):
        few, recipe = of(digits, 64), training.Recipe(epochs=1)
        expected = training.train(small.model(), few, recipe, **QUIETLY).history
        for strategy in (
            tf.distribute.MirroredStrategy(["CPU:0"]),
            tf.distribute.OneDeviceStrategy("CPU:0"),
        ):
            history = training.train(small.model(), few, recipe, strategy, **QUIETLY).history
            np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-5)

    def test_float16_is_scaled_whatever_the_policy_is_now(self, digits):
        model, few = small.model(dtype="mixed_float16"), digits.train.take(np.arange(20))
        source = dataclasses.replace(digits, train=few, validation=few)
        for strategy in (None, tf.distribute.OneDeviceStrategy("CPU:0")):
            training.train(model, source, training.Recipe(epochs=1), strategy, **QUIETLY)
            assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)

    def test_several_machines_are_chosen_before_the_model(self, digits):
        with one_line_error("make it with `training.strategy('multiworker')` before the model"):
            training.train(small.model(), digits, strategy="multiworker")

    def test_a_batch_must_be_divisible(self, digits):
        strategy = SimpleNamespace(num_replicas_in_sync=4)
        recipe = training.Recipe(batch_size=6, accumulation=3)
        with one_line_error("batch_size=6 cannot be divided among 4 devices in 3 parts each: 12"):
            training.train(small.model(), digits, recipe, strategy)
        recipe = training.Recipe(batch_size=62)
        with one_line_error("batch_size=62 cannot be divided among 4 devices: 60 or 64 can"):
            training.train(small.model(), digits, recipe, strategy)

    def test_a_last_batch_of_fewer_images_than_parts_joins_the_one_before(self, digits):
        recipe, steps = training.Recipe(epochs=1, batch_size=32, accumulation=4), Steps()
        training.train(small.model(), of(digits, 67), recipe, callbacks=[steps], **QUIETLY)
        assert steps.taken == [(1, 1), (1, 2)]


class TestExecution:
    @pytest.mark.parametrize(
        ("option", "complaint"),
        [
            (dict(keep=0), "keep=0 must be a whole number of at least 1"),
            (dict(save_every=0.5), "save_every=0.5 must be a whole number of at least 1"),
            (dict(image_size=-1), "image_size=-1 must be a whole number of at least 1"),
            (dict(crop=1.5), "crop=1.5 must be above 0 and at most 1"),
            (dict(verbose=3), "verbose=3 must be one of 0, 1, 2"),
        ],
    )
    def test_refuses_options_out_of_range(self, option, complaint):
        with one_line_error(complaint):
            training.Execution(**option)

    def test_has_all_options_that_train_has_had(self):
        known = (
            *("image_size", "crop", "seed", "class_weight", "cache", "synchronized"),
            *("steps_per_execution", "checkpoints", "keep", "save_every", "callbacks", "verbose"),
        )
        assert sorted(inspect.signature(training.Execution).parameters) == sorted(known)
