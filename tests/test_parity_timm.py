"""Logits and counts of our models against timm's and keras.applications', from equal parameters.

`make_timm.py` computes those of timm in float64. In float32, rounding alone changes what the
deepest models with pre-activation answer in training mode by more than 1e-4, in timm's own hands
too. In float64, nothing but the arithmetic is left.
"""

import gc
from pathlib import Path

import keras
import numpy as np
import pytest
from arrays import error
from checkpoints import write_keras_2
from golden import rule

import keras_resnet
from keras_resnet import initialization, names, zoo
from keras_resnet.pretrained import load_state_dict, state_dict_shapes
from keras_resnet.resnet import Architecture

GOLDEN = np.load(Path(rule.__file__).with_name("timm.npz"))
STEP = 10  # every tenth logit is there

BY_PLAIN_NAME = {names.plain(name): name for name in zoo.MODELS}
NETS = sorted({key.partition("/")[0] for key in GOLDEN if "@" not in key})
DILATED = sorted({key.partition("/")[0] for key in GOLDEN if "@" in key})
WITH_LOGITS = [net for net in NETS if f"{net}/inference" in GOLDEN]

# A small one of every kind.
KINDS = (
    "ecaresnet26t",
    "resnet10t",
    "resnetaa34d",
    "resnetblur18",
    "resnetv2_18d",
    "resnetv2_50x1_bit",
    "seresnet18",
)


def drawn(net):
    """One of our models with the parameters that the rule draws."""
    name, _, stride = net.partition("@")
    options = {"output_stride": int(stride)} if stride else {}
    with initialization.kernels_to_be_loaded():
        model = zoo.builder(name)(
            weights=None, classifier_activation=None, input_shape=(64, 64, 3), **options
        )
    shapes = state_dict_shapes(model)
    load_state_dict(model, {name: rule.parameter(name, shape) for name, shape in shapes.items()})
    return model


def errors(model, net):
    """How far both modes are from timm's, as fractions of its largest logit."""
    images = rule.image((4, 64, 64, 3)).astype(model.compute_dtype)
    return {
        mode: error(model(images, training=mode == "training")[:, ::STEP], GOLDEN[f"{net}/{mode}"])
        for mode in ("inference", "training")
    }


@pytest.fixture
def double():
    """The model of a test computes in float64, and does not stay in memory."""
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")
    keras.backend.clear_session()
    gc.collect()


class TestTimm:
    def test_has_all_our_models_that_nobody_else_has(self):
        others = {"ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152"}  # test_parity.py
        others |= {"ResNeXt50_32x4d", "ResNeXt101_32x8d", "ResNeXt101_64x4d"}
        others |= {"WideResNet50_2", "WideResNet101_2"}
        others |= {"ResNet50V2", "ResNet101V2", "ResNet152V2"}  # below
        assert {BY_PLAIN_NAME[names.plain(net)] for net in NETS} == set(zoo.MODELS) - others

    @pytest.mark.parametrize("net", NETS)
    def test_has_as_many_parameters(self, net):
        architecture = Architecture(**zoo.MODELS[BY_PLAIN_NAME[names.plain(net)]])
        count = sum(each.parameters for each in architecture.convolutions())
        assert count + (architecture.features + 1) * 1000 == GOLDEN[f"{net}/parameters"]

    @pytest.mark.parametrize("net", [*KINDS, *DILATED])
    def test_answers_the_same(self, net):
        model = drawn(net)
        count = sum(np.prod(variable.shape) for variable in model.trainable_variables)
        assert count == GOLDEN[f"{net}/parameters"]
        seen = errors(model, net)
        assert seen["inference"] <= 5e-5, seen
        assert seen["training"] <= 1e-4, seen

    @pytest.mark.slow
    @pytest.mark.parametrize("net", WITH_LOGITS)
    def test_answers_exactly_the_same(self, net, double):
        model = drawn(net)
        count = sum(np.prod(variable.shape) for variable in model.trainable_variables)
        assert count == GOLDEN[f"{net}/parameters"]
        seen = errors(model, net)
        assert max(seen.values()) <= 1e-6, seen


def random_weights(model):
    """Weights of the sizes that trained ones have, biases and moving averages too."""
    generator = np.random.default_rng(0)
    bounds = {"gamma": (0.5, 1), "moving_variance": (0.5, 1.5)}
    for variable in model.weights:
        size = np.sqrt(6 / np.prod(variable.shape[:-1])) if variable.name == "kernel" else 0.1
        low, high = bounds.get(variable.name, (-size, size))
        variable.assign(generator.uniform(low, high, variable.shape))


class TestKerasApplications:
    """Its V2 models, whose files have biases, and strides in the last block of a stage."""

    def pair(self, folder, depth, options):
        options = {"input_shape": (96, 64, 3), "classifier_activation": None, **options}
        theirs = getattr(keras.applications, f"ResNet{depth}V2")(weights=None, **options)
        random_weights(theirs)
        path = folder / f"resnet{depth}v2_weights_tf_dim_ordering_tf_kernels.h5"
        write_keras_2(path, theirs)
        return theirs, getattr(keras_resnet, f"ResNet{depth}V2")(weights=path, **options)

    def check(self, theirs, ours, limit, modes=(False, True)):
        images = 60 * rule.image((4, 96, 64, 3)).astype(ours.compute_dtype)
        for training in modes:
            expected = theirs(images, training=training)
            assert error(ours(images, training=training), expected) <= limit

    @pytest.mark.parametrize("top", [True, False], ids=["top", "no_top"])
    def test_answer_the_same_with_the_weights_in_a_file(self, tmp_path, top):
        options = {} if top else {"include_top": False, "pooling": "avg"}
        theirs, ours = self.pair(tmp_path, 50, options)
        assert ours.count_params() == theirs.count_params()
        assert ours.preprocessing == "tf"
        self.check(theirs, ours, 1e-5, modes=[False])

    @pytest.mark.slow
    @pytest.mark.parametrize("depth", [50, 101, 152])
    def test_answer_the_same_in_both_modes(self, tmp_path, depth, double):
        # In training, another epsilon is left, which inference makes up for: 1e-5, not 1.001e-5.
        self.check(*self.pair(tmp_path, depth, {}), 1e-5)
