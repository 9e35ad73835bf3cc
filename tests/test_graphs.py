"""What a model is: nested and sequential models, heads of any length."""

import keras
import numpy as np
import pytest
from errors import one_line_error
from keras import layers

import keras_resnet
from keras_resnet import graphs

IMAGE = (8, 8, 3)


@pytest.fixture(scope="module", autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


def net(**options):
    return keras_resnet.resnet.resnet(
        (1,), "basic", (4,), stem="cifar", input_shape=IMAGE, **{"classes": 3, **options}
    )


def backbone(pooling="avg", **options):
    return net(include_top=False, pooling=pooling, **options)


def functional(*parts):
    x = inputs = keras.Input(IMAGE)
    for part in parts:
        x = part(x)
    return keras.Model(inputs, x)


def sequential(*parts):
    return keras.Sequential([keras.Input(IMAGE), *parts])


def without_training(*parts):
    x = inputs = keras.Input(IMAGE)
    for part in parts:
        x = part(x, training=False) if isinstance(part, keras.Model) else part(x)
    return keras.Model(inputs, x)


def twice(*parts):
    return functional(layers.RandomFlip(), functional(*parts))


def halves(*parts):
    """Two sequential models in one."""
    middle = len(parts) // 2 or 1
    parts = [keras.Sequential(each) for each in (parts[:middle], parts[middle:]) if each]
    return sequential(*parts)


def reused(*parts):
    """A model whose parts have been called before, elsewhere."""
    functional(*parts)
    return functional(*parts)


NESTINGS = [functional, sequential, without_training, twice, halves, reused]
nested = pytest.mark.parametrize("nest", NESTINGS, ids=lambda nest: nest.__name__)


HEADS = {
    "softmax": (lambda: [layers.Dense(4, "softmax")], "probabilities"),
    "softmax layer": (lambda: [layers.Dense(4), layers.Softmax()], "probabilities"),
    "linear behind it": (
        lambda: [layers.Dense(4, "softmax"), layers.Activation("linear", dtype="float32")],
        "probabilities",
    ),
    "three": (
        lambda: [layers.Dense(5), layers.BatchNormalization(), layers.Dense(4, "softmax")],
        "probabilities",
    ),
    "five": (
        lambda: [
            layers.LayerNormalization(),
            layers.Dropout(0.5),
            layers.Dense(5),
            layers.LeakyReLU(),
            layers.Dense(4, "sigmoid"),
        ],
        "multilabel",
    ),
    "one of two": (lambda: [layers.Dense(1, "sigmoid")], "multilabel"),
    "logits": (lambda: [layers.Dense(4, name="predictions")], "logits"),
    "log of softmax": (lambda: [layers.Dense(4, "log_softmax")], "logits"),
    "number": (
        lambda: [layers.Dense(1, name="standardized"), layers.Rescaling(2, 3, name="predictions")],
        "number",
    ),
    "regression or one logit": (lambda: [layers.Dense(1, name="predictions")], "unknown"),
    "projection": (lambda: [layers.Dense(4, "relu")], "unknown"),
    "linear projection": (lambda: [layers.Dense(4)], "unknown"),
    "normalized": (lambda: [layers.Dense(4), layers.BatchNormalization()], "unknown"),
    "certainty": (lambda: [layers.Dense(1, "softmax")], "unknown"),
    "softmax over the batch": (lambda: [layers.Dense(4), layers.Softmax(axis=0)], "unknown"),
}
heads = pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)


class TestHead:
    @nested
    @heads
    def test_has_its_layers_and_meaning_in_any_nesting(self, nest, make):
        head, output = make[0](), make[1]
        body = backbone()
        found = graphs.head_of(nest(body, *head))
        assert found.output == output
        assert [*found.layers] == head
        assert found.features.shape == (None, 4)
        assert found.units == head[-1].output.shape[-1]

    @nested
    @heads
    def test_features_and_head_are_the_model(self, nest, make):
        model = nest(backbone(), *make[0]())
        images = np.random.default_rng(0).normal(size=(2, *IMAGE))
        features = graphs.extractor_of(model)(images, training=False)
        outputs = graphs.head_model_of(model)(features, training=False)
        np.testing.assert_allclose(outputs, model(images, training=False), rtol=1e-5, atol=1e-6)

    @nested
    def test_of_a_classifier_in_a_model(self, nest):
        model = nest(net())
        found = graphs.head_of(model)
        assert found.output == "probabilities"
        assert [layer.name for layer in found.layers] == ["predictions"]
        images = np.random.default_rng(0).normal(size=(2, *IMAGE))
        features = graphs.extractor_of(model)(images, training=False)
        outputs = graphs.head_model_of(model)(features, training=False)
        np.testing.assert_allclose(outputs, model(images, training=False), rtol=1e-5, atol=1e-6)

    @nested
    def test_pooling_outside_of_the_backbone(self, nest):
        model = nest(backbone(None), layers.GlobalMaxPooling2D(), layers.Dense(2, "softmax"))
        found = graphs.head_of(model)
        assert (found.output, len(found.layers), found.features.shape) == (
            "probabilities", 1, (None, 4),
        )  # fmt: skip

    @nested
    @pytest.mark.parametrize("pooling", ["avg", None])
    def test_a_backbone_has_none(self, nest, pooling):
        model = nest(backbone(pooling))
        found = graphs.head_of(model)
        assert (found.output, found.layers) == ("features", ())
        assert found.features is model.outputs[0]
        with one_line_error("has no head"):
            graphs.head_model_of(model)

    def test_stays_known_when_saved(self, tmp_path):
        for name, (make, output) in HEADS.items():
            twice(backbone(), *make()).save(tmp_path / "model.keras")
            again = keras.saving.load_model(tmp_path / "model.keras")
            assert graphs.head_of(again).output == output, name

    def test_ends_where_branches_meet(self):
        inputs = keras.Input(IMAGE)
        features = backbone()(inputs)
        x = layers.Add()([layers.Dense(5)(features), layers.Dense(5)(features)])
        found = graphs.head_of(keras.Model(inputs, layers.Dense(2, "softmax")(x)))
        assert (found.output, len(found.layers), found.features.shape) == (
            "probabilities", 1, (None, 5),
        )  # fmt: skip

    def test_functions_of_keras_are_layers_too(self):
        model = functional(backbone(), layers.Dense(3), keras.ops.softmax)
        assert graphs.head_of(model).output == "probabilities"
        over_images = functional(
            backbone(), layers.Dense(3), lambda x: keras.ops.softmax(x, axis=0)
        )
        assert graphs.head_of(over_images).output == "unknown"
        parts = [backbone(), layers.Dense(5), keras.ops.relu, layers.Dense(3, "softmax")]
        head = graphs.head_of(functional(*parts, lambda x: keras.ops.cast(x, "float32")))
        assert (head.output, head.features.shape) == ("probabilities", (None, 4))

    def test_a_function_of_that_name_may_do_anything(self):
        def softmax(x):
            return 2 * x

        assert graphs.head_of(functional(backbone(), layers.Dense(3, softmax))).output == "unknown"

    @pytest.mark.parametrize(
        "make",
        [
            lambda: functional(backbone(), layers.Dense(3, "softmax"), layers.Reshape((3, 1))),
            lambda: functional(backbone(), layers.Dense(1), lambda x: keras.ops.squeeze(x, -1)),
            lambda: keras.Sequential(
                [keras.Input((2, *IMAGE)), layers.TimeDistributed(net(), name="each")]
            ),
        ],
    )
    def test_of_other_shapes_is_unknown(self, make):
        assert graphs.head_of(make()).output == "unknown"

    def test_of_something_else_is_unknown(self):
        inputs = keras.Input(IMAGE)
        average = layers.Average()([net(name=name)(inputs) for name in ("one", "other")])
        pixels = layers.Conv2D(3, 1, activation="softmax")
        for model in (
            keras.Model(inputs, average),
            functional(backbone(), layers.Lambda(lambda x: x)),
            functional(backbone(None), pixels),
        ):
            found = graphs.head_of(model)
            assert (found.output, found.layers) == ("unknown", ())

    @pytest.mark.parametrize("name", ["MobileNet", "MobileNetV3Small"])
    def test_of_convolutions_of_a_pooled_map(self, name):
        build = getattr(keras.applications, name)
        for activation, output in {"softmax": "probabilities", None: "logits"}.items():
            model = build(
                weights=None, input_shape=(32, 32, 3), classes=7, classifier_activation=activation
            )
            found = graphs.head_of(model)
            assert (found.output, found.features.shape[1:3]) == (output, (1, 1))
            assert found.layers[-1].name == "predictions"

    def test_refuses_what_is_no_graph_or_has_two_outputs(self):
        class Opaque(keras.Model):
            def call(self, inputs):
                return inputs

        with one_line_error("Opaque", "only a functional model"):
            graphs.head_of(Opaque())
        model = net()
        with one_line_error("several outputs"):
            graphs.head_of(keras.Model(model.input, [model.output, model.output]))


def saved(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def cloned(model, folder):
    return keras.models.clone_model(model)


def within(model, folder):
    return functional(layers.RandomFlip(), model)


def within_sequence(model, folder):
    return sequential(layers.ZeroPadding2D(0), model)


CHANGES = [saved, cloned, within, within_sequence]
WANTS = {
    "raw": dict(include_preprocessing=True),
    "torch": dict(preprocessing="torch"),
    "caffe": dict(preprocessing="caffe"),
    "tf": dict(preprocessing="tf"),
}


class TestWants:
    @pytest.mark.parametrize("first", CHANGES)
    @pytest.mark.parametrize("second", CHANGES)
    @pytest.mark.parametrize("normalization", WANTS)
    def test_survive_saving_cloning_and_nesting(self, tmp_path, first, second, normalization):
        model = net(**WANTS[normalization])
        assert graphs.remember(model, crop=0.5, interpolation="bicubic", image_size=(20, 10))
        before = graphs.wants_of(model)
        assert before == graphs.Wants(normalization, IMAGE[:2], 0.5, "bicubic", 3)
        assert graphs.wants_of(second(first(model, tmp_path), tmp_path)) == before

    def test_survive_in_transfer_export_and_precision(self):
        model = net(include_top=False, preprocessing="caffe")
        graphs.remember(model, crop=0.5)
        before = graphs.wants_of(model)
        classifier = keras_resnet.transfer.classifier(model, 2)
        folded = keras_resnet.export.fold_batch_norm(classifier)
        assert graphs.wants_of(classifier) == graphs.wants_of(folded) == before
        for each in (model, classifier, folded):
            assert each.preprocessing == "caffe"

    def test_of_a_model_of_any_size(self, tmp_path):
        model = net(include_preprocessing=True)
        model = keras.models.clone_model(model, input_tensors=keras.Input((None, None, 3)))
        assert graphs.wants_of(model).image_size is None
        graphs.remember(model, image_size=(20, 10))
        assert graphs.wants_of(saved(model, tmp_path)).image_size == (20, 10)

    def test_are_of_the_input_not_of_what_comes_later(self):
        assert graphs.wants_of(functional(layers.Rescaling(1 / 255), net())).normalization is None
        assert graphs.wants_of(functional(lambda x: x / 255, net())).normalization is None

    def test_of_other_models_are_unknown(self):
        model = functional(layers.Conv2D(2, 3), layers.GlobalAveragePooling2D())
        assert graphs.wants_of(model) == graphs.Wants(None, IMAGE[:2], 1.0, "bilinear", 3)
        assert not graphs.remember(model, crop=0.5)
        assert graphs.wants_of(model).crop == 1.0

    def test_an_older_model_says_it_by_its_attribute(self):
        model = functional(layers.Conv2D(2, 3), layers.GlobalAveragePooling2D())
        model.preprocessing = "caffe"
        assert graphs.wants_of(model).normalization == "caffe"

    def test_refuse_a_contradiction(self):
        model = net(preprocessing="caffe")
        model.preprocessing = "torch"
        with one_line_error("preprocessing='torch' contradicts 'caffe'", "graphs.remember"):
            graphs.wants_of(model)
        graphs.remember(model, normalization="torch")
        assert graphs.wants_of(model).normalization == model.preprocessing == "torch"

    @pytest.mark.parametrize(
        "change",
        [
            dict(crop=0),
            dict(crop=1.5),
            dict(interpolation="best"),
            dict(normalization="timm"),
            dict(image_size=5),
        ],
        ids=str,
    )
    def test_refuse_what_is_out_of_range(self, change):
        (name,) = change
        model = net()
        before = graphs.wants_of(model)
        with one_line_error(f"{name}="):
            graphs.remember(model, **change)
        assert graphs.wants_of(model) == before
        assert model.preprocessing == "torch"


class TestDigest:
    def test_is_that_of_the_same_layers_of_keras(self):
        """Checkpoints hold it: it may not change."""
        model = net(include_preprocessing=False, preprocessing="caffe")

        def as_before(layer):
            config = layer.get_config()
            if layer.name == "conv1_conv":
                for name in ("normalization", "crop", "image_size", "interpolation"):
                    del config[name]
                return keras.layers.Conv2D.from_config(config)
            return type(layer).from_config(config)

        before = keras.models.clone_model(model, clone_function=as_before)
        assert graphs.digest(model) == graphs.digest(before)

    def test_of_a_head_is_that_of_the_layers_behind_the_features(self):
        model = net()
        head = keras.Model(graphs.features_of(model), model.output)
        assert graphs.digest(graphs.head_model_of(model)) == graphs.digest(head)

    def test_tells_models_apart(self):
        digests = {
            graphs.digest(net(**options))
            for options in (
                {},
                dict(shortcut="C"),
                dict(include_preprocessing=True),
                dict(include_preprocessing=True, preprocessing="caffe"),
                dict(classifier_activation=None),
            )
        }
        assert len(digests) == 5


def test_weights_files_of_older_models_still_fit(tmp_path):
    """Keras numbers the layers of a .weights.h5 file by their classes."""
    model = net()
    before = keras.models.clone_model(
        model,
        clone_function=lambda layer: (
            keras.layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv1_conv")
            if layer.name == "conv1_conv"
            else type(layer).from_config(layer.get_config())
        ),
    )
    before.save_weights(tmp_path / "old.weights.h5")
    model.load_weights(tmp_path / "old.weights.h5")
    for ours, theirs in zip(model.get_weights(), before.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_state_that_is_more_than_weights_is_copied():
    layer, twin = layers.Normalization(), layers.Normalization()
    layer.adapt(np.array([[[[3.0]], [[5.0]]]]))
    twin.build(layer._build_input_shape)
    graphs.copy_state(layer, twin)
    assert float(twin(np.full((1, 1, 1, 1), 5.0))[0, 0, 0, 0]) == pytest.approx(1)


@pytest.mark.parametrize("preprocessing", ["caffe", "tf"])
@pytest.mark.parametrize("include", [False, True])
def test_weights_of_a_saved_model_say_what_they_want(tmp_path, preprocessing, include):
    options = dict(include_preprocessing=include, input_shape=(8, 8, 3))
    model = keras_resnet.CIFARResNet(8, preprocessing=preprocessing, **options)
    graphs.remember(model, crop=0.5)
    again = saved(model, tmp_path)
    keras_resnet.pretrained.to_torch(again, tmp_path / "model.safetensors")
    for file in ("model.keras", "model.safetensors"):
        other = keras_resnet.CIFARResNet(8, weights=tmp_path / file, **options)
        assert graphs.wants_of(other) == graphs.wants_of(model), file
        assert other.preprocessing == preprocessing
