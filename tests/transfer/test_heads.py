import dataclasses
import logging

import keras
import numpy as np
import pytest
from errors import one_line_error
from nets import nested_net, small_net, three_layers

import keras_resnet
from keras_resnet import graphs, transfer
from keras_resnet.resnet import deep_graphs


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

    def test_replaces_a_head_of_a_number(self):
        pooled = small_net(include_top=False, pooling="avg")
        number = keras.layers.Dense(1, name="predictions")(pooled.output)
        model = transfer.classifier(keras.Model(pooled.input, number), classes=2)
        assert graphs.features_of(model).shape == pooled.output_shape

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


def labelled(source, task):
    """The same images for another task."""
    made = {
        "classification": lambda labels: labels,
        "multilabel": lambda labels: np.eye(10, dtype="float32")[labels][:, :4],
        "regression": lambda labels: labels.astype("float32"),
    }[task]
    names = {"classification": 10, "multilabel": 4, "regression": 1}[task]
    splits = {
        name: dataclasses.replace(split, labels=made(split.labels))
        for name, split in source.splits.items()
    }
    return dataclasses.replace(
        source, class_names=tuple(f"{index}" for index in range(names)), task=task, **splits
    )


class TestModelFor:
    @pytest.mark.parametrize(
        ("task", "outputs"),
        [
            ("classification", "probabilities"),
            ("multilabel", "multilabel"),
            ("regression", "number"),
        ],
    )
    def test_ends_in_what_the_task_needs(self, digits, task, outputs):
        source = labelled(digits, task)
        model = transfer.model_for(small_net(), source, dropout=0.5)
        assert model.output_shape == (None, len(source.class_names))
        assert graphs.head_of(model).output == outputs
        transfer.freeze(model)
        assert {variable.path.partition("/")[0] for variable in model.trainable_variables} <= {
            "predictions", "standardized",
        }  # fmt: skip
        other = transfer.classifier(model, 3)
        assert [layer.name for layer in graphs.head_of(other).layers] == ["predictions"]


class TestWhatStays:
    """A head for a task goes; what else has been learned stays."""

    IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 1))

    def features(self, model):
        """What the new classifier is given."""
        model.get_layer("predictions").kernel.assign(
            np.eye(*model.get_layer("predictions").kernel.shape)
        )
        model.get_layer("predictions").activation = keras.activations.linear
        return model.predict(self.IMAGES, verbose=0)

    @pytest.mark.parametrize("activation", [None, "relu"])
    @pytest.mark.parametrize("nest", [False, True])
    def test_a_projection(self, caplog, activation, nest):
        projection = keras.layers.Dense(6, activation, name="embedding")
        backbone = nested_net([projection])
        if nest:
            backbone = keras.Sequential([keras.Input((8, 8, 1)), backbone])
        with caplog.at_level(logging.INFO, "keras_resnet"):
            model = transfer.classifier(backbone, classes=6)
        assert [record.message for record in caplog.records] == [
            f"{backbone.name}: what embedding projects the features to is not known to be classes, "
            "so it stays."
        ]
        expected = backbone.predict(self.IMAGES, verbose=0)
        np.testing.assert_allclose(self.features(model), expected, rtol=1e-5)

    @pytest.mark.parametrize("nest", [False, True])
    def test_no_layer_of_a_longer_head(self, caplog, nest):
        backbone = nested_net(three_layers(7))
        if nest:
            backbone = keras.Sequential([keras.Input((8, 8, 1)), backbone])
        model = transfer.classifier(backbone, classes=3)
        assert [layer.name for layer in graphs.head_of(model).layers] == ["predictions"]
        assert not caplog.records

    def test_a_normalization_of_the_features(self):
        theirs = keras.applications.ConvNeXtTiny(
            weights=None, input_shape=(32, 32, 3), classes=5, include_preprocessing=False
        )
        model = transfer.classifier(theirs, classes=2, dropout=0.1)
        images = np.random.default_rng(0).normal(size=(1, 32, 32, 3))
        normalized = keras.Model(theirs.input, theirs.layers[-2].output)
        found = keras.Model(model.input, model.get_layer("head_dropout").input)
        np.testing.assert_allclose(found(images), normalized(images), rtol=1e-4, atol=1e-5)
        assert len(theirs.get_layer(theirs.layers[-2].name).weights) == 2

    @pytest.mark.parametrize("training", [{}, {"training": False}])
    def test_the_features_of_a_classifier_in_a_model(self, training):
        net = small_net()
        inputs = keras.Input((8, 8, 1))
        wrapped = keras.Model(inputs, net(keras.layers.ZeroPadding2D(0)(inputs), **training))
        model = transfer.classifier(wrapped, classes=64)
        pooled = keras.Model(net.input, net.get_layer("avg_pool").output)
        np.testing.assert_allclose(
            self.features(model), pooled.predict(self.IMAGES, verbose=0), rtol=1e-5
        )
