import keras
import pytest
from errors import one_line_error
from nets import QUICK, changed, nested_net, small_net, snapshot, three_layers

from keras_resnet import training, transfer


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
