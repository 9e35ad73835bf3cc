import csv
import dataclasses
import json
import sys
from types import SimpleNamespace

import distributed
import keras
import numpy as np
import pytest
import tensorflow as tf
from errors import one_line_error

import keras_resnet
from keras_resnet import data, training, transfer
from keras_resnet.optimizers import LayerwiseSGD
from keras_resnet.training.averages import WeightAverage


def small_net(classes=10, channels=1):
    keras.utils.set_random_seed(0)
    size = None if channels == 3 else 8
    return keras_resnet.CIFARResNet(
        8, input_shape=(size, size, channels), classes=classes, include_preprocessing=True
    )


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def trained(digits):
    model = small_net()
    recipe = training.Recipe(epochs=3, learning_rate=0.2)
    return model, training.train(model, digits, recipe, image_size=8, verbose=0)


class TestTrain:
    def test_learns(self, trained):
        _, result = trained
        assert result.history["loss"][-1] < 0.5 * result.history["loss"][0]
        assert result.seconds > 0

    def test_leaves_the_best_weights(self, trained, digits):
        model, result = trained
        losses = result.history["val_loss"]
        assert result.best_epoch == 1 + int(np.argmin(losses))
        validation = data.batches(digits.validation, image_size=8, channels=1, batch_size=64)
        loss, _ = model.evaluate(validation, verbose=0)
        assert loss == pytest.approx(min(losses), rel=1e-4)

    def test_repeats_with_the_seed(self, trained, digits):
        _, result = trained
        recipe = training.Recipe(epochs=3, learning_rate=0.2)
        again = training.train(small_net(), digits, recipe, image_size=8, verbose=0)
        np.testing.assert_allclose(again.history["loss"], result.history["loss"], rtol=1e-2)

    def test_history_is_saved_a_line_an_epoch(self, trained, tmp_path):
        _, result = trained
        result.save(tmp_path / "history.csv")
        with (tmp_path / "history.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["epoch"] for row in rows] == ["1", "2", "3"]
        assert [float(row["val_loss"]) for row in rows] == result.history["val_loss"]

    def test_refuses_a_model_of_other_classes(self, digits):
        with pytest.raises(ValueError, match="has 4 outputs, digits has 10 classes"):
            training.train(small_net(classes=4), digits, image_size=8)

    def test_refuses_a_model_without_probabilities(self, digits):
        model = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 1), classifier_activation=None)
        with pytest.raises(ValueError, match="build it with classifier_activation='softmax'"):
            training.train(model, digits)

    def test_refuses_a_model_that_does_not_normalize_raw_images(self, digits):
        """It would learn of raw images, and be served normalized ones."""
        model = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 1))
        with one_line_error("takes images that are normalized as", "include_preprocessing=True"):
            training.train(model, digits)
        backbone = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 1), include_top=False)
        with one_line_error("takes images that are normalized as", "include_preprocessing=True"):
            transfer.fine_tune(transfer.classifier(backbone, 10), digits)

    def test_trains_at_the_size_of_the_model(self, digits):
        recipe = training.Recipe(epochs=1, batch_size=512)
        assert training.train(small_net(), digits, recipe, verbose=0).best_epoch == 1

    def test_says_when_the_loss_is_lost(self, digits, tmp_path):
        model = small_net()

        class Poison(keras.callbacks.Callback):
            epoch = 0

            def on_epoch_begin(self, epoch, logs=None):
                self.epoch = epoch

            def on_train_batch_begin(self, batch, logs=None):
                if (self.epoch, batch) == (1, 4):
                    kernel = self.model.get_layer("predictions").kernel
                    kernel.assign(kernel * np.nan)

        recipe = training.Recipe(epochs=2)
        with pytest.raises(ValueError, match="Use a lower learning rate") as caught:
            training.train(
                model,
                digits,
                recipe,
                image_size=8,
                checkpoints=tmp_path,
                callbacks=[Poison()],
                verbose=0,
            )
        assert "the loss became NaN or infinite at step 5 of epoch 2" in str(caught.value)
        assert f"The last good checkpoint is {str(tmp_path / 'after-1')!r}" in str(caught.value)

    def test_keeps_no_state_whose_weights_are_lost(self, digits, tmp_path):
        class Poison(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                kernel = self.model.get_layer("predictions").kernel
                kernel.assign(kernel * np.nan)

        options = dict(image_size=8, checkpoints=tmp_path, save_every=1, verbose=0)
        with pytest.raises(ValueError, match="No checkpoint was saved here"):
            training.train(small_net(), digits, callbacks=[Poison()], **options)
        assert not list(tmp_path.glob("after-*"))

    @pytest.mark.parametrize("kept", [False, True])
    def test_says_when_the_validation_is_lost(self, digits, tmp_path, kept):
        small = dataclasses.replace(digits, train=digits.train.take(np.arange(64)))
        recipe = training.Recipe(epochs=1, learning_rate=1e38, warm_up=0.0)
        options = dict(image_size=8, verbose=0, checkpoints=tmp_path if kept else None)
        with pytest.raises(ValueError, match="NaN or infinite at step 1 of epoch 1"):
            training.train(small_net(), small, recipe, **options)

    def test_a_run_that_a_callback_has_ended_is_over(self, digits, tmp_path):
        options = dict(image_size=8, checkpoints=tmp_path, verbose=0)
        recipe = training.Recipe(epochs=4, batch_size=512)
        for _ in range(2):
            result = training.train(small_net(), digits, recipe, callbacks=[Stop()], **options)
            assert len(result.history["loss"]) == 1

    def test_does_not_go_on_as_another_net(self, digits, tmp_path):
        options = dict(image_size=8, checkpoints=tmp_path, verbose=0)
        recipe = training.Recipe(epochs=1, batch_size=512)
        nets = (
            keras_resnet.CIFARResNet(
                8, shortcut=shortcut, input_shape=(8, 8, 1), include_preprocessing=True
            )
            for shortcut in ("A", None)
        )
        training.train(next(nets), digits, recipe, **options)
        with one_line_error("holds an interrupted run of other settings: layers was"):
            training.train(next(nets), digits, recipe, **options)

    def test_does_not_go_on_in_another_precision(self, digits, tmp_path):
        options = dict(image_size=8, checkpoints=tmp_path, verbose=0)
        recipe = training.Recipe(epochs=1, batch_size=512)
        training.train(distributed.net(), digits, recipe, **options)
        with one_line_error("precision was 'float32', is 'bfloat16, float32'"):
            training.train(distributed.net("mixed_bfloat16"), digits, recipe, **options)

    def test_a_strategy_of_one_device_is_one(self, digits):
        small = dataclasses.replace(digits, train=digits.train.take(np.arange(64)))
        recipe, options = training.Recipe(epochs=1), dict(image_size=8, verbose=0)
        expected = training.train(small_net(), small, recipe, **options).history
        for strategy in (
            tf.distribute.MirroredStrategy(["CPU:0"]),
            tf.distribute.OneDeviceStrategy("CPU:0"),
        ):
            history = training.train(small_net(), small, recipe, strategy, **options).history
            np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-5)

    def test_float16_is_scaled_whatever_the_policy_is_now(self, digits):
        keras.config.set_dtype_policy("mixed_float16")
        model = small_net()
        keras.config.set_dtype_policy("float32")
        few = digits.train.take(np.arange(20))
        small = dataclasses.replace(digits, train=few, validation=few)
        recipe = training.Recipe(epochs=1)
        for strategy in (None, tf.distribute.OneDeviceStrategy("CPU:0")):
            training.train(model, small, recipe, strategy, image_size=8, verbose=0)
            assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)

    @pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
    def test_goes_on_in_every_precision(self, digits, tmp_path, dtype):
        class Interrupt(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 1:
                    raise InterruptedError

        small = dataclasses.replace(digits, train=digits.train.take(np.arange(128)))
        recipe, options = training.Recipe(epochs=2, ema=0.9), dict(image_size=8, verbose=0)
        expected = training.train(distributed.net(dtype), small, recipe, **options)
        options["checkpoints"] = tmp_path
        with pytest.raises(InterruptedError):
            training.train(
                distributed.net(dtype), small, recipe, callbacks=[Interrupt()], **options
            )
        result = training.train(distributed.net(dtype), small, recipe, **options)
        for name, values in expected.history.items():
            np.testing.assert_allclose(result.history[name], values, rtol=1e-3)

    def test_class_weights_are_of_classes(self, digits):
        with one_line_error("class_weight has [10, '3']: classes are the numbers from 0 to 9"):
            training.train(small_net(), digits, class_weight={1: 2.0, 10: 1.0, "3": 1.0})

    def test_several_machines_are_chosen_before_the_model(self, digits):
        with one_line_error("make it with `training.strategy('multiworker')` before the model"):
            training.train(small_net(), digits, strategy="multiworker")

    def test_resumes_with_fewer_steps_an_epoch(self, digits, tmp_path):
        small = dataclasses.replace(digits, train=digits.train.take(np.arange(100)))
        options = dict(image_size=8, verbose=0, checkpoints=tmp_path)
        recipe = training.Recipe(epochs=2)

        class Count(keras.callbacks.Callback):
            epochs = 0

            def on_epoch_begin(self, epoch, logs=None):
                self.epochs += 1

        training.train(small_net(), small, recipe, callbacks=[Count()], **options)
        progress = max(tmp_path.glob("after-*")) / "progress.json"
        content = json.loads(progress.read_text())
        progress.write_text(
            json.dumps({**content, "epoch": 1, "step": 3, "totals": [3.0, 1.0, 3.0]})
        )
        count = Count()
        result = training.train(small_net(), small, recipe, callbacks=[count], **options)
        assert count.epochs == 1  # of which the validation alone was left
        assert len(result.history["loss"]) == 3

    def test_takes_recipes_and_strategies_by_name(self, digits):
        small = dataclasses.replace(digits, train=digits.train.take(np.arange(256)))
        result = training.train(
            small_net(),
            small,
            "paper",
            "auto",
            image_size=8,
            verbose=0,
            steps_per_execution=7,
            callbacks=[Stop()],
        )
        assert len(result.history["loss"]) == 1

    def test_several_steps_at_once_are_the_same_steps(self, trained, digits):
        _, expected = trained
        recipe = training.Recipe(epochs=3, learning_rate=0.2)
        result = training.train(
            small_net(), digits, recipe, image_size=8, steps_per_execution=7, verbose=0
        )
        np.testing.assert_allclose(result.history["loss"], expected.history["loss"], rtol=1e-2)

    def test_a_batch_must_be_divisible_among_devices(self, digits):
        strategy = SimpleNamespace(num_replicas_in_sync=4)
        recipe = training.Recipe(batch_size=6, accumulation=3)
        with one_line_error("batch_size=6 cannot be divided among 4 devices in 3 parts each: 12"):
            training.train(small_net(), digits, recipe, strategy)
        recipe = training.Recipe(batch_size=62)
        with one_line_error("batch_size=62 cannot be divided among 4 devices: 60 or 64 can"):
            training.train(small_net(), digits, recipe, strategy)

    def test_shows_a_line_an_epoch(self, digits, capsys):
        recipe = training.Recipe(epochs=2, batch_size=256)
        training.train(small_net(), digits, recipe, image_size=8, verbose=2)
        first, second = capsys.readouterr().out.splitlines()
        assert first.startswith("Epoch 1/2: loss ")
        assert second.endswith(" images/s")


class TestRecipe:
    def test_learning_rate_warms_up_scales_and_decays(self):
        recipe = training.Recipe(epochs=10, batch_size=128, learning_rate=0.1, warm_up=0.2)
        rate = recipe.schedule(steps_per_epoch=10)
        rates = np.array([float(rate(step)) for step in range(101)])
        np.testing.assert_allclose(rates[:21], np.linspace(0, 0.05, 21), atol=1e-6)
        cosine = 0.025 * (1 + np.cos(np.pi * np.arange(81) / 80))
        np.testing.assert_allclose(rates[20:], cosine, atol=1e-6)

    def test_learning_rate_falls_at_milestones(self):
        recipe = training.recipe("paper", epochs=8, batch_size=512, warm_up=0.25)
        rate = recipe.schedule(steps_per_epoch=5)
        rates = np.array([float(rate(step)) for step in range(41)])
        np.testing.assert_allclose(rates[:11], np.linspace(0, 0.2, 11), atol=1e-7)
        np.testing.assert_allclose(rates[10:20], 0.2, rtol=1e-5)
        np.testing.assert_allclose(rates[20:30], 0.02, rtol=1e-5)
        np.testing.assert_allclose(rates[30:], 0.002, rtol=1e-5)

    def test_weights_decay_but_for_biases_and_normalization(self):
        model = small_net()
        optimizer = training.Recipe(weight_decay=0.1, warm_up=0.0).optimizer(1)
        before = {v.path: v.numpy() for v in model.trainable_variables}
        optimizer.apply(
            [keras.ops.zeros(v.shape) for v in model.trainable_variables],
            model.trainable_variables,
        )
        changed = {v.name for v in model.trainable_variables if (v.numpy() != before[v.path]).any()}
        assert changed == {"kernel"}

    def test_ready_made_are_changed_by_field(self):
        assert training.recipe("Modern", label_smoothing=0.0).label_smoothing == 0.0
        assert training.recipe("paper") == training.RECIPES["paper"]
        with one_line_error("field of a recipe 'label' is not known. Did you mean label_smoothing"):
            training.recipe("modern", label=0.1)
        with one_line_error("ema='much' must be a number"):
            training.recipe("modern", ema="much")
        with one_line_error("recipe 'old' is not known"):
            training.recipe("old")

    def test_parts_must_divide_the_batch(self):
        with one_line_error("accumulation=3 must divide batch_size=64"):
            training.Recipe(accumulation=3)

    @pytest.mark.parametrize(
        "options",
        [
            dict(epochs=0),
            dict(epochs=1.5),
            dict(batch_size=0),
            dict(learning_rate=0.0),
            dict(learning_rate=None),
            dict(learning_rate=float("inf")),
            dict(mixup=float("inf")),
            dict(ema=None),
            dict(weight_decay=float("nan")),
            dict(rates={"conv1": float("inf")}),
            dict(augmentation="nonsense"),
            dict(warm_up=1),
            dict(momentum=7),
            dict(weight_decay=-1),
            dict(mixup=-0.1),
            dict(ema=1.0),
            dict(clip_norm=0),
            dict(accumulation=0),
            dict(milestones=(0.5, 1.5)),
            dict(milestones=0.5),
            dict(milestones=("a",)),
            dict(rates=3),
            dict(rates={"conv1": "slow"}),
            dict(clip_norm="abc"),
            dict(nesterov=2),
            dict(momentum=True),
        ],
    )
    def test_refuses_numbers_out_of_range(self, options):
        (name,) = options
        with pytest.raises(ValueError, match=f"{name}="):
            training.Recipe(**options)


class TestRecipesAtWork:
    def test_ends_when_patience_does(self, digits):
        recipe = training.Recipe(epochs=9, learning_rate=1e-9, warm_up=0.0, patience=1)
        epochs = []
        count = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: epochs.append(epoch)
        )
        result = training.train(
            small_net(), digits, recipe, image_size=8, callbacks=[count], verbose=0
        )
        assert len(epochs) == len(result.history["loss"]) < 9
        assert result.best_epoch == len(epochs) - 1

    def test_smooth_labels_cost_even_the_sure(self, digits):
        losses = []
        for smoothing in (0.0, 0.5):
            recipe = training.Recipe(epochs=3, learning_rate=0.2, label_smoothing=smoothing)
            result = training.train(small_net(), digits, recipe, image_size=8, verbose=0)
            losses.append(result.history["val_loss"][-1])
        entropy = -(0.55 * np.log(0.55) + 9 * 0.05 * np.log(0.05))
        assert losses[0] < entropy < losses[1]

    def test_classes_may_count_differently(self, digits):
        recipe = training.Recipe(epochs=2, learning_rate=0.2)
        only_seven = {label: float(label == 7) for label in range(10)}
        model = small_net()
        training.train(model, digits, recipe, image_size=8, class_weight=only_seven, verbose=0)
        images, _ = next(iter(data.batches(digits.test, image_size=8, channels=1)))
        assert (model.predict(images, verbose=0).argmax(-1) == 7).mean() > 0.9

    def test_labels_may_be_mixed(self, digits):
        recipe = training.Recipe(epochs=1, batch_size=256, augmentation="strong")
        colour = data.Split(np.repeat(digits.train.images[:256], 3, -1), digits.train.labels[:256])
        splits = dict(train=colour, validation=colour, test=colour)
        source = dataclasses.replace(digits, channels=3, **splits)
        model = small_net(channels=3)
        result = training.train(model, source, recipe, image_size=32, verbose=0)
        assert np.isfinite(result.history["loss"]).all()


class TestLayerwiseSGD:
    def train(self, **rates):
        model = small_net()
        optimizer = LayerwiseSGD(0.1, momentum=0.9, rates=rates)
        model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
        random = np.random.default_rng(0)
        images, labels = random.uniform(0, 255, (16, 8, 8, 1)), random.integers(0, 10, 16)
        for _ in range(2):
            model.train_on_batch(images, labels)
        return {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}

    def test_without_rates_is_sgd(self, monkeypatch):
        ours = self.train()
        monkeypatch.setattr(
            sys.modules[__name__],
            "LayerwiseSGD",
            lambda *args, rates, **options: keras.optimizers.SGD(*args, **options),
        )
        theirs = self.train()
        for path in ours:
            np.testing.assert_allclose(ours[path], theirs[path], atol=1e-6)

    def test_a_rate_of_zero_holds_its_layers(self):
        initial = {weight.path: weight.numpy() for weight in small_net().weights}
        trained = self.train(conv2=0.0)
        held = {
            path.partition("/")[0]
            for path in initial
            if path.endswith(("kernel", "gamma", "beta")) and (initial[path] == trained[path]).all()
        }
        assert held == {path.partition("/")[0] for path in initial if path.startswith("conv2")}

    def test_is_saved_with_its_rates(self):
        optimizer = LayerwiseSGD(0.1, rates={"conv1": 0.5}, l2=0.01)
        again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
        assert again.rates == {"conv1": 0.5}
        assert again.l2 == 0.01

    @pytest.mark.parametrize("nesterov", [False, True])
    def test_decay_and_momentum_are_those_of_the_papers(self, nesterov):
        kernel = keras.Variable([1.0, -2.0], name="kernel")
        bias = keras.Variable([1.0], name="bias")
        optimizer = LayerwiseSGD(0.1, momentum=0.9, nesterov=nesterov, l2=0.5)
        weight, velocity = np.array([1.0, -2.0]), 0.0
        for gradient in ([0.3, 0.1], [-0.2, 0.4], [0.0, 0.0]):
            optimizer.apply([keras.ops.array(gradient), keras.ops.zeros(1)], [kernel, bias])
            slope = np.array(gradient) + 0.5 * weight
            velocity = 0.9 * velocity + slope
            weight = weight - 0.1 * (slope + 0.9 * velocity if nesterov else velocity)
        np.testing.assert_allclose(kernel.numpy(), weight, rtol=1e-5)
        assert bias.numpy() == 1.0

    def test_clips_the_length_of_all_gradients_together(self):
        variables = [keras.Variable([0.0]), keras.Variable([0.0])]
        optimizer = LayerwiseSGD(1.0, global_clipnorm=1.0)
        optimizer.apply([keras.ops.array([3.0]), keras.ops.array([4.0])], variables)
        np.testing.assert_allclose([v.numpy()[0] for v in variables], [-0.6, -0.8], rtol=1e-6)


class TestWeightAverage:
    def test_follows_quickly_at_first(self):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        (weight,) = model.trainable_variables
        average, expected = WeightAverage(model, momentum=0.5), weight.numpy()
        for step in range(1, 20):
            weight.assign(weight + 1.0)
            average.follow(step)
            momentum = min(0.5, step / (step + 9))
            expected = momentum * expected + (1 - momentum) * weight.numpy()
        last = weight.numpy()
        average.swap()
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-5)
        average.swap()
        np.testing.assert_array_equal(weight.numpy(), last)

    def test_is_of_weights_and_of_statistics(self, digits):
        """Weights of many steps ago are not normalized by the statistics of the last ones."""
        seen = []

        class See(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                seen.append(self.model.get_weights())

        model = small_net()
        expected = model.get_weights()
        recipe = training.Recipe(epochs=1, batch_size=128, learning_rate=0.2, ema=0.8)
        training.train(model, digits, recipe, image_size=8, callbacks=[See()], verbose=0)
        for step, weights in enumerate(seen, start=1):
            part = 1 - min(0.8, step / (step + 9))
            expected = [
                old + part * (new - old) for old, new in zip(expected, weights, strict=True)
            ]
        for name, found, value in zip(
            [variable.path for variable in model.weights],
            model.get_weights(),
            expected,
            strict=True,
        ):
            np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5, err_msg=name)


class TestTensorBoardLog:
    def test_every_epoch_is_an_event(self, digits, tmp_path):
        recipe = training.Recipe(epochs=2, batch_size=256)
        log = training.TensorBoardLog(tmp_path)
        result = training.train(
            small_net(), digits, recipe, image_size=8, callbacks=[log], verbose=0
        )
        (file,) = tmp_path.iterdir()
        found = {}
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name in ("scalars", "")
                number = float(tf.make_ndarray(value.tensor))
                found.setdefault(value.tag, []).append((event.step, number))
        assert {tag: [step for step, _ in values] for tag, values in found.items()} == {
            name: [0, 1] for name in result.history
        }
        losses = [value for _, value in found["val_loss"]]
        np.testing.assert_allclose(losses, result.history["val_loss"], rtol=1e-6)
