"""Where in an image a model sees what it says."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import graphs, names
from keras_resnet.analysis.evaluation import check_finite
from keras_resnet.checks import check_data_format, check_positive
from keras_resnet.explain.methods import METHODS, SCALE, check_cam
from keras_resnet.explain.watching import Call, find_layers, replaced, watched
from keras_resnet.resnet import deep_graphs

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Explained:
    """Maps of some images, and what the model said of them.

    Parameters
    ----------
    maps : float32 array of shape (images, rows, columns)
        As large as the feature map. Of either sign for "cam", otherwise 0 or more.
    classes : int array of shape (images,)
        What was explained: classes, labels or values.
    outputs : float32 array of shape (images, units)
        The model's outputs.
    layer : str
        Name of the layer that gave the feature map.
    """

    maps: np.ndarray
    classes: np.ndarray
    outputs: np.ndarray
    layer: str

    def resized(self, height: int, width: int) -> np.ndarray:
        """The maps at another size, bilinear: float32 of shape (images, height, width)."""
        return tf.image.resize(self.maps[..., None], (height, width))[..., 0].numpy()


def grad_cam(
    model: keras.Model,
    images: Any,
    classes: int | Sequence[int] | np.ndarray | None = None,
    layer: str | keras.Layer | None = None,
    *,
    method: str = "grad_cam",
    batch_size: int = 32,
) -> np.ndarray:
    """Map where in images a model sees a class.

    The score that is explained is the logit, the number before the final softmax or sigmoid: once a
    model is certain, its probabilities barely change. If the model does not show what
    its last layers are, because it is subclassed, its output itself is explained, with a warning.

    Parameters
    ----------
    model : keras.Model
        A model from one batch of images to one number for each class, label or value. Models may be
        nested in it, in any way; a subclassed model may call functional ones.
    images : array of shape (images, height, width, channels)
        Images as `model.predict` takes them.
    classes : int or sequence of int, optional
        The class, label or value to explain, one for all images or one for each. Default: the one
        with the highest output. A single output of a sigmoid decides between class 0 and class 1:
        the score of class 0 is the negative of the other.
    layer : str or layer, optional
        The layer whose feature map is used: its name, that of a stage such as "conv5", for the last
        map of the stage, or the layer itself. Default: what global pooling is applied to, or else
        the last feature map.
    method : {"grad_cam", "grad_cam++", "cam", "hirescam"}, default "grad_cam"
        "grad_cam": the sum of the channels, weighted by the mean gradient of the score; negative
        sums are 0. "grad_cam++": as that, with weights for several objects of a class. "cam": the
        contribution of every place to the score, of either sign, for models that end in global
        average pooling and one Dense layer. There, "grad_cam" is the same without its negative
        part. "hirescam": the elementwise product of features and gradients; negative sums are 0.
    batch_size : int, default 32
        Images per batch.

    Returns
    -------
    float32 array of shape (images, height, width)
        Maps as large as the images, in units of the score. `overlay` shows them.

    Raises
    ------
    ValueError
        For a layer that is not there or gives no feature map, images or classes that the model does
        not take, a model that has no scores, and a method that does not suit the model.

    References
    ----------
    Selvaraju et al., Grad-CAM, ICCV 2017; Chattopadhay et al., Grad-CAM++, WACV 2018; Zhou et al.,
    Learning Deep Features for Discriminative Localization, CVPR 2016; Draelos and Carin, Use
    HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks, 2020.

    See Also
    --------
    Explainer : For many batches.

    Examples
    --------
    >>> import numpy as np
    >>> import keras_resnet
    >>> from keras_resnet import explain
    >>> model = keras_resnet.CIFARResNet(8, include_preprocessing=True)
    >>> images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
    >>> explain.grad_cam(model, images, classes=3).shape
    (2, 32, 32)
    >>> explain.grad_cam(model, images, layer="conv3", method="grad_cam++").shape
    (2, 32, 32)
    """
    check_positive(batch_size=batch_size)
    explain, images = Explainer(model, layer, method), _checked(model, images)
    if classes is not None:
        classes = _numbers(classes, len(images))
    starts = range(0, len(images), batch_size)
    return np.concatenate(
        [
            explain(
                images[start : start + batch_size],
                None if classes is None else classes[start : start + batch_size],
            ).resized(*images.shape[1:3])
            for start in starts
        ]
    )


def _checked(model, images) -> np.ndarray:
    """Images as an array; ValueError for those that the model does not take."""
    try:
        images = np.asarray(images)
    except ValueError as error:  # a list of other shapes
        raise ValueError("images must be of one size: explain others by themselves.") from error
    shape = model.inputs[0].shape if graphs.is_functional(model) else (None,) * 4
    fits = images.ndim == 4 == len(shape) and all(
        its in (None, side) for its, side in zip(shape, images.shape, strict=True)
    )
    if not (fits and images.size and images.dtype.kind in "biuf"):
        takes = ", ".join(map(str, shape[1:])).replace("None", "any")
        raise ValueError(
            f"images of shape {images.shape} and type {images.dtype} must be numbers of shape "
            f"(images, height, width, channels), here (any, {takes})."
        )
    if not np.isfinite(images).all():  # a ReLU may make 0 of NaN
        raise ValueError("images hold NaN or infinity.")
    return images


def _numbers(classes, count: int) -> np.ndarray:
    """The number of a class for each of some images."""
    array = np.asarray(classes)
    if array.dtype.kind not in "iu" or array.ndim > 1 or (array < 0).any():
        raise ValueError(
            f"classes={classes!r} must be the number of a class, counted from 0, or one per image."
        )
    if array.ndim and len(array) != count:
        raise ValueError(f"{len(array)} classes came for {count} images.")
    return np.broadcast_to(array, count)


class _Scores(NamedTuple):
    """What of a model's outputs is explained.

    `squashing` is the layer whose softmax or sigmoid is undone, `both` whether one score decides
    between two classes, `largest` whether the largest score is the model's answer.
    """

    squashing: Any = None
    both: bool = False
    largest: bool = True


def _scores_of(model) -> _Scores:
    """Find out what scores a model gives, and warn where that does not show."""
    if not graphs.is_functional(model):
        if isinstance(model, keras.Sequential):
            graphs.check_functional(model)
        if not model.built:
            raise ValueError(f"model {model.name!r} has no weights yet: call it on images first.")
        _logger.warning(
            "%s is a %s, whose last layers do not show: its outputs themselves are explained. Of "
            "probabilities, the logits would be better: let it end without softmax or sigmoid.",
            model.name,
            type(model).__name__,
        )
        return _Scores()
    if len(model.inputs) != 1:
        raise ValueError(f"{model.name} has {len(model.inputs)} inputs; it must have one, images.")
    head = graphs.head_of(model)
    if head.output == "features" or len(model.outputs[0].shape) != 2:
        raise ValueError(
            f"{model.name} gives features of shape {model.outputs[0].shape}, no scores to explain: "
            "give a model with a head, one number for each class."
        )
    if head.output == "unknown" and not head.linear:
        _logger.warning(
            "What the outputs of %s are does not show: they themselves are explained. Of "
            "probabilities, the logits would be better.",
            model.name,
        )
    task = graphs.task_of_outputs(head, None)
    answer = task and graphs.answer_of(head, task)
    return _Scores(head.squashing, bool(answer and answer.both), task != "regression")


class Explainer:
    """Explains batches of images, for many of them: `Explainer(model)(images, classes)`.

    It compiles what it does when it is first called with images of a size.

    Parameters
    ----------
    model, layer, method
        As in `grad_cam`. Changes of the model's weights take effect.

    Raises
    ------
    ValueError
        As `grad_cam` does.

    Examples
    --------
    >>> import numpy as np
    >>> import keras_resnet
    >>> from keras_resnet import explain
    >>> found = explain.Explainer(keras_resnet.CIFARResNet(8))(np.zeros((2, 32, 32, 3)))
    >>> found.layer, found.maps.shape, found.outputs.shape
    ('conv4_block1_out', (2, 8, 8), (2, 10))
    """

    def __init__(
        self,
        model: keras.Model,
        layer: str | keras.Layer | None = None,
        method: str = "grad_cam",
    ):
        check_data_format()
        method = names.find("method", method, METHODS)
        self.model, self.layer, self._map = model, layer, METHODS[method]
        self._scores = _scores_of(model)
        if method == "cam":
            check_cam(model, layer)
        self._layers = find_layers(model, layer)
        self._traced: dict[tuple, Any] = {}
        self._found: tuple[str, int] = "", 0

    def __call__(self, images: Any, classes: Any = None) -> Explained:
        """Explain a batch of images, as `grad_cam` does."""
        model, images = self.model, _checked(self.model, images)
        count = len(images)
        given = np.full(count, -1) if classes is None else _numbers(classes, count)
        dtype = model.inputs[0].dtype if graphs.is_functional(model) else keras.config.floatx()
        with deep_graphs():
            compute = self._traced_for(images.shape[1:], dtype)
            results = compute(tf.cast(images, dtype), tf.cast(given, tf.int32))
        maps, explained, outputs = (each.numpy() for each in results)
        name, units = self._found
        if (highest := explained.max()) >= units:
            raise ValueError(f"classes={highest} must be below {units} for {model.name}.")
        if classes is None and units > 1 and not self._scores.largest:
            raise ValueError(f"{model.name} gives {units} values: say which by classes=.")
        check_finite(np.concatenate([outputs, maps.max(axis=(1, 2))[:, None]], axis=1), model)
        return Explained(maps, explained, outputs, name)

    def _traced_for(self, shape, dtype):
        """What is computed, compiled for batches of images of a shape."""
        if (shape, dtype) not in self._traced:
            specs = tf.TensorSpec((None, *shape), dtype), tf.TensorSpec((None,), tf.int32)
            function: Any = tf.function(self._compute, autograph=False)
            self._traced[shape, dtype] = function.get_concrete_function(*specs)
        return self._traced[shape, dtype]

    def _compute(self, images, classes):
        """Maps, the classes that they explain, -1 being the largest, and the model's outputs."""
        with (
            tf.GradientTape(watch_accessed_variables=False) as tape,
            _undone(self._scores.squashing) as squash,
            watched(self._layers, tape) as calls,
        ):
            outputs = self.model(images, training=False)
            _check_outputs(self.model, outputs)
            scores = tf.cast(outputs, tf.float32)
            scores = tf.concat([-scores, scores], -1) if self._scores.both else scores
            largest = tf.argmax(scores, axis=-1, output_type=tf.int32)
            classes, units = tf.where(classes < 0, largest, classes), scores.shape[-1]
            # Too high ones are complained of later, when their values are known.
            score = tf.gather(scores, tf.minimum(classes, units - 1), batch_dims=1)
            layer, features = self._chosen(calls)
            scale = SCALE if features.dtype == tf.float16 else 1.0
            scaled = scale * score
        gradients = tape.gradient(scaled, features)
        if gradients is None:
            raise ValueError(f"layer {layer.name!r} leads to no output of {self.model.name}.")
        if self.layer is None and not self._is_all(layer, images):
            raise ValueError(
                f"the output of {self.model.name} does not depend on its last feature map alone, "
                f"that of {layer.name!r}: say which map is meant, by layer=."
            )
        self._found = layer.name, units
        maps = self._map(tf.cast(features, tf.float32), tf.cast(gradients, tf.float32) / scale)
        return maps, classes, tf.cast(squash(outputs), tf.float32)

    def _chosen(self, calls: list[Call]) -> Call:
        """The call that made the feature map: the last one."""
        model, layer = self.model, self.layer
        if layer is None and len(self._layers) > 1:  # before a convolution, it is the image
            weights = [each for call in calls for each in getattr(call.layer, "weights", ())]
            calls = calls if any(len(each.shape) == 4 for each in weights) else []
        if not calls:
            of = f"{layer!r} of {model.name}" if layer is not None else model.name
            raise ValueError(
                f"{of} gives no feature map of shape (images, height, width, channels) of more "
                "than one pixel."
            )
        last = calls[-1].layer
        if (count := sum(call.layer is last for call in calls)) > 1:
            raise ValueError(
                f"layer {last.name!r} is called {count} times in {model.name}: name one that is "
                "called once."
            )
        return calls[-1]

    def _is_all(self, layer, images) -> bool:
        """Whether all that a model knows of an image goes through the output of a layer."""
        if len(self._layers) == 1:  # what is pooled for the head
            return True
        call, seen = layer.call, tf.cast(images, keras.config.floatx())

        def cut(*args, **kwargs):
            return tf.stop_gradient(call(*args, **kwargs))

        with tf.GradientTape() as tape, replaced(layer, call=cut):
            tape.watch(seen)
            outputs = self.model(seen, training=False)
        return tape.gradient(outputs, seen) is None


@contextlib.contextmanager
def _undone(layer) -> Iterator[Callable]:
    """Leave out the softmax or sigmoid of a layer, and give it to the caller."""
    if layer is None:
        yield lambda outputs: outputs
    elif hasattr(layer, "kernel"):
        activation = layer.activation
        with replaced(layer, activation=keras.activations.linear):
            yield activation
    else:
        call = layer.call
        with replaced(layer, call=lambda inputs, *args, **kwargs: inputs):
            yield call


def _check_outputs(model, outputs):
    if not tf.is_tensor(outputs) or len(outputs.shape) != 2:
        raise ValueError(
            f"{model.name} must give one number for each class, of shape (images, classes)."
        )
