import re

import keras_tuner
import pytest
from errors import one_line_error
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import keras_resnet
from keras_resnet import graphs, tuning
from keras_resnet.analysis import complexity
from keras_resnet.initialization import kernels_to_be_loaded
from keras_resnet.training import Recipe
from keras_resnet.tuning import space as spaces
from keras_resnet.tuning.budget import cost


def drawn(space, conditions=spaces.CONDITIONS, **values):
    parameters = keras_tuner.HyperParameters()
    parameters.values = dict(values)
    return spaces.declare(parameters, space, conditions), parameters


class TestCost:
    @settings(max_examples=25, deadline=None)
    @given(
        blocks=st.lists(st.integers(1, 3), min_size=3, max_size=4),
        block=st.sampled_from(["basic", "bottleneck"]),
        cardinality=st.sampled_from(sorted(tuning.CARDINALITIES)),
        width=st.sampled_from([0.25, 0.5, 0.75, 1.0, 1.5, 2.0]),
        shortcut=st.sampled_from(["A", "B", "C", "none"]),
        stem=st.sampled_from(["cifar", "imagenet"]),
        stride_in=st.sampled_from(["3x3", "1x1"]),
        size=st.tuples(st.integers(32, 41), st.integers(32, 41)),
        channels=st.integers(1, 3),
        classes=st.integers(2, 11),
    )
    def test_is_that_of_the_net(self, blocks, size, channels, classes, **values):
        values |= {f"conv{stage}_blocks": count for stage, count in enumerate(blocks, start=2)}
        if values["block"] == "basic":
            del values["cardinality"], values["stride_in"]
        shape = (*size, channels)
        try:
            options = spaces.net_of(values, shape)
        except ValueError:
            assume(False)
        with kernels_to_be_loaded():
            net = keras_resnet.ResNet(**options, input_shape=shape, classes=classes)
        stages = complexity(net)
        assert cost(options, shape, classes) == (
            sum(stage.parameters for stage in stages),
            sum(stage.macs for stage in stages),
        )

    def test_of_equal_pairs_is_about_equal(self):
        found = []
        for name in tuning.CARDINALITIES:
            values = dict(block="bottleneck", cardinality=name, width=2.0, shortcut="B")
            blocks = {f"conv{stage}_blocks": 3 for stage in (2, 3, 4)}
            options = spaces.net_of({**values, **blocks, "stem": "cifar"}, (32, 32, 3))
            found.append(cost(options, (32, 32, 3), 10)[0])
        assert max(found) / min(found) < 1.03


class TestChoices:
    def test_depend_on_each_other_as_declared(self):
        space = tuning.default_space((32, 32, 3))
        values, parameters = drawn(space, block="basic")
        assert "cardinality" not in values
        assert "cardinality" in {each.name for each in parameters.space}
        values, _ = drawn(space, block="bottleneck", cardinality="4x24d")
        assert values["cardinality"] == "4x24d"

    def test_of_one_value_are_none(self):
        space = spaces.changed(tuning.default_space((32, 32, 3)), {"block": "basic", "width": [2]})
        values, parameters = drawn(space)
        assert (values["block"], values["width"]) == ("basic", 2)
        assert {"block", "width", "cardinality"}.isdisjoint(each.name for each in parameters.space)

    def test_are_three_or_four_stages(self):
        small, large = (tuning.default_space((size, size, 3)) for size in (96, 224))
        assert "conv5_blocks" not in small
        assert "conv5_blocks" in large
        assert small["stem"] == ["cifar", "imagenet"]
        assert large["stem"] == ["imagenet"]

    def test_of_training_go_into_the_recipe(self):
        values = {"learning_rate": 0.5, "augmentation_strength": "strong", "momentum": 0.8}
        recipe = spaces.recipe_of(values, Recipe(mixup=0.1))
        assert (recipe.learning_rate, recipe.augmentation, recipe.momentum, recipe.mixup) == (
            0.5,
            "strong",
            0.8,
            0.1,
        )

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"wdith": [1.0]}, ["choice of a space 'wdith'", "Did you mean width?"]),
            ({"epochs": [1, 2]}, ["choice of a space 'epochs'"]),
            ({"block": []}, ["block=[]", "is empty"]),
            ({"block": ["simple"]}, ["space: block='simple'", "'basic', 'bottleneck'"]),
            ({"conv2_blocks": [0, 1]}, ["space: conv2_blocks=0"]),
            ({"conv9_blocks": 1}, ["'conv9_blocks'"]),
            ({"width": -1}, ["space: width=-1"]),
            ({"label_smoothing": [0.0, 2.0]}, ["space: label_smoothing=2.0"]),
            ({"learning_rate": {"min_value": 1}}, ["learning_rate", "max_value"]),
            (
                {"augmentation_strength": ["light", "medium"], "mixup": 0.4},
                ["augmentation_strength='medium' sets mixup, and mixup=0.4 does so, too"],
            ),
            (
                {"augmentation-strength": "none", "augmentation": ["strong", "none"]},
                ["augmentation_strength='none' sets augmentation"],
            ),
        ],
    )
    def test_that_are_wrong_are_named(self, change, words):
        with one_line_error(*words):
            tuning.ResNetHyperModel((32, 32, 3), 10, change)

    @pytest.mark.parametrize(
        ("change", "strengths"),
        [
            ({}, ["none", "light", "medium", "strong"]),
            ({"mixup": 0.4}, ["none", "light", "strong"]),
            ({"augmentation": ["none", "strong"]}, ["light", "medium"]),
            ({"mixup": [0.0, 0.4], "augmentation": "none"}, ["light"]),
            ({"mixup": 0.4, "augmentation_strength": "strong"}, "strong"),
        ],
    )
    def test_set_a_field_of_the_recipe_once(self, change, strengths):
        space = spaces.changed(tuning.default_space((32, 32, 3)), change)
        assert space["augmentation_strength"] == strengths
        fields = {name: spaces.options_of(change[name])[-1] for name in change}
        for strength in spaces.options_of(strengths):
            values = {**fields, "augmentation_strength": strength}
            recipe = spaces.recipe_of(values, Recipe())
            for name in {"mixup", "augmentation"} & {*change}:
                assert getattr(recipe, name) == fields[name]

    def test_of_rates_suit_the_optimizer(self):
        sgd = tuning.default_space((32, 32, 3))
        assert spaces.changed(sgd, {"optimizer": "sgd"})["learning_rate"] == sgd["learning_rate"]
        for change, optimizer in (({"optimizer": "adamw"}, "sgd"), ({}, "adamw")):
            found = spaces.changed(sgd, change, optimizer)
            assert list(found)[: len(sgd)] == list(sgd)
            rate, decay = found["learning_rate"], found["weight_decay"]
            assert [rate["min_value"], rate["max_value"]] == pytest.approx([2e-4, 1e-2])
            assert [decay["min_value"], decay["max_value"]] == pytest.approx([1e-2, 1.0])
            assert rate["sampling"] == "log"
        given = spaces.changed(sgd, {"optimizer": "lamb", "learning_rate": [0.01, 0.02]})
        assert given["learning_rate"] == [0.01, 0.02]

    def test_of_several_optimizers_leave_each_its_rates(self):
        space = spaces.changed(tuning.default_space((32, 32, 3)), {"optimizer": ["sgd", "lamb"]})
        values, _ = drawn(space, optimizer="lamb")
        assert spaces.recipe_of(values, Recipe()).learning_rate == 2e-3
        values, _ = drawn(space, optimizer="sgd")
        assert spaces.recipe_of(values, Recipe()).learning_rate == 0.1

    def test_of_paths_to_drop_build_the_model(self):
        hypermodel = tuning.ResNetHyperModel((16, 16, 1), 10, {"drop_path": [0.1, 0.2]})
        values, _ = drawn(hypermodel.space, drop_path=0.2)
        assert graphs.drop_path_of(hypermodel.make(values)) == pytest.approx(0.2)

    def test_that_make_no_recipe_are_declined(self):
        hypermodel = tuning.ResNetHyperModel(
            (8, 8, 1), 10, {"batch_size": [62, 64], "accumulation": 4}
        )
        assert hypermodel.declined({"batch_size": 64}) is None
        assert "accumulation=4 must divide" in hypermodel.declined({"batch_size": 62})


class TestBudget:
    def test_reads_what_it_writes(self):
        budget = tuning.Budget.parse("params=1e6, macs=5e7")
        assert str(budget) == "params=1000000,macs=50000000"
        assert tuning.Budget.parse(str(budget)) == budget

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("parms=1", ["budget 'parms'", "Did you mean params?"]),
            ("params", ["budget 'params'", "NAME=NUMBER"]),
            ("params=few", ["budget 'params=few'"]),
            ("ms=0", ["ms=0.0", "above 0"]),
        ],
    )
    def test_that_is_wrong_is_named(self, text, words):
        with one_line_error(*words):
            tuning.Budget.parse(text)

    @pytest.mark.parametrize("budget", ["params=10", "macs=1e3", "ms=1e-6", "params=1e4,macs=1e9"])
    def test_that_nothing_fits_is_refused(self, budget):
        with one_line_error("budget=", "no model of the space is within it"):
            tuning.ResNetHyperModel((32, 32, 3), 10, {"width": [1.0, 2.0]}, budget)

    def test_that_nothing_fits_is_compared_with_a_small_net(self):
        with pytest.raises(ValueError, match="within it") as refusal:
            tuning.ResNetHyperModel((32, 32, 3), 10, budget="params=10")
        params = int(
            re.search(r"params=([\d,]+) is over 10", str(refusal.value))[1].replace(",", "")
        )
        tuning.ResNetHyperModel((32, 32, 3), 10, budget=f"params={params}")
        assert params < 30_000

    def test_takes_out_of_the_space_what_nothing_fits(self):
        hypermodel = tuning.ResNetHyperModel((32, 32, 3), 10, budget="params=3e4")
        assert hypermodel.space["block"] == ["basic", "bottleneck"]
        assert 2.0 not in hypermodel.space["width"]
        declared = keras_tuner.HyperParameters()
        values = hypermodel.declare_hyperparameters(declared)
        assert hypermodel.declined(values) is None  # what keras-tuner begins with

    def test_of_time_is_measured_once_for_each_net(self, monkeypatch):
        taken = []
        monkeypatch.setattr(
            "keras_resnet.tuning.hypermodel.milliseconds", lambda net: taken.append(net) or 1.0
        )
        hypermodel = tuning.ResNetHyperModel((8, 8, 1), 10, budget="ms=2")
        taken.clear()
        values = {"conv2_blocks": 3}
        assert hypermodel.declined(values) is None
        assert hypermodel.declined({**values, "learning_rate": 0.2}) is None
        assert len(taken) == 1

    def test_of_time_is_that_of_a_prediction(self):
        hypermodel = tuning.ResNetHyperModel((32, 32, 3), 10)
        small, large = (
            hypermodel.milliseconds(hypermodel.values({"conv2_blocks": count, "width": width}))
            for count, width in ((1, 0.5), (8, 2.0))
        )
        assert 0 < small < large

    def test_declines_what_is_built_over_it(self):
        hypermodel = tuning.ResNetHyperModel((32, 32, 3), 10, budget="params=1e5")
        hp = keras_tuner.HyperParameters()
        hp.values = {"conv4_blocks": 8, "width": 1.0}
        with pytest.raises(keras_tuner.errors.FailedTrialError, match="Declined: params="):
            hypermodel.build(hp)


def test_a_space_without_a_choice_is_refused():
    space = {name: "A" if name == "shortcut" else 0.1 for name in ("shortcut", "label_smoothing")}
    fixed = {
        **{f"conv{stage}_blocks": 1 for stage in (2, 3, 4)},
        **{"block": "basic", "width": 1.0, "stem": "cifar", "augmentation_strength": "light"},
        **{"learning_rate": 0.1, "weight_decay": 0.0},
    }
    with one_line_error("leaves nothing to choose"):
        tuning.ResNetHyperModel((32, 32, 3), 10, {**space, **fixed})


def test_every_strength_of_augmentation_is_a_recipe():
    for strength in tuning.AUGMENTATION_STRENGTHS.values():
        assert Recipe().changed(**strength)
