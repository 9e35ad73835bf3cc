import dataclasses
import os
import shutil

import keras
import numpy as np
import PIL.Image
import pytest
from errors import one_line_error
from nets import QUICK, small_net

from keras_resnet import analysis, data, training, transfer
from keras_resnet.transfer import cached_features


def write_shades(folder, name):
    """Write 20 files of one size and date, all dark or all bright."""
    folder.mkdir(parents=True)
    for index in range(20):
        pixels = np.full((8, 8, 3), index + 230 * (name == "bright"), "uint8")
        PIL.Image.fromarray(pixels).save(folder / f"{index}.bmp")
        os.utime(folder / f"{index}.bmp", (0, 0))


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

    def test_kept_features_are_not_those_of_another_net(self, digits, tmp_path):
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
        others = [dict(pooling="max"), dict(mode="caffe"), dict(dtype="mixed_bfloat16")]
        for number, options in enumerate(({}, *others, {}), start=1):
            transfer.fine_tune(net(**options), coloured, plan, features_folder=tmp_path, verbose=0)
            assert len(list(tmp_path.iterdir())) == min(number, 4)

    @pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
    def test_damaged_ones_are_computed_again(self, tmp_path, keep):
        path, expected = tmp_path / "features.npz", [np.arange(100.0), np.arange(3)]
        cached_features._kept(path, "so", lambda: expected)
        path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
        for compute in (lambda: expected, pytest.fail):  # then it is whole again
            found = cached_features._kept(path, "so", compute)
            np.testing.assert_array_equal(found[0], expected[0])

    def test_images_that_change_places_are_others(self, tmp_path):
        """Of the same names, sizes, dates and labels."""
        for number, names in enumerate((("dark", "bright"), ("bright", "dark")), start=1):
            for folder, name in zip("ab", names, strict=True):
                shutil.rmtree(tmp_path / "images" / folder, ignore_errors=True)
                write_shades(tmp_path / "images" / folder, name)
            source = data.load(tmp_path / "images")
            model = transfer.classifier(small_net(include_top=False, input_shape=(8, 8, 3)), 2)
            plan = [transfer.Stage("head", dataclasses.replace(QUICK, epochs=20), views=1)]
            features = tmp_path / "features"
            transfer.fine_tune(model, source, plan, features_folder=features, verbose=0)
            assert len(list(features.iterdir())) == number
            test = data.batches(source.test, image_size=8)
            assert analysis.evaluate(model, test, source.class_names).accuracy == 1

    def test_views_are_for_the_head_alone(self, digits):
        with one_line_error("views=2", "head alone"):
            transfer.fine_tune(small_net(), digits, [transfer.Stage("conv4", QUICK, views=2)])
