import functools
from dataclasses import replace

import keras
import pytest
from errors import one_line_error
from nets import QUICK, changed, nested_net, small_net, snapshot, three_layers

import keras_resnet
from keras_resnet import graphs, training, transfer
from keras_resnet.optimizers import name_of_rate
from keras_resnet.transfer.plans import plan_for

RATES = transfer.DISCRIMINATIVE


def learning(model):
    """Names of the layers that learn."""
    return {variable.path.split("/")[-2] for variable in model.trainable_variables}


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
        paths = [variable.path for variable in model.trainable_variables]
        assert {path[:5] for path in paths} == {"conv4", "predi"}
        assert not any("_bn" in path for path in paths)
        transfer.freeze(model, up_to="conv4")
        assert {v.path[:5] for v in model.trainable_variables} == {"predi"}
        transfer.unfreeze(model, normalization=False)
        assert not any("_bn" in variable.path for variable in model.trainable_variables)

    def test_refuses_what_the_model_lacks(self):
        with one_line_error("up_to='conv9'", "begin with", "conv4"):
            transfer.freeze(small_net(), up_to="conv9")
        with one_line_error("back_to='conv'"):
            transfer.unfreeze(small_net(), back_to="conv")

    @pytest.mark.parametrize(
        "build",
        [
            nested_net,
            lambda head: keras.Sequential([keras.Input((8, 8, 1)), nested_net(head)]),
            lambda head: keras.Sequential([nested_net([]), keras.Sequential(head)]),
        ],
    )
    def test_the_whole_of_a_longer_head_learns(self, build):
        model = build(three_layers())
        transfer.freeze(model)
        head = {"hidden", "hidden_norm", "classes"}
        assert learning(model) == head
        transfer.unfreeze(model, back_to="conv4", normalization=False)
        assert head < learning(model)
        assert {name[:5] for name in learning(model) - head} == {"conv4"}
        assert not any(name.endswith("_bn") for name in learning(model))


FOREIGN = {
    # By the first layer with weights behind the last stride, or what the names of all begin with.
    "MobileNetV2": ("last", "block_13_depthwise"),
    "DenseNet121": ("conv5", "conv5_block1_0_bn"),
    "ResNet50V2": ("last", "conv4_block6_2_conv"),
    "InceptionV3": ("last", None),  # numbered
    "EfficientNetB0": ("last", "block6a_dwconv"),
    "MobileNetV3Small": ("last", "expanded_conv_8_depthwise"),  # has maps of one pixel within
}


@pytest.fixture(scope="module")
def foreign():
    """Models of keras.applications, each with a new head, made once."""

    @functools.cache
    def make(name):
        build = getattr(keras.applications, name)
        size = 75 if name == "InceptionV3" else 32
        backbone = build(weights=None, include_top=False, input_shape=(size, size, 3))
        return transfer.classifier(backbone, 2)

    return make


class TestStagesOfOtherModels:
    @pytest.mark.parametrize(
        ("name", "nest"), [*((name, False) for name in FOREIGN), ("MobileNetV2", True)]
    )
    def test_the_last_one_is_what_is_behind_the_last_stride(self, foreign, name, nest):
        model, (stage, first) = foreign(name), FOREIGN[name]
        if nest:
            model = keras.Sequential([keras.Input(model.input_shape[1:]), model])
        transfer.freeze(model)
        transfer.unfreeze(model, back_to="last")
        learn = [each for each in graphs.flat_layers(model) if each.trainable_weights]
        parameters = sum(each.count_params() for each in learn)
        assert 0.25 < parameters / model.count_params() < 0.85
        assert first in (None, learn[0].name)
        (found,) = plan_for(model, [transfer.Stage("last", QUICK)])
        assert found.back_to == stage

    @pytest.mark.parametrize("name", ["MobileNetV2", "InceptionV3"])
    def test_learn_at_the_rates_of_a_plan(self, foreign, name):
        model = foreign(name)
        transfer.unfreeze(model)
        (stage,) = plan_for(
            model, [transfer.Stage("all", replace(QUICK, rates=transfer.DISCRIMINATIVE))]
        )
        rates = {
            each.path: stage.recipe.rates.get(name_of_rate(stage.recipe.rates, each.path), 1)
            for each in model.trainable_variables
        }
        factors = [rates[each.path] for each in model.trainable_variables]
        assert set(factors) == {*transfer.DISCRIMINATIVE.values(), 1}
        assert rates["predictions/kernel"] == 1
        first, last = factors[0], factors[-3]
        assert (first, last) == (0.05, 0.7)

    def test_of_ours_are_as_before(self):
        model = small_net()
        plan = plan_for(model, transfer.stages(epochs=6))
        assert [stage.back_to for stage in plan] == ["head", "conv4", "all"]
        assert plan[-1].recipe.rates == transfer.DISCRIMINATIVE

    @pytest.mark.parametrize(
        ("options", "rates"),
        [
            ({"stem": "deep_strided"}, {"pool1_conv": 0.05, "pool1_bn": 0.05}),
            ({"block": "basic_preactivation"}, {"post_bn": 0.1}),
        ],
        ids=["RS", "v2"],
    )
    def test_have_layers_with_names_of_their_own(self, options, rates):
        model = keras_resnet.ResNet(
            (1,), **{"block": "basic", **options}, filters=(8,), input_shape=(16, 16, 1), classes=3
        )
        (stage,) = plan_for(model, [transfer.Stage("all", replace(QUICK, rates=RATES))])
        assert stage.recipe.rates == {**RATES, **rates}

    def test_that_strides_do_not_tell_are_refused(self):
        inputs = keras.Input((8, 8, 3))
        x = keras.layers.Conv2D(4, 3)(keras.layers.Conv2D(4, 3)(inputs))
        model = transfer.classifier(keras.Model(inputs, x, name="flat"), 2)
        with one_line_error("flat has no strides that would divide it into stages"):
            transfer.unfreeze(model, back_to="last")


class TestRates:
    def test_are_for_whole_names(self):
        rates = {"conv2": 0.1, "conv2d_1": 0.2, "block": 0.3, "block_13": 0.4}
        found = {
            "conv2/kernel": "conv2",
            "conv2_block1_1_conv/kernel": "conv2",
            "conv2d_17/kernel": None,
            "conv2d_1/kernel": "conv2d_1",
            "conv2d_1_bn/gamma": "conv2d_1",
            "outer/conv2_conv/kernel": "conv2",
            "block_12_conv/kernel": "block",
            "block_13_conv/kernel": "block_13",
        }
        assert {path: name_of_rate(rates, path) for path in found} == found

    def test_that_would_have_no_effect_are_refused(self, digits):
        recipe = replace(QUICK, rates={"conv2": 0.1, "conv9": 0.5})
        with one_line_error("rates=", "no layer or stage 'conv9'"):
            training.train(small_net(), digits, recipe, verbose=0)
        with one_line_error("rates=", "no layer or stage 'conv9'"):
            transfer.fine_tune(small_net(), digits, [transfer.Stage("all", recipe)])


def averaged(*heads):
    pooled = small_net(include_top=False, pooling="avg")
    return keras.Model(pooled.input, keras.layers.Average()([e(pooled.output) for e in heads]))


def summed(*last):
    pooled = small_net(include_top=False, pooling="avg")
    x = keras.layers.Add()([keras.layers.Dense(5, name=name)(pooled.output) for name in "ab"])
    for layer in last:
        x = layer(x)
    return keras.Model(pooled.input, x)


def residual(x):
    return keras.layers.Add()([keras.layers.Dense(5)(x), x])


HIDDEN_HEADS = {
    "arithmetic": lambda: nested_net([keras.layers.Dense(3), lambda x: 2 * x + 1]),
    "average": lambda: averaged(*(keras.layers.Dense(3, "softmax") for _ in range(2))),
    "average of logits": lambda: keras.Sequential([summed(), keras.layers.Softmax()]),
    "branches within": lambda: summed(keras.layers.Dense(3, "softmax")),
    "residual blocks": lambda: summed(*[residual] * 40),  # 2 ** 40 ways through them
}


@pytest.mark.parametrize("make", HIDDEN_HEADS.values(), ids=HIDDEN_HEADS)
def test_a_head_that_cannot_be_told_is_not_frozen(make):
    """Everything was frozen, or what had not learned yet."""
    model = make()
    before = len(model.trainable_variables)
    with one_line_error("does not show where its head begins", "up_to='NAME'"):
        transfer.freeze(model)
    assert len(model.trainable_variables) == before
    transfer.freeze(model, up_to="conv4")
    assert 0 < len(model.trainable_variables) < before
