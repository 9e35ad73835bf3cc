"""What a model is: nested and sequential models, heads of any length."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from errors import one_line_error
from keras import layers

import keras_resnet
from keras_resnet import export, graphs
from keras_resnet.export.folding import fold_batch_norm, in_precision
from keras_resnet.training.prepare import replicated

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


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def both(second):
    return np.concatenate([1 - second, second], -1)


def same(x):
    return x


# A head, what makes answers of its outputs by task, and the task that it tells by itself.
ANSWERS = {
    "softmax": (
        lambda: layers.Dense(3, "softmax"),
        {"classification": same},
        {None: "classification", 3: "classification"},
    ),
    "linear": (
        lambda: layers.Dense(3),
        {"classification": softmax, "multilabel": sigmoid, "regression": same},
        {None: None, 3: "classification"},
    ),
    "logits": (
        lambda: layers.Dense(3, name="predictions"),
        {"classification": softmax, "multilabel": sigmoid, "regression": same},
        {None: "classification", 3: "classification"},
    ),
    # A sigmoid of it is no probability of a label.
    "log of softmax": (
        lambda: layers.Dense(3, "log_softmax"),
        {"classification": softmax},
        {None: "classification"},
    ),
    "labels": (
        lambda: layers.Dense(3, "sigmoid"),
        {"multilabel": same},
        {None: "multilabel", 3: "multilabel"},
    ),
    # A softmax of one output is 1, whatever the image.
    "one logit": (
        lambda: layers.Dense(1),
        {
            "classification": lambda x: both(sigmoid(x)),
            "multilabel": sigmoid,
            "regression": same,
        },
        {None: None, 1: None, 2: "classification"},
    ),
    "one sigmoid": (
        lambda: layers.Dense(1, "sigmoid"),
        {"classification": both, "multilabel": same},
        {None: "classification", 2: "classification", 1: "multilabel"},
    ),
    "number": (
        lambda: layers.Rescaling(2, name="predictions"),
        {"regression": same},
        {None: "regression", 1: "regression"},
    ),
    "after ReLU": (lambda: layers.Dense(3, "relu"), {"regression": same}, {None: None, 3: None}),
    "certainty": (lambda: layers.Dense(1, "softmax"), {"regression": same}, {2: None}),
}


@pytest.mark.parametrize(("make", "answers", "told"), ANSWERS.values(), ids=ANSWERS)
def test_answers_are_what_the_outputs_can_be(make, answers, told):
    last = make()
    before = [layers.Dense(1)] if isinstance(last, layers.Rescaling) else []
    head = graphs.head_of(functional(backbone(), *before, last))
    outputs = np.random.default_rng(0).uniform(-3, 3, (4, head.units))
    for task in ("classification", "multilabel", "regression"):
        found = graphs.answer_of(head, task)
        assert (found is None) == (task not in answers), task
        if found:
            np.testing.assert_allclose(found(outputs), answers[task](outputs), rtol=1e-5)
    for names, task in told.items():
        assert graphs.task_of_outputs(head, names) == task


def saved(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def cloned(model, folder):
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    return twin


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
    @pytest.mark.parametrize(
        ("first", "second", "normalization"),
        [
            (first, second, [*WANTS][(number + other) % len(WANTS)])
            for number, first in enumerate(CHANGES)
            for other, second in enumerate(CHANGES)
        ],
    )
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

    @pytest.mark.parametrize(
        "before", [layers.Rescaling(255), lambda x: 255 * x, lambda x: x[..., ::-1]]
    )
    def test_are_not_raw_where_something_else_makes_them_raw(self, before):
        model = functional(before, net(include_preprocessing=True))
        assert graphs.wants_of(model).normalization is None
        moved = functional(layers.RandomBrightness(0.1), net(include_preprocessing=True))
        assert graphs.wants_of(moved).normalization == "raw"

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


class TestBlocks:
    @pytest.mark.parametrize("make", [functional, sequential, twice, halves, reused])
    def test_end_where_every_way_through_a_model_passes(self, make):
        head = layers.Dense(3, "softmax")
        model = make(backbone(), layers.Dropout(0.1), head)
        first = [block[0] for block in graphs.blocks_of(model)]
        assert [layer.name for layer in first[:2]] == ["conv1_conv", "conv2_block1_1_conv"]
        assert first[2:] == [head]
        learning = [layer for layer in graphs.flat_layers(model) if layer.weights]
        found = [layer for block in graphs.blocks_of(model) for layer in block]
        assert sorted(map(id, found)) == sorted(map(id, learning))

    def test_that_are_pre_activated_begin_with_their_normalization(self):
        model = keras.applications.ResNet50V2(weights=None, input_shape=(32, 32, 3))
        *blocks, head = graphs.blocks_of(model)
        assert (len(blocks), [layer.name for layer in head]) == (17, ["predictions"])
        assert blocks[2][0].name == "conv2_block2_preact_bn"
        assert blocks[-1][-1].name == "post_bn"

    def test_of_a_chain_are_its_layers(self):
        parts = [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()]
        parts += [layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(3)]
        model = keras.Sequential([keras.Input((8, 8, 1)), *parts])
        assert graphs.blocks_of(model) == ((parts[0], parts[1]), (parts[3],), (parts[5],))


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


def of_weights(suffix, folder, **options):
    """A model, and one that the builder makes of a file of its weights."""
    model = net(classifier_activation=None, **options)
    randomized(model)
    graphs.remember(model, crop=0.5)
    path = folder / f"weights{suffix}"
    if suffix == ".safetensors":
        keras_resnet.pretrained.to_torch(saved(model, folder), path)
    else:
        (model.save if suffix == ".keras" else model.save_weights)(path)
    include = options.get("include_preprocessing", False)
    again = keras_resnet.ResNet(
        *((1,), "basic", (4,)), stem="cifar", input_shape=IMAGE, classes=3, weights=path,
        include_preprocessing=include, classifier_activation=None,
    )  # fmt: skip
    return model, again


def randomized(model):
    random = np.random.default_rng(0)
    model.set_weights([random.uniform(0.1, 0.3, each.shape) for each in model.get_weights()])


@pytest.mark.parametrize(
    ("suffix", "mode", "include"),
    [
        (suffix, mode, bool((number + other) % 2))
        for number, suffix in enumerate([".keras", ".weights.h5", ".safetensors"])
        for other, mode in enumerate(["torch", "caffe", "tf"])
    ],
)
def test_files_of_every_kind_keep_predictions_and_wants(tmp_path, suffix, mode, include):
    """And so does what is made of the models that come out of them."""
    images = np.random.default_rng(1).uniform(0, 255, (2, *IMAGE)).astype("float32")
    model, again = of_weights(suffix, tmp_path, preprocessing=mode, include_preprocessing=include)
    expected, wants = model(images, training=False), graphs.wants_of(model)
    assert wants.normalization == ("raw" if include else mode)
    assert again.preprocessing == mode
    order = np.random.default_rng([len(suffix), len(mode), include]).permutation(CHANGES)
    for change in (lambda model, _: model, *order):
        again = change(again, tmp_path)
        assert graphs.wants_of(again) == wants
        np.testing.assert_allclose(again(images, training=False), expected, rtol=1e-5)


def test_a_saved_model_keeps_predictions_and_wants(tmp_path):
    model = net(preprocessing="caffe")
    again = saved(model, tmp_path)
    served = export.saved_model(again, tmp_path / "1", image_dtype="uint8", verbose=False)
    assert served.card["preprocessing"] == "caffe"
    images = np.random.default_rng(1).integers(0, 256, (2, *IMAGE), dtype="uint8")
    expected = model(keras_resnet.preprocess_input(images, "caffe"), training=False)
    found = export.load(served.path)(images)
    np.testing.assert_allclose(found, expected, atol=1e-6)


class TestWeightsFiles:
    """What a file of weights alone says of the images, and what it leaves open."""

    def test_are_not_read_by_keras_into_a_model_of_other_images(self, tmp_path):
        path = tmp_path / "caffe.weights.h5"
        for include in (False, True):
            options = dict(include_preprocessing=include)
            net(preprocessing="caffe", **options).save_weights(path)
            net(preprocessing="caffe", **options).load_weights(path)
            with pytest.raises(ValueError, match="normalized as 'caffe', the model is for 'torch'"):
                net(preprocessing="torch", **options).load_weights(path)

    @pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
    def test_that_say_nothing_are_warned_of(self, tmp_path, suffix):
        """As Keras' own layers write them, and this package did."""
        keras_own = keras.models.clone_model(
            net(),
            clone_function=lambda layer: (
                keras.layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv1_conv")
                if layer.name == "conv1_conv"
                else type(layer).from_config(layer.get_config())
            ),
        )
        path = tmp_path / f"old{suffix}"
        (keras_own.save if suffix == ".h5" else keras_own.save_weights)(path)

        def build(**options):
            return keras_resnet.ResNet(
                *((1,), "basic", (4,)), stem="cifar", input_shape=IMAGE, classes=3, weights=path,
                **options,
            )  # fmt: skip

        with pytest.warns(RuntimeWarning, match="does not say .* 'torch' is assumed"):
            build()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert build(preprocessing="caffe").preprocessing == "caffe"


LOOKED_UP = {
    "Normalization": lambda: layers.Normalization(),
    "Discretization": lambda: layers.Discretization(num_bins=5),
    "IntegerLookup": lambda: layers.IntegerLookup(),
}


@pytest.mark.parametrize("make", LOOKED_UP.values(), ids=LOOKED_UP)
@pytest.mark.parametrize("copy", ["folded", "in bfloat16", "on devices"])
def test_what_a_layer_knows_is_in_every_copy(make, copy):
    adapted, random = make(), np.random.default_rng(0)
    adapted.adapt(random.integers(0, 30, (64, *IMAGE)))
    inputs = keras.Input(IMAGE, dtype="int64")
    x = keras.ops.cast(adapted(inputs), "float32")
    x = layers.BatchNormalization()(layers.Conv2D(3, 3)(x))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    images = random.integers(0, 30, (2, *IMAGE))
    make_copy = {
        "folded": fold_batch_norm,
        "in bfloat16": lambda model: in_precision(model, "bfloat16"),
        "on devices": lambda model: replicated(model, tf.distribute.get_strategy(), False),
    }[copy]
    # Of numbers near 0, rounding may be a large fraction.
    rtol, atol = (0.05, 0.05) if copy == "in bfloat16" else (1e-4, 1e-6)
    expected = model(images, training=False)
    found = make_copy(model)(images, training=False)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


class Scaled(layers.Layer):
    """Computes with what no configuration and no weight holds."""

    factor, blocks, missing = 1.0, [[1], [1, 2]], float("nan")

    def call(self, inputs):
        return self.factor * inputs


class Unfinished(layers.Layer):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, inputs):
        return self.factor * inputs


def test_what_a_copy_would_lose_is_refused():
    scaled = Scaled(name="scaled")
    # Neither ragged lists nor NaN, which a class may have for all of its layers, are lost.
    scaled.blocks, scaled.missing = Scaled.blocks, Scaled.missing
    model = functional(scaled, layers.Conv2D(2, 3))
    fold_batch_norm(model)
    scaled.factor = 3.0
    for copy in (fold_batch_norm, lambda model: replicated(model, tf.distribute.get_strategy(), 0)):
        with one_line_error("layer 'scaled' is a Scaled, whose attribute 'factor'"):
            copy(model)
        with one_line_error("is a Unfinished, which cannot be copied"):
            copy(functional(Unfinished(2.0), layers.Conv2D(2, 3)))


def test_layers_without_state_are_shared(caplog):
    model = functional(layers.Lambda(lambda x: x / 255), layers.Conv2D(2, 3))
    images = np.ones((1, *IMAGE))
    copy = replicated(model, tf.distribute.get_strategy(), False)
    np.testing.assert_allclose(copy(images), model(images))


def test_layers_of_8_bit_numbers_stay_that():
    model = functional(backbone(), layers.Dense(3))
    model.layers[-1].quantize("int8")
    images = np.random.default_rng(0).normal(size=(2, *IMAGE))
    copy = in_precision(model, "bfloat16")
    np.testing.assert_allclose(copy(images), model(images), rtol=0.05, atol=0.05)


def test_state_that_is_more_than_weights_is_copied():
    layer, twin = layers.Normalization(), layers.Normalization()
    layer.adapt(np.array([[[[3.0]], [[5.0]]]]))
    twin.build(layer._build_input_shape)
    graphs.copy_state(layer, twin)
    assert float(twin(np.full((1, 1, 1, 1), 5.0))[0, 0, 0, 0]) == pytest.approx(1)
