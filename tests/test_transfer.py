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

import keras_resnet
from keras_resnet import data, training, transfer
from keras_resnet.resnet import deep_graphs
from keras_resnet.training.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def small_net(**options):
    keras.utils.set_random_seed(0)
    usual = {"depth": 8, "input_shape": (8, 8, 1), "include_preprocessing": True}
    return keras_resnet.CIFARResNet(**{**usual, **options})


def nested_net():
    """A classifier that calls its backbone as one layer, as Keras' guides have it."""
    backbone = small_net(include_top=False, pooling="avg")
    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Dense(10, "softmax", name="predictions")(backbone(inputs))
    return keras.Model(inputs, outputs)


def snapshot(model):
    return {weight.path: weight.numpy() for weight in model.weights}


def changed(before, after):
    """Names of the layers whose weights differ."""
    paths = [path for path in before if (before[path] != after[path]).any()]
    return {path.partition("/")[0] for path in paths}


QUICK = training.Recipe(epochs=2, batch_size=128, learning_rate=0.4)


class TestClassifier:
    def test_shares_the_backbone_and_adds_a_head(self):
        backbone = small_net(include_top=False)
        model = transfer.classifier(backbone, classes=3, dropout=0.5)
        assert [layer.name for layer in model.layers[-3:]] == [
            "avg_pool",
            "head_dropout",
            "predictions",
        ]
        assert model.output_shape == (None, 3)
        conv = backbone.get_layer("conv1_conv")
        assert model.get_layer("conv1_conv") is conv
        assert model.preprocessing == backbone.preprocessing

    def test_replaces_a_head(self):
        net = small_net()
        model = transfer.classifier(net, classes=4)
        images = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 1))
        assert model.output_shape == (None, 4)
        features = keras.Model(net.input, net.get_layer("avg_pool").output)
        found, _ = transfer.features(model, [(images, np.zeros(2))])
        np.testing.assert_allclose(found, features.predict(images, verbose=0), rtol=1e-5)

    @pytest.mark.parametrize("options", [dict(pooling="avg"), dict(pooling="max"), dict()])
    def test_takes_a_backbone_of_keras_applications(self, options):
        backbone = keras.applications.ResNet50(
            include_top=False, weights=None, input_shape=(32, 32, 3), **options
        )
        model = transfer.classifier(backbone, classes=2)
        transfer.freeze(model)
        assert [variable.path for variable in model.trainable_variables] == [
            "predictions/kernel",
            "predictions/bias",
        ]
        transfer.unfreeze(model, back_to="conv5")
        assert {v.path[:5] for v in model.trainable_variables} == {"conv5", "predi"}

    @pytest.mark.parametrize("name", ["MobileNet", "MobileNetV2", "MobileNetV3Small"])
    def test_replaces_a_head_of_convolutions(self, name):
        theirs = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3), classes=7)
        model = transfer.classifier(theirs, classes=2)
        assert not {7} & {layer.output.shape[-1] for layer in model.layers}
        assert model.output_shape == (None, 2)

    def test_an_activation_behind_a_feature_map_of_one_pixel_is_no_head(self):
        backbone = small_net(include_top=False, input_shape=(4, 4, 1))
        inputs = backbone.input
        flat = keras.Model(inputs, keras.layers.Flatten()(backbone.output))
        for model in (backbone, flat):
            assert transfer.features_of(model) is model.output

    def test_takes_the_deepest_net(self):
        x = inputs = keras.Input((4, 4, 1))
        for _ in range(1100):
            x = keras.layers.Identity()(x)
        with deep_graphs():
            deep = keras.Model(inputs, x)
        model = transfer.classifier(deep, classes=2)
        assert transfer.extractor_of(model).output_shape == (None, 1)

    def test_takes_whole_numbers_of_numpy(self):
        assert transfer.classifier(small_net(), np.int64(3)).output_shape == (None, 3)

    def test_gives_probabilities_in_float32_whatever_the_net_computes_in(self):
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            model = transfer.classifier(small_net(include_top=False), classes=2)
        finally:
            keras.config.set_dtype_policy("float32")
        probabilities = model.predict(np.zeros((1, 8, 8, 1)), verbose=0)
        assert probabilities.dtype == "float32"
        np.testing.assert_allclose(probabilities.sum(), 1, rtol=1e-6)

    def test_refuses_several_outputs(self):
        net = small_net()
        with one_line_error("several outputs", "keras.Model"):
            transfer.classifier(keras.Model(net.input, keras_resnet.feature_pyramid(net)), 2)

    def test_refuses_an_unknown_activation(self):
        with one_line_error("classifier_activation='loud'"):
            transfer.classifier(small_net(), 2, classifier_activation="loud")

    def test_refuses_what_has_no_features(self):
        inputs = keras.Input((5, 4))
        with one_line_error("gives (None, 5, 4)", "expected a feature map"):
            transfer.classifier(keras.Model(inputs, keras.layers.ReLU()(inputs)), 2)

    @pytest.mark.parametrize(
        "options", [dict(classes=0), dict(dropout=1.0), dict(dropout=-0.1), dict(pooling="sum")]
    )
    def test_refuses_arguments_out_of_range(self, options):
        (name,) = options
        with one_line_error(f"{name}="):
            transfer.classifier(small_net(), **{"classes": 2, **options})


class TestFreeze:
    def test_frozen_layers_are_bit_identical_after_training(self, digits):
        model = small_net()
        before = snapshot(model)
        transfer.freeze(model)
        training.train(model, digits, QUICK, verbose=0)
        assert changed(before, snapshot(model)) == {"predictions"}

    def test_frozen_normalization_does_not_move_its_statistics(self, digits):
        model = small_net()
        before = snapshot(model)
        transfer.freeze(model, up_to="conv3")
        training.train(model, digits, QUICK, verbose=0)
        moved = changed(before, snapshot(model))
        assert all(name.startswith(("conv4", "predictions")) for name in moved)
        assert "conv4_block1_1_bn" in moved

    def test_normalization_may_stay_frozen_in_layers_that_learn(self, digits):
        model = small_net()
        before = snapshot(model)
        transfer.freeze(model)
        transfer.unfreeze(model, back_to="conv4", normalization=False)
        training.train(model, digits, QUICK, verbose=0)
        moved = changed(before, snapshot(model))
        assert "conv4_block1_1_conv" in moved
        assert not any(name.endswith("_bn") for name in moved)

    def test_unfreeze_is_the_inverse(self):
        model = small_net()
        trainable = [variable.path for variable in model.trainable_variables]
        transfer.freeze(model)
        transfer.unfreeze(model)
        assert [variable.path for variable in model.trainable_variables] == trainable

    def test_a_layer_has_a_name_too(self):
        model = small_net()
        transfer.freeze(model, up_to="conv2_block1_1_bn")
        assert not model.get_layer("conv1_conv").trainable
        assert model.get_layer("conv2_block1_2_conv").trainable

    def test_unfreeze_lets_a_model_learn_that_was_frozen_as_a_whole(self):
        model = small_net()
        model.trainable = False
        transfer.unfreeze(model, back_to="conv4")
        assert {v.path[:5] for v in model.trainable_variables} == {"conv4", "predi"}

    def test_reaches_into_a_model_within_the_model(self):
        model = nested_net()
        transfer.freeze(model)
        assert {v.path[:5] for v in model.trainable_variables} == {"predi"}
        transfer.unfreeze(model, back_to="conv4", normalization=False)
        learning = [variable.path for variable in model.trainable_variables]
        assert {path[:5] for path in learning} == {"conv4", "predi"}
        assert not any("_bn" in path for path in learning)
        transfer.freeze(model, up_to="conv4")
        assert {v.path[:5] for v in model.trainable_variables} == {"predi"}
        transfer.unfreeze(model, normalization=False)
        assert not any("_bn" in variable.path for variable in model.trainable_variables)

    def test_refuses_what_the_model_lacks(self):
        with one_line_error("up_to='conv9'", "begin with", "conv4"):
            transfer.freeze(small_net(), up_to="conv9")
        with one_line_error("back_to='conv'"):
            transfer.unfreeze(small_net(), back_to="conv")


class TestFeatures:
    def test_a_head_learns_the_same_from_features_as_through_the_frozen_layers(self, digits):
        recipe = dataclasses.replace(QUICK, epochs=5)
        split = dataclasses.replace(digits, augmentation="handwriting")
        model, accuracies = small_net(), []
        training.train(model, split, dataclasses.replace(QUICK, epochs=4), verbose=0)
        weights = model.get_weights()
        for views in (0, 3):
            model.set_weights(weights)
            plan = [transfer.Stage("head", recipe, views=views)]
            transfer.fine_tune(model, split, plan, verbose=0)
            test = data.batches(digits.test, image_size=8, channels=1)
            model.compile(metrics=["accuracy"], loss="sparse_categorical_crossentropy")
            accuracies.append(model.evaluate(test, verbose=0)[1])
        assert min(accuracies) > 0.5
        assert accuracies[0] == pytest.approx(accuracies[1], abs=0.05)

    @pytest.mark.parametrize(
        "other", [dict(pooling="max"), dict(mode="caffe"), dict(dtype="mixed_bfloat16")], ids=str
    )
    def test_kept_features_are_not_those_of_another_net(self, digits, tmp_path, other):
        def net(pooling="avg", mode="torch", dtype="float32"):
            keras.config.set_dtype_policy(dtype)
            try:
                options = dict(input_shape=(8, 8, 3), preprocessing=mode, include_top=False)
                return transfer.classifier(small_net(**options), 10, pooling=pooling)
            finally:
                keras.config.set_dtype_policy("float32")

        splits = {
            name: dataclasses.replace(split, images=split.images.repeat(3, axis=-1))
            for name, split in digits.splits.items()
        }
        coloured = dataclasses.replace(digits, channels=3, **splits)
        plan = [transfer.Stage("head", dataclasses.replace(QUICK, epochs=1), views=1)]
        for number, options in enumerate(({}, other, {}), start=1):
            transfer.fine_tune(net(**options), coloured, plan, features_folder=tmp_path, verbose=0)
            assert len(list(tmp_path.iterdir())) == min(number, 2)

    def test_views_are_for_the_head_alone(self, digits):
        with one_line_error("views=2", "head alone"):
            transfer.fine_tune(small_net(), digits, [transfer.Stage("conv4", QUICK, views=2)])


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
def expected(digits):
    """What a run over PLAN leads to that nothing interrupts."""
    return transfer.fine_tune(small_net(), digits, PLAN, verbose=0)


class TestFineTune:
    def test_goes_through_its_stages(self, digits):
        model = small_net()
        result = transfer.fine_tune(model, digits, PLAN, verbose=0)
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
        self, digits, expected, tmp_path, epochs
    ):
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
        with one_line_error("interrupted run of other settings", "seed was 0, is 1"):
            transfer.fine_tune(small_net(), digits, PLAN, checkpoints=tmp_path, seed=1)

    def test_features_of_another_run_are_not_taken_for_these(self, digits, tmp_path):
        plan, options = PLAN[:1], dict(checkpoints=tmp_path, verbose=0)
        transfer.fine_tune(small_net(), digits, plan, crop=1.0, **options)
        with one_line_error("interrupted run of other settings", "crop was 1.0, is 0.5"):
            transfer.fine_tune(small_net(), digits, plan, crop=0.5, **options)
        # Killed between the features and the first checkpoint:
        shutil.rmtree(tmp_path / "1-head")
        folder = tmp_path / "1-head"
        folder.mkdir()
        np.savez(folder / "features.npz", "other settings", *[np.zeros(1)] * 4)
        expected = transfer.fine_tune(small_net(), digits, plan, crop=1.0, verbose=0)
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


class TestCheckpoints:
    def test_what_a_killed_process_left_half_written_is_passed_over(self, tmp_path):
        model = small_net()
        model.compile("sgd", "mse")
        checkpoints = Checkpoints(tmp_path, {})
        checkpoints.save(model, {"epoch": 1})
        (tmp_path / ".1234-after-2").mkdir()
        (tmp_path / ".1234-after-2" / "state.weights.h5").write_bytes(b"half")
        assert Checkpoints(tmp_path, {}).restore(model) == {"epoch": 1}

    def test_keeps_the_newest(self, tmp_path):
        model = small_net()
        model.compile("sgd", "mse")
        checkpoints = Checkpoints(tmp_path, {}, keep=2)
        for epoch in range(1, 13):
            checkpoints.save(model, {"epoch": epoch})
        assert len(list(tmp_path.glob("after-*"))) == 2
        assert checkpoints.restore(model) == {"epoch": 12}

    def test_brings_back_the_optimizer_and_the_dice(self, tmp_path):
        def net():
            keras.utils.set_random_seed(1)
            layers = [keras.Input((4,)), keras.layers.Dropout(0.5), keras.layers.Dense(3)]
            model = keras.Sequential(layers)
            model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
            return model

        inputs, targets = np.ones((8, 4)), np.ones((8, 3))
        whole = net()
        for _ in range(4):
            whole.train_on_batch(inputs, targets)
        half = net()
        for _ in range(2):
            half.train_on_batch(inputs, targets)
        Checkpoints(tmp_path, {}).save(half, {})
        rest = net()
        assert Checkpoints(tmp_path, {}).restore(rest) == {}
        for _ in range(2):
            rest.train_on_batch(inputs, targets)
        np.testing.assert_allclose(rest.get_weights()[0], whole.get_weights()[0], rtol=1e-6)


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
