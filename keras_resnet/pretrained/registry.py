"""The registry of pretrained weights: one row per model and tag."""

import csv
import dataclasses
import difflib
import fnmatch
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from keras_resnet import names
from keras_resnet.checks import check_choice, check_range


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
    data : str
        The data that the classes are of: "ImageNet", "ImageNet-12k", "ImageNet-21k", "CIFAR-10",
        "COCO", "VOC", or "Bamboo", whose classifier is not published.
    crop : float
        Side of the centre crop for the published accuracy, as a fraction of the shorter side.
    licence : str
        SPDX identifier; "" if none is published.
    top1, top5 : float or None
        Published single-crop accuracy in percent, on the validation or test images; None if
        unpublished, and for detectors.
    ap : float or None, default None
        Published average precision of a detector's boxes in percent, by the COCO protocol, on the
        validation images (VOC: the test images of 2007).
    image_size : int or None, default None
        Side of the images in pixels for the published accuracy; None for what the builder takes.
    interpolation : {"bilinear", "bicubic"}, default "bilinear"
        How they are resized for it.
    test_image_size, test_crop : int or None, float or None, default None
        A larger size at which these weights are more accurate, and the crop there, if published.
    classes : int or None, default None
        Outputs of the classifier, 0 if there is none; None for detectors.
    parameters : int or None, default None
        Trainable parameters, those of the classifier included.
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
    image_size: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    test_image_size: int | None = None
    test_crop: float | None = None
    classes: int | None = None
    parameters: int | None = None

    @property
    def commercial(self) -> bool:
        """Whether the licence is known, and allows commercial use."""
        return bool(self.licence) and "-NC" not in self.licence

    @property
    def view(self) -> dict[str, Any]:
        """How images are shown to a model with these weights, as `graphs.remember` takes it."""
        view: dict[str, Any] = {"crop": self.crop, "interpolation": self.interpolation}
        if self.image_size:
            view["image_size"] = self.image_size, self.image_size
        return view


ALIASES = {"imagenet": "imagenet_v1", "coco": "coco_v1"}
"""Short tags. "imagenet" stands for the first of ImageNet, where there is no "imagenet_v1"."""

TIMM = "timm/"
"""What tags of timm begin with: timm/NAME.TAG, as on the Hugging Face Hub."""

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

# keras.applications' files: model, MD5 with and without the classifier, and the published accuracy.
_KERAS_APPLICATIONS = [
    (
        "ResNet50",
        *("2cb95161c43110f7111970584f804107", "4d473c1dd8becc155b73f8504c6f6626", 74.9, 92.1),
    ),
    (
        "ResNet101",
        *("f1aeb4b969a6efcfb50fad2f0c20cfc5", "88cf7a10940856eca736dc7b7e228a21", None, None),
    ),
    (
        "ResNet152",
        *("100835be76be38e30d865e96f2aaae62", "ee4c566cf9a93f14d82f913c2dc6dd0c", None, None),
    ),
    (
        "ResNet50V2",
        *("3ef43a0b657b3be2300d5770ece849e0", "fac2f116257151a9d068a22e544a4917", 76.0, 93.0),
    ),
    (
        "ResNet101V2",
        *("6343647c601c52e1368623803854d971", "c0ed64b8031c3730f411d2eb4eea35b5", 77.2, 93.8),
    ),
    (
        "ResNet152V2",
        *("a49b44d1979771252814e80f8ec446f9", "ed17cf2e0169df9d443503ef94b23b33", 78.0, 94.2),
    ),
]

# Trainable parameters of its V2 models, which have biases.
_PARAMETERS_V2 = {"ResNet50V2": 25_568_360, "ResNet101V2": 44_577_896, "ResNet152V2": 60_236_904}

# What the tensors of a model do not reveal, by a part of its name.
_UNREVEALED: dict[str, dict[str, Any]] = {
    r"AA": {"anti_aliasing": "average"},
    r"Blur": {"anti_aliasing": "blur"},
    r"V2_\d+D": {"shortcut": "D"},
    r"_BiT": {"stem": "zero_padded", "weight_standardization": True},
}

# Depth, checksum digits in the file name, published test error in percent, parameters.
_CIFAR10 = [
    (20, "12fca82f", 8.27, 269_722),
    (32, "d509ac18", 7.37, 464_154),
    (44, "014dd654", 6.90, 658_586),
    (56, "4bfd9763", 6.61, 853_018),
    (110, "1d1ed7c2", 6.32, 1_727_962),
    (1202, "f3b1deed", 6.18, 19_421_274),
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


# The columns of timm.csv that describe weights: "name" of their tag, "url" of a file outside of the
# hub, and fields of `Weights`.
_TIMM = {
    **dict.fromkeys(("name", "model", "data", "licence", "interpolation"), str),
    **dict.fromkeys(("preprocessing", "url"), str),
    **dict.fromkeys(("classes", "image_size", "test_image_size", "parameters"), int),
    **dict.fromkeys(("crop", "test_crop", "top1", "top5"), float),
}


def _pytorch_file(folder, stem, digits, suffix=".pth"):
    """Describe a file whose name contains the first digits of its checksum."""
    name = f"{stem}-{digits}{suffix}"
    return File(name, folder + name, "sha256", digits)


def _safetensors_file(name, top=True):
    """Describe the tensors that timm publishes under this name, without checksums."""
    folder = f"https://huggingface.co/timm/{name}/resolve/main/"
    return File(f"{name}.safetensors", f"{folder}model.safetensors", "sha256", "", top)


def _facts_of_timm() -> list[dict[str, str]]:
    """The lines of timm.csv: what timm publishes of this family, and which model it is for.

    Within an architecture timm's own default comes first, but none that is not for commercial use
    before one that is.
    """
    text = resources.files("keras_resnet.pretrained").joinpath("timm.csv").read_text("utf-8")
    return [*csv.DictReader(text.splitlines())]


_OF_TIMM = _facts_of_timm()

_PARAMETERS = {
    facts["model"]: int(facts["parameters"]) for facts in _OF_TIMM if facts["classes"] == "1000"
}


def _row_of_timm(facts):
    """Describe the weights in a line of timm.csv."""
    known: Any = {
        name: kind(facts[name]) if facts[name] or kind is str else None
        for name, kind in _TIMM.items()
    }
    files = [_safetensors_file(known["name"], top=known["classes"] > 0)]
    if url := known.pop("url"):
        folder, slash, name = url.rpartition("/")
        stem, _, digits = name.removesuffix(".pth").rpartition("-")
        files.insert(0, _pytorch_file(folder + slash, stem, digits))  # it has a checksum
    options = {"stride_in": "3x3", "preprocessing": known.pop("preprocessing")}
    for part, unrevealed in _UNREVEALED.items():
        if re.search(part, known["model"]):
            options |= unrevealed
    return Weights(
        tag=TIMM + known.pop("name"),
        files=tuple(files),
        options=options,
        **known,
    )


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
            files.append(_safetensors_file(f"{stem}.{('tv', 'tv2')[version - 1]}_in1k"))
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
                classes=1000,
                parameters=_PARAMETERS[model],
            )
    for model, with_top, without_top, top1, top5 in _KERAS_APPLICATIONS:
        stem = f"{model.lower()}_weights_tf_dim_ordering_tf_kernels"
        second = model in _PARAMETERS_V2
        yield Weights(
            model,
            "imagenet_keras" if second else "imagenet_caffe",
            (
                File(f"{stem}.h5", f"{_KERAS}{stem}.h5", "md5", with_top),
                File(f"{stem}_notop.h5", f"{_KERAS}{stem}_notop.h5", "md5", without_top, top=False),
            ),
            KERAS_V2_OPTIONS if second else CAFFE_OPTIONS,
            "ImageNet",
            224 / 256,
            "MIT",
            top1,
            top5,
            classes=1000,
            parameters={**_PARAMETERS, **_PARAMETERS_V2}[model],
        )
    for facts in _OF_TIMM:
        if facts["model"]:
            yield _row_of_timm(facts)
    for depth, digits, error, parameters in _CIFAR10:
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
            classes=10,
            parameters=parameters,
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


def _grouped(rows):
    """Rows by model and tag, those of a model side by side."""
    order = list(dict.fromkeys(row.model for row in rows))
    rows = sorted(rows, key=lambda row: order.index(row.model))
    return {(row.model, row.tag): row for row in rows}


REGISTRY = _grouped([*_rows()])
"""All rows by model and tag, grouped by model."""

TAGS = tuple({tag: None for _, tag in REGISTRY if not tag.startswith(TIMM)})
"""The tags but those of timm, of which there are many."""

TAGS_OF_TIMM = {row.tag: row for row in REGISTRY.values() if row.tag.startswith(TIMM)}
"""The rows of timm, by their tags."""

DETECTORS = tuple(row for row in REGISTRY.values() if row.ap is not None)
"""The rows of detectors."""


class WeightsTable(tuple[Weights, ...]):
    """Rows of the registry that print as a table."""

    columns = (
        *("model", "tag", "top-1", "top-5", "AP", "parameters", "pixels", "crop", "resized"),
        *("data", "preprocessing", "licence", "file"),
    )

    def cells(self) -> list[list[str]]:
        """Return the table as text: one list per row, with one string for each of `columns`."""
        return [
            [
                row.model,
                row.tag,
                _text(row.top1, ".2f"),
                _text(row.top5, ".2f"),
                _text(row.ap, ".1f"),
                _text(row.parameters, ","),
                _text(row.image_size, ""),
                _text(row.crop, ".3g"),
                row.interpolation,
                row.data,
                row.options["preprocessing"],
                row.licence or "unknown",
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


def _text(number, form):
    return "" if number is None else format(number, form)


def list_weights(
    model: str | None = None,
    *,
    name: str | None = None,
    data: str | None = None,
    licence: str | Sequence[str] | None = None,
    commercial: bool | None = None,
    min_top1: float | None = None,
    max_parameters: float | None = None,
) -> WeightsTable:
    """List the available pretrained weights.

    Parameters
    ----------
    model : str, optional
        Name of a builder ("ResNet50", "FasterRCNN_ResNet50_FPN"); case, "-" and "_" do not matter.
        Default: all of them.
    name : str, optional
        Only models or tags like this: with "*" for any characters ("resnet50*", "*.a1_in1k"), or
        a part of them ("50d"). Case does not matter.
    data : str, optional
        Only for the classes of this data: "ImageNet", "ImageNet-21k", "CIFAR-10", "COCO", ...
    licence : str or sequence of str, optional
        Only under one of these, by their SPDX identifiers: "Apache-2.0", "BSD-3-Clause", ...
    commercial : bool, optional
        True: only under a licence that allows commercial use. False: only the others.
    min_top1 : float, optional
        Only with a published top-1 accuracy of at least this many percent, on whatever data.
    max_parameters : float, optional
        Only of models with at most this many trainable parameters, 30e6 for instance.

    Returns
    -------
    WeightsTable
        A tuple of `Weights` that prints as a table; an empty one if no weights are like this.

    Raises
    ------
    ValueError
        If no weights at all are for this model, of this data or under this licence; the message
        suggests the closest name. For numbers out of their range.

    Examples
    --------
    >>> import keras_resnet
    >>> [row.tag for row in keras_resnet.list_weights("ResNet101D")]
    ['timm/resnet101d.ra2_in1k', 'timm/resnet101d.gluon_in1k']
    >>> small = keras_resnet.list_weights(data="ImageNet", max_parameters=26e6, commercial=True)
    >>> max(small, key=lambda row: row.top1 or 0).tag
    'timm/resnetv2_50x1_bit.goog_distilled_in1k'
    """
    check_range("percentage", optional=True, min_top1=min_top1)
    check_range("limit", optional=True, max_parameters=max_parameters)
    check_choice((None, True, False), commercial=commercial)
    rows = list(REGISTRY.values())
    if model is not None:
        models = dict.fromkeys(row.model for row in rows)
        model = names.find("model with pretrained weights", model, models)
        rows = [row for row in rows if row.model == model]
    if name is not None:
        pattern = name.lower() if "*" in name else f"*{name.lower()}*"
        rows = [
            row
            for row in rows
            if any(
                fnmatch.fnmatchcase(each.lower(), pattern)
                for each in (row.model, row.tag, row.tag.removeprefix(TIMM))
            )
        ]
    for field, asked in (("data", data), ("licence", licence)):
        if asked is not None:
            known = dict.fromkeys(getattr(row, field) or "unknown" for row in REGISTRY.values())
            some = [asked] if isinstance(asked, str) else asked
            some = [names.find(field, each, known) for each in some]
            rows = [row for row in rows if (getattr(row, field) or "unknown") in some]
    if commercial is not None:
        rows = [row for row in rows if row.commercial == commercial]
    if min_top1 is not None:
        rows = [row for row in rows if row.top1 is not None and row.top1 >= min_top1]
    if max_parameters is not None:
        rows = [row for row in rows if row.parameters and row.parameters <= max_parameters]
    return WeightsTable(rows)


# What begins like a tag of timm and ends like this is a file.
_FILES = (".pth", ".th", ".pt", ".bin", ".ckpt", ".tar", ".safetensors", ".h5", ".keras", ".pkl")


def is_tag(weights: str) -> bool:
    """Whether weights are named by a tag, rather than by the path of a file.

    Parameters
    ----------
    weights : str
        What somebody passes as `weights=`.

    Returns
    -------
    bool
        True for a bare word, even if there is a file of this name, and for timm's tags.

    Examples
    --------
    >>> from keras_resnet.pretrained import registry
    >>> [registry.is_tag(each) for each in ("imagenet", "timm/resnet50.a1_in1k", "timm/net.pth")]
    [True, True, False]
    """
    path = Path(weights)
    if weights.startswith(TIMM):
        return len(path.parts) == 2 and path.suffix not in _FILES and "#" not in weights
    return not path.suffix and len(path.parts) < 2


def find_tag(tag: str, model: str | None) -> Weights:
    """Find the weights with this tag for a model.

    Parameters
    ----------
    tag : str
        "imagenet", "imagenet_v1", "imagenet_v2", "imagenet_caffe", "imagenet_keras", "cifar10", or
        one of timm's, such as "timm/resnet50d.ra2_in1k".
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
    >>> registry.find_tag("timm/resnet50d.ra2_in1k", "ResNet50D").files[0].name
    'resnet50d_ra2-464e36ba.pth'
    """
    if tag.startswith(TIMM):
        return _find_tag_of_timm(tag, model)
    by_plain_name = {names.plain(row.model): row.model for row in REGISTRY.values()}
    model = by_plain_name.get(names.plain(model or ""), model or "")
    theirs = [row for row in REGISTRY.values() if row.model == model]
    for row in theirs:  # timm's recipes are known by these names, too
        if row.tag.startswith(TIMM) and row.tag.rpartition(".")[2] == tag:
            raise ValueError(f"weights={tag!r}: say {row.tag!r}.")
    tag = names.find("weights", tag, [*ALIASES, *TAGS], ", timm's tags and file paths")
    tag = ALIASES.get(tag, tag)
    if tag == ALIASES["imagenet"] and (model, tag) not in REGISTRY:
        tag = next((row.tag for row in theirs if row.data == "ImageNet"), tag)
    if (model, tag) in REGISTRY:
        return REGISTRY[model, tag]
    others = "only " + " and ".join(_some_tags(theirs)) if theirs else "nor any others"
    raise ValueError(
        f"weights={tag!r}: {model or 'a custom model'} has no such weights, {others}. "
        f"Pass None for random weights, or the path of a file.{'' if theirs else _RENAMED}"
    )


def _some_tags(rows):
    """The tags of a model, of many of timm's their number."""
    of_timm = [repr(row.tag) for row in rows if row.tag.startswith(TIMM)]
    if len(of_timm) > 3:
        of_timm = [f"{len(of_timm)} of timm's, such as {of_timm[0]}"]
    return [*(repr(row.tag) for row in rows if not row.tag.startswith(TIMM)), *of_timm]


_RENAMED = " For a renamed model, use load_weights(architecture='ResNet50')."


def _find_tag_of_timm(tag, model):
    """Find the weights with one of timm's tags."""
    row = TAGS_OF_TIMM.get(tag.lower())
    if row is None:
        raise ValueError(f"weights={tag!r}: {_why_not(tag.lower())}")
    if names.plain(model or "") == names.plain(row.model):
        return row
    raise ValueError(
        f"weights={tag!r} are of {row.model}, not of {model or 'a custom model'}: build "
        f"keras_resnet.{row.model}(weights={tag!r}). For a renamed model, use "
        f"load_weights(architecture={row.model!r})."
    )


def _why_not(tag):
    """What is wrong with an unknown tag of timm, and what comes nearest to it."""
    if facts := _WITHOUT_MODEL.get(tag):
        nearest = facts["nearest"]
        return f"there is no model of this architecture: {facts['why']}. The nearest is {nearest}."
    by_architecture = {each.partition(".")[0]: each for each in reversed(TAGS_OF_TIMM)}
    architecture, _, _ = tag.partition(".")
    if architecture in by_architecture:
        theirs = [each for each in TAGS_OF_TIMM if each.startswith(f"{architecture}.")]
        return f"of this architecture there are {', '.join(map(repr, theirs))}."
    (near,) = difflib.get_close_matches(architecture, by_architecture, n=1, cutoff=0.0)
    nearest = by_architecture[near]
    return (
        f"timm's weights of this name are not known here. The nearest are {nearest!r}, of "
        f"{TAGS_OF_TIMM[nearest].model}; keras_resnet.list_weights(name='timm/*') lists all."
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


# Files that have tags of several sources are known by the first.
_BY_FILE = {file.name: row for row in reversed(REGISTRY.values()) for file in row.files}

_WITHOUT_MODEL = {TIMM + facts["name"]: facts for facts in _OF_TIMM if not facts["model"]}
