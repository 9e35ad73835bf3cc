"""Maps of where a model sees a class, against formulations of their own."""

import logging

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet import analysis, explain, graphs
from keras_resnet.machine import computing_in

SIDE = 32


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(3, SIDE, SIDE, 3)).astype("float32")


def net(kind="CIFARResNet", **options):
    keras.utils.set_random_seed(0)
    return getattr(keras_resnet, kind)(8, **options)


def head(backbone, *layers):
    """A classifier that calls its backbone as one layer."""
    x = inputs = keras.Input(backbone.input_shape[1:])
    for layer in (backbone, *layers):
        x = layer(x)
    return keras.Model(inputs, x)


def close(maps, expected, within=1e-5):
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(maps, expected, atol=within * np.abs(expected).max())


def cam_of(model, images, classes):
    """Zhou et al. 2016, equation 2, per place, from the feature map and the last weights."""
    pooling, dense = model.get_layer("avg_pool"), model.get_layer("predictions")
    features = keras.Model(model.inputs[0], pooling.input)(images).numpy()
    weights = dense.kernel.numpy()[:, classes]
    return np.einsum("nhwc,cn->nhw", features, weights) / np.prod(features.shape[1:3])


class TestClosedForm:
    @pytest.mark.parametrize(
        ("kind", "activation"),
        [("CIFARResNet", "softmax"), ("CIFARResNet", "sigmoid"), ("CIFARResNetV2", None)],
    )
    def test_is_that_of_cam(self, images, kind, activation):
        model = net(kind, classifier_activation=activation)
        classes = [3, 0, 7]
        expected = cam_of(model, images, classes)
        close(explain.Explainer(model, method="cam")(images, classes).maps, expected)
        close(explain.Explainer(model)(images, classes).maps, np.maximum(expected, 0))

    def test_cam_adds_up_to_the_logit(self, images):
        model = net(classifier_activation=None)
        found = explain.Explainer(model, method="cam")(images, 2)
        bias = model.get_layer("predictions").bias.numpy()[2]
        np.testing.assert_allclose(
            found.maps.sum(axis=(1, 2)) + bias, found.outputs[:, 2], rtol=1e-5
        )

    @pytest.mark.slow
    def test_bottlenecks_and_groups(self, images):
        build = keras_resnet.ResNeXt50_32x4d
        with pytest.raises(ValueError, match="one pixel"):  # of 32, nothing is left to look at
            explain.grad_cam(build(weights=None, input_shape=(SIDE, SIDE, 3)), images)
        images = images.repeat(2, axis=1).repeat(2, axis=2)
        model = build(weights=None, input_shape=(64, 64, 3), classes=8)
        found = explain.Explainer(model)(images, [1, 2, 3])
        assert found.layer == "conv5_block3_out"
        close(found.maps, np.maximum(cam_of(model, images, [1, 2, 3]), 0))
        same = explain.Explainer(model, "conv5")(images, [1, 2, 3])
        np.testing.assert_array_equal(same.maps, found.maps)


def curved():
    """A head that is not linear, in float64."""
    keras.utils.set_random_seed(1)
    double = {"dtype": "float64"}
    layers = [
        keras.Input((6, 5, 2), **double),
        keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="map", **double),
        keras.layers.Flatten(**double),
        keras.layers.Dense(5, "tanh", name="hidden", **double),
        keras.layers.Dense(3, "softmax", name="classes", **double),
    ]
    return keras.Sequential(layers)


class TestFiniteDifferences:
    @staticmethod
    def scores(model, maps):
        """The logits for maps of features, in NumPy alone."""
        hidden, classes = model.get_layer("hidden"), model.get_layer("classes")
        inner = np.tanh(maps.reshape(len(maps), -1) @ hidden.kernel.numpy() + hidden.bias.numpy())
        return inner @ classes.kernel.numpy() + classes.bias.numpy()

    def test_grad_cam(self):
        model, images = curved(), np.random.default_rng(2).normal(size=(2, 6, 5, 2))
        maps = keras.Model(model.inputs[0], model.get_layer("map").output)(images).numpy()
        found = explain.Explainer(model, "map")(images, [0, 2])
        for one, kind, seen in zip(maps, [0, 2], found.maps, strict=True):
            step = 1e-4 * np.eye(one.size).reshape(-1, *one.shape)
            rise = self.scores(model, one + step) - self.scores(model, one - step)
            slope = (rise[:, kind] / 2e-4).reshape(one.shape)
            assert slope.std(axis=(0, 1)).min() > 0  # it differs from place to place
            expected = np.zeros(one.shape[:2])
            for channel in range(one.shape[2]):
                expected += slope[:, :, channel].mean() * one[:, :, channel]
            close(seen, np.maximum(expected, 0))

    def test_grad_cam_plus_plus(self, images):
        """Equation 19 with the derivatives of exp(score), where the score is linear."""
        keras.utils.set_random_seed(3)
        map_of = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="map")
        dense = keras.layers.Dense(3, "softmax", name="classes")
        pooling = keras.layers.GlobalAveragePooling2D()
        model = keras.Sequential([keras.Input((6, 5, 3)), map_of, pooling, dense])
        images = images[:, :6, :5]
        kernel = np.random.default_rng(3).normal(size=(4, 3))
        dense.set_weights([kernel, np.zeros(3)])
        found = explain.Explainer(model, "map", "grad_cam++")(images, 1)
        for image, seen in zip(images, found.maps, strict=True):
            features = map_of(image[None]).numpy()[0].astype("float64")
            unit, step = np.eye(features.size).reshape(-1, *features.shape), 0.05

            def derivative(stencil, order, features=features, unit=unit, step=step):
                total = sum(
                    weight
                    * np.exp((features + shift * step * unit).mean(axis=(1, 2)) @ kernel[:, 1])
                    for shift, weight in stencil.items()
                )
                return (total / step**order).reshape(features.shape)

            first = derivative({1: 0.5, -1: -0.5}, 1)
            second = derivative({1: 1, 0: -2, -1: 1}, 2)
            third = derivative({2: 0.5, 1: -1, -1: 1, -2: -0.5}, 3)
            sums = features.sum(axis=(0, 1))
            alphas = np.divide(
                second, 2 * second + sums * third, out=np.zeros_like(second), where=second != 0
            )
            weights = (alphas * np.maximum(first, 0)).sum(axis=(0, 1))
            expected = np.maximum((weights * features).sum(axis=-1), 0)
            expected /= np.exp(features.mean(axis=(0, 1)) @ kernel[:, 1])
            close(seen, expected, 1e-4)


class TestHeads:
    def test_every_way_to_write_a_softmax_gives_the_gradient_of_the_logit(self, images):
        backbone = net(include_top=False, pooling="avg")
        dense = keras.layers.Dense(4, name="classes")
        softmaxes = (
            keras.layers.Softmax(),
            keras.layers.Activation("log_softmax"),
            keras.ops.softmax,
            keras.layers.Activation("sigmoid"),
        )
        plain = head(backbone, dense)
        expected = explain.grad_cam(plain, images, 1)
        for softmax in softmaxes:
            model = head(backbone, dense, softmax)
            np.testing.assert_array_equal(explain.grad_cam(model, images, 1), expected)
            outputs = explain.Explainer(model)(images, 1).outputs
            np.testing.assert_allclose(outputs, model(images).numpy(), atol=1e-6)
        inside = keras.layers.Dense(4, "softmax")
        model = head(backbone, inside)
        inside.set_weights(dense.get_weights())
        np.testing.assert_array_equal(explain.grad_cam(model, images, 1), expected)

    def test_labels_are_explained_one_by_one(self, images):
        model = net(classifier_activation="sigmoid")
        decided = graphs.with_thresholds(model, 0.3)
        found = explain.Explainer(decided)(images)
        np.testing.assert_array_equal(found.classes, decided(images).numpy().argmax(axis=1))
        close(found.maps, np.maximum(cam_of(model, images, found.classes), 0))

    def test_a_single_sigmoid_decides_between_two_classes(self, images):
        backbone = net(include_top=False, pooling="avg")
        model = head(backbone, keras.layers.Dense(1, "sigmoid", name="predictions"))
        cam = explain.Explainer(model, method="cam")
        np.testing.assert_array_equal(cam(images, 0).maps, -cam(images, 1).maps)
        found = explain.Explainer(model)(images)
        np.testing.assert_array_equal(found.classes, model(images).numpy()[:, 0] > 0.5)

    def test_values(self, images):
        backbone = net(include_top=False, pooling="avg")
        value = keras.layers.Rescaling(3.0, 1.0, name="predictions")
        one = head(backbone, keras.layers.Dense(1), value)
        assert explain.grad_cam(one, images).shape == (3, SIDE, SIDE)
        several = head(backbone, keras.layers.Dense(2), value)
        with pytest.raises(ValueError, match="gives 2 values: say which by classes="):
            explain.grad_cam(several, images)
        assert explain.grad_cam(several, images, 1).max() > 0

    def test_says_where_the_softmax_cannot_be_undone(self, images, caplog):
        def own(x):
            return keras.ops.softmax(x)

        model = head(net(include_top=False, pooling="avg"), keras.layers.Dense(4, own))
        with caplog.at_level(logging.WARNING):
            explain.grad_cam(model, images, 0)
        assert "they themselves are explained" in caplog.text


class TestNesting:
    def test_a_transfer_model_is_as_the_flat_one(self, images):
        backbone = net(include_top=False)
        pooling, dense = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4, "softmax")
        flat = keras.Model(backbone.input, dense(pooling(backbone.output)))
        expected = explain.grad_cam(flat, images, 1)
        inner = keras.Sequential([keras.Input((SIDE, SIDE, 3)), backbone, pooling])
        for model in (
            keras.Sequential([keras.Input((SIDE, SIDE, 3)), backbone, pooling, dense]),
            head(backbone, pooling, dense),
            head(inner, keras.layers.Dropout(0.5), dense),
            keras.Sequential([keras.Input((SIDE, SIDE, 3)), head(inner, dense)]),
        ):
            close(explain.grad_cam(model, images, 1), expected, 1e-6)
        for layer in ("conv4", "conv4_block1_out", backbone.layers[-1], backbone):
            close(explain.grad_cam(model, images, 1, layer), expected, 1e-6)

    @pytest.mark.parametrize(
        ("build", "size", "layer"),
        [
            ("ResNet50", 64, "conv5_block3_out"),
            pytest.param("ResNet50V2", 64, "post_relu", marks=pytest.mark.slow),
            pytest.param("MobileNetV2", 64, "out_relu", marks=pytest.mark.slow),
            pytest.param("InceptionV3", 139, "mixed10", marks=pytest.mark.slow),
            pytest.param("EfficientNetB0", 64, "top_activation", marks=pytest.mark.slow),
            pytest.param("ConvNeXtTiny", 64, None, marks=pytest.mark.slow),
            pytest.param("VGG16", 64, "block5_pool", marks=pytest.mark.slow),
        ],
    )
    def test_models_of_keras(self, build, size, layer):
        model = getattr(keras.applications, build)(weights=None, input_shape=(size, size, 3))
        images = np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3))
        found = explain.Explainer(model)(images)
        assert found.layer == (layer or found.layer)
        assert found.maps.ndim == 3
        assert min(found.maps.shape[1:]) > 1

    def test_a_subclass_that_calls_a_backbone(self, images, caplog):
        class Own(keras.Model):
            def __init__(self, backbone):
                super().__init__()
                self.backbone, self.pooling = backbone, keras.layers.GlobalAveragePooling2D()
                self.dense = keras.layers.Dense(4)

            def call(self, x):
                return self.dense(self.pooling(self.backbone(x)))

        model = Own(net(include_top=False))
        with pytest.raises(ValueError, match="has no weights yet: call it on images first"):
            explain.grad_cam(model, images)
        model(images)
        functional = head(model.backbone, model.pooling, model.dense)
        with caplog.at_level(logging.WARNING):
            maps = explain.grad_cam(model, images, 2)
        assert "its outputs themselves are explained" in caplog.text
        close(maps, explain.grad_cam(functional, images, 2))
        close(
            explain.grad_cam(model, images, 2, "conv3"),
            explain.grad_cam(functional, images, 2, "conv3"),
        )

    def test_nothing_of_the_model_is_changed(self, images):
        model = net(classifier_activation="softmax")
        before = model(images).numpy(), [{**vars(each)} for each in model.layers]
        explain.grad_cam(model, images)
        with pytest.raises(ValueError, match="gives no feature map"):
            explain.grad_cam(model, images, layer="predictions")
        np.testing.assert_array_equal(model(images).numpy(), before[0])
        for layer, former in zip(model.layers, before[1], strict=True):
            assert vars(layer).keys() == former.keys()
            assert getattr(layer, "activation", None) is former.get("activation")

    def test_weights_that_change_take_effect(self, images):
        model = net()
        explained = explain.Explainer(model)
        explained(images)
        for weight in model.trainable_weights:
            weight.assign(weight * 0.5)
        np.testing.assert_array_equal(
            explained(images, 1).maps, explain.Explainer(model)(images, 1).maps
        )


class TestImages:
    def test_batches_make_no_difference(self, images):
        model = net()
        classes = np.array([4, 1, 9])
        expected = explain.grad_cam(model, images, classes)
        assert expected.dtype == "float32"
        for batch_size in (1, 2):
            maps = explain.grad_cam(model, images, classes, batch_size=batch_size)
            close(maps, expected)

    def test_any_size_that_the_model_takes(self, images):
        model = net(input_shape=(None, None, 3))
        for image in (images, images[:, :20, :28]):
            maps = explain.grad_cam(model, image)
            assert maps.shape == image.shape[:3]

    @pytest.mark.parametrize(
        ("policy", "within"), [("mixed_bfloat16", 0.05), ("mixed_float16", 0.01)]
    )
    def test_mixed_precision(self, images, policy, within):
        model = net()
        expected = explain.grad_cam(model, images, 1)
        with computing_in(policy):
            mixed = net()
        mixed.set_weights(model.get_weights())
        maps = explain.grad_cam(mixed, images, 1)
        assert maps.dtype == "float32"
        close(maps, expected, within)

    def test_small_gradients_in_float16(self, images):
        """Behind a kernel of 1e-5, they are smaller than what float16 can tell from 0."""
        with computing_in("mixed_float16"):
            model = net()
        expected = explain.Explainer(model)(images, 1).maps
        kernel = model.get_layer("predictions").kernel
        kernel.assign(kernel * 1e-5)
        close(explain.Explainer(model)(images, 1).maps * 1e5, expected, 0.05)


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"layer": "conv9"}, "no such layer or stage. Its layers begin with"),
            ({"layer": "avg_pool"}, "gives no feature map"),
            ({"layer": 5}, "layer=5 is neither a name nor a layer"),
            ({"layer": keras.layers.ReLU()}, "is neither a name nor a layer"),
            ({"classes": 10}, "classes=10 must be below 10"),
            ({"classes": -1}, "classes=-1 must be the number of a class"),
            ({"classes": 1.5}, "classes=1.5 must be the number of a class"),
            ({"classes": [1, 2]}, "2 classes came for 3 images"),
            ({"method": "gradcam+"}, "Did you mean grad_cam"),
            ({"method": "cam", "layer": "conv3"}, "leave out layer='conv3'"),
            ({"batch_size": 0}, "batch_size=0 must be"),
        ],
    )
    def test_are_told(self, images, options, complaint):
        with pytest.raises(ValueError, match=complaint):
            explain.grad_cam(net(), images, **options)

    @pytest.mark.parametrize(
        "wrong",
        [
            np.zeros((SIDE, SIDE, 3)),
            np.zeros((2, SIDE, SIDE, 1)),
            np.zeros((2, 16, SIDE, 3)),
            np.zeros((0, SIDE, SIDE, 3)),
            np.array([["cat"]]),
        ],
    )
    def test_images_of_the_wrong_kind(self, wrong):
        with pytest.raises(ValueError, match=r"images of shape .* here \(any, 32, 32, 3\)"):
            explain.grad_cam(net(), wrong)

    def test_images_of_several_sizes(self):
        with pytest.raises(ValueError, match="images must be of one size"):
            explain.grad_cam(net(), [np.zeros((8, 8, 3)), np.zeros((9, 8, 3))])

    def test_models_that_have_nothing_to_show(self, images):
        layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(3)]
        flat = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *layers])
        two = keras.Input((SIDE, SIDE, 3)), keras.Input((SIDE, SIDE, 3))
        backbone = net(include_top=False, pooling="avg")
        added = keras.layers.Dense(3)(keras.layers.add([backbone(each) for each in two]))
        model = net(include_preprocessing=True)
        view = graphs.view_of(model)
        members = [net(name="one"), net(name="other")]
        ensemble = keras.Model(two[0], keras.layers.average([each(two[0]) for each in members]))
        for wrong, complaint in (
            (flat, "gives no feature map"),
            (net(include_top=False), "no scores to explain"),
            (backbone, "no scores to explain"),
            (keras.Model(two, added), "has 2 inputs"),
            (keras.Model(backbone.input, [backbone.output] * 2), "several outputs"),
            (keras.Sequential([keras.layers.Dense(3)]), "has not been built"),
            (analysis.over_views(model, "flip", view)[0], "is called 2 times"),
            (ensemble, "does not depend on its last feature map alone"),
        ):
            with pytest.raises(ValueError, match=complaint):
                explain.grad_cam(wrong, images)

    def test_cam_needs_its_head(self, images):
        backbone = net(include_top=False)
        average, dense = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, "softmax")
        for layers in (
            [keras.layers.GlobalMaxPooling2D()],
            [average, keras.layers.Dense(8, "relu")],
            [average, keras.layers.BatchNormalization()],
            [keras.layers.Flatten()],
        ):
            other = head(backbone, *layers, keras.layers.Dense(3, "softmax"))
            with pytest.raises(ValueError, match="needs a head of global average pooling"):
                explain.grad_cam(other, images, method="cam")
        with_dropout = head(backbone, average, keras.layers.Dropout(0.5), dense)
        assert explain.grad_cam(with_dropout, images, method="cam").shape == (3, SIDE, SIDE)

    def test_layers_of_one_name(self, images):
        one, other = (net(include_top=False, pooling="avg") for _ in range(2))
        one.name, other.name = "one", "other"
        inputs = keras.Input((SIDE, SIDE, 3))
        both = keras.layers.concatenate([one(inputs), other(inputs)])
        model = keras.Model(inputs, keras.layers.Dense(3, "softmax")(both))
        with pytest.raises(ValueError, match="has several of that name"):
            explain.grad_cam(model, images, layer="conv4")
        chosen = explain.Explainer(model, one.get_layer("conv4_block1_out"))
        assert chosen(images).maps.max() > 0

    def test_a_layer_that_leads_nowhere(self, images):
        backbone = net()
        aside = keras.layers.Conv2D(2, 3, name="aside")(
            backbone.get_layer("conv3_block1_out").output
        )
        model = keras.Model(backbone.input, [backbone.output, aside])
        nested = model(x := keras.Input((SIDE, SIDE, 3)))
        with pytest.raises(ValueError, match="leads to no output"):
            explain.grad_cam(keras.Model(x, nested[0]), images, layer="aside")

    def test_nan(self, images):
        model = net()
        model.get_layer("predictions").bias.assign([np.nan] * 10)
        with pytest.raises(ValueError, match="gives NaN or infinity for 3 of 3 images"):
            explain.grad_cam(model, images)

    def test_nan_among_pixels(self, images):
        with pytest.raises(ValueError, match="images hold NaN"):  # a ReLU makes 0 of it
            explain.grad_cam(net(), images * np.float32("nan"))


class TestOverlay:
    def test_shows_the_image_where_the_map_is_0(self):
        images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype("uint8")
        maps = np.zeros((2, 16, 16), "float32")
        maps[1, 3, 5], maps[1, 8, 8] = 2.0, -5.0
        drawn = explain.overlay(images, maps)
        np.testing.assert_array_equal(drawn[0], images[0])
        changed = (drawn[1] != images[1]).any(axis=-1)
        assert changed[3, 5]
        assert changed.sum() == 1

    def test_the_maximum_has_the_hottest_colour(self):
        from matplotlib import colormaps

        drawn = explain.overlay(np.zeros((1, 8, 8, 1)), np.full((1, 2, 2), 7.0), strength=1.0)
        hottest = np.round(255 * np.array(colormaps["turbo"](1.0)[:3]))
        np.testing.assert_array_equal(drawn[0, 4, 4], hottest)

    @pytest.mark.parametrize(("pixel", "place"), [(np.nan, 1.0), (1.0, np.nan), (1.0, np.inf)])
    def test_nan_has_no_colour(self, pixel, place):
        with pytest.raises(ValueError, match="must be finite"):
            explain.overlay(np.full((1, 8, 8, 3), pixel), np.full((1, 2, 2), place))

    @pytest.mark.parametrize(
        ("shapes", "options", "complaint"),
        [
            (((2, 8, 8, 3), (2, 8)), {}, "must be of shape"),
            (((2, 8, 8, 4), (2, 8, 8)), {}, "must be of shape"),
            (((2, 8, 8, 3), (2, 0, 8)), {}, "must be of shape"),
            (((2, 8, 8, 3), (3, 8, 8)), {}, "3 maps came for 2 images"),
            (((2, 8, 8, 3), (2, 8, 8)), {"colours": "rainbows"}, "colours='rainbows' must be one"),
            (((2, 8, 8, 3), (2, 8, 8)), {"strength": 2}, "strength=2 must be"),
        ],
    )
    def test_mistakes_are_told(self, shapes, options, complaint):
        with pytest.raises(ValueError, match=complaint):
            explain.overlay(*map(np.zeros, shapes), **options)
