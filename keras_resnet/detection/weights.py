"""Pretrained detectors: torchvision's, detectron2's, and those that this package has saved.

Their tensors have names that derive from the names of the layers:

====================  =============================  ==========================================
layer                 torchvision                    detectron2
====================  =============================  ==========================================
conv3_block1_0_conv   backbone.body.layer2.0.        backbone.bottom_up.res3.0.shortcut
                      downsample.0
conv5_... (C4)        roi_heads.box_head.layer4...   roi_heads.res5...
fpn_inner2            backbone.fpn.inner_blocks.0.0  backbone.fpn_lateral2
fpn_layer2            backbone.fpn.layer_blocks.0.0  backbone.fpn_output2
rpn_conv1             rpn.head.conv.0.0              proposal_generator.rpn_head.conv
rpn_logits            rpn.head.cls_logits            proposal_generator.rpn_head.
                                                     objectness_logits
fc6                   roi_heads.box_head.fc6         roi_heads.box_head.fc1
box_logits            roi_heads.box_predictor.       roi_heads.box_predictor.cls_score
                      cls_score
====================  =============================  ==========================================

The order of their elements differs, too. `fc6` sees channels first in both libraries, and last
here. Anchors at one position are sorted by ratio, then size, in torchvision and here, and by size,
then ratio, in detectron2. The background is the first class in torchvision and here, and the last
in detectron2, which has no deltas for it. What tensors do not reveal, such as the epsilon of
BatchNormalization, is known for published files; for others it is the library's default or an
argument.
"""

import logging
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_resnet.checks import is_within
from keras_resnet.detection.anchors import around_zero, sizes_of
from keras_resnet.detection.classes import VOC_CLASSES, coco_classes
from keras_resnet.detection.faster_rcnn import Parts, parts_of
from keras_resnet.graphs import flat_layers
from keras_resnet.layers import NORMALIZATIONS
from keras_resnet.names import some
from keras_resnet.pretrained import load, mapping, naming, needs, registry
from keras_resnet.pretrained.fetch import row_of
from keras_resnet.pretrained.notices import warn

logger = logging.getLogger("keras_resnet")


@dataclass(frozen=True)
class Layout:
    """How the tensors of one kind of detector are named in one library.

    Parameters
    ----------
    library : {"torchvision", "detectron2"}
        The library.
    head : str
        The kind of head, as `FasterRCNN` takes it.
    sign : str
        What the name of one of its tensors begins with, and of no other kind's.
    body : str
        What the names of the backbone's modules begin with.
    last : str, default ""
        The same for the stage that is part of the head.
    fc6 : str, default ""
        The dense layer that sees the bins of a region.
    """

    library: str
    head: str
    sign: str
    body: str
    last: str = ""
    fc6: str = ""


_BOX = "roi_heads.box_head."

LAYOUTS = (
    Layout("torchvision", "fpn", f"{_BOX}fc6.", "backbone.body.", fc6=f"{_BOX}fc6"),
    Layout("torchvision", "fpn_v2", f"{_BOX}5.", "backbone.body.", fc6=f"{_BOX}5"),
    Layout("torchvision", "c4", f"{_BOX}layer4.", "backbone.", last=_BOX),
    Layout("detectron2", "fpn", f"{_BOX}fc1.", "backbone.bottom_up.", fc6=f"{_BOX}fc1"),
    Layout("detectron2", "c4", "roi_heads.res5.", "backbone.", last="roi_heads."),
)

# The modules of layers that are not of the backbone, by library: patterns of the layers' names, and
# functions of the number in them. (torchvision counts a pyramid's levels from its first.)
_MODULES: dict[str, dict[str, Callable[[int], str]]] = {
    "torchvision": {
        r"fpn_inner(\d)": lambda index: f"backbone.fpn.inner_blocks.{index}.0",
        r"fpn_layer(\d)": lambda index: f"backbone.fpn.layer_blocks.{index}.0",
        r"rpn_conv(\d)": lambda number: f"rpn.head.conv.{number - 1}.0",
        r"rpn_logits()": lambda _: "rpn.head.cls_logits",
        r"rpn_deltas()": lambda _: "rpn.head.bbox_pred",
        r"box_conv(\d)": lambda number: f"{_BOX}{number - 1}.0",
        r"fc7()": lambda _: f"{_BOX}fc7",
        r"box_logits()": lambda _: "roi_heads.box_predictor.cls_score",
        r"box_deltas()": lambda _: "roi_heads.box_predictor.bbox_pred",
    },
    "detectron2": {
        r"fpn_inner(\d)": lambda level: f"backbone.fpn_lateral{level}",
        r"fpn_layer(\d)": lambda level: f"backbone.fpn_output{level}",
        r"rpn_conv1()": lambda _: "proposal_generator.rpn_head.conv",
        r"rpn_logits()": lambda _: "proposal_generator.rpn_head.objectness_logits",
        r"rpn_deltas()": lambda _: "proposal_generator.rpn_head.anchor_deltas",
        r"fc7()": lambda _: f"{_BOX}fc2",
        r"box_logits()": lambda _: "roi_heads.box_predictor.cls_score",
        r"box_deltas()": lambda _: "roi_heads.box_predictor.bbox_pred",
    },
}

# Names that torchvision gave before it had two convolutions in a row, and what follows them now.
_OLDER = {
    r"rpn\.head\.conv\.(weight|bias)": "0.0.",
    r"backbone\.fpn\.(?:inner|layer)_blocks\.\d\.(weight|bias)": "0.",
}

# What detectron2 has saved beside the weights, at times.
_CELL_ANCHORS = re.compile(r"proposal_generator\.anchor_generator\.cell_anchors\.(\d)")
_PIXELS = ("pixel_mean", "pixel_std")

# Parts of names of what stands beside the boxes in other models.
_OTHERS = ("mask_head", "mask_predictor", "keypoint_head", "keypoint_predictor", "sem_seg_head")

# How a model was trained, as far as its tensors do not reveal it: the defaults of each library.
TRAINED: dict[str, dict[str, Any]] = {
    "torchvision": dict(
        epsilon=1e-5, stride_in="3x3", preprocessing="torch", anchors_rounded=True,
        roi_aligned=False, roi_sampling_ratio=2,
    ),
    "detectron2": dict(
        epsilon=1e-5, **registry.DETECTRON2_OPTIONS, anchors_rounded=False,
        roi_aligned=True, roi_sampling_ratio=0,
    ),
}  # fmt: skip

# What `trained_with` may say, and with which values.
_SAYABLE: dict[str, Callable[[Any], bool]] = {
    "epsilon": lambda value: isinstance(value, int | float) and 0 <= value < 1,
    "stride_in": lambda value: value in ("1x1", "3x3"),
    "preprocessing": lambda value: value in (*NORMALIZATIONS,),
    "input_format": lambda value: value in ("RGB", "BGR"),
    "anchors_rounded": lambda value: isinstance(value, bool),
    "roi_aligned": lambda value: isinstance(value, bool),
    "roi_sampling_ratio": lambda value: is_within("index", value),
}

_MOST_CLASSES = 20_000

_LAST = ("rpn_logits", "rpn_deltas", "box_logits", "box_deltas")

_OF_BACKBONE = ("stride_in", "preprocessing")
# Of backbones that neither library has: recorded where they are not the usual ones.
_OF_OTHER_BACKBONES = (*needs.UNREVEALED, "output_stride")
_OF_DETECTOR = ("anchors_rounded", "roi_aligned", "roi_sampling_ratio")

# detectron2's numbers of proposals, for "c4".
_C4_PROPOSALS = dict(
    rpn_pre_nms_top_n_train=12000, rpn_post_nms_top_n_train=2000,
    rpn_pre_nms_top_n_test=6000, rpn_post_nms_top_n_test=1000,
)  # fmt: skip


@dataclass(frozen=True)
class Pretrained:
    """A detector in a file.

    Parameters
    ----------
    argument : str
        `weights=...`, the start of error messages.
    tensors : mapping of str to array
        By their names in the file.
    layout : Layout or None
        How they are named; None for Keras' numbered layers.
    trained : mapping
        How the detector was trained, as far as that is known: names as in `load_weights`.
    classes : int or None
        Number of classes, without the background; None if it is not known.
    row : registry.Weights or None
        The row of the registry.
    """

    argument: str
    tensors: Mapping[str, Any]
    layout: Layout | None
    trained: Mapping[str, Any]
    classes: int | None
    row: registry.Weights | None

    @property
    def backbone(self) -> dict[str, Any]:
        """The builder's options of a backbone for these weights."""
        names = (*_OF_BACKBONE, *_OF_OTHER_BACKBONES)
        return {name: self.trained[name] for name in names if name in self.trained}

    @property
    def options(self) -> dict[str, Any]:
        """The options of a detector for these weights."""
        found = {name: self.trained[name] for name in _OF_DETECTOR if name in self.trained}
        if self.layout and (self.layout.library, self.layout.head) == ("detectron2", "c4"):
            found.update(_C4_PROPOSALS)
        return found

    @property
    def class_names(self) -> list[str]:
        """The names of the classes; their numbers, where they are not known."""
        known = {80: coco_classes(), 90: coco_classes(gaps=True)}
        if self.row and self.row.data == "VOC":
            known = {len(VOC_CLASSES): list(VOC_CLASSES)}
        count = self.classes or 0
        return known.get(count, [str(index) for index in range(count)])


def find(
    weights: "str | os.PathLike | Pretrained",
    architecture: str | None = None,
    trained_with: Mapping[str, Any] | None = None,
) -> Pretrained:
    """Find a pretrained detector, and what a model has to be like for it.

    Parameters
    ----------
    weights, architecture, trained_with
        As in `load_weights`. What was found before is returned as it is.

    Returns
    -------
    Pretrained
        Its `class_names` are those of the detector in the file.

    Raises
    ------
    ValueError, OSError
        As `load_weights`.

    Warns
    -----
    RuntimeWarning
        If the file does not say how the detector was trained, and a default is assumed.
    """
    if isinstance(weights, Pretrained):
        return weights
    said = _said(trained_with)
    source = load.find(weights, architecture)
    raw = source.read(True)
    with mapping.errors_about(source.argument):
        tensors = mapping.named_arrays(raw)
        if any(name.startswith("layers/") for name in tensors):
            return Pretrained(
                source.argument, tensors, None, {**source.options, **said}, None, source.row
            )
        tensors = _newer(tensors)
        layout = _layout_of(tensors)
        row = source.row or row_of(source.path or weights, registry.DETECTORS)
        known = dict(row.options) if row else dict(source.options)
        if layout.library == "detectron2":
            known = {**_grouped(tensors), **_pixels(tensors), **known}
        trained = {**TRAINED[layout.library], **known, **said}
        if "input_format" not in trained:
            detectron2 = layout.library == "detectron2"
            trained["input_format"] = "BGR" if detectron2 else _format_of(trained["preprocessing"])
        classes = _classes_of(tensors)
    if row is None and not source.options and not said:
        _tell_assumptions(source.argument, layout, raw, trained)
    return Pretrained(source.argument, tensors, layout, trained, classes, row)


def load_weights(
    model: keras.Model,
    weights: str | os.PathLike | None,
    *,
    architecture: str | None = None,
    new_head: bool = False,
    trained_with: Mapping[str, Any] | None = None,
) -> keras.Model:
    """Load a pretrained detector into a model.

    The weights must contain every tensor of the model, with the same shape, and no others. All
    tensors are checked before the first one changes.

    Parameters
    ----------
    model : keras.Model
        A detector.
    weights : str, path or None
        A tag ("coco", "coco_detectron2_3x", ... see `keras_resnet.list_weights`), or the path of a
        file: of torchvision (`.pth`), of detectron2 (`.pkl`, `.pth`), of `to_torch`
        (`.safetensors`), or of Keras (`.weights.h5`, `.keras`). None leaves the model unchanged.
    architecture : str, optional
        Name of the builder, for tags. Default: the name of the model.
    new_head : bool, default False
        Whether to keep the model's own `box_logits` and `box_deltas` if those in the file are for
        another number of classes. This is logged.
    trained_with : mapping, optional
        How the detector in the file was trained, where a file that is not published differs from
        its library's defaults: `epsilon` of BatchNormalization (0.0 if training began from
        torchvision's COCO_V1), `stride_in` ("1x1", "3x3"), `preprocessing`, `input_format` ("RGB",
        "BGR"), `anchors_rounded`, `roi_aligned`, `roi_sampling_ratio`.

    Returns
    -------
    keras.Model
        The same model.

    Raises
    ------
    ValueError
        If the tag is unknown or not available for the model, or the file is damaged, holds no
        detector, one with another head, or one that was trained with other options.
    OSError
        If the weights cannot be downloaded.

    Warns
    -----
    RuntimeWarning
        If tensors contain NaN or infinity, or if the file does not say how the detector was
        trained, and a default is assumed.

    Examples
    --------
    >>> import os, tempfile
    >>> import keras_resnet
    >>> from keras_resnet import detection
    >>> backbone = keras_resnet.ResNet18(weights=None, include_top=False)
    >>> detector = detection.FasterRCNN(backbone, classes=3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "detector.safetensors")
    ...     _ = detection.to_torch(detector, path)
    ...     _ = detection.load_weights(detector, path)
    """
    if weights is None:
        return model
    return load_found(model, find(weights, architecture or model.name, trained_with), new_head)


def load_found(model: keras.Model, found: Pretrained, new_head: bool = False) -> keras.Model:
    """Load the result of `find` into a model: the second half of `load_weights`.

    Parameters
    ----------
    model : keras.Model
        A detector.
    found : Pretrained
        The result of `find`.
    new_head : bool, default False
        As in `load_weights`.

    Returns
    -------
    keras.Model
        The same model.

    Raises
    ------
    ValueError
        As `load_weights`.
    """
    with mapping.errors_about(found.argument):
        parts, tensors = parts_of(model), dict(found.tensors)
        _check_head(model, parts, found.layout)
        _check_trained(model, parts, found.trained)
        slots = _slots(model, parts, found)
        if found.layout:
            tensors = _without_notes(model, tensors, parts)
        _leave_out_head(model, parts, slots, tensors, new_head)
        _check_boxes_only(tensors)
        mapping.check_tensors(model, slots, tensors)
        epsilon = found.trained.get("epsilon")
        if found.layout and epsilon == 0:
            _check_variances(tensors)
    mapping.assign(slots, tensors, found.argument)
    if found.layout:
        _fold_epsilon(model, epsilon)
    return model


def to_torch(model: keras.Model, path: str | os.PathLike | None = None) -> dict[str, np.ndarray]:
    """Convert a detector's weights to a state dict of torchvision's, and write them to a file.

    Parameters
    ----------
    model : keras.Model
        A detector. torchvision's must have the same options.
    path : path, optional
        Where to write a `.safetensors` file, which `safetensors.torch.load_file` can read, and
        `load_weights`.

    Returns
    -------
    dict of str to numpy.ndarray
        Contiguous, in PyTorch's layout, with PyTorch's batch counters set to 0. C4's names are
        those of a backbone of conv1 to layer3 and a `box_head` with layer4.

    Raises
    ------
    ValueError
        If the model is not a detector, or has layers that torchvision's does not have.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import detection
    >>> backbone = keras_resnet.ResNet18(weights=None, include_top=False)
    >>> state_dict = detection.to_torch(detection.FasterRCNN(backbone, classes=3))
    >>> state_dict["roi_heads.box_head.fc6.weight"].shape
    (1024, 12544)
    """
    parts = parts_of(model)
    head = _head_of(parts)
    layout = next(each for each in LAYOUTS if (each.library, each.head) == ("torchvision", head))
    mode = parts.transform.mode
    found = Pretrained("model", {}, layout, {"input_format": _format_of(mode)}, None, None)
    state = mapping.tensors_of(_slots(model, parts, found))
    fc6 = f"{layout.fc6}.weight"
    if fc6 in state:
        state[fc6] = np.ascontiguousarray(_flattened(state[fc6], parts, channels_first=True))
    if path is not None:
        mapping.save_tensors(state, path, _options_of(model, parts))
    return state


def _said(trained_with):
    """Check what a caller says about a file."""
    said = {} if trained_with is None else trained_with
    if not isinstance(said, Mapping):
        raise ValueError(f"trained_with={said!r} must be a dict of options.")
    for name, value in said.items():
        if name not in _SAYABLE:
            known = ", ".join(_SAYABLE)
            raise ValueError(f"trained_with has {name!r}; there are {known}.")
        if not _SAYABLE[name](value):
            raise ValueError(f"trained_with={{{name!r}: {value!r}}} is not a value of that option.")
    return said


def _newer(tensors):
    """Give tensors the names that today's torchvision gives."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, between in _OLDER.items():
            if match := re.fullmatch(pattern, name):
                newer = name[: match.start(1)] + between + match[1]
                name = name if newer in tensors else newer
        renamed[name] = tensor
    return renamed


def _layout_of(tensors):
    """Find the library and the head that tensors are of."""
    library = "detectron2" if any(n.startswith("proposal_generator.") for n in tensors) else None
    library = library or (
        "torchvision" if any(n.startswith("rpn.head.") for n in tensors) else None
    )
    for layout in LAYOUTS:
        if library == layout.library and any(name.startswith(layout.sign) for name in tensors):
            return layout
    if library:
        heads = " or ".join(repr(each.head) for each in LAYOUTS if each.library == library)
        of_box = sorted(name for name in tensors if name.startswith(_BOX))
        raise ValueError(
            f"the weights are of a detector of {library} whose box head is not {heads}: it "
            f"has {some(of_box) or 'no tensors'}."
        )
    raise ValueError(
        f"the weights are of no detector: they have {some(list(tensors))}. Those of a classifier "
        "are for weights_backbone=."
    )


def _classes_of(tensors):
    """The number of classes, without the background; None if there is no box predictor."""
    bias = tensors.get("roi_heads.box_predictor.cls_score.bias")
    if bias is None or len(bias.shape) != 1:
        return None
    classes = int(bias.shape[0]) - 1
    if not 1 <= classes <= _MOST_CLASSES:  # a small file can declare a tensor of any size
        raise ValueError(f"the box head has {classes} classes, not 1 to {_MOST_CLASSES}.")
    return classes


def _grouped(tensors):
    """detectron2 has one ResNeXt, which Caffe2 trained with other settings."""
    kernels = [
        each for name, each in tensors.items() if re.search(r"res2\.0\.conv2\.weight$", name)
    ]
    if kernels and len(kernels[0].shape) == 4 and kernels[0].shape[0] != kernels[0].shape[1]:
        return {"stride_in": "3x3", "preprocessing": "torch"}
    return {}


def _pixels(tensors):
    """How images were normalized, if detectron2 has saved that."""
    if not set(_PIXELS) <= tensors.keys():
        return {}
    for name in _PIXELS:
        if math.prod(tensors[name].shape) != 3:
            raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, not (3, 1, 1).")
    mean, deviation = (np.asarray(tensors[name], "float64").ravel() for name in _PIXELS)
    for mode, (_, *seen) in NORMALIZATIONS.items():
        # In the order of the channels that a model with this mode sees.
        for input_format, step in ((_format_of(mode), 1), (_other(_format_of(mode)), -1)):
            theirs = [np.broadcast_to(each, 3)[::step] for each in seen]
            if np.allclose([mean, deviation], theirs, atol=1e-3):
                return {"preprocessing": mode, "input_format": input_format}
    raise ValueError(
        f"pixel_mean={mean.tolist()} and pixel_std={deviation.tolist()} are no normalization of "
        f"{', '.join(NORMALIZATIONS)}."
    )


def _tell_assumptions(argument, layout, raw, trained):
    """Warn of what is assumed about a file that is not published and does not say it."""
    if layout.library == "detectron2":
        assumed = {name: trained[name] for name in (*_OF_BACKBONE, "input_format", *_OF_DETECTOR)}
        if set(_PIXELS) <= raw.keys():
            assumed = {
                name: assumed[name]
                for name in assumed
                if name not in ("preprocessing", "input_format")
            }
        warn(
            f"{argument}: the file does not say how detectron2 was configured; "
            f"{', '.join(f'{name}={value!r}' for name, value in assumed.items())} are assumed. Use "
            "trained_with= if they are wrong."
        )
    elif layout.head == "fpn" and not any(name.endswith("num_batches_tracked") for name in raw):
        warn(
            f"{argument}: BatchNormalization was frozen in training, and the file does not say its "
            "epsilon; 1e-05 is assumed. If training began from torchvision's COCO_V1, use "
            "trained_with={'epsilon': 0.0}."
        )


def _head_of(parts: Parts) -> str:
    """The kind of head that a detector has."""
    names = {layer.name for layer in parts.box_head.layers}
    return "fpn_v2" if "box_conv1" in names else "fpn" if "fc7" in names else "c4"


def _check_head(model, parts, layout):
    """Raise an error if a detector has another head than the weights are of."""
    ours = _head_of(parts)
    if layout and layout.head != ours:
        raise ValueError(
            f"the weights are of a detector of {layout.library} with the head {layout.head!r}, "
            f"{model.name} has {ours!r}. Build it with head={layout.head!r}."
        )


def _check_trained(model, parts, trained):
    """Raise an error if a detector has other options than the weights were trained with."""
    ours = {**needs.UNREVEALED, "output_stride": None, **_options_of(model, parts)}
    if "stride_in" in trained:  # it says how the backbone was built
        trained = {**needs.UNREVEALED, **trained}
    for option, value in trained.items():
        if ours.get(option, value) != value:
            where = "it" if option in _OF_DETECTOR else "its backbone"
            otherwise = (
                " If they were trained otherwise, use "
                f"trained_with={{{option!r}: {ours[option]!r}}}."
                if option in _SAYABLE
                else ""
            )
            raise ValueError(
                f"these weights need {option}={value!r}, {model.name} has {ours[option]!r}. Build "
                f"{where} with {option}={value!r}; the builders that take weights= do.{otherwise}"
            )


def _options_of(model, parts):
    """The options of a detector that its weights do not reveal."""
    found = needs.options_of(layer.get_config() for layer in flat_layers(model))
    names = ("stride_in", "shortcut", *_OF_OTHER_BACKBONES)
    return {
        **{name: found[name] for name in names if name in found},
        "preprocessing": parts.transform.mode,
        **{name: getattr(parts.options, name) for name in _OF_DETECTOR},
    }


def _slots(model, parts, found):
    """The variables of a detector, by the names of their tensors."""
    if found.layout is None:
        return dict(_numbered_slots(model, "layers/"))
    layout, slots = found.layout, {}
    of_head = {layer.name for layer in flat_layers(parts.box_head)}
    first = _first_level(parts)
    rearranged = _arrangements(parts, found)
    names = naming.naming_for(layer.name for layer in flat_layers(model))
    for layer in flat_layers(model):
        if not layer.weights:
            continue
        module = _module(layer.name, layout, layer.name in of_head, first, names)
        for variable, part, axes in naming.variables_of(layer, model)[1]:
            slot = mapping.Slot(variable, axes)
            # Of the last layers the outputs are in another order, of others the inputs.
            if layer.name in rearranged and (part == "weight" or layer.name in _LAST):
                size, arranged = rearranged[layer.name]
                slot = slot._replace(
                    stored=(size or slot.shape[0], *slot.shape[1:]), arranged=arranged
                )
            slots[f"{module}.{part}"] = slot
    return slots


def _first_level(parts):
    """The number of the first stage that a pyramid stands on."""
    names = " ".join(layer.name for layer in flat_layers(parts.features))
    return min((int(level) for level in re.findall(r"fpn_layer(\d)", names)), default=2)


def _module(name, layout, of_head, first, names):
    """The module for a layer."""
    conv = name.removesuffix("_bn")
    if name == "fc6":
        return layout.fc6
    for pattern, module in _MODULES[layout.library].items():
        if match := re.fullmatch(pattern, conv):
            counted = first if layout.library == "torchvision" and name.startswith("fpn") else 0
            module = module(int(match[1] or 0) - counted)
            if name == conv:
                return module
            if layout.library == "detectron2":
                return f"{module}.norm"
            return f"{module.removesuffix('.0')}.1"
    prefix = layout.last if of_head else layout.body
    if layout.library == "torchvision":
        return prefix + naming.module_name(name, names)
    return prefix + _res_name(name)


def _res_name(name):
    """The module of detectron2's ResNet for a layer."""
    if match := re.fullmatch(r"conv1_(conv|bn)", name):
        return "stem.conv1" + (".norm" if match[1] == "bn" else "")
    if match := re.fullmatch(r"conv(\d+)_block(\d+)_(\d)_(conv|bn)", name):
        stage, block, index, kind = match.groups()
        module = "shortcut" if index == "0" else f"conv{index}"
        return f"res{stage}.{int(block) - 1}.{module}" + (".norm" if kind == "bn" else "")
    raise ValueError(f"layer {name} does not belong to a model of this package.")


def _numbered_slots(model, prefix):
    """Slots by names of a `.weights.h5` file: classes of layers, numbered within their model."""
    counts = Counter()
    for layer in model.layers:
        inner = isinstance(layer, keras.Model)
        if not layer.weights:
            continue
        kind, variables = ("functional", []) if inner else naming.variables_of(layer, model)
        number = f"_{counts[kind]}" if counts[kind] else ""
        counts[kind] += 1
        if inner:
            yield from _numbered_slots(layer, f"{prefix}{kind}{number}/layers/")
        for index, (variable, _, axes) in enumerate(variables):
            slot = mapping.Slot(variable, tuple(range(len(axes))))
            yield f"{prefix}{kind}{number}/vars/{index}", slot


def _arrangements(parts, found):
    """By layer: the first size of its tensors in the file, if it is another; and into our order."""
    rearranged = {}
    if found.layout.fc6:
        rearranged["fc6"] = None, lambda array: _flattened(array, parts)
    if found.trained.get("input_format", _format_of(parts.transform.mode)) != _format_of(
        parts.transform.mode
    ):
        rearranged["conv1_conv"] = None, lambda array: array[:, ::-1]
    if found.layout.library == "detectron2":
        order, classes = _order_of_anchors(parts), parts.classes
        rearranged |= {
            "rpn_logits": (None, lambda array: array[order]),
            "rpn_deltas": (
                None,
                lambda array: array.reshape(len(order), 4, *array.shape[1:])[order].reshape(
                    array.shape
                ),
            ),
            "box_logits": (None, lambda array: np.roll(array, 1, axis=0)),
            "box_deltas": (
                4 * classes,
                lambda array: np.concatenate([np.zeros_like(array[:4]), array]),
            ),
        }
    return rearranged


def _flattened(array, parts, *, channels_first=False):
    """Turn what `fc6` sees of a region from channels first into channels last, or back."""
    bins = parts.roi_align.bins
    if channels_first:
        bins_first = array.reshape(len(array), bins, bins, -1)
        return bins_first.transpose(0, 3, 1, 2).reshape(array.shape)
    return array.reshape(len(array), -1, bins, bins).transpose(0, 2, 3, 1).reshape(array.shape)


def _order_of_anchors(parts):
    """For each anchor of a place, its index among those of detectron2: ratios of a size."""
    sizes = _levels_sizes(parts)[0]
    count = len(parts.options.rpn_aspect_ratios)
    return np.arange(len(sizes) * count).reshape(len(sizes), count).T.ravel()


def _levels_sizes(parts):
    """The sizes of the anchors of each level."""
    return sizes_of(parts.options, len(parts.features.outputs))


def _format_of(mode):
    """The order of channels that a model with this normalization sees."""
    return "BGR" if NORMALIZATIONS[mode][0] else "RGB"


def _other(input_format):
    return "RGB" if input_format == "BGR" else "BGR"


def _without_notes(model, tensors, parts):
    """Check and leave out what detectron2 has saved beside the weights."""
    ratios = parts.options.rpn_aspect_ratios
    rest = {}
    for name, tensor in tensors.items():
        if match := _CELL_ANCHORS.fullmatch(name):
            sizes = _levels_sizes(parts)
            level = int(match[1])
            expected = (
                around_zero(sizes[level], ratios, False)[np.argsort(_order_of_anchors(parts))]
                if level < len(sizes)
                else np.zeros((0, 4))
            )
            if tuple(tensor.shape) != expected.shape or not np.allclose(
                tensor, expected, atol=0.01
            ):
                raise ValueError(
                    f"{name} has other anchors than {model.name}. Build it with the weights' own "
                    "rpn_anchor_sizes and rpn_aspect_ratios."
                )
        elif name not in _PIXELS:
            rest[name] = tensor
    return rest


def _leave_out_head(model, parts, slots, tensors, new_head):
    """Remove a box predictor for another number of classes, if that is allowed."""
    logits, deltas = (parts.box_head.get_layer(name) for name in ("box_logits", "box_deltas"))
    variables = [*logits.weights, *deltas.weights]
    ours = [
        name for name, slot in slots.items() if any(slot.variable is each for each in variables)
    ]
    bias = next(name for name in ours if slots[name].variable is logits.bias)
    wanted = parts.classes
    if bias in tensors:
        if len(tensors[bias].shape) != 1 or tensors[bias].shape[0] == wanted + 1:
            return
        theirs = int(tensors[bias].shape[0]) - 1
        if not new_head:
            raise ValueError(
                f"the box head has {theirs} classes, {model.name} has {wanted}. To load it, build "
                f"with classes={theirs}. To keep the model's own, use new_head=True."
            )
        logger.info("Skipped the box head for %d classes: %s has %d.", theirs, model.name, wanted)
    elif new_head:
        logger.info("The weights have no box predictor: %s keeps its own.", model.name)
    else:
        return
    for name in ours:
        slots.pop(name)
        tensors.pop(name, None)


def _check_boxes_only(tensors):
    """Raise an error for a model that predicts more than boxes."""
    if others := [part for part in _OTHERS if any(part in name for name in tensors)]:
        raise ValueError(
            f"the weights are of a model with a {others[0]}: only those of a Faster R-CNN, which "
            "predicts boxes alone, can be loaded."
        )


def _check_variances(tensors):
    """Raise an error for variances that nothing can be divided by."""
    for name, tensor in tensors.items():
        if name.endswith("running_var") and (np.asarray(tensor) <= 0).any():
            raise ValueError(f"{name} has variances of 0, and BatchNormalization an epsilon of 0.")


def _fold_epsilon(model, epsilon):
    """Scale gamma so that BatchNormalization computes what it would with another epsilon."""
    for layer in flat_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization) and layer.epsilon != epsilon:
            variance = np.asarray(layer.moving_variance, "float64")
            factor = np.sqrt((variance + layer.epsilon) / (variance + epsilon))
            layer.gamma.assign(np.asarray(layer.gamma, "float64") * factor)
