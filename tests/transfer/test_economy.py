"""Stages that end or are skipped if they gain nothing, and what is chosen for photographs."""

import dataclasses
import json
import logging

import keras
import numpy as np
import pytest
from errors import one_line_error
from nets import QUICK, small_net

from keras_resnet import data, training, transfer
from keras_resnet.training.stopping import Stopping


@pytest.fixture(scope="module")
def digits():
    """The digits, with fewer training images."""
    whole = data.load("digits")
    return dataclasses.replace(whole, train=whole.train.take(np.arange(256)))


HEAD = transfer.Stage("head", dataclasses.replace(QUICK, epochs=3), views=1)
STILL = dataclasses.replace(QUICK, epochs=6, learning_rate=1e-9, warm_up=0.0)


def still(**options):
    """A stage that learns nothing."""
    return transfer.Stage("conv4", STILL, **options)


class TestStopping:
    @pytest.mark.parametrize(
        ("losses", "ends"),
        [
            ([], False),
            ([1.1], False),
            ([1.1, 1.0], True),
            ([0.995, 0.991], True),  # too little
            ([1.1, 0.9], False),
            ([0.9, 0.95, 0.899], True),
            ([0.9, 0.95, 0.8], False),
        ],
    )
    def test_after_two_epochs_without_a_gain_of_a_hundredth(self, losses, ends):
        assert Stopping(best=1.0, patience=2, min_gain=0.01).ends(losses) == ends


class TestPatience:
    @pytest.mark.parametrize("patience", [1, 2])
    def test_ends_a_stage_that_gains_nothing(self, digits, patience):
        plan = [HEAD, still(patience=patience)]
        result = transfer.fine_tune(small_net(), digits, plan, verbose=0)
        assert result.stages == {"head": 3, "conv4": patience}
        assert result.best_epoch <= 3 + patience

    def test_is_for_what_earlier_stages_reached(self, digits):
        # Its second epoch is better than its first, but not than what the head had reached.
        bad = dataclasses.replace(QUICK, epochs=4, learning_rate=3.0, warm_up=0.0)
        plan = [HEAD, transfer.Stage("conv4", bad, normalization=True, patience=1)]
        model = small_net()
        result = transfer.fine_tune(model, digits, plan, verbose=0)
        assert result.stages == {"head": 3, "conv4": 1}
        assert result.best_epoch <= 3

    def test_leaves_a_stage_that_gains_alone(self, digits):
        nothing = dataclasses.replace(QUICK, epochs=1, learning_rate=1e-9)
        head = transfer.Stage("head", nothing, views=1)
        recipe = dataclasses.replace(QUICK, epochs=3)
        learns = transfer.Stage("conv4", recipe, normalization=True, patience=1)
        result = transfer.fine_tune(small_net(), digits, [head, learns], verbose=0)
        assert result.stages == {"head": 1, "conv4": 3}

    def test_needs_validation_images(self, digits):
        blind = digits.with_all_to_train()
        plan = [HEAD, still(patience=1, optional=True)]
        result = transfer.fine_tune(small_net(), blind, plan, verbose=0)
        assert result.stages == {"head": 3, "conv4": 6}

    def test_an_interrupted_stage_ends_where_it_would_have_ended(self, digits, tmp_path):
        class Interruption(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 1 and len(self.model.trainable_variables) > 2:
                    raise InterruptedError

        plan = [HEAD, still(patience=3)]
        options = dict(checkpoints=tmp_path, verbose=0)
        with pytest.raises(InterruptedError):
            transfer.fine_tune(small_net(), digits, plan, callbacks=[Interruption()], **options)
        assert (tmp_path / "2-conv4").exists()
        for _ in range(2):  # the second time, everything is there already
            result = transfer.fine_tune(small_net(), digits, plan, **options)
            assert result.stages == {"head": 3, "conv4": 3}

    def test_is_checked(self):
        with one_line_error("patience=0 must be a whole number of at least 1"):
            transfer.Stage("head", QUICK, patience=0)
        with one_line_error("min_gain=1.5 must be"):
            transfer.Stage("head", QUICK, min_gain=1.5)


class TestKeep:
    @pytest.mark.parametrize("views", [0, 1])
    def test_the_last_weights_whatever_the_loss_and_the_patience(self, digits, views):
        # At this rate, which never decays, the loss rises and falls.
        rough = dataclasses.replace(
            QUICK, epochs=6, learning_rate=500.0, warm_up=0.0, milestones=(0.999,), patience=1
        )
        model = small_net()
        stage = transfer.Stage("head", rough, views=views, keep="last")
        result = transfer.fine_tune(model, digits, [stage], verbose=0)
        losses = result.history["val_loss"]
        assert (result.stages, result.best_epoch) == ({"head": 6}, 6)
        assert min(losses) < losses[-1]
        model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        validation = data.batches(digits.validation, image_size=8, channels=1)
        loss, _ = model.evaluate(validation, verbose=0)
        assert loss == pytest.approx(losses[-1], rel=1e-3)

    def test_is_checked(self):
        with one_line_error("keep='first' must be one of"):
            transfer.Stage("head", QUICK, keep="first")


class TestOptional:
    def test_is_skipped_after_a_stage_that_gained_nothing(self, digits, caplog):
        plan = [HEAD, still(patience=1), transfer.Stage("all", QUICK, optional=True)]
        with caplog.at_level(logging.INFO, "keras_resnet"):
            result = transfer.fine_tune(small_net(), digits, plan, verbose=0)
        assert list(result.stages) == ["head", "conv4"]
        assert "Stage 'all' is skipped: the stage before it gained nothing." in caplog.text

    def test_is_not_skipped_after_a_stage_that_gained(self, digits):
        learns = transfer.Stage("conv4", QUICK)
        plan = [HEAD, learns, transfer.Stage("all", QUICK, optional=True)]
        result = transfer.fine_tune(small_net(), digits, plan, verbose=0)
        assert list(result.stages) == ["head", "conv4", "all"]

    @pytest.mark.parametrize(("images", "mistakes", "skipped"), [
        (200, 4, True), (200, 5, False), (199, 4, False), (199, 0, False), (200, 0, True),
    ])  # fmt: skip
    def test_is_skipped_where_too_few_images_are_wrong_to_tell(
        self, digits, caplog, images, mistakes, skipped
    ):
        # The model's own answers as labels, but for some.
        model = small_net()
        pixels = digits.train.images[:images]
        shown = data.batches(data.Split(pixels, np.zeros(images, int)), image_size=8, channels=1)
        labels = np.argmax(model.predict(shown, verbose=0), -1)
        labels[:mistakes] = (labels[:mistakes] + 1) % 10
        source = dataclasses.replace(digits, validation=data.Split(pixels, labels))
        plan = [
            transfer.Stage("head", dataclasses.replace(STILL, epochs=1)),
            transfer.Stage("conv4", dataclasses.replace(STILL, epochs=1), optional=True),
        ]
        with caplog.at_level(logging.INFO, "keras_resnet"):
            result = transfer.fine_tune(model, source, plan, verbose=0)
        assert (list(result.stages) == ["head"]) == skipped
        told = f"{mistakes} of {images} validation images are wrong"
        assert (told in caplog.text) == skipped

    def test_the_first_stage_never_is(self, digits):
        plan = [dataclasses.replace(HEAD, optional=True)]
        assert transfer.fine_tune(small_net(), digits, plan, verbose=0).stages == {"head": 3}


class TestStages:
    def test_are_thrifty_unless_epochs_are_asked_for(self):
        for stage in transfer.stages()[1:]:
            assert (stage.patience, stage.optional) == (2, True)
        for stage in transfer.stages(epochs=6):
            assert (stage.patience, stage.optional) == (None, False)
        for stage, other in zip(transfer.stages(), transfer.stages(epochs=6), strict=True):
            assert stage.recipe == other.recipe
            assert other.keep == "best"
        assert [stage.keep for stage in transfer.stages()] == ["last", "best", "best"]


class TestView:
    @pytest.fixture
    def photographs(self, digits):
        return dataclasses.replace(digits, image_size=224, augmentation="photograph")

    @pytest.mark.parametrize(
        ("weights", "model", "expected"),
        [
            (None, "ResNet50", (288, 1.0)),
            ("imagenet_caffe", "resnet50", (288, 1.0)),
            ("somewhere/mine.pth", "ResNet50", (288, 1.0)),
            # What timm publishes: test_image_size and test_crop, or the size of training.
            ("timm/resnet50.a1_in1k", "ResNet50", (288, 1.0)),
            ("timm/resnet50.a3_in1k", "ResNet50", (224, 0.95)),
            ("timm/ecaresnet50d.miil_in1k", "ECAResNet50D", (288, 0.95)),
            ("timm/ecaresnet26t.ra2_in1k", "ECAResNet26T", (320, 0.95)),
        ],
    )
    def test_is_what_weights_are_most_accurate_at(self, photographs, weights, model, expected):
        found = transfer.view_for(photographs, weights, model)
        assert (found["image_size"], found["crop"]) == expected

    def test_of_small_images_or_models_for_them_is_the_datas(self, digits, photographs):
        assert transfer.view_for(digits)["image_size"] == digits.image_size
        found = transfer.view_for(photographs, None, "CIFARResNet20")
        assert found == {"image_size": 224, "crop": None}

    def test_fits_fine_tune(self, digits):
        plan = [dataclasses.replace(HEAD, recipe=training.Recipe(epochs=1))]
        source = dataclasses.replace(digits, image_size=8)
        view = transfer.view_for(source)
        result = transfer.fine_tune(small_net(), source, plan, verbose=0, **view)
        assert json.loads(json.dumps(result.stages)) == {"head": 1}
