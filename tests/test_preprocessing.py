import json

import keras
import numpy as np
import pytest
from errors import one_line_error

import keras_resnet
from keras_resnet import decode_predictions, preprocess_input, pretrained
from keras_resnet.graphs import wants_of
from keras_resnet.layers import Preprocessing
from keras_resnet.preprocessing import imagenet_classes


class TestOfAModel:
    IMAGES = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3))

    @pytest.mark.parametrize("mode", ["torch", "caffe", "tf"])
    def test_is_what_the_model_was_built_for(self, tmp_path, mode):
        net = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 3), preprocessing=mode)
        net.save(tmp_path / "net.keras")
        for model in (net, keras.saving.load_model(tmp_path / "net.keras")):
            np.testing.assert_array_equal(
                preprocess_input(self.IMAGES, model), preprocess_input(self.IMAGES, mode)
            )

    @pytest.mark.parametrize("channels", [1, 4])
    def test_is_the_same_within_a_model_and_before_it(self, channels):
        options = dict(input_shape=(8, 8, channels), preprocessing="torch")
        before = keras_resnet.CIFARResNet(8, **options)
        within = keras_resnet.CIFARResNet(8, include_preprocessing=True, **options)
        within.set_weights(before.get_weights())
        images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, channels))
        shown = preprocess_input(images, before)
        np.testing.assert_allclose(within(images), before(shown), atol=1e-5)

    def test_is_refused_for_images_of_other_channels(self):
        net = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 4))
        with one_line_error("x of shape (2, 8, 8, 3)", "takes images of 4 channels"):
            preprocess_input(self.IMAGES, net)
        for shape in ((2, 8, 8, 1), (3, 224, 224), (8, 8), ()):
            with one_line_error("mode='torch' needs RGB images", f"has the shape {shape}"):
                preprocess_input(np.zeros(shape), "torch")

    def test_is_nothing_where_the_model_does_it(self):
        net = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 3), include_preprocessing=True)
        prepared = preprocess_input(self.IMAGES, net)
        assert prepared.dtype == "float32"
        np.testing.assert_array_equal(prepared, self.IMAGES)

    def test_is_not_guessed(self):
        inputs = keras.Input((8, 8, 3))
        model = keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs), name="foreign")
        with one_line_error("model 'foreign' does not say", "mode='torch'"):
            preprocess_input(self.IMAGES, model)


class TestDecodePredictions:
    def test_names_the_likeliest_classes_in_order(self):
        scores = np.zeros((2, 1000))
        scores[0, [0, 1, 2]] = [0.2, 0.5, 0.3]
        scores[1, 999] = 1
        first, second = decode_predictions(scores, top=3)
        assert first == [
            ("n01443537", "goldfish", 0.5),
            ("n01484850", "great_white_shark", 0.3),
            ("n01440764", "tench", 0.2),
        ]
        assert second[0] == ("n15075141", "toilet_tissue", 1.0)
        # Equal scores come in the order of the classes.
        assert [wnid for wnid, _, _ in second[1:]] == ["n01440764", "n01443537"]

    def test_gives_five_by_default_and_all_on_request(self):
        scores = np.random.default_rng(0).random((1, 1000))
        assert len(decode_predictions(scores)[0]) == 5
        everything = decode_predictions(scores, top=1000)[0]
        assert len({wnid for wnid, _, _ in everything}) == 1000
        assert [score for *_, score in everything] == sorted(scores[0], reverse=True)

    @pytest.mark.parametrize("shape", [(1000,), (1, 10), (1, 1000, 1), ()])
    def test_refuses_other_classes(self, shape):
        with one_line_error(f"preds of shape {shape}", "(images, 1000)"):
            decode_predictions(np.zeros(shape))

    @pytest.mark.parametrize("top", [0, -1, 1001])
    def test_refuses_a_number_of_classes_that_there_are_not(self, top):
        with one_line_error(f"top={top}", "1 to 1000"):
            decode_predictions(np.zeros((1, 1000)), top=top)


class TestImagenetClasses:
    def test_are_a_thousand_in_the_order_of_their_ids(self):
        wnids = [wnid for wnid, _ in imagenet_classes()]
        assert wnids == sorted(set(wnids))
        assert len(wnids) == 1000

    def test_are_those_of_the_labelled_photographs(self, assets):
        for row in json.loads((assets / "imagenet_classes.json").read_text()):
            assert imagenet_classes()[row["index"]] == (row["wnid"], row["name"])


class TestCrop:
    def test_is_that_of_the_stem(self):
        options = dict(weights=None, include_preprocessing=True)
        assert wants_of(keras_resnet.CIFARResNet(8, **options)).crop == 1.0
        assert wants_of(keras_resnet.ResNet18(**options, input_shape=(32, 32, 3))).crop == 0.875

    def test_is_that_of_the_weights(self, tmp_path, monkeypatch):
        small = dict(input_shape=(32, 32, 3), include_top=False)
        row = next(row for row in keras_resnet.list_weights("ResNet50") if row.tag == "imagenet_v2")
        net = keras_resnet.ResNet50(weights=None, **small)
        pretrained.to_torch(net, tmp_path / row.files[0].name)
        monkeypatch.setenv("KERAS_RESNET_WEIGHTS", str(tmp_path))
        with pytest.warns(RuntimeWarning, match="is published"):
            net = keras_resnet.ResNet50(weights="imagenet_v2", include_preprocessing=True, **small)
        assert wants_of(net).crop == 224 / 232

    def test_is_saved_with_the_model(self, tmp_path):
        net = keras_resnet.CIFARResNet(8, include_preprocessing=True)
        net.get_layer("preprocessing").crop = 0.5
        net.save(tmp_path / "net.keras")
        assert wants_of(keras.saving.load_model(tmp_path / "net.keras")).crop == 0.5

    def test_out_of_range_is_refused(self):
        with one_line_error("crop=1.5"):
            Preprocessing("torch", crop=1.5)
