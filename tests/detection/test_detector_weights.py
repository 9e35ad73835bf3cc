"""Pretrained detectors: torchvision's names and detectron2's, into the same layers."""

import dataclasses
import functools
import hashlib
import inspect
import logging
import pickle
import re

import keras
import numpy as np
import pytest
from checkpoints import as_arrays, as_legacy, as_safetensors, as_zip
from detectron2_files import as_detectron2, cell_anchors, torchvision_state
from errors import one_line_error

from keras_resnet import detection, zoo
from keras_resnet.detection import heads
from keras_resnet.detection import weights as detectors
from keras_resnet.detection import zoo as named
from keras_resnet.pretrained import registry
from keras_resnet.pretrained import to_torch as classifier_to_torch

SIZES = (8, 16, 32)

# What detectron2's defaults need of a model.
BACKBONE = dict(stride_in="1x1", preprocessing="detectron2")
OPTIONS = dict(anchors_rounded=False, roi_aligned=True, roi_sampling_ratio=0)


def backbone(**options):
    shape = dict(filters=(4, 4, 8, 8), include_top=False, input_shape=(None, None, 3))
    return zoo.ResNet([1, 1, 1, 1], **{**shape, **options})


def detector(head="c4", classes=3, of_backbone=(), **options):
    shape = dict(min_size=64, max_size=96, name=f"small_{head}")
    if head == "c4":
        shape["rpn_anchor_sizes"] = SIZES
    return detection.FasterRCNN(
        backbone(**dict(of_backbone)), classes, head, **{**shape, **options}
    )


def of_detectron2(head="c4", classes=3, of_backbone=(), **options):
    return detector(head, classes, {**BACKBONE, **dict(of_backbone)}, **OPTIONS, **options)


@pytest.fixture(scope="module", autouse=True)
def narrow():
    """The same heads, of few channels: names do not depend on widths."""
    rows = dict(detection.HEADS)
    for head, normalized, vectors in (
        ("fpn", False, heads.two_layers),
        ("fpn_v2", True, heads.four_convolutions),
    ):
        rows[head] = dataclasses.replace(
            rows[head],
            levels=functools.partial(heads.pyramid, channels=8, normalized=normalized),
            vectors=lambda _, *shape, vectors=vectors: vectors(*shape, width=16),
        )
    with pytest.MonkeyPatch.context() as patch:
        for head, row in rows.items():
            patch.setitem(detection.HEADS, head, row)
        yield


@pytest.fixture(scope="module")
def nets(narrow):
    """A detector of each head, as torchvision and as detectron2 build them."""
    built = {("torchvision", head): detector(head) for head in detection.HEADS}
    return built | {("detectron2", head): of_detectron2(head) for head in ("fpn", "c4")}


def weights_of(model):
    return {each.path: np.asarray(each) for each in model.weights}


def assert_same(ours, theirs, but=()):
    assert ours.keys() == theirs.keys()
    for path, value in theirs.items():
        if not any(part in path for part in but):
            np.testing.assert_array_equal(ours[path], value, err_msg=path)


def write(tmp_path, content, name="detector.bin"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


class TestTorchvision:
    @pytest.mark.parametrize("head", ["fpn", "fpn_v2", "c4"])
    def test_files_of_every_format_load_bit_for_bit(self, nets, tmp_path, head):
        model = nets["torchvision", head]
        state = torchvision_state(model)
        model.set_weights([np.zeros(each.shape) for each in model.weights])
        for form in (as_zip, as_legacy, as_safetensors):
            detection.load_weights(model, write(tmp_path, form(state)))
            back = detection.to_torch(model)
            assert back.keys() == state.keys()
            assert all(
                np.array_equal(back[name], state[name]) for name in state if state[name].shape
            )

    def test_dense_layers_see_channels_last(self, nets, tmp_path):
        model = nets["torchvision", "fpn"]
        state = torchvision_state(model)
        detection.load_weights(model, write(tmp_path, as_zip(state)))
        region = np.random.default_rng(1).normal(size=(7, 7, 8)).astype("float32")
        layer = model.get_layer("box_head").get_layer("fc6")
        ours = region.reshape(1, -1) @ np.asarray(layer.kernel) + np.asarray(layer.bias)
        kernel, bias = (state[f"roi_heads.box_head.fc6.{part}"] for part in ("weight", "bias"))
        theirs = kernel @ region.transpose(2, 0, 1).ravel() + bias
        np.testing.assert_allclose(ours[0], theirs, atol=1e-4)

    def test_names_of_before_are_understood(self, nets, tmp_path):
        # Those of the published file: there was but one convolution wherever there may be two now.
        model = nets["torchvision", "fpn"]
        state = torchvision_state(model)
        older = r"(rpn\.head\.conv)\.0\.0|((?:inner|layer)_blocks\.\d)\.0"
        named = {re.sub(older, r"\1\2", name): tensor for name, tensor in state.items()}
        assert {"rpn.head.conv.bias", "backbone.fpn.layer_blocks.3.weight"} <= named.keys()
        detection.load_weights(model, write(tmp_path, as_zip(named)))
        back = detection.to_torch(model)
        assert all(np.array_equal(back[name], state[name]) for name in state if state[name].shape)
        with one_line_error("unexpected tensors", "rpn.head.conv.weight"):
            twice = {**state, "rpn.head.conv.weight": state["rpn.head.conv.0.0.weight"]}
            detection.load_weights(model, write(tmp_path, as_zip(twice)))

    def test_levels_of_a_pyramid_are_counted_from_its_first(self, tmp_path):
        # torchvision: returned_layers=[2, 3, 4] makes inner_blocks.0 for layer2.
        model = detector("fpn", returned_layers=(2, 3, 4))
        state = torchvision_state(model)
        assert state["backbone.fpn.inner_blocks.0.0.weight"].shape == (8, 16, 1, 1)
        assert "backbone.fpn.inner_blocks.3.0.weight" not in state
        detection.load_weights(model, write(tmp_path, as_zip(state)))
        layer = model.get_layer("features").get_layer("fpn_inner3")
        kernel = state["backbone.fpn.inner_blocks.0.0.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(layer.kernel, kernel)

    def test_wrappers_are_taken_off(self, nets, tmp_path):
        model = nets["torchvision", "c4"]
        state = torchvision_state(model)
        wrapped = {"model": {f"module.{name}": tensor for name, tensor in state.items()}}
        detection.load_weights(model, write(tmp_path, as_zip(wrapped)))
        assert np.array_equal(
            detection.to_torch(model)["rpn.head.bbox_pred.bias"], state["rpn.head.bbox_pred.bias"]
        )


class TestDetectron2:
    @pytest.mark.parametrize("head", ["fpn", "c4"])
    def test_the_same_network_has_the_same_weights(self, nets, tmp_path, head):
        model = nets["detectron2", head]
        state = torchvision_state(nets["torchvision", head])
        sizes = SIZES if head == "c4" else (32,)
        said = dict(stride_in="1x1", preprocessing="detectron2", **OPTIONS)
        detection.load_weights(model, write(tmp_path, as_zip(state)), trained_with=said)
        expected = weights_of(model)
        model.set_weights([np.zeros(each.shape) for each in model.weights])
        theirs = as_detectron2(state, sizes)
        for protocol in (2, 5):
            path = write(tmp_path, as_arrays(theirs, protocol), "model.pkl")
            detection.load_weights(model, path, trained_with={"input_format": "BGR"})
            assert_same(weights_of(model), expected, but=["box_deltas"])
        # Of the background, it has no deltas.
        for path, value in weights_of(model).items():
            if "box_deltas" in path:
                np.testing.assert_array_equal(value[..., :4], 0)
                np.testing.assert_array_equal(value[..., 4:], expected[path][..., 4:])

    def test_names_are_those_of_its_models(self, nets):
        # From its source: names and shapes of faster_rcnn_R_50_C4 and _FPN.
        for head, names in {
            "c4": [
                "backbone.stem.conv1.weight",
                "backbone.stem.conv1.norm.running_mean",
                "backbone.res2.0.shortcut.weight",
                "backbone.res2.0.shortcut.norm.bias",
                "backbone.res4.0.conv3.norm.running_var",
                "proposal_generator.rpn_head.conv.bias",
                "proposal_generator.rpn_head.objectness_logits.weight",
                "proposal_generator.rpn_head.anchor_deltas.weight",
                "roi_heads.res5.0.conv2.norm.weight",
                "roi_heads.box_predictor.cls_score.weight",
                "roi_heads.box_predictor.bbox_pred.bias",
            ],
            "fpn": [
                "backbone.fpn_lateral2.weight",
                "backbone.fpn_output5.bias",
                "backbone.bottom_up.stem.conv1.weight",
                "backbone.bottom_up.res5.0.conv1.norm.weight",
                "roi_heads.box_head.fc1.weight",
                "roi_heads.box_head.fc2.bias",
            ],
        }.items():
            model = nets["torchvision", head]
            found = as_detectron2(torchvision_state(model), SIZES if head == "c4" else (32,))
            assert {*names} <= found.keys()
            assert not any("num_batches" in name or "layer" in name for name in found)

    def test_what_it_has_saved_beside_the_weights_is_checked(self, nets, tmp_path):
        model = nets["detectron2", "c4"]
        state = as_detectron2(torchvision_state(nets["torchvision", "c4"]), SIZES)
        name = "proposal_generator.anchor_generator.cell_anchors.0"
        pixels = {
            "pixel_mean": np.array([103.53, 116.28, 123.675], "float32").reshape(3, 1, 1),
            "pixel_std": np.ones((3, 1, 1), "float32"),
        }
        path = write(tmp_path, as_arrays({**state, name: cell_anchors(SIZES), **pixels}))
        with pytest.warns(RuntimeWarning, match="stride_in='1x1'") as caught:
            detection.load_weights(model, path)
        assert "preprocessing" not in str(caught[0].message)
        for sizes in ((16, 8, 32), (8, 16)):
            path = write(tmp_path, as_arrays({**state, name: cell_anchors(sizes)}))
            with one_line_error(name, "other anchors"):
                detection.load_weights(model, path, trained_with={"input_format": "BGR"})
        for mean in ([0.0, 0, 0], [1.0, 2]):
            odd = {**pixels, "pixel_mean": np.array(mean, "float32")}
            with one_line_error("pixel_mean"):
                detection.load_weights(model, write(tmp_path, as_arrays({**state, **odd})))

    @pytest.mark.parametrize(
        ("mean", "deviation", "mode", "turned"),
        [
            ((103.53, 116.28, 123.675), (1, 1, 1), "detectron2", False),
            ((123.675, 116.28, 103.53), (1, 1, 1), "detectron2", True),
            ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "torch", False),
            ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395), "torch", True),
            ((103.939, 116.779, 123.68), (1, 1, 1), "caffe", False),
        ],
    )
    def test_images_are_normalized_as_it_says(self, nets, tmp_path, mean, deviation, mode, turned):
        model = detector("c4", of_backbone=dict(BACKBONE, preprocessing=mode), **OPTIONS)
        state = as_detectron2(torchvision_state(nets["torchvision", "c4"]), SIZES)
        pixels = {
            name: np.array(values, "float32").reshape(3, 1, 1)
            for name, values in (("pixel_mean", mean), ("pixel_std", deviation))
        }
        found = detectors.find(
            write(tmp_path, as_arrays({**state, **pixels})), trained_with={"epsilon": 1e-5}
        )
        assert found.backbone == {"stride_in": "1x1", "preprocessing": mode}
        detectors.load_found(model, found)
        # One pixel through the first convolution of either.
        pixel = np.array([10.0, 100.0, 200.0])  # RGB
        theirs = pixel[::-1] if mean[0] < mean[2] else pixel
        theirs = (
            (theirs - mean)
            / np.array(deviation)
            @ state["backbone.stem.conv1.weight"][:, :, 3, 3].T
        )
        seen = np.asarray(
            keras.ops.convert_to_numpy(
                detection.parts_of(model).transform(
                    pixel.reshape(1, 1, 1, 3).repeat(64, 1).repeat(64, 2), np.array([[64, 64]])
                )[0]
            )
        )[0, 5, 5]
        kernel = np.asarray(model.get_layer("features").get_layer("conv1_conv").kernel)[3, 3]
        np.testing.assert_allclose(seen @ kernel, theirs, rtol=1e-3, atol=1e-3)

    def test_a_resnext_of_it_is_trained_otherwise(self, tmp_path, nets):
        options = dict(cardinality=2, base_width=32)
        theirs = detector("c4", of_backbone=options)
        state = as_detectron2(torchvision_state(theirs), SIZES)
        path = write(tmp_path, as_arrays(state))
        with pytest.warns(
            RuntimeWarning, match="stride_in='3x3', preprocessing='torch', input_format='BGR'"
        ):
            found = detectors.find(path)
        assert found.backbone == {"stride_in": "3x3", "preprocessing": "torch"}
        model = detector("c4", of_backbone=options, **found.options, rpn_anchor_sizes=SIZES)
        detectors.load_found(model, found)
        kernel = np.asarray(model.get_layer("features").get_layer("conv1_conv").kernel)
        np.testing.assert_array_equal(
            kernel[..., ::-1, :], state["backbone.stem.conv1.weight"].transpose(2, 3, 1, 0)
        )

    def test_proposals_are_as_many_as_it_has(self, tmp_path, nets):
        for head, pre in {"c4": 6000, "fpn": None}.items():
            sizes = SIZES if head == "c4" else (32,)
            state = as_detectron2(torchvision_state(nets["torchvision", head]), sizes)
            found = detectors.find(
                write(tmp_path, as_arrays(state)), trained_with={"epsilon": 1e-5}
            )
            assert found.options.get("rpn_pre_nms_top_n_test") == pre
            assert {name: found.options[name] for name in OPTIONS} == OPTIONS


class TestEpsilon:
    def test_of_0_is_folded_into_gamma(self, nets, tmp_path):
        model = nets["torchvision", "fpn"]
        state = torchvision_state(model, counters=False)
        for name in state:
            if name.endswith("running_var"):
                state[name] *= np.float32(10.0) ** -np.arange(len(state[name]))
        with pytest.warns(RuntimeWarning, match="trained_with={'epsilon': 0.0}"):
            detection.load_weights(model, write(tmp_path, as_zip(state)))
        assert np.array_equal(
            detection.to_torch(model)["backbone.body.bn1.weight"], state["backbone.body.bn1.weight"]
        )
        detection.load_weights(model, write(tmp_path, as_zip(state)), trained_with={"epsilon": 0.0})
        layer = model.get_layer("features").get_layer("conv2_block1_2_bn")
        x = np.random.default_rng(0).normal(size=(5, 1, 1, 4))
        gamma, beta, mean, variance = (
            np.asarray(state[f"backbone.body.layer1.0.bn2.{part}"], "float64")
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        expected = (x - mean) / np.sqrt(variance) * gamma + beta
        np.testing.assert_allclose(
            np.asarray(layer(x.astype("float32"))), expected, rtol=2e-5, atol=1e-5
        )

    def test_of_0_is_known_of_the_published_file(self, nets, tmp_path, monkeypatch):
        model = nets["torchvision", "fpn"]
        state = torchvision_state(model, counters=False)
        content = as_zip(state)
        row = registry.REGISTRY["FasterRCNN_ResNet50_FPN", "coco_v1"]
        assert row.options["epsilon"] == 0
        by_name = detectors.find(write(tmp_path, content, row.files[0].name))
        assert by_name.trained["epsilon"] == 0
        # Renamed, it is known by its checksum.
        digits = hashlib.sha256(content).hexdigest()[:8]
        file = dataclasses.replace(row.files[0], checksum=digits)
        monkeypatch.setattr(registry, "DETECTORS", (dataclasses.replace(row, files=(file,)),))
        assert detectors.find(write(tmp_path, content, "mine.pth")).trained["epsilon"] == 0

    def test_of_others_is_pytorch_s(self):
        for row in registry.DETECTORS:
            if row.tag != "coco_v1" or row.model.endswith("V2"):
                assert "epsilon" not in row.options
        assert {each["epsilon"] for each in detectors.TRAINED.values()} == {1e-5}

    def test_of_0_with_variances_of_0_is_refused(self, nets, tmp_path):
        model = nets["torchvision", "c4"]
        before = weights_of(model)
        state = torchvision_state(model)
        state["backbone.bn1.running_var"][2] = 0
        with one_line_error("backbone.bn1.running_var", "epsilon of 0"):
            detection.load_weights(
                model, write(tmp_path, as_zip(state)), trained_with={"epsilon": 0}
            )
        assert_same(weights_of(model), before)


class TestRefusal:
    @pytest.mark.parametrize(
        ("theirs", "ours"), [("fpn", "c4"), ("c4", "fpn"), ("fpn_v2", "fpn"), ("fpn", "fpn_v2")]
    )
    def test_of_another_head_names_it(self, nets, tmp_path, theirs, ours):
        state = torchvision_state(nets["torchvision", theirs])
        model = nets["torchvision", ours]
        with one_line_error(f"with the head {theirs!r}", f"has {ours!r}", f"head={theirs!r}"):
            detection.load_weights(model, write(tmp_path, as_zip(state)))

    def test_of_another_head_of_detectron2_names_it(self, nets, tmp_path):
        state = as_detectron2(torchvision_state(nets["torchvision", "fpn"]), (32,))
        path = write(tmp_path, as_arrays(state))
        with one_line_error("of detectron2 with the head 'fpn'", "small_c4 has 'c4'"):
            detection.load_weights(nets["detectron2", "c4"], path, trained_with={"epsilon": 1e-5})

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("stride_in", "3x3"),
            ("preprocessing", "torch"),
            ("anchors_rounded", True),
            ("roi_aligned", False),
            ("roi_sampling_ratio", 2),
        ],
    )
    def test_of_weights_that_were_trained_otherwise_says_how(self, nets, tmp_path, option, value):
        state = as_detectron2(torchvision_state(nets["torchvision", "c4"]), SIZES)
        path = write(tmp_path, as_arrays(state))
        if option in BACKBONE:
            model = of_detectron2(of_backbone={option: value})
        else:
            model = detector("c4", of_backbone=BACKBONE, **{**OPTIONS, option: value})
        with one_line_error(f"these weights need {option}=", f"has {value!r}", "trained_with"):
            detection.load_weights(model, path, trained_with={"input_format": "BGR"})
        detection.load_weights(model, path, trained_with={option: value})

    def test_of_torchvision_s_weights_in_a_model_like_detectron2_s(self, nets, tmp_path):
        state = torchvision_state(nets["torchvision", "c4"])
        with one_line_error("these weights need", "stride_in='3x3'", "'1x1'"):
            detection.load_weights(nets["detectron2", "c4"], write(tmp_path, as_zip(state)))

    @pytest.mark.parametrize("library", ["torchvision", "detectron2"])
    def test_of_tensors_that_are_missing_or_too_many(self, nets, tmp_path, library):
        model = nets[library, "c4"]
        state = torchvision_state(nets["torchvision", "c4"])
        if library == "detectron2":
            state = as_detectron2(state, SIZES)
        before, said = weights_of(model), {"epsilon": 1e-5}
        for name in [name for name in state if state[name].shape][::17]:
            rest = {other: tensor for other, tensor in state.items() if other != name}
            with one_line_error(f"missing tensors that small_c4 needs: {name}"):
                detection.load_weights(model, write(tmp_path, as_arrays(rest)), trained_with=said)
            odd = {**state, name: np.zeros((*state[name].shape, 1), "float32")}
            with one_line_error(name, "has shape"):
                detection.load_weights(model, write(tmp_path, as_arrays(odd)), trained_with=said)
        more = {**state, "roi_heads.more.weight": np.zeros(3, "float32")}
        with one_line_error("unexpected tensors", "roi_heads.more.weight"):
            detection.load_weights(model, write(tmp_path, as_arrays(more)), trained_with=said)
        mask = {**state, "roi_heads.mask_head.mask_fcn1.weight": np.zeros(3, "float32")}
        with one_line_error("mask_head", "boxes alone"):
            detection.load_weights(model, write(tmp_path, as_arrays(mask)), trained_with=said)
        assert_same(weights_of(model), before)

    def test_of_a_deeper_backbone_names_both_depths(self, nets, tmp_path):
        deeper = detection.FasterRCNN(
            zoo.ResNet([2, 2, 2, 1], filters=(4, 4, 8, 8), include_top=False), 3, "c4",
            rpn_anchor_sizes=SIZES,
        )  # fmt: skip
        path = write(tmp_path, as_zip(torchvision_state(deeper)))
        with one_line_error("with 23 layers", "small_c4 has 14"):
            detection.load_weights(nets["torchvision", "c4"], path)

    def test_of_a_classifier_says_where_it_belongs(self, nets, tmp_path):
        path = write(tmp_path, as_zip(classifier_to_torch(backbone())))
        with one_line_error("of no detector", "weights_backbone="):
            detection.load_weights(nets["torchvision", "c4"], path)

    def test_of_a_detector_with_another_box_head(self, nets, tmp_path):
        state = torchvision_state(nets["torchvision", "fpn"])
        odd = {name.replace("box_head.fc6", "box_head.other"): each for name, each in state.items()}
        with one_line_error("whose box head is not 'fpn' or 'fpn_v2' or 'c4'", "box_head.fc7"):
            detection.load_weights(nets["torchvision", "fpn"], write(tmp_path, as_zip(odd)))

    def test_of_a_classifier_as_a_model(self, nets, tmp_path):
        path = write(tmp_path, as_zip(torchvision_state(nets["torchvision", "c4"])))
        with one_line_error("is not a detector"):
            detection.load_weights(backbone(), path)

    @pytest.mark.parametrize(
        "said",
        [
            {"eps": 0.0},
            {"epsilon": "0"},
            {"epsilon": -1.0},
            {"stride_in": "2x2"},
            {"preprocessing": "bgr"},
            {"input_format": "bgr"},
            {"roi_aligned": 1},
            {"roi_sampling_ratio": -1},
            "epsilon",
        ],
    )
    def test_of_what_nobody_can_say(self, nets, said):
        with one_line_error("trained_with"):
            detection.load_weights(nets["torchvision", "c4"], "file.pth", trained_with=said)

    @pytest.mark.parametrize("classes", [-1, 0, 10**9])
    def test_of_a_number_of_classes_that_cannot_be(self, nets, tmp_path, classes):
        # Legal in a file: a tensor of any size over a storage of one number.
        state = torchvision_state(nets["torchvision", "c4"])
        bias = np.broadcast_to(np.float32(1), (classes + 1,))
        state["roi_heads.box_predictor.cls_score.bias"] = bias
        with one_line_error(f"the box head has {classes} classes"):
            detection.FasterRCNN_ResNet50_C4(weights=write(tmp_path, as_zip(state)))

    def test_of_tags_that_there_are_not(self, nets):
        with one_line_error("'coco_v3'", "Did you mean coco_v1?"):
            detection.load_weights(nets["torchvision", "c4"], "coco_v3")
        with one_line_error("weights='coco_v1'", "only 'coco_detectron2_1x'"):
            detection.load_weights(
                nets["torchvision", "c4"], "coco", architecture="FasterRCNN_ResNet50_C4"
            )


class TestClasses:
    @pytest.mark.parametrize("library", ["torchvision", "detectron2"])
    def test_of_another_number_keep_the_model_s_own_head(self, nets, tmp_path, library, caplog):
        theirs = nets["torchvision", "c4"]
        state = torchvision_state(theirs)
        model = detector(classes=5) if library == "torchvision" else of_detectron2(classes=5)
        content = as_zip(state)
        if library == "detectron2":
            content = as_arrays(as_detectron2(state, SIZES))
        path, said = write(tmp_path, content), {"epsilon": 1e-5}
        before = weights_of(model)
        with one_line_error("the box head has 3 classes, small_c4 has 5", "classes=3", "new_head"):
            detection.load_weights(model, path, trained_with=said)
        assert_same(weights_of(model), before)
        with caplog.at_level(logging.INFO, "keras_resnet"):
            detection.load_weights(model, path, new_head=True, trained_with=said)
        assert "Skipped the box head for 3 classes: small_c4 has 5." in caplog.text
        after = weights_of(model)
        kept = {path for path in after if "box_logits" in path or "box_deltas" in path}
        assert len(kept) == 4
        for path in after:
            assert np.array_equal(after[path], before[path]) == (path in kept), path

    def test_of_coco_have_names(self, tmp_path, nets):
        assert len(detection.coco_classes()) == 80
        names = detection.coco_classes(gaps=True)
        assert len(names) == 90
        assert [each for each in names if each != "N/A"] == detection.coco_classes()
        # Numbers that COCO's annotations have for these.
        for number, name in {
            1: "person",
            13: "stop sign",
            27: "backpack",
            90: "toothbrush",
        }.items():
            assert names[number - 1] == name
        state = torchvision_state(nets["torchvision", "c4"])
        for count, first in {90: "person", 80: "person", 3: "0"}.items():
            state["roi_heads.box_predictor.cls_score.bias"] = np.zeros(count + 1, "float32")
            found = detectors.find(write(tmp_path, as_zip(state)))
            assert found.classes == len(found.class_names) == count
            assert found.class_names[0] == first


class TestRoundTrips:
    @pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".safetensors"])
    @pytest.mark.parametrize("kind", [("torchvision", "fpn_v2"), ("detectron2", "c4")])
    def test_a_detector_comes_back_as_it_was(self, nets, tmp_path, kind, suffix):
        model = nets[kind]
        draw = np.random.default_rng(5)
        model.set_weights([draw.uniform(0.5, 1, each.shape) for each in model.weights])
        expected, path = weights_of(model), tmp_path / f"detector{suffix}"
        if suffix == ".safetensors":
            detection.to_torch(model, path)
        elif suffix == ".keras":
            model.save(path)
            assert_same(weights_of(keras.models.load_model(path)), expected)
        else:
            model.save_weights(path)
        model.set_weights([np.zeros(each.shape) for each in model.weights])
        detection.load_weights(model, path)
        assert_same(weights_of(model), expected)
        # What the weights do not tell is in the file, too; Keras' files of weights alone know less.
        other = nets["detectron2" if kind[0] == "torchvision" else "torchvision", "c4"]
        if kind[1] == "c4":
            with one_line_error("these weights need"):
                detection.load_weights(other, path)

    def test_a_file_of_another_number_of_classes_keeps_the_head(self, nets, tmp_path):
        path = tmp_path / "detector.weights.h5"
        nets["torchvision", "c4"].save_weights(path)
        model = detector(classes=7)
        with one_line_error("the box head has 3 classes"):
            detection.load_weights(model, path)
        detection.load_weights(model, path, new_head=True)


@pytest.fixture
def small_builders(monkeypatch):
    """The named detectors, over small backbones."""
    monkeypatch.setattr(
        named.zoo, "builder", lambda _: lambda weights=None, **options: backbone(
            **{**options, "weights": weights}
        )
    )  # fmt: skip


@pytest.mark.usefixtures("small_builders")
class TestBuilders:
    def test_are_thin_functions_of_a_table(self):
        assert {*detection.DETECTORS} >= {row.model for row in registry.DETECTORS}
        for name in detection.DETECTORS:
            function = getattr(detection, name)
            assert detection.builder(name.lower().replace("_", "-")) is function
            assert [*inspect.signature(function).parameters] == [
                *("weights", "weights_backbone", "classes", "options")
            ]
            model = function(classes=2)
            assert detection.parts_of(model).classes == 2
        with one_line_error("'FasterRCNN_ResNet50_FPM'", "Did you mean FasterRCNN_ResNet50_FPN"):
            detection.builder("FasterRCNN_ResNet50_FPM")

    def test_choose_what_the_weights_need(self, nets, tmp_path):
        state = as_detectron2(torchvision_state(nets["torchvision", "c4"]), SIZES)
        path = write(tmp_path, as_arrays(state), "model_final_f97cb7.pkl")
        model = detection.FasterRCNN_ResNet50_C4(weights=path, rpn_anchor_sizes=SIZES)
        parts = detection.parts_of(model)
        assert (parts.classes, parts.transform.mode) == (3, "detectron2")
        options = parts.options
        assert (options.roi_aligned, options.roi_sampling_ratio) == (True, 0)
        assert (options.anchors_rounded, options.rpn_pre_nms_top_n_test) == (False, 6000)
        first = model.get_layer("features").get_layer("conv3_block1_1_conv")
        assert first.strides == (2, 2)
        same = detection.load_weights(of_detectron2(), path)
        for ours, theirs in zip(model.weights, same.weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        with one_line_error("these weights need roi_aligned=True", "has False"):
            detection.FasterRCNN_ResNet50_C4(
                weights=path, roi_aligned=False, rpn_anchor_sizes=SIZES
            )

    def test_with_other_classes_keep_a_fresh_head(self, nets, tmp_path, caplog):
        path = write(tmp_path, as_zip(torchvision_state(nets["torchvision", "fpn_v2"])))
        with caplog.at_level(logging.INFO, "keras_resnet"):
            model = detection.FasterRCNN_ResNet50_FPN_V2(weights=path, classes=7)
        assert "Skipped the box head for 3 classes: faster_rcnn_" in caplog.text
        assert detection.parts_of(model).classes == 7

    def test_refuse_weights_of_another_head_and_name_whose_they_are(self, nets, tmp_path):
        path = write(tmp_path, as_zip(torchvision_state(nets["torchvision", "c4"])))
        with one_line_error("FasterRCNN_ResNet50_FPN has 'fpn'", "FasterRCNN_ResNet101_C4"):
            detection.FasterRCNN_ResNet50_FPN(weights=path)

    def test_take_the_weights_of_a_backbone(self, tmp_path):
        theirs = backbone()
        draw = np.random.default_rng(3)
        theirs.set_weights([draw.uniform(0.5, 1, each.shape) for each in theirs.weights])
        path = tmp_path / "backbone.safetensors"
        classifier_to_torch(theirs, path)
        for name in ("FasterRCNN_ResNet50_C4", "FasterRCNN_ResNet50_FPN"):
            model = detection.builder(name)(weights_backbone=path, classes=2)
            kernels = {each.path: np.asarray(each) for each in theirs.weights}
            found = weights_of(model)
            assert kernels.keys() <= found.keys()
            assert_same({key: found[key] for key in kernels}, kernels)
            frozen = model.get_layer("features").get_layer("conv1_conv")
            assert not frozen.trainable
        fresh = detection.FasterRCNN_ResNet50_C4(classes=2)
        assert fresh.get_layer("features").get_layer("conv1_conv").trainable
        with one_line_error("leave out weights_backbone="):
            detection.FasterRCNN_ResNet50_C4(weights="coco", weights_backbone=path)

    def test_take_what_keras_saved_if_they_are_told_the_classes(self, tmp_path):
        model = detection.FasterRCNN_ResNet50_C4(classes=2)
        model.save_weights(tmp_path / "detector.weights.h5")
        with one_line_error("classes="):
            detection.FasterRCNN_ResNet50_C4(weights=tmp_path / "detector.weights.h5")
        same = detection.FasterRCNN_ResNet50_C4(weights=tmp_path / "detector.weights.h5", classes=2)
        for ours, theirs in zip(model.weights, same.weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_pickle_that_runs_something_is_refused(nets, tmp_path):
    class Attack:
        def __reduce__(self):
            return print, ("run",)

    state = as_detectron2(torchvision_state(nets["torchvision", "c4"]), SIZES)
    path = write(tmp_path, pickle.dumps({"model": {**state, "x": Attack()}}))
    with one_line_error("'builtins.print'", "no code was run"):
        detection.load_weights(nets["detectron2", "c4"], path)
