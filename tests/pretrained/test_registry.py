import functools
import json
import math
import re
import struct

import numpy as np
import pytest
from checkpoints import Parameter, as_legacy, as_tar, as_zip, wrapped
from errors import one_line_error
from keras.src.applications.resnet import WEIGHTS_HASHES

import keras_resnet
from keras_resnet import initialization, zoo
from keras_resnet.pretrained import (
    list_weights,
    load_weights,
    needs,
    readers,
    state_dict_shapes,
)
from keras_resnet.pretrained.registry import REGISTRY, find_file, find_tag
from keras_resnet.resnet import Architecture

# Of torchvision's nets: convolutions of a block, blocks of every stage, groups, width of a group.
# Table 1 of He et al. (2016), table 1 of Xie et al. (2017); wide ones have twice the inner width.
TORCHVISION = {
    "ResNet18": (2, (2, 2, 2, 2), 1, 64),
    "ResNet34": (2, (3, 4, 6, 3), 1, 64),
    "ResNet50": (3, (3, 4, 6, 3), 1, 64),
    "ResNet101": (3, (3, 4, 23, 3), 1, 64),
    "ResNet152": (3, (3, 8, 36, 3), 1, 64),
    "ResNeXt50_32x4d": (3, (3, 4, 6, 3), 32, 4),
    "ResNeXt101_32x8d": (3, (3, 4, 23, 3), 32, 8),
    "ResNeXt101_64x4d": (3, (3, 4, 23, 3), 64, 4),
    "WideResNet50_2": (3, (3, 4, 6, 3), 1, 128),
    "WideResNet101_2": (3, (3, 4, 23, 3), 1, 128),
}

# Every file there is: of torchvision's two recipes, and of its first years.
V1 = {
    "ResNet18": "resnet18-f37072fd.pth",
    "ResNet34": "resnet34-b627a593.pth",
    "ResNet50": "resnet50-0676ba61.pth",
    "ResNet101": "resnet101-63fe2227.pth",
    "ResNet152": "resnet152-394f9c45.pth",
    "ResNeXt50_32x4d": "resnext50_32x4d-7cdf4587.pth",
    "ResNeXt101_32x8d": "resnext101_32x8d-8ba56ff5.pth",
    "ResNeXt101_64x4d": "resnext101_64x4d-173b62eb.pth",
    "WideResNet50_2": "wide_resnet50_2-95faca4d.pth",
    "WideResNet101_2": "wide_resnet101_2-32ee1156.pth",
}
V2 = {
    "ResNet50": "resnet50-11ad3fa6.pth",
    "ResNet101": "resnet101-cd907fc2.pth",
    "ResNet152": "resnet152-f82ba261.pth",
    "ResNeXt50_32x4d": "resnext50_32x4d-1a0047aa.pth",
    "ResNeXt101_32x8d": "resnext101_32x8d-110c445d.pth",
    "WideResNet50_2": "wide_resnet50_2-9ba9bcbe.pth",
    "WideResNet101_2": "wide_resnet101_2-d733dc28.pth",
}
FIRST = {
    "ResNet18": "resnet18-5c106cde.pth",
    "ResNet34": "resnet34-333f7ec4.pth",
    "ResNet50": "resnet50-19c8e357.pth",
    "ResNet101": "resnet101-5d3b4d8f.pth",
    "ResNet152": "resnet152-b121ed2d.pth",
}
CIFAR = {
    20: "resnet20-12fca82f.th",
    32: "resnet32-d509ac18.th",
    44: "resnet44-014dd654.th",
    56: "resnet56-4bfd9763.th",
    110: "resnet110-1d1ed7c2.th",
    1202: "resnet1202-f3b1deed.th",
}
OF_KERAS = {
    **dict.fromkeys(("ResNet50", "ResNet101", "ResNet152"), "imagenet_caffe"),
    **dict.fromkeys(("ResNet50V2", "ResNet101V2", "ResNet152V2"), "imagenet_keras"),
}

# Of the detectors: file, where it is, average precision, and what its backbone needs. From
# torchvision's documentation, and detectron2's MODEL_ZOO.md.
ZOO = "https://dl.fbaipublicfiles.com/detectron2"
TORCH, CAFFE2 = ("3x3", "torch"), ("1x1", "detectron2")
DETECTORS = {
    ("FasterRCNN_ResNet50_FPN", "coco_v1"): (
        *("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", "https://download.pytorch.org/models"),
        *(37.0, TORCH),
    ),
    ("FasterRCNN_ResNet50_FPN_V2", "coco_v1"): (
        *("fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth", "https://download.pytorch.org/models"),
        *(46.7, TORCH),
    ),
    ("FasterRCNN_ResNet50_C4", "coco_detectron2_1x"): (
        *("model_final_721ade.pkl", f"{ZOO}/COCO-Detection/faster_rcnn_R_50_C4_1x/137257644"),
        *(35.7, CAFFE2),
    ),
    ("FasterRCNN_ResNet50_C4", "coco_detectron2_3x"): (
        *("model_final_f97cb7.pkl", f"{ZOO}/COCO-Detection/faster_rcnn_R_50_C4_3x/137849393"),
        *(38.4, CAFFE2),
    ),
    ("FasterRCNN_ResNet50_FPN", "coco_detectron2_1x"): (
        *("model_final_b275ba.pkl", f"{ZOO}/COCO-Detection/faster_rcnn_R_50_FPN_1x/137257794"),
        *(37.9, CAFFE2),
    ),
    ("FasterRCNN_ResNet50_FPN", "coco_detectron2_3x"): (
        *("model_final_280758.pkl", f"{ZOO}/COCO-Detection/faster_rcnn_R_50_FPN_3x/137849458"),
        *(40.2, CAFFE2),
    ),
    ("FasterRCNN_ResNet101_C4", "coco_detectron2_3x"): (
        *("model_final_298dad.pkl", f"{ZOO}/COCO-Detection/faster_rcnn_R_101_C4_3x/138204752"),
        *(41.1, CAFFE2),
    ),
    ("FasterRCNN_ResNet101_FPN", "coco_detectron2_3x"): (
        *("model_final_f6e8b1.pkl", f"{ZOO}/COCO-Detection/faster_rcnn_R_101_FPN_3x/137851257"),
        *(42.0, CAFFE2),
    ),
    # Trained in Caffe2, with the stride in the 3x3 and images divided by their deviation.
    ("FasterRCNN_ResNeXt101_32x8d_FPN", "coco_detectron2_3x"): (
        "model_final_68b088.pkl",
        f"{ZOO}/COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x/139173657",
        *(43.0, TORCH),
    ),
    ("FasterRCNN_ResNet50_C4", "voc_detectron2"): (
        *("model_final_b1acc2.pkl", f"{ZOO}/PascalVOC-Detection/faster_rcnn_R_50_C4/142202221"),
        *(51.9, CAFFE2),
    ),
}

TIMM = {
    recipe: {model: f"{file.split('-')[0]}.{recipe}_in1k.safetensors" for model, file in of.items()}
    for recipe, of in (("tv", V1), ("tv2", V2))
}

FILES = [
    *(("imagenet_v1", *item) for of in (V1, FIRST, TIMM["tv"]) for item in of.items()),
    *(("imagenet_v2", *item) for of in (V2, TIMM["tv2"]) for item in of.items()),
    *(("cifar10", f"CIFARResNet{depth}", file) for depth, file in CIFAR.items()),
    *(
        (tag, model, f"{model.lower()}_weights_tf_dim_ordering_tf_kernels{top}.h5")
        for model, tag in OF_KERAS.items()
        for top in ("", "_notop")
    ),
    *((tag, model, file) for (model, tag), (file, *_) in DETECTORS.items()),
]
TAGS = sorted({(model, tag) for tag, model, _ in FILES})


def normalization(name, channels):
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def torchvision_shapes(convolutions, counts, groups, width):
    """Names and shapes of a net's state dict, from its architecture alone."""
    yield "conv1.weight", (64, 3, 7, 7)
    yield from normalization("bn1", 64)
    inputs = 64
    for stage, count in enumerate(counts):
        planes = 64 * 2**stage
        inner = planes * width // 64 * groups
        outputs = planes if convolutions == 2 else 4 * planes
        for block in range(count):
            prefix = f"layer{stage + 1}.{block}"
            if convolutions == 2:
                shapes = (planes, inputs, 3, 3), (planes, planes, 3, 3)
            else:
                grouped = inner, inner // groups, 3, 3
                shapes = (inner, inputs, 1, 1), grouped, (outputs, inner, 1, 1)
            for index, shape in enumerate(shapes, start=1):
                yield f"{prefix}.conv{index}.weight", shape
                yield from normalization(f"{prefix}.bn{index}", shape[0])
            if inputs != outputs:
                yield f"{prefix}.downsample.0.weight", (outputs, inputs, 1, 1)
                yield from normalization(f"{prefix}.downsample.1", outputs)
            inputs = outputs
    yield "fc.weight", (1000, inputs)
    yield "fc.bias", (1000,)


def cifar_shapes(depth):
    """Names and shapes of a net of the CIFAR-10 zoo: its shortcuts have no parameters."""
    yield "conv1.weight", (16, 3, 3, 3)
    yield from normalization("bn1", 16)
    inputs = 16
    for stage, planes in enumerate((16, 32, 64), start=1):
        for block in range((depth - 2) // 6):
            for index in (1, 2):
                name = f"layer{stage}.{block}.{{}}{index}"
                yield name.format("conv") + ".weight", (planes, inputs, 3, 3)
                yield from normalization(name.format("bn"), planes)
                inputs = planes
    yield "linear.weight", (10, 64)
    yield "linear.bias", (10,)


def parameters(shapes):
    return {name: shape for name, shape in shapes.items() if "num_batches_tracked" not in name}


def numbered(shapes):
    """A state dict whose every tensor is full of a number of its own, and takes no space."""
    return {
        name: np.broadcast_to(np.float32(number), shape) if shape else np.array(number)
        for number, (name, shape) in enumerate(shapes.items(), start=1)
    }


def write_zeros(path, shapes):
    """A `.safetensors` file of zeros, which the disk need not keep."""
    header, end = {}, 0
    for name, shape in shapes.items():
        dtype, size = ("F32", 4) if shape else ("I64", 8)
        start, end = end, end + size * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    content = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(content)) + content)
        file.truncate(8 + len(content) + end)


@functools.cache
def needed(model):
    """Names and shapes of what the builder's net needs."""
    with initialization.kernels_to_be_loaded():
        return state_dict_shapes(zoo.builder(model)(weights=None, input_shape=(32, 32, 3)))


class TestTable:
    def test_has_a_row_for_every_model_and_tag(self):
        # `test_timm_tags` has those of timm.
        rows = [row for row in list_weights() if not row.tag.startswith("timm/")]
        assert sorted((row.model, row.tag) for row in rows) == TAGS
        assert len(REGISTRY) == len(list_weights()) == len({*REGISTRY})

    def test_is_printed_with_a_line_for_every_row(self):
        head, *lines = repr(list_weights()).splitlines()
        columns = "model tag top-1 top-5 AP parameters pixels crop resized data preprocessing"
        assert " ".join(head.split()) == f"{columns} licence file"
        assert [line.split()[:2] for line in lines] == [
            [row.model, row.tag] for row in list_weights()
        ]
        plain = [" ".join(each.split()) for each in lines]
        for line in (
            "ResNet50 imagenet_v2 80.86 95.43 25,557,032 0.966 bilinear ImageNet torch "
            "BSD-3-Clause resnet50-11ad3fa6.pth",
            "ResNet101D timm/resnet101d.ra2_in1k 82.25 96.07 44,568,392 256 0.95 bicubic ImageNet "
            "torch Apache-2.0 resnet101d_ra2-2803ffab.pth",
            "FasterRCNN_ResNet101_C4 coco_detectron2_3x 41.1 1 bilinear COCO detectron2 "
            "CC-BY-SA-3.0 model_final_298dad.pkl",
        ):
            assert line in plain

    @pytest.mark.parametrize("name", ["ResNet50", "resnet50", "RESNET-50", "res_net 50"])
    def test_of_one_model_has_its_rows(self, name):
        rows = list_weights(name)
        assert {row.model for row in rows} == {"ResNet50"}
        tags = [row.tag for row in rows]
        assert tags[:3] == ["imagenet_v1", "imagenet_v2", "imagenet_caffe"]
        assert all(tag.startswith("timm/resnet50.") for tag in tags[3:])
        assert len(repr(rows).splitlines()) == 1 + len(rows) == 23

    @pytest.mark.parametrize(
        ("name", "nearest"),
        [("ResNet51", "ResNet50"), ("resnext50", "ResNeXt50_32x4d"), ("cifar20", "CIFARResNet20")],
    )
    def test_of_an_unknown_model_suggests_the_nearest(self, name, nearest):
        with one_line_error(name, f"Did you mean {nearest}?"):
            list_weights(name)

    def test_says_what_the_weights_expect(self):
        options = {tag: {tuple(row.options.items()) for row in list_weights() if row.tag == tag}
                   for model, tag in TAGS if (model, tag) not in DETECTORS}  # fmt: skip
        torch = ("preprocessing", "torch")
        assert options == {
            "imagenet_v1": {(("stride_in", "3x3"), torch)},
            "imagenet_v2": {(("stride_in", "3x3"), torch)},
            "imagenet_caffe": {(("stride_in", "1x1"), ("preprocessing", "caffe"))},
            "imagenet_keras": {
                (
                    *(("stem", "zero_padded"), ("stride_block", "last"), ("biases", True)),
                    ("preprocessing", "tf"),
                )
            },
            "cifar10": {(("shortcut", "A"), torch)},
        }

    def test_says_what_the_weights_of_the_named_models_do_not_reveal(self):
        # In v2, not even the names of tensors tell a shortcut with average pooling.
        usual = {**needs.UNREVEALED, "shortcut": "B"}
        for row in REGISTRY.values():
            if row.model in zoo.MODELS:
                asked = {**usual, **zoo.MODELS[row.model]}
                if asked["stem"] != "zero_padded":
                    asked["stem"] = "imagenet"
                if "preactivation" not in asked.get("block", ""):
                    asked["shortcut"] = "B"
                needed = {option: asked[option] for option in usual}
                assert {name: {**usual, **row.options}[name] for name in usual} == needed, row.tag

    def test_counts_parameters(self):
        for row in REGISTRY.values():
            if row.model in zoo.MODELS and row.classes == 1000:
                architecture = Architecture(**zoo.MODELS[row.model])
                count = sum(each.parameters for each in architecture.convolutions())
                assert row.parameters == count + 1000 * (architecture.features + 1), row.tag

    def test_has_the_facts_of_the_detectors(self):
        for key, (name, folder, ap, (stride_in, preprocessing)) in DETECTORS.items():
            row = REGISTRY[key]
            (file,) = row.files
            assert (file.name, file.address) == (name, f"{folder}/{name}")
            assert (row.ap, row.top1, row.top5) == (ap, None, None)
            assert (row.options["stride_in"], row.options["preprocessing"]) == (
                stride_in,
                preprocessing,
            )
            # Of torchvision's first file alone, BatchNormalization has no epsilon.
            first = key == ("FasterRCNN_ResNet50_FPN", "coco_v1")
            assert row.options.get("epsilon") == (0 if first else None)
            of_zoo = folder.startswith(ZOO)
            assert row.licence == ("CC-BY-SA-3.0" if of_zoo else "BSD-3-Clause")
            assert row.data == ("VOC" if "voc" in row.tag else "COCO")


class TestTags:
    @pytest.mark.parametrize(("model", "tag"), TAGS)
    def test_are_found(self, model, tag):
        for name in (tag, tag.upper().replace("_", "-")):
            row = find_tag(name, model)
            assert (row.model, row.tag) == (model, tag)

    @pytest.mark.parametrize("model", TORCHVISION)
    def test_have_imagenet_for_the_first_recipe(self, model):
        assert find_tag("imagenet", model) is REGISTRY[model, "imagenet_v1"]

    @pytest.mark.parametrize(
        ("tag", "nearest"),
        [("imagnet", "imagenet"), ("imagenet_v3", "imagenet_v2"), ("cifar", "cifar10")],
    )
    def test_that_are_unknown_suggest_the_nearest(self, tag, nearest):
        with one_line_error(f"weights {tag!r}", f"Did you mean {nearest}", "file paths"):
            keras_resnet.ResNet50(weights=tag)

    @pytest.mark.parametrize(
        ("model", "tag", "others"),
        [
            ("ResNet18", "imagenet_v2", "only 'imagenet_v1' and 7 of timm's"),
            ("ResNeXt101_64x4d", "imagenet_v2", "only 'imagenet_v1'"),
            ("ResNet50", "cifar10", "only 'imagenet_v1' and 'imagenet_v2' and 'imagenet_caffe'"),
            ("CIFARResNet20", "imagenet", "only 'cifar10'"),
            ("CIFARResNet26", "cifar10", "nor any others"),
        ],
    )
    def test_that_a_model_has_not_say_which_it_has(self, model, tag, others):
        with one_line_error("weights=", model, others):
            zoo.builder(model)(weights=tag)

    def test_of_a_net_of_another_name_ask_whose_they_are(self):
        with one_line_error("weights='cifar10'", "mine", "architecture='ResNet50'"):
            load_weights(keras_resnet.CIFARResNet(20, name="mine"), "cifar10")


class TestFiles:
    @pytest.mark.parametrize(("tag", "model", "name"), FILES)
    def test_are_found_by_name(self, tag, model, name):
        row = find_file(name)
        assert (row.model, row.tag) == (model, tag)
        (file,) = (file for file in row.files if file.name == name)
        assert file.address.startswith("https://")
        assert file.top == ("_notop" not in name)

    def test_are_no_more_than_these(self):
        rows = [row for row in REGISTRY.values() if not row.tag.startswith("timm/")]
        names = [file.name for row in rows for file in row.files]
        assert sorted(names) == sorted(name for _, _, name in FILES)
        for name in ("resnet50.pth", "RESNET50-0676ba61.PTH", "model.safetensors", ""):
            assert find_file(name) is None

    def test_have_the_checksums_that_their_sources_publish(self):
        for row in REGISTRY.values():
            for file in row.files:
                if match := re.fullmatch(r".+-([0-9a-f]{8})\.(pth|th)", file.name):
                    assert (file.algorithm, file.checksum) == ("sha256", match[1])
                    assert file.address.endswith(f"/{file.name}")
                elif file.name.endswith(".h5"):
                    with_top, without = WEIGHTS_HASHES[file.name.partition("_")[0]]
                    assert file.algorithm == "md5"
                    assert file.checksum == (with_top if file.top else without)
                    assert file.address.endswith(f"/{file.name}")
                elif match := re.fullmatch(r"model_final_([0-9a-f]{6})\.pkl", file.name):
                    # "any model on this page contains its md5 prefix in its file name"
                    assert (file.algorithm, file.checksum) == ("md5", match[1])
                else:
                    # timm publishes none.
                    assert file.checksum == ""
                    assert file.address.endswith("/model.safetensors")


# Side by side those of one model, which one process then builds but once.
OF_PYTORCH = sorted(item for of in (V1, V2, FIRST, *TIMM.values()) for item in of.items())


class TestLayouts:
    def test_have_the_parameters_that_torchvision_publishes(self):
        # The layouts of these tests are right.
        published = {
            "ResNet18": 11_689_512,
            "ResNet34": 21_797_672,
            "ResNet50": 25_557_032,
            "ResNet101": 44_549_160,
            "ResNet152": 60_192_808,
            "ResNeXt50_32x4d": 25_028_904,
            "ResNeXt101_32x8d": 88_791_336,
            "ResNeXt101_64x4d": 83_455_272,
            "WideResNet50_2": 68_883_240,
            "WideResNet101_2": 126_886_696,
        }
        counted = {
            model: sum(
                math.prod(shape)
                for name, shape in parameters(dict(torchvision_shapes(*layout))).items()
                if "running" not in name
            )
            for model, layout in TORCHVISION.items()
        }
        assert counted == published

    @pytest.mark.parametrize(("model", "name"), OF_PYTORCH)
    def test_of_every_file_are_those_of_its_builder(self, tmp_path, model, name):
        shapes = dict(torchvision_shapes(*TORCHVISION[model]))
        path = tmp_path / name
        if path.suffix == ".safetensors":
            writers = [lambda: write_zeros(path, shapes)]
        else:
            state = numbered(shapes)
            writers = [
                lambda: path.write_bytes(as_zip(state)),
                lambda: path.write_bytes(as_legacy(state)),
            ]
        assert find_file(name).model == model
        for write in writers:
            write()
            tensors = readers.read(path)
            assert {name: tensor.shape for name, tensor in tensors.items()} == shapes
            assert parameters(shapes) == needed(model)

    @pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
    def test_of_the_cifar_nets_are_too(self, depth):
        model = f"CIFARResNet{depth}"
        with initialization.kernels_to_be_loaded():
            net = zoo.builder(model)(weights=None)
        names = {name.replace("linear.", "fc."): shape for name, shape in cifar_shapes(depth)}
        assert state_dict_shapes(net) == parameters(names)


def assert_numbered(net, shapes, head="fc"):
    """Check the number that every variable of a net has been given, layer by layer."""
    numbers = {name: number for number, name in enumerate(shapes, start=1)}
    for layer, modules in (
        ("conv1_conv", {"kernel": "conv1.weight"}),
        ("conv1_bn", {"gamma": "bn1.weight", "moving_variance": "bn1.running_var"}),
        ("conv3_block1_2_conv", {"kernel": "layer2.0.conv2.weight"}),
        (
            "conv3_block1_2_bn",
            {"beta": "layer2.0.bn2.bias", "moving_mean": "layer2.0.bn2.running_mean"},
        ),
        ("predictions", {"kernel": f"{head}.weight", "bias": f"{head}.bias"}),
    ):
        for variable, module in modules.items():
            array = np.asarray(getattr(net.get_layer(layer), variable))
            assert (array == numbers[module]).all(), module
    loaded = sorted(float(array.flat[0]) for array in net.get_weights())
    assert loaded == sorted(numbers[name] for name in parameters(shapes))


class TestLoading:
    @pytest.mark.parametrize("write", [as_zip, as_legacy])
    @pytest.mark.parametrize(
        ("model", "name"),
        [
            *(
                (model, V1[model])
                for model in ("ResNet18", "ResNet34", "ResNet50", "ResNeXt50_32x4d")
            ),
            *((model, V2[model]) for model in ("ResNet50", "ResNeXt50_32x4d")),
        ],
    )
    def test_a_file_of_the_registry_by_its_path(self, tmp_path, model, name, write):
        shapes = dict(torchvision_shapes(*TORCHVISION[model]))
        path = tmp_path / name
        path.write_bytes(write(numbered(shapes)))
        net = zoo.builder(model)(weights=path, input_shape=(32, 32, 3))
        assert_numbered(net, shapes)
        assert net.preprocessing == "torch"

    def test_a_safetensors_file_by_its_path(self, tmp_path):
        shapes = dict(torchvision_shapes(*TORCHVISION["ResNet18"]))
        path = tmp_path / "resnet18.tv_in1k.safetensors"
        write_zeros(path, shapes)
        net = keras_resnet.ResNet18(weights=path, input_shape=(32, 32, 3))
        assert not any(array.any() for array in net.get_weights())
        assert net.preprocessing == "torch"

    @pytest.mark.parametrize("depth", [20, 32])
    def test_a_file_of_the_cifar_zoo_by_its_path(self, tmp_path, depth):
        shapes = dict(cifar_shapes(depth))
        path = tmp_path / CIFAR[depth]
        path.write_bytes(as_legacy(wrapped(numbered(shapes))))
        net = keras_resnet.CIFARResNet(depth, weights=path)
        assert_numbered(net, shapes, head="linear")
        assert net.preprocessing == "torch"

    @pytest.mark.parametrize("model", ["ResNet18", "ResNet50"])
    def test_a_file_of_the_first_torchvision_by_its_path(self, tmp_path, model):
        # They are of January 2017 and older than both formats: TAR archives, whose parameters are
        # nn.Parameter objects, without batch counters.
        shapes = parameters(dict(torchvision_shapes(*TORCHVISION[model])))
        state = {name: np.array(array) for name, array in numbered(shapes).items()}
        path = tmp_path / FIRST[model]
        path.write_bytes(
            as_tar(
                {
                    name: array if "running" in name else Parameter(array)
                    for name, array in state.items()
                }
            )
        )
        net = zoo.builder(model)(weights=path, input_shape=(32, 32, 3))
        assert_numbered(net, shapes)

    def test_a_file_of_the_registry_into_another_net_is_refused(self, tmp_path):
        path = tmp_path / V1["ResNet18"]
        path.write_bytes(as_zip(numbered(dict(torchvision_shapes(*TORCHVISION["ResNet18"])))))
        with one_line_error(f"weights={str(path)!r}", "18 layers", "resnet34 has 34"):
            keras_resnet.ResNet34(weights=path, input_shape=(32, 32, 3))
        net = keras_resnet.ResNet50(weights=None, input_shape=(32, 32, 3), stride_in="1x1")
        with one_line_error("stride_in='3x3'", "'1x1'"):
            load_weights(net, path)
