"""Checkpoints as people have them: the model is found in what a training has left."""

import argparse
import datetime
import enum
import functools
import pathlib
import re
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
from checkpoints import Parameter, as_legacy, as_safetensors, as_zip
from errors import one_line_error

from keras_resnet.pretrained import load, load_state_dict, load_weights, state_dict_shapes, to_torch
from keras_resnet.resnet import resnet

NET = resnet((1, 1), "basic", (4, 8), input_shape=(8, 8, 3), classes=4, name="small")
BACKBONE = resnet((1, 1), "basic", (4, 8), input_shape=(8, 8, 3), include_top=False, name="small")
SHAPES = state_dict_shapes(NET)
FORMATS = {"zip": as_zip, "legacy": as_legacy}


def drawn(shapes, seed):
    """Tensors, all different and of any sign, and batch counters as PyTorch has them."""
    draw = np.random.default_rng(seed)
    state = OrderedDict()
    for name, shape in shapes.items():
        state[name] = draw.normal(size=shape).astype("float32")
        if name.endswith("running_var"):
            state[name.replace("running_var", "num_batches_tracked")] = np.array(9, "int64")
    return state


ONE, OTHER = drawn(SHAPES, 1), drawn(SHAPES, 2)
NO_HEAD = {name: tensor for name, tensor in ONE.items() if not name.startswith("fc.")}
OTHER_NO_HEAD = {name: tensor for name, tensor in OTHER.items() if not name.startswith("fc.")}


def under(prefix, state):
    return OrderedDict((f"{prefix}{name}", tensor) for name, tensor in state.items())


def some(**shapes):
    """Tensors of other modules."""
    return drawn({name.replace("__", "."): shape for name, shape in shapes.items()}, 3)


def mlp(prefix):
    return drawn(
        {
            f"{prefix}0.weight": (8, 8),
            f"{prefix}0.bias": (8,),
            f"{prefix}2.weight": (2, 8),
            f"{prefix}2.bias": (2,),
        },
        4,
    )


def flat(checkpoint, place=""):
    """The arrays in dicts of dicts, by all of their names."""
    arrays = {}
    for name, each in checkpoint.items():
        if isinstance(each, dict):
            arrays |= flat(each, f"{place}{name}.")
        elif isinstance(each, np.ndarray):
            arrays[f"{place}{name}"] = each
    return arrays


class Schedule(enum.Enum):
    COSINE = "cosine"


class Options(dict):
    """A dict of a class of one's own, as configurations are."""


class Module:
    """What a pickled `nn.Module` is: an object with these three among its attributes."""

    def __init__(self, tensors=(), modules=()):
        tensors = dict(tensors)
        self.training = True
        self._buffers = {n: each for n, each in tensors.items() if not is_trained(n)}
        self._parameters = {n: Parameter(each) for n, each in tensors.items() if is_trained(n)}
        self._modules = dict(modules)
        self._non_persistent_buffers_set = set()
        self._forward_hooks = OrderedDict()


def is_trained(name):
    return name in ("weight", "bias")


def module_of(state):
    """A module for the tensors of a state dict."""
    tensors, inner = {}, defaultdict(dict)
    for name, tensor in state.items():
        first, dot, rest = name.partition(".")
        if dot:
            inner[first][rest] = tensor
        else:
            tensors[name] = tensor
    return Module(tensors, {name: module_of(each) for name, each in inner.items()})


HYPERPARAMETERS = {
    "namespace": argparse.Namespace(lr=0.1, milestones=[30, 60], path=pathlib.PurePosixPath("a/b")),
    "config": Options(width=64, betas=(0.9, 0.999), names={"ant", "bee"}),
    "activation": functools.partial(Options, width=2),
    "schedule": Schedule.COSINE,
    "started": datetime.datetime(2024, 1, 1),
    "by_class": {Options: 1, ("a", 1): 2, None: 3},
    "groups": frozenset({1, 2}),
}

OPTIMIZER = {
    "state": {0: {"step": 7, "exp_avg": np.ones((4, 3, 3, 3), "float32")}},
    "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0]}],
}


def lightning(prefix, state):
    return {
        "epoch": 9,
        "global_step": 1000,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": under(prefix, state),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 9}}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': None}": {"best_model_score": np.array(0.9, "float32")},
            Options: {"wait": 3},
        },
        "optimizer_states": [OPTIMIZER],
        "lr_schedulers": [{"last_epoch": 9}],
        "hparams_name": "args",
        "hyper_parameters": HYPERPARAMETERS,
    }


# The first layers of a `torchvision.models.ResNet` as a Sequential numbers them.
CHILDREN = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5"}

# What a training leaves; the tensors that a model with a head, or else one without, gets of it; and
# what the notice says.
STYLES = {
    "Lightning, model.": (lightning("model.", ONE), ONE, []),
    "Lightning, net.": (lightning("net.", ONE), ONE, []),
    "Lightning, encoder.": (
        lightning("encoder.", NO_HEAD)
        | {"state_dict": {**under("encoder.", NO_HEAD), **mlp("projector.")}},
        NO_HEAD,
        ["'encoder'", "projector.0.weight", "of a projection head"],
    ),
    "Lightning, backbone. and a loss": (
        lightning("backbone.", ONE)
        | {"state_dict": {**under("backbone.", ONE), **some(criterion__weight=(4,))}},
        ONE,
        ["'backbone'", "criterion"],
    ),
    "a Sequential of the first layers": (
        lightning(
            "feature_extractor.",
            {
                re.sub(r"^\w+", lambda first: CHILDREN[first[0]], name): tensor
                for name, tensor in NO_HEAD.items()
            },
        ),
        NO_HEAD,
        [],
    ),
    "DataParallel": ({"state_dict": under("module.", ONE), "optimizer": OPTIMIZER}, ONE, []),
    "a whole DataParallel": (module_of(under("module.", ONE)), ONE, []),
    "a whole model among other things": (
        {"epoch": 3, "model": module_of(ONE), "optimizer": OPTIMIZER, "args": HYPERPARAMETERS},
        ONE,
        [],
    ),
    "an averaged model alone": (
        {
            "model_ema": {"n_averaged": np.array(3), **under("module.", ONE)},
            "args": Schedule.COSINE,
        },
        ONE,
        [],
    ),
    "SwAV": (
        under("module.", NO_HEAD)
        | under("module.", mlp("projection_head.") | some(prototypes__weight=(30, 2))),
        NO_HEAD,
        ["'module'", "module.projection_head.0.weight", "of a projection head"],
    ),
    "SimCLR": (
        {"arch": "resnet", "state_dict": under("backbone.", {**NO_HEAD, **mlp("fc.")})},
        NO_HEAD,
        ["'backbone'", "backbone.fc.0.weight", "of a projection head"],
    ),
    "DINO's teacher alone": (
        {"teacher": under("backbone.", NO_HEAD) | mlp("head.mlp.")},
        NO_HEAD,
        ["'backbone'", "head.mlp.0.weight"],
    ),
    "a detector": (
        {"model": under("backbone.body.", NO_HEAD) | some(rpn__head__conv__weight=(8, 8, 3, 3))},
        NO_HEAD,
        ["'backbone.body'", "rpn"],
    ),
    "a segmenter": (
        {
            "meta": Options(classes=("ant", "bee"), epoch=3),
            "state_dict": under("backbone.", NO_HEAD)
            | some(decode_head__conv_seg__weight=(2, 8, 1, 1), auxiliary_head__bias=(2,)),
        },
        NO_HEAD,
        ["'backbone'", "decode_head", "auxiliary_head"],
    ),
    "a head behind dropout": (
        {name.replace("fc.", "fc.1."): tensor for name, tensor in ONE.items()},
        ONE,
        [],
    ),
}

# Checkpoints of two models, and their places in it.
PAIRS = {
    "MoCo": (
        {
            "epoch": 200,
            "state_dict": {
                **under("module.encoder_q.", {**NO_HEAD, **mlp("fc.")}),
                **under("module.encoder_k.", {**OTHER_NO_HEAD, **mlp("fc.")}),
                **some(module__queue=(2, 8), module__queue_ptr=(1,)),
            },
            "optimizer": OPTIMIZER,
        },
        ("module.encoder_q", "module.encoder_k"),
    ),
    "DINO": (
        {
            "student": {**under("module.backbone.", NO_HEAD), **mlp("module.head.mlp.")},
            "teacher": {**under("backbone.", OTHER_NO_HEAD), **mlp("head.mlp.")},
            "args": argparse.Namespace(arch="resnet50"),
            "dino_loss": {"center": np.ones((1, 2), "float32")},
        },
        ("student.module.backbone", "teacher.backbone"),
    ),
    "BYOL": (
        {
            **under("online_network.encoder.", NO_HEAD),
            **under("target_network.encoder.", OTHER_NO_HEAD),
            **mlp("predictor."),
        },
        ("online_network.encoder", "target_network.encoder"),
    ),
    "timm with an average": (
        {"state_dict": NO_HEAD, "state_dict_ema": OTHER_NO_HEAD, "args": argparse.Namespace()},
        ("state_dict", "state_dict_ema"),
    ),
    "torchvision with an average": (
        {
            "model": NO_HEAD,
            "model_ema": under("module.", OTHER_NO_HEAD) | {"n_averaged": np.array(3)},
        },
        ("model", "model_ema.module"),
    ),
    "the average within": ({**NO_HEAD, **under("ema.", OTHER_NO_HEAD)}, (".", "ema")),
}


@pytest.fixture
def write(tmp_path):
    def written(checkpoint, as_file=as_zip):
        path = tmp_path / "checkpoint.pth"
        path.write_bytes(as_file(checkpoint))
        return path

    return written


def emptied(net):
    net.set_weights([np.full(weight.shape, -1.0) for weight in net.weights])
    return net


def holds(net, state):
    ours = to_torch(net)
    return all(
        np.array_equal(ours[name], state[name]) for name in ours if not name.endswith("tracked")
    )


def is_untouched(net):
    return all(np.all(array == -1) for array in net.get_weights())


@pytest.mark.parametrize("as_file", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("style", STYLES)
def test_the_model_is_found(write, caplog, style, as_file):
    checkpoint, state, notice = STYLES[style]
    net = emptied(NET if "fc.bias" in state else BACKBONE)
    path = write(checkpoint, as_file)
    with caplog.at_level("INFO", logger="keras_resnet"):
        load_weights(net, path)
    assert holds(net, state)
    told = [record.message for record in caplog.records if "set aside" in record.message]
    assert len(told) == bool(notice)
    for part in notice:
        assert part in told[0]
        assert told[0].startswith(f"weights={str(path)!r}: ")


@pytest.mark.parametrize("style", PAIRS)
class TestTwoModels:
    def test_are_refused_and_named(self, write, style):
        checkpoint, (one, other) = PAIRS[style]
        path = write(checkpoint)
        net = emptied(BACKBONE)
        with one_line_error(f"weights={str(path)!r}: 2 models", f"{one!r} and {other!r}", "#"):
            load_weights(net, path)
        assert is_untouched(net)
        with one_line_error("2 models"):
            load.class_names(load.find(path))

    def test_are_chosen_from_by_prefix(self, write, style):
        checkpoint, places = PAIRS[style]
        path = write(checkpoint)
        for place, state in zip(places, (NO_HEAD, OTHER_NO_HEAD), strict=True):
            net = load_weights(emptied(BACKBONE), f"{path}#{place}")
            assert holds(net, state)
            # A part of it will do, if no other has it.
            *_, part = [each for each in place.split(".") if each not in places[0].split(".")] or [
                place
            ]
            assert holds(load_weights(emptied(BACKBONE), f"{path}#{part}"), state)

    def test_of_a_state_dict_too(self, style):
        checkpoint, (one, other) = PAIRS[style]
        checkpoint = flat(checkpoint)
        net = emptied(BACKBONE)
        with one_line_error("state_dict: 2 models", one, other, "prefix="):
            load_state_dict(net, checkpoint)
        load_state_dict(net, checkpoint, prefix=other)
        assert holds(net, OTHER_NO_HEAD)


class TestChoices:
    def test_that_are_not_there_are_refused_with_those_that_are(self, write):
        path = write(PAIRS["MoCo"][0])
        for choice in ("encoder_x", "encoder", "fc", "."):
            with one_line_error(f"no model under {choice!r}", "'module.encoder_q'"):
                load_weights(emptied(BACKBONE), f"{path}#{choice}")
        with one_line_error("before the #"):
            load_weights(BACKBONE, f"{path}#")
        with one_line_error("there is no such file"):
            load_weights(BACKBONE, f"{path}x#encoder_q")

    def test_that_both_have_are_still_two(self, write):
        path = write(PAIRS["MoCo"][0])
        with one_line_error("2 models"):
            load_weights(BACKBONE, f"{path}#module")

    def test_are_not_needed_where_one_fits(self, write):
        other = resnet((2, 1), "basic", (4, 8), input_shape=(8, 8, 3), include_top=False)
        student = drawn(state_dict_shapes(other), 5)
        path = write({"teacher": OTHER_NO_HEAD, "student": student})
        assert holds(load_weights(emptied(BACKBONE), path), OTHER_NO_HEAD)
        assert holds(load_weights(other, path), student)

    def test_of_models_none_of_which_fits_are_refused(self, write):
        small = resnet((1, 1), "basic", (4, 4), input_shape=(8, 8, 3), include_top=False)
        with one_line_error("2 models", "'module.encoder_q'", "none of them fits"):
            load_weights(small, write(PAIRS["MoCo"][0]))

    def test_are_not_needed_for_one_model_under_two_names(self, write):
        # A LightningModule with self.model = Model(encoder) and self.encoder = encoder.
        state = {**under("model.encoder.", NO_HEAD), **under("encoder.", NO_HEAD)}
        assert holds(load_weights(emptied(BACKBONE), write({"state_dict": state})), NO_HEAD)

    def test_are_part_of_a_name_where_a_file_has_it(self, tmp_path):
        path = tmp_path / "checkpoint#1.pth"
        path.write_bytes(as_zip(NO_HEAD))
        assert holds(load_weights(emptied(BACKBONE), path), NO_HEAD)

    def test_work_for_safetensors_too(self, write):
        path = write({**under("a.", NO_HEAD), **under("b.", OTHER_NO_HEAD)}, as_safetensors)
        with one_line_error("2 models", "'a' and 'b'"):
            load_weights(emptied(BACKBONE), path)
        assert holds(load_weights(emptied(BACKBONE), f"{path}#b"), OTHER_NO_HEAD)


def test_a_published_detector_gives_its_backbone(tmp_path):
    path = tmp_path / "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"
    path.write_bytes(as_zip(under("backbone.body.", NO_HEAD) | some(rpn__weight=(8, 8, 3, 3))))
    assert "epsilon" not in load.find(path).options
    with pytest.warns(RuntimeWarning, match=r"trained with epsilon=0\.0"):
        load_weights(emptied(BACKBONE), path)
    assert holds(BACKBONE, NO_HEAD)


class TestProjectionHeads:
    @pytest.mark.parametrize("style", ["SwAV", "SimCLR", "DINO's teacher alone"])
    def test_are_no_classifiers(self, write, caplog, style):
        path = write(STYLES[style][0])
        net = emptied(NET)
        with one_line_error(f"weights={str(path)!r}: ", "projection head", "include_top=False"):
            load_weights(net, path)
        assert is_untouched(net)
        with one_line_error("no classifier"):
            load.class_names(load.find(path))
        with caplog.at_level("INFO", logger="keras_resnet"):
            load_weights(net, path, new_head=True)
        assert "keeps its own" in caplog.text
        assert np.all(net.get_layer("predictions").kernel == -1)
        assert holds(net, {**NO_HEAD, **{n: to_torch(net)[n] for n in ("fc.weight", "fc.bias")}})

    def test_of_one_layer_are_known_by_the_module(self, write):
        # MoCo's first version: a single layer, which looks like a classifier of as many classes.
        path = write(under("module.encoder_q.", ONE))
        with one_line_error("projection head", "module.encoder_q.fc.weight"):
            load_weights(emptied(NET), path)
        assert holds(load_weights(emptied(BACKBONE), path), NO_HEAD)


class TestHyperparameters:
    def test_are_skipped_with_a_word(self, write, caplog):
        with caplog.at_level("INFO", logger="keras_resnet"):
            load_weights(emptied(NET), write({"state_dict": ONE, "args": Schedule.COSINE}))
        assert "did not run" in caplog.text
        assert "Schedule" in caplog.text

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    @pytest.mark.parametrize("name", HYPERPARAMETERS)
    def test_of_every_kind_are_skipped(self, write, name, protocol):
        checkpoint = {"state_dict": ONE, "options": {name: HYPERPARAMETERS[name]}}
        path = write(checkpoint, lambda each: as_zip(each, protocol))
        assert holds(load_weights(emptied(NET), path), ONE)

    def test_among_the_tensors_are_refused(self, write):
        with one_line_error("Schedule", "no code was run"):
            load_weights(emptied(NET), write({"state_dict": {**ONE, "schedule": Schedule.COSINE}}))
        assert is_untouched(NET)


def test_a_whole_model_of_modules_within_each_other_is_read_in_time(write):
    module = Module()
    for _ in range(60):  # 2 to the power of 60 paths
        module = Module({}, {"a": module, "b": module})
    with one_line_error("no named tensors"):
        load_weights(emptied(NET), write(module))
