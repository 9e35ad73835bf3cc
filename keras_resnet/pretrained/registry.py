"""The registry of pretrained weights: one row per model and tag."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from keras_resnet import names


@dataclasses.dataclass(frozen=True)
class File:
    """A weights file.

    Parameters
    ----------
    name : str
        File name in local folders.
    address : str
        URL to download it from.
    algorithm : {"sha256", "md5"}
        Algorithm of the checksum.
    checksum : str
        Hexadecimal digits, or the first of them; "" if none is published.
    top : bool, default True
        Whether the file contains a classifier.
    """

    name: str
    address: str
    algorithm: str
    checksum: str
    top: bool = True


@dataclasses.dataclass(frozen=True)
class Weights:
    """Pretrained weights: one row of the registry.

    Parameters
    ----------
    model : str
        Name of the builder.
    tag : str
        Value of `weights=`.
    files : tuple of File
        The same weights in one or more files. The first one that is suitable is downloaded.
    options : mapping
        Builder options that the weights require, including `preprocessing`. Of a detector, options
        of its backbone, and `epsilon`, if BatchNormalization had another one in training.
    data : {"ImageNet", "CIFAR-10", "COCO", "VOC"}
        The training data.
    crop : float
        Side of the centre crop for the published accuracy, as a fraction of the shorter side.
    licence : str
        SPDX identifier.
    top1, top5 : float or None
        Published single-crop accuracy in percent, on the validation or test images; None if
        unpublished, and for detectors.
    ap : float or None, default None
        Published average precision of a detector's boxes in percent, by the COCO protocol, on the
        validation images (VOC: the test images of 2007).
    """

    model: str
    tag: str
    files: tuple[File, ...]
    options: Mapping[str, Any]
    data: str
    crop: float
    licence: str
    top1: float | None
    top5: float | None
    ap: float | None = None


ALIASES = {"imagenet": "imagenet_v1", "coco": "coco_v1"}

CAFFE_OPTIONS: dict[str, Any] = {"stride_in": "1x1", "preprocessing": "caffe"}
"""Builder options that keras.applications' ResNet weights require, whatever their file name."""

KERAS_V2_OPTIONS: dict[str, Any] = {
    "stem": "zero_padded",
    "stride_block": "last",
    "biases": True,
    "preprocessing": "tf",
}
"""Builder options that keras.applications' ResNetV2 weights require."""

DETECTRON2_OPTIONS: dict[str, Any] = {"stride_in": "1x1", "preprocessing": "detectron2"}
"""Builder options that detectron2's ResNets require, unless they were configured otherwise."""

_PYTORCH = "https://download.pytorch.org/models/"
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
_DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/"
_CIFAR_ZOO = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"

# torchvision's files: builder and stem of the file name; then, for the first and the second
# training recipe, the checksum digits in the file name and the published top-1 and top-5 accuracy,
# measured on the central 224 of 256 (first) or 232 (second) pixels, unless a last number differs.
_TORCHVISION = [
    ("ResNet18", "resnet18", ("f37072fd", 69.758, 89.078), None),
    ("ResNet34", "resnet34", ("b627a593", 73.314, 91.420), None),
    ("ResNet50", "resnet50", ("0676ba61", 76.130, 92.862), ("11ad3fa6", 80.858, 95.434)),
    ("ResNet101", "resnet101", ("63fe2227", 77.374, 93.546), ("cd907fc2", 81.886, 95.780)),
    ("ResNet152", "resnet152", ("394f9c45", 78.312, 94.046), ("f82ba261", 82.284, 96.002)),
    (
        "ResNeXt50_32x4d",
        "resnext50_32x4d",
        ("7cdf4587", 77.618, 93.698),
        ("1a0047aa", 81.198, 95.340),
    ),
    (
        "ResNeXt101_32x8d",
        "resnext101_32x8d",
        ("8ba56ff5", 79.312, 94.526),
        ("110c445d", 82.834, 96.228),
    ),
    ("ResNeXt101_64x4d", "resnext101_64x4d", ("173b62eb", 83.246, 96.454, 232), None),
    (
        "WideResNet50_2",
        "wide_resnet50_2",
        ("95faca4d", 78.468, 94.086),
        ("9ba9bcbe", 81.602, 95.758),
    ),
    (
        "WideResNet101_2",
        "wide_resnet101_2",
        ("32ee1156", 78.848, 94.284),
        ("d733dc28", 82.510, 96.020),
    ),
]

# Checksum digits of the same weights in the file format before PyTorch 1.6.
_BEFORE_1_6 = {
    "resnet18": "5c106cde",
    "resnet34": "333f7ec4",
    "resnet50": "19c8e357",
    "resnet101": "5d3b4d8f",
    "resnet152": "b121ed2d",
}

# keras.applications' files: MD5 with and without the classifier, and the published accuracy of
# ResNet-50.
_KERAS_APPLICATIONS = [
    (
        "ResNet50",
        "2cb95161c43110f7111970584f804107",
        "4d473c1dd8becc155b73f8504c6f6626",
        74.9,
        92.1,
    ),
    (
        "ResNet101",
        "f1aeb4b969a6efcfb50fad2f0c20cfc5",
        "88cf7a10940856eca736dc7b7e228a21",
        None,
        None,
    ),
    (
        "ResNet152",
        "100835be76be38e30d865e96f2aaae62",
        "ee4c566cf9a93f14d82f913c2dc6dd0c",
        None,
        None,
    ),
]

# Depth, checksum digits in the file name, published test error in percent.
_CIFAR10 = [
    (20, "12fca82f", 8.27),
    (32, "d509ac18", 7.37),
    (44, "014dd654", 6.90),
    (56, "4bfd9763", 6.61),
    (110, "1d1ed7c2", 6.32),
    (1202, "f3b1deed", 6.18),
]

# torchvision's detectors of this family: builder, stem and checksum digits of the file name,
# average precision, what the file needs besides. (Its others are over MobileNetV3.)
_TORCHVISION_DETECTORS = [
    # Trained before PyTorch's frozen BatchNormalization had an epsilon.
    ("FasterRCNN_ResNet50_FPN", "fasterrcnn_resnet50_fpn_coco", "258fb6c6", 37.0, {"epsilon": 0.0}),
    ("FasterRCNN_ResNet50_FPN_V2", "fasterrcnn_resnet50_fpn_v2_coco", "dd69338a", 46.7, {}),
]

# detectron2's: builder, tag, configuration, number, checksum digits (MD5), average precision.
_DETECTRON2_DETECTORS = [
    *(
        (builder, f"coco_detectron2_{schedule}", f"COCO-Detection/{stem}_{schedule}", *rest)
        for builder, stem, schedule, *rest in (
            ("FasterRCNN_ResNet50_FPN", "faster_rcnn_R_50_FPN", "1x", 137257794, "b275ba", 37.9),
            ("FasterRCNN_ResNet50_FPN", "faster_rcnn_R_50_FPN", "3x", 137849458, "280758", 40.2),
            ("FasterRCNN_ResNet50_C4", "faster_rcnn_R_50_C4", "1x", 137257644, "721ade", 35.7),
            ("FasterRCNN_ResNet50_C4", "faster_rcnn_R_50_C4", "3x", 137849393, "f97cb7", 38.4),
            ("FasterRCNN_ResNet101_FPN", "faster_rcnn_R_101_FPN", "3x", 137851257, "f6e8b1", 42.0),
            ("FasterRCNN_ResNet101_C4", "faster_rcnn_R_101_C4", "3x", 138204752, "298dad", 41.1),
            (
                "FasterRCNN_ResNeXt101_32x8d_FPN",
                *("faster_rcnn_X_101_32x8d_FPN", "3x", 139173657, "68b088", 43.0),
            ),
        )
    ),
    (
        "FasterRCNN_ResNet50_C4",
        *("voc_detectron2", "PascalVOC-Detection/faster_rcnn_R_50_C4", 142202221, "b1acc2", 51.9),
    ),
]


def _pytorch_file(folder, stem, digits, suffix=".pth"):
    """Describe a file whose name contains the first digits of its checksum."""
    name = f"{stem}-{digits}{suffix}"
    return File(name, folder + name, "sha256", digits)


def _safetensors_file(stem, recipe):
    """Describe the same tensors as published by timm, without checksums."""
    folder = f"https://huggingface.co/timm/{stem}.{recipe}_in1k/resolve/main/"
    return File(f"{stem}.{recipe}_in1k.safetensors", f"{folder}model.safetensors", "sha256", "")


def _rows():
    """Yield all rows, by source."""
    for model, stem, *recipes in _TORCHVISION:
        for version, recipe in enumerate(recipes, start=1):
            if recipe is None:
                continue
            digits, top1, top5, *size = recipe
            (size,) = size or [(256, 232)[version - 1]]
            files = [_pytorch_file(_PYTORCH, stem, digits)]
            if version == 1 and stem in _BEFORE_1_6:
                files.append(_pytorch_file(_PYTORCH, stem, _BEFORE_1_6[stem]))
            files.append(_safetensors_file(stem, ("tv", "tv2")[version - 1]))
            yield Weights(
                model,
                f"imagenet_v{version}",
                tuple(files),
                {"stride_in": "3x3", "preprocessing": "torch"},
                "ImageNet",
                224 / size,
                "BSD-3-Clause",
                top1,
                top5,
            )
    for model, with_top, without_top, top1, top5 in _KERAS_APPLICATIONS:
        stem = f"{model.lower()}_weights_tf_dim_ordering_tf_kernels"
        yield Weights(
            model,
            "imagenet_caffe",
            (
                File(f"{stem}.h5", f"{_KERAS}{stem}.h5", "md5", with_top),
                File(f"{stem}_notop.h5", f"{_KERAS}{stem}_notop.h5", "md5", without_top, top=False),
            ),
            CAFFE_OPTIONS,
            "ImageNet",
            224 / 256,
            "MIT",
            top1,
            top5,
        )
    for depth, digits, error in _CIFAR10:
        yield Weights(
            f"CIFARResNet{depth}",
            "cifar10",
            (_pytorch_file(_CIFAR_ZOO, f"resnet{depth}", digits, ".th"),),
            {"shortcut": "A", "preprocessing": "torch"},
            "CIFAR-10",
            1.0,
            "BSD-2-Clause",
            round(100 - error, 2),
            None,
        )
    for model, stem, digits, ap, options in _TORCHVISION_DETECTORS:
        yield Weights(
            model,
            "coco_v1",
            (_pytorch_file(_PYTORCH, stem, digits),),
            {"stride_in": "3x3", "preprocessing": "torch", **options},
            "COCO",
            1.0,
            "BSD-3-Clause",
            None,
            None,
            ap,
        )
    for model, tag, configuration, number, digits, ap in _DETECTRON2_DETECTORS:
        name = f"model_final_{digits}.pkl"
        grouped = "ResNeXt" in model
        yield Weights(
            model,
            tag,
            (File(name, f"{_DETECTRON2}{configuration}/{number}/{name}", "md5", digits),),
            {"stride_in": "3x3", "preprocessing": "torch"} if grouped else DETECTRON2_OPTIONS,
            "COCO" if tag.startswith("coco") else "VOC",
            1.0,
            "CC-BY-SA-3.0",
            None,
            None,
            ap,
        )


_ORDER = list(dict.fromkeys(row.model for row in _rows()))

REGISTRY = {
    (row.model, row.tag): row for row in sorted(_rows(), key=lambda row: _ORDER.index(row.model))
}
"""All rows by model and tag, grouped by model."""

TAGS = tuple({tag: None for _, tag in REGISTRY})

DETECTORS = tuple(row for row in REGISTRY.values() if row.ap is not None)
"""The rows of detectors."""


class WeightsTable(tuple[Weights, ...]):
    """Rows of the registry that print as a table."""

    columns = ("model", "tag", "top-1", "top-5", "AP", "data", "preprocessing", "licence", "file")

    def cells(self) -> list[list[str]]:
        """Return the table as text: one list per row, with one string for each of `columns`."""
        return [
            [
                row.model,
                row.tag,
                *("" if each is None else f"{each:.2f}" for each in (row.top1, row.top5)),
                "" if row.ap is None else f"{row.ap:.1f}",
                row.data,
                row.options["preprocessing"],
                row.licence,
                row.files[0].name,
            ]
            for row in self
        ]

    def __repr__(self) -> str:
        lines = [list(self.columns), *self.cells()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )


def list_weights(model: str | None = None) -> WeightsTable:
    """List the available pretrained weights.

    Parameters
    ----------
    model : str, optional
        Name of a builder ("ResNet50", "FasterRCNN_ResNet50_FPN"); case, "-" and "_" do not matter.
        Default: all of them.

    Returns
    -------
    WeightsTable
        A tuple of `Weights` that prints as a table.

    Raises
    ------
    ValueError
        If there are no weights for this model. The message suggests the closest name.

    Examples
    --------
    >>> import keras_resnet
    >>> keras_resnet.list_weights("ResNet34")  # doctest: +ELLIPSIS
    model     tag          top-1  top-5  AP  data      preprocessing  licence       file
    ResNet34  imagenet_v1  73.31  91.42      ImageNet  torch          BSD-3-Clause  resnet34-...
    >>> [row.tag for row in keras_resnet.list_weights("ResNet50")]
    ['imagenet_v1', 'imagenet_v2', 'imagenet_caffe']
    """
    rows = REGISTRY.values()
    if model is not None:
        model = names.find("model with pretrained weights", model, _ORDER)
        rows = [row for row in rows if row.model == model]
    return WeightsTable(rows)


def find_tag(tag: str, model: str | None) -> Weights:
    """Find the weights with this tag for a model.

    Parameters
    ----------
    tag : str
        "imagenet", "imagenet_v1", "imagenet_v2", "imagenet_caffe" or "cifar10".
    model : str or None
        Name of the builder; case, "-" and "_" do not matter. None for a custom model.

    Returns
    -------
    Weights
        The row of the registry.

    Raises
    ------
    ValueError
        If the tag is unknown, with a suggestion, or not available for the model, with the tags that
        are.

    Examples
    --------
    >>> from keras_resnet.pretrained import registry
    >>> registry.find_tag("imagenet", "ResNet18").files[0].name
    'resnet18-f37072fd.pth'
    """
    tag = names.find("weights", tag, [*ALIASES, *TAGS], ", and file paths")
    tag = ALIASES.get(tag, tag)
    by_plain_name = {names.plain(row.model): row.model for row in REGISTRY.values()}
    model = by_plain_name.get(names.plain(model or ""), model or "")
    if (model, tag) in REGISTRY:
        return REGISTRY[model, tag]
    theirs = [known for name, known in REGISTRY if name == model]
    others = "only " + " and ".join(map(repr, theirs)) if theirs else "nor any others"
    renamed = "" if theirs else " For a renamed model, use load_weights(architecture='ResNet50')."
    raise ValueError(
        f"weights={tag!r}: {model or 'a custom model'} has no such weights, {others}. "
        f"Pass None for random weights, or the path of a file.{renamed}"
    )


def find_file(name: str) -> Weights | None:
    """Find the weights that are published in a file of this name.

    Parameters
    ----------
    name : str
        Name of a file, without its folder.

    Returns
    -------
    Weights or None
        The row of the registry; None if no row has a file of this name.

    Examples
    --------
    >>> from keras_resnet.pretrained import registry
    >>> registry.find_file("resnet50-11ad3fa6.pth").tag
    'imagenet_v2'
    """
    return _BY_FILE.get(name)


_BY_FILE = {file.name: row for row in REGISTRY.values() for file in row.files}
