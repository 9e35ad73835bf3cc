"""Where in an image a detector sees each of its objects."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import detection, graphs, names
from keras_resnet.checks import check_data_format, check_positive, check_range
from keras_resnet.detection.detect import answers_of, checked
from keras_resnet.detection.detections import factors
from keras_resnet.detection.faster_rcnn import pooled_levels
from keras_resnet.explain.methods import METHODS, OF_BOXES, SCALE
from keras_resnet.explain.watching import find_layers, watched
from keras_resnet.resnet import deep_graphs


@dataclass(frozen=True)
class ExplainedBoxes:
    """Maps of some of the objects in an image, the most certain object first.

    Parameters
    ----------
    maps : float32 array of shape (boxes, height, width)
        As large as the image; all values are 0 or more.
    boxes : float32 array of shape (boxes, 4)
        x1, y1, x2, y2 in pixels of the image.
    scores : float32 array of shape (boxes,)
        Their probabilities.
    labels : int32 array of shape (boxes,)
        Their classes, from 0.
    regions : float32 array of shape (boxes, 4)
        The proposals that they were refined from, in pixels of the image: what the box head saw.
    layers : tuple of str
        Name of the layer that gave the feature map of each.
    found : dict of str to array
        All that the detector finds in the image, explained or not, as `detection.detect` returns.
    """

    maps: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    regions: np.ndarray
    layers: tuple[str, ...]
    found: dict[str, np.ndarray]


def box_maps(
    detector: keras.Model,
    images: Sequence[np.ndarray],
    classes: int | Iterable[int] | None = None,
    layer: str | keras.Layer | None = None,
    *,
    method: str = "hirescam",
    top: int = 5,
    score: float = 0.5,
) -> list[ExplainedBoxes]:
    """Map where in images a detector sees each of its objects.

    The score that is explained is the logit of the object's class in the region of interest that
    its box was refined from. Gradients flow through the box head and RoIAlign, with the region held
    fixed, to a feature map; the map is interpolated to the image's pixels as RoIAlign does it.

    Parameters
    ----------
    detector : keras.Model
        A detector.
    images : sequence of array of shape (height, width, channels)
        Raw images of 0 to 255, each of any size, as `detection.detect` takes them.
    classes : int or iterable of int, optional
        Explain objects of these classes only, counted from 0. Default: all classes.
    layer : str or layer, optional
        The layer of the detector's features whose map is used: its name, that of a stage such as
        "conv4", for its last map, or the layer itself. Default: the map that the region was taken
        from: a level of the pyramid or, with C4, the last map of the whole image.
    method : {"hirescam", "grad_cam", "grad_cam++"}, default "hirescam"
        "hirescam": the elementwise product of features and gradients; negative sums are 0.
        "grad_cam" and "grad_cam++": as in the function `grad_cam`, for the part of the map that the
        region sees. Box heads weigh each location differently; "grad_cam" averages over locations
        and misses that.
    top : int, default 5
        Explain so many objects per image at most, the most certain ones.
    score : float, default 0.5
        Lowest score of an object that is explained.

    Returns
    -------
    list of ExplainedBoxes
        One for each image; with 0 boxes if no object is certain enough.

    Raises
    ------
    ValueError
        For a model that is not a detector, images that `detection.detect` does not take, classes
        that the detector does not have, and a layer that does not exist or that the features of a
        region do not depend on.

    References
    ----------
    Draelos and Carin, Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional
    neural networks, 2020; Zhao et al., ODAM: Gradient-based instance-specific visual explanations
    for object detection, ICLR 2023, which smooths the same maps.

    See Also
    --------
    BoxExplainer : For many images, one after the other.

    Examples
    --------
    >>> import numpy as np
    >>> import keras_resnet
    >>> from keras_resnet import detection, explain
    >>> backbone = keras_resnet.ResNet18(weights=None, include_top=False)
    >>> detector = detection.FasterRCNN(backbone, classes=3, min_size=64)
    >>> image = np.random.default_rng(0).uniform(0, 255, (50, 60, 3))
    >>> (explained,) = explain.box_maps(detector, [image], top=2, score=0)
    >>> explained.maps.shape, explained.boxes.shape
    ((2, 50, 60), (2, 4))
    """
    explain = BoxExplainer(detector, layer, method)
    return [explain(image, classes, top=top, score=score) for image in images]


class BoxExplainer:
    """Explains the objects of one image after the other: `BoxExplainer(detector)(image)`.

    It is compiled when it is made, for images of any size.

    Parameters
    ----------
    detector, layer, method
        As in `box_maps`. Changes to the detector's weights take effect.

    Raises
    ------
    ValueError
        As `box_maps` does.

    Examples
    --------
    >>> import numpy as np
    >>> import keras_resnet
    >>> from keras_resnet import detection, explain
    >>> backbone = keras_resnet.ResNet18(weights=None, include_top=False)
    >>> explained = explain.BoxExplainer(detection.FasterRCNN(backbone, classes=3, min_size=64))
    >>> explained(np.zeros((50, 60, 3), "uint8"), score=0.99).maps.shape
    (0, 50, 60)
    """

    def __init__(
        self,
        detector: keras.Model,
        layer: str | keras.Layer | None = None,
        method: str = "hirescam",
    ):
        check_data_format()
        self.detector, self.layer = detector, layer
        self._parts = detection.parts_of(detector)
        graphs.check_weights(detector)
        self._map = METHODS[names.find("method", method, OF_BOXES)]
        self._layers = [] if layer is None else find_layers(self._parts.features, layer)
        self._names = [
            output._keras_history.operation.name
            for output in pooled_levels(self._parts.features.outputs)
        ]
        self._chosen, self._apart = "", set()  # the layer, and levels that do not depend on it
        specs = (
            tf.TensorSpec((1, None, None, detector.inputs[0].shape[-1]), "float32"),
            tf.TensorSpec((1, 2), "int32"),
            tf.TensorSpec((self._parts.classes,), "bool"),
            tf.TensorSpec((), "int32"),
            tf.TensorSpec((), "float32"),
        )
        # A concrete function: TensorFlow warns if many of the other kind are made.
        function: Any = tf.function(self._compute, input_signature=specs, autograph=False)
        with deep_graphs():
            self._compiled = function.get_concrete_function()

    def __call__(
        self, image: Any, classes: Any = None, *, top: int = 5, score: float = 0.5
    ) -> ExplainedBoxes:
        """Explain the objects of an image, as `box_maps` does."""
        check_positive(top=top)
        check_range("fraction", score=score)
        image = checked(image, 0, self.detector)
        sizes = np.array([image.shape[:2]], "int32")
        wanted = self._wanted(classes)
        with deep_graphs():
            found, chosen, regions, levels, maps = self._compiled(
                tf.cast(image[None], "float32"),
                *map(tf.constant, (sizes, wanted, np.int32(top), np.float32(score))),
            )
        (found,), chosen = answers_of(found), chosen.numpy()
        taken = [self._names[level] for level in levels.numpy()]
        if apart := self._apart & set(taken):
            raise ValueError(
                f"layer={self.layer!r}: the features of {apart.pop()!r}, where a box was found, "
                "do not depend on it: leave it out, or name a stage of the backbone."
            )
        layers = tuple(taken) if self.layer is None else (self._chosen,) * len(taken)
        boxes, scores, labels = (found[name][chosen] for name in ("boxes", "scores", "labels"))
        return ExplainedBoxes(maps.numpy(), boxes, scores, labels, regions.numpy(), layers, found)

    def _wanted(self, classes) -> np.ndarray:
        """Whether objects of each class are explained."""
        count = self._parts.classes
        if classes is None:
            return np.ones(count, bool)
        given = np.atleast_1d(np.asarray(classes if np.isscalar(classes) else [*classes]))
        whole = given.dtype.kind in "iu" and given.ndim == 1
        if not (whole and ((given >= 0) & (given < count)).all()):
            raise ValueError(
                f"classes={classes!r} must be class numbers from 0 to {count - 1}, those of "
                f"{self.detector.name}."
            )
        return np.isin(np.arange(count), given)

    def _compute(self, images, sizes, wanted, top, least):
        """All objects, those that are explained, and their regions, levels and maps."""
        parts = self._parts
        with (
            tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape,
            watched(self._layers, tape) as calls,
        ):
            batch, resized = parts.transform(images, sizes)
            levels = parts.levels(batch)
        features = self._feature_map(calls)
        objectness, moves = parts.rpn(levels, training=False)
        anchors, counts = parts.anchors(batch, levels)
        proposals, kept = parts.proposals(objectness, moves, anchors, counts, resized)
        answers = parts.box_head(parts.pooled(levels, batch, proposals), training=False)
        inputs = (*answers, proposals, kept, resized, sizes)
        found = parts.detections(*inputs)

        labels, scores = tf.maximum(found["labels"][0], 0), found["scores"][0]
        there = tf.sequence_mask(found["count"][0], tf.size(labels))
        there &= (scores >= least) & tf.gather(wanted, labels)
        chosen = tf.where(there)[:top, 0]
        origins = tf.gather(parts.detections.origins(found, *inputs)[0], chosen)
        regions, pooled = tf.gather(proposals[0], origins), pooled_levels(levels)
        taken = parts.roi_align.levels_of(pooled, batch, regions)
        frame = batch, resized[0], sizes[0]

        def map_of(of_box):
            region, label, level = of_box
            ways = [
                functools.partial(
                    self._map_of, region, label, pooled[index], features, tape, frame, name
                )
                for index, name in enumerate(self._names)
            ]
            return ways[0]() if len(ways) == 1 else tf.switch_case(level, ways)

        boxes = regions, tf.gather(labels, chosen), taken
        spec = tf.TensorSpec((None, None), "float32")
        maps = tf.cond(
            tf.size(chosen) > 0,
            lambda: tf.map_fn(map_of, boxes, fn_output_signature=spec, parallel_iterations=1),
            lambda: tf.zeros(tf.concat([[0], sizes[0]], 0)),  # an empty loop has no shape
        )
        return found, chosen, regions * factors(resized, sizes), taken, maps

    def _feature_map(self, calls):
        """The last map of the layers that were asked for, if any were."""
        if self.layer is None:
            return None
        if not calls:
            raise ValueError(
                f"layer={self.layer!r} of {self.detector.name} gives no feature map of shape "
                "(images, height, width, channels)."
            )
        self._chosen = calls[-1].layer.name
        return calls[-1].output

    def _map_of(self, region, label, level, features, tape, frame, name):
        """The map of a box that was taken from a level, as large as the image."""
        parts, batch = self._parts, frame[0]
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(level)
            region = parts.roi_align([level], batch, region[None, None])
            logits, _ = parts.box_head(region, training=False)
            scale = SCALE if level.dtype == tf.float16 else 1.0
            score = scale * tf.cast(logits[0, label + 1], tf.float32)  # the background is 0
        gradients = inner.gradient(score, level)
        if features is None:
            features = level
        else:
            gradients = tape.gradient(level, features, output_gradients=gradients)
        if gradients is None:
            self._apart.add(name)
            return tf.zeros(frame[2])
        gradients = tf.cast(gradients, tf.float32) / scale
        seen = tf.reduce_any(gradients != 0, axis=-1, keepdims=True)
        seen = tf.cast(features, tf.float32) * tf.cast(seen, tf.float32)
        return self._pasted(self._map(seen, gradients)[0], *frame)

    def _pasted(self, cells, batch, resized, size):
        """A map of cells at the pixels of an image, as RoIAlign interpolates between them."""
        shift = 0.5 if self._parts.options.roi_aligned else 0.0
        weights = []
        for axis in (0, 1):
            count = tf.shape(cells)[axis]
            stride = tf.cast(tf.shape(batch)[1 + axis] // count, "float32")
            pixels = tf.range(size[axis], dtype="float32") + 0.5
            pixels *= tf.cast(resized[axis] / size[axis], "float32")
            last = tf.cast(count - 1, "float32")
            points = tf.clip_by_value(pixels / stride - shift, 0.0, last)
            weights.append(tf.maximum(1 - tf.abs(points[:, None] - tf.range(last + 1)), 0))
        return weights[0] @ cells @ tf.transpose(weights[1])
