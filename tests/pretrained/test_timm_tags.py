"""timm's published weights: every row against timm's own configuration and state dicts."""

import inspect
import json
import logging
import lzma
import re
from pathlib import Path

import numpy as np
import pytest
from errors import one_line_error
from safetensors.numpy import save_file

import keras_resnet
from keras_resnet import graphs, initialization, names, zoo
from keras_resnet.pretrained import (
    list_weights,
    load,
    load_weights,
    needs,
    state_dict_shapes,
)
from keras_resnet.pretrained.registry import REGISTRY, TAGS_OF_TIMM, TIMM, find_file, find_tag

GOLDEN = json.loads(
    lzma.decompress((Path(__file__).parents[1] / "golden" / "timm_published.json.xz").read_bytes())
)
PUBLISHED, SHAPES = GOLDEN["published"], GOLDEN["shapes"]

# What we have no model for, and the nearest that we have.
WITHOUT_MODEL = {
    "ecaresnet50d_pruned.miil_in1k": "ECAResNet50D",
    "ecaresnet101d_pruned.miil_in1k": "ECAResNet101D",
    "resnetv2_50d_evos.ah_in1k": "ResNetV2_50D_GN",
    "senet154.gluon_in1k": "SEResNeXt101_64x4d",
    "test_resnet.r160_in1k": "ResNet10T",
}
MODES = {
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)): "torch",
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)): "tf",
}
ARCHITECTURES = [each for each in SHAPES if f"{each}." not in " ".join(WITHOUT_MODEL)]


def side(size):
    if size is None:
        return None
    channels, height, width = size
    assert (channels, height) == (3, width)
    return height


def classes_and_features(shapes):
    """Shape of a classifier in a state dict, as a matrix."""
    return next(shape[:2] for name, shape in shapes.items() if name.endswith("fc.weight"))


class TestRows:
    def test_are_there_for_all_that_timm_publishes_but_a_few(self):
        assert len(PUBLISHED) == 174
        assert {TIMM + name for name in PUBLISHED.keys() - WITHOUT_MODEL} == TAGS_OF_TIMM.keys()
        assert len(TAGS_OF_TIMM) == 169

    @pytest.mark.parametrize("name", sorted(PUBLISHED.keys() - WITHOUT_MODEL))
    def test_say_what_timm_says(self, name):
        row, theirs = TAGS_OF_TIMM[TIMM + name], PUBLISHED[name]
        assert names.plain(row.model) == names.plain(name.partition(".")[0])
        assert row.image_size == side(theirs["input_size"])
        assert row.test_image_size == side(theirs["test_input_size"])
        assert (row.crop, row.test_crop) == (theirs["crop_pct"], theirs["test_crop_pct"])
        assert row.interpolation == theirs["interpolation"]
        assert row.options["preprocessing"] == MODES[tuple(theirs["mean"]), tuple(theirs["std"])]
        assert row.classes == theirs["num_classes"]
        assert row.licence.lower() == (theirs["license"] or "")
        *others, hub = row.files
        assert hub.address == f"https://huggingface.co/timm/{name}/resolve/main/model.safetensors"
        assert (hub.name, hub.checksum) == (f"{name}.safetensors", "")
        assert [file.address for file in others] == ([theirs["url"]] if theirs["url"] else [])
        for file in others:
            assert file.address.endswith(f"/{file.name}")
            assert file.name.endswith(f"-{file.checksum}.pth")
            assert file.algorithm == "sha256"
            assert re.fullmatch("[0-9a-f]{8}", file.checksum)

    def test_count_the_parameters_of_their_state_dicts(self):
        for tag, row in TAGS_OF_TIMM.items():
            shapes = SHAPES[tag.removeprefix(TIMM).partition(".")[0]]
            count = sum(np.prod(shape) for name, shape in shapes.items() if "running" not in name)
            classes, features = classes_and_features(shapes)
            count += (row.classes - classes) * (features + 1)
            assert row.parameters == count, tag

    def test_are_for_the_data_that_their_names_tell(self):
        of = {row.data: set() for row in TAGS_OF_TIMM.values()}
        for row in TAGS_OF_TIMM.values():
            of[row.data].add(row.classes)
        assert of == {
            "ImageNet": {1000},
            "ImageNet-12k": {11821},
            "ImageNet-21k": {21843},
            "Bamboo": {0},
        }

    def test_give_the_accuracy_that_timm_measured(self):
        # From results-imagenet.csv; of torchvision's first recipe within noise of what it says.
        for tag, top1, top5 in (
            ("resnet50.a1_in1k", 80.382, 94.598),
            ("ecaresnet269d.ra2_in1k", 84.724, 97.180),
            ("resnetv2_152x4_bit.goog_in21k_ft_in1k", 84.936, 97.456),
        ):
            row = TAGS_OF_TIMM[TIMM + tag]
            assert (row.top1, row.top5) == (top1, top5)
        for row in TAGS_OF_TIMM.values():
            assert (row.top1 is None) == (row.data != "ImageNet")
            torchvision = REGISTRY.get((row.model, "imagenet_v1"))
            if row.tag.endswith(".tv_in1k") and row.model != "ResNeXt101_64x4d":
                assert row.top1 == pytest.approx(torchvision.top1, abs=0.05)

    def test_have_files_by_whose_names_they_are_found(self):
        for row in TAGS_OF_TIMM.values():
            for file in row.files:
                found = find_file(file.name)
                assert found.model == row.model
                assert found is row or found.tag in ("imagenet_v1", "imagenet_v2")


# One of each kind, quickly built.
SOME = ("resnet10t", "resnet18d", "ecaresnetlight", "seresnext26t_32x4d", "resnetblur50",
        "resnet50_gn", "resnetv2_18d", "resnetv2_50x1_bit")  # fmt: skip


class TestArchitectures:
    @pytest.mark.parametrize(
        "architecture",
        [
            each if each in SOME else pytest.param(each, marks=pytest.mark.slow)
            for each in ARCHITECTURES
        ],
    )
    def test_have_the_names_and_shapes_of_timm(self, architecture):
        with initialization.kernels_to_be_loaded():
            model = zoo.builder(architecture)(weights=None, input_shape=(64, 64, 3))
        ours = {name: [*shape] for name, shape in state_dict_shapes(model).items()}
        assert ours == SHAPES[architecture]

    def test_have_the_options_that_state_dicts_do_not_reveal(self):
        for row in TAGS_OF_TIMM.values():
            options = {**needs.UNREVEALED, **zoo.MODELS[row.model]}
            for option, usual in needs.UNREVEALED.items():
                # Of the stems, the others have other tensors.
                if option != "stem" or "zero_padded" in (options["stem"], row.options.get("stem")):
                    assert row.options.get(option, usual) == options[option], row.tag

    def test_have_weights_by_default_if_there_are_any(self):
        published = {row.model for row in list_weights(data="ImageNet")}
        published |= {"ResNet50V2", "ResNet101V2", "ResNet152V2"}  # of keras.applications
        for model in zoo.MODELS:
            default = inspect.signature(zoo.builder(model)).parameters["weights"].default
            assert default == ("imagenet" if model in published else None), model


class TestTags:
    @pytest.mark.parametrize("name", sorted(PUBLISHED.keys() - WITHOUT_MODEL))
    def test_resolve_for_the_model_that_timm_names(self, name):
        row = find_tag(TIMM + name, name.partition(".")[0])
        assert zoo.builder(name.partition(".")[0]) is getattr(keras_resnet, row.model)

    @pytest.mark.parametrize(("name", "nearest"), WITHOUT_MODEL.items())
    def test_of_an_architecture_that_is_not_here_name_the_nearest(self, name, nearest):
        with one_line_error(f"weights={TIMM + name!r}", "no model", f"nearest is {nearest}."):
            keras_resnet.ResNet50(weights=TIMM + name)
        assert hasattr(keras_resnet, nearest)

    @pytest.mark.parametrize(
        ("tag", "parts"),
        [
            ("timm/resnet50d", ["'timm/resnet50d.ra2_in1k', 'timm/resnet50d.a1_in1k'"]),
            ("timm/resnet50d.a9_in1k", ["there are 'timm/resnet50d.ra2_in1k'"]),
            ("timm/resnet51d.ra2_in1k", ["nearest are 'timm/resnet50d.ra2_in1k', of ResNet50D"]),
            ("timm/vit_base_patch16_224.augreg_in1k", ["not known here", "list_weights"]),
            ("timm/resnet50.a1_in1k", ["of ResNet50, not of ResNet50D", "ResNet50(weights="]),
            ("ra2_in1k", ["say 'timm/resnet50d.ra2_in1k'"]),
            ("resnet50d.ra2_in1k", ["no such file", "such as 'timm/resnet50d.ra2_in1k'"]),
        ],
    )
    def test_that_are_wrong_are_answered_with_those_that_are_right(self, tag, parts):
        with one_line_error(f"weights={tag!r}", *parts):
            keras_resnet.ResNet50D(weights=tag)

    def test_that_name_a_file_are_a_file(self):
        with one_line_error("weights='timm/net.pth'", "no such file"):
            keras_resnet.ResNet50D(weights="timm/net.pth")

    def test_of_a_renamed_model_ask_whose_they_are(self):
        model = keras_resnet.ResNet((1, 1, 1, 1), name="mine", input_shape=(32, 32, 3))
        with one_line_error("of ResNet14T, not of mine", "architecture='ResNet14T'"):
            load_weights(model, "timm/resnet14t.c3_in1k")

    def test_imagenet_is_the_first_of_a_model(self):
        for model, tag in (
            ("ResNet50", "imagenet_v1"),
            ("ResNet50D", "timm/resnet50d.ra2_in1k"),
            ("ResNetAA50D", "timm/resnetaa50d.sw_in12k_ft_in1k"),
            # timm's default may not be used commercially.
            ("ResNeXt101_32x4d", "timm/resnext101_32x4d.gluon_in1k"),
        ):
            assert find_tag("imagenet", model).tag == tag


class TestLists:
    def test_are_filtered_by_name(self):
        for name in ("resnet50d.*", "ResNet50D", "50d"):
            assert "timm/resnet50d.a1_in1k" in {row.tag for row in list_weights(name=name)}
        assert {row.model for row in list_weights(name="*.c3_in1k")} == {"ResNet10T", "ResNet14T"}
        assert len(list_weights(name="timm/*")) == 169
        assert list_weights(name="nothing") == ()
        assert len(repr(list_weights(name="nothing")).splitlines()) == 1

    def test_are_filtered_by_licence(self):
        found = list_weights(licence="cc-by-nc-4.0")
        assert len(found) == 15
        assert [row.tag for row in list_weights(licence="unknown")] == ["timm/resnet50.bamboo"]
        assert {row.tag.partition(".")[2].partition("_")[0] for row in found} == {"fb"}
        several = list_weights(licence=["MIT", "BSD-2-Clause"])
        assert {row.licence for row in several} == {"MIT", "BSD-2-Clause"}
        with one_line_error("licence 'apache'", "Did you mean Apache-2.0?"):
            list_weights(licence="apache")

    def test_are_filtered_by_use(self):
        others = {row.tag for row in list_weights(commercial=False)}
        # Of Bamboo's weights no licence is published.
        assert others == {
            "timm/resnet50.bamboo",
            *(row.tag for row in list_weights(licence="cc-by-nc-4.0")),
        }
        allowed = [row.tag for row in list_weights(commercial=True)]
        assert len(allowed) + len(others) == len(list_weights())
        assert not others & {*allowed}

    def test_are_filtered_by_data(self):
        for data, classes in (("imagenet-12k", 11821), ("ImageNet21k", 21843), ("cifar10", 10)):
            assert {row.classes for row in list_weights(data=data)} == {classes}
        with one_line_error("data 'imagenet22k'", "Did you mean ImageNet-21k?"):
            list_weights(data="imagenet22k")

    def test_are_filtered_by_accuracy_and_size(self):
        found = list_weights(min_top1=80, max_parameters=30e6)
        assert {row.model for row in found} >= {"ResNet50", "ResNet50D", "SEResNet50"}
        assert "ResNet101" not in {row.model for row in found}
        for row in list_weights():
            fits = row.top1 is not None and row.top1 >= 80 and (row.parameters or 1e9) <= 30e6
            assert (row in found) == fits

    def test_combine_their_filters(self):
        (row,) = list_weights("ResNet50", name="*a1_*", licence="Apache-2.0", min_top1=80)
        assert row.tag == "timm/resnet50.a1_in1k"

    @pytest.mark.parametrize(
        ("argument", "value"),
        [("min_top1", 101), ("min_top1", float("nan")), ("max_parameters", 0), ("commercial", 2)],
    )
    def test_refuse_what_is_out_of_range(self, argument, value):
        with one_line_error(f"{argument}={value!r} must be"):
            list_weights(**{argument: value})


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Put files in the layout of timm's where tags are looked for."""
    monkeypatch.setenv("KERAS_RESNET_WEIGHTS", str(tmp_path))

    def publish(name, classes=None):
        shapes = dict(SHAPES[name.partition(".")[0]])
        for part in [part for part in shapes if part.endswith(("fc.weight", "fc.bias"))]:
            if classes == 0:
                del shapes[part]
            elif classes:
                shapes[part] = [classes, *shapes[part][1:]]
        tensors = {part: np.full(shape, 0.01, "float32") for part, shape in shapes.items()}
        save_file(tensors, tmp_path / f"{name}.safetensors")
        return TIMM + name

    return publish


class TestLoading:
    def test_shows_images_as_timm_does(self, published):
        tag = published("resnet18.a3_in1k")
        model = keras_resnet.ResNet18(weights=tag)
        assert model.input_shape == (None, 160, 160, 3)
        wants = graphs.wants_of(model)
        assert (wants.crop, wants.interpolation, wants.image_size) == (0.95, "bicubic", (160, 160))
        assert wants.normalization == "torch"
        model = keras_resnet.ResNet18(weights=tag, input_shape=(None, 96, 3), include_top=False)
        assert model.input_shape == (None, None, 96, 3)
        assert graphs.wants_of(model).image_size == (160, 160)

    def test_of_another_normalization(self, published):
        model = keras_resnet.ResNet34(weights=published("resnet34.ra4_e3600_r224_in1k"))
        assert graphs.wants_of(model).normalization == model.preprocessing == "tf"
        with one_line_error("need preprocessing='tf'", "'torch'"):
            keras_resnet.ResNet34(
                weights="timm/resnet34.ra4_e3600_r224_in1k", preprocessing="torch"
            )

    @pytest.mark.parametrize(
        "name",
        [
            "resnet18d.ra4_e3600_r224_in1k",
            "ecaresnet26t.ra2_in1k",
            "resnetv2_18d.ra4_e3600_r224_in1k",
            *(
                pytest.param(each, marks=pytest.mark.slow)
                for each in (
                    "resnetblur50.bt_in1k",
                    "resnetaa50d.sw_in12k_ft_in1k",
                    "resnetrs50.tf_in1k",
                    "seresnext26t_32x4d.bt_in1k",
                    "resnet50_gn.a1h_in1k",
                    "resnetv2_50d_gn.ah_in1k",
                    "resnetv2_50x1_bit.goog_distilled_in1k",
                )
            ),
        ],
    )
    def test_of_any_kind_of_model(self, published, name):
        row = find_tag(published(name), name.partition(".")[0])
        model = getattr(keras_resnet, row.model)(weights=row.tag)
        assert all((array == np.float32(0.01)).all() for array in model.get_weights())
        assert sum(np.prod(each.shape) for each in model.trainable_weights) == row.parameters
        assert model.input_shape[1:3] == (row.image_size, row.image_size)
        assert model.preprocessing == row.options["preprocessing"]
        wants = graphs.wants_of(model)
        assert (wants.crop, wants.interpolation) == (row.crop, row.interpolation)

    @pytest.mark.slow
    def test_of_many_classes(self, published, tmp_path):
        tag = published("resnetv2_50x1_bit.goog_in21k", classes=21843)
        with one_line_error("the head has 21843 classes", "classes=21843", "include_top=False"):
            keras_resnet.ResNetV2_50x1_BiT(weights=tag)
        model = keras_resnet.ResNetV2_50x1_BiT(weights=tag, classes=21843)
        assert model.output_shape == (None, 21843)
        assert load.class_names(load.find(tag, "ResNetV2_50x1_BiT"))[-1] == "21842"

    def test_refuses_what_state_dicts_do_not_reveal(self, published):
        tag = published("resnetblur50.bt_in1k")
        with one_line_error(f"weights={tag!r}", "anti_aliasing='blur'"):
            keras_resnet.ResNetBlur50(weights=tag, anti_aliasing=None)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("resnet18.fb_ssl_yfcc100m_ft_in1k", "CC-BY-NC-4.0, does not allow commercial use"),
            ("resnet18.a1_in1k", None),
        ],
    )
    def test_says_what_may_not_be_used_commercially(self, published, caplog, name, said):
        tag = published(name)
        with caplog.at_level(logging.WARNING, "keras_resnet"):
            keras_resnet.ResNet18(weights=tag)
        (message,) = caplog.messages if said else [""]
        assert len(caplog.messages) == bool(said)
        assert not said or (said in message and tag in message)

    def test_of_a_file_by_its_path_knows_it_too(self, published, tmp_path, caplog):
        published("resnet18.fb_ssl_yfcc100m_ft_in1k")
        path = tmp_path / "resnet18.fb_ssl_yfcc100m_ft_in1k.safetensors"
        keras_resnet.ResNet18(weights=path)
        assert "CC-BY-NC-4.0" in caplog.text

    def test_of_weights_without_classifier(self, published, caplog):
        tag = published("resnet50.bamboo", classes=0)
        with one_line_error(f"weights={tag!r}", "no classifier", "include_top=False"):
            keras_resnet.ResNet50(weights=tag)
        assert keras_resnet.ResNet50(weights=tag, classes=7).output_shape == (None, 7)
        assert "no licence is published" in caplog.text
        with one_line_error(f"weights={tag!r}", "no classifier"):
            load.class_names(load.find(tag, "ResNet50"))
