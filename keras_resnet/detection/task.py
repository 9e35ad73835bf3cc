"""Detection as a task of training: what a step computes, and what it is given."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.data import Source, Split, boxes
from keras_resnet.detection.augmentation import AUGMENTATIONS, Augmentation, policy_of
from keras_resnet.detection.batches import batches
from keras_resnet.detection.faster_rcnn import is_detector, parts_of
from keras_resnet.detection.loss import LOSSES, sums_in_parts
from keras_resnet.training.recipes import POLICIES, VARIATION, Recipe
from keras_resnet.training.tasks import DIRECTIONS, TASKS, Task


@dataclass(frozen=True)
class DetectionObjective:
    """What a training step of a detector computes.

    Parameters
    ----------
    split : Split, optional
        The training images, to name those whose loss is not finite.

    Attributes
    ----------
    totals : tuple of str
        "loss", the sum of the four losses, these, and "images".
    compiled : None
        Keras' own `evaluate` cannot measure them; `detection.evaluate` measures precision.
    """

    split: Split | None = None
    totals: tuple[str, ...] = field(default=("loss", *LOSSES, "images"), init=False)
    compiled: None = field(default=None, init=False)

    def sums(
        self, model: keras.Model, inputs: Mapping, labels: Mapping, training: bool
    ) -> tf.Tensor:
        """Run a detector on some images, as `Objective.sums` does.

        A loss is a mean over the RoIs, or anchors, of the images of all devices.

        Parameters
        ----------
        model : keras.Model
            The detector.
        inputs, labels : mapping of str to tensor
            Images and boxes, as `detection.batches` makes them.
        training : bool
            Whether the detector is to learn from the loss.

        Returns
        -------
        float32 tensor
            `totals`, whose sum over all devices is this mean, times the number of images.
        """
        sums = sums_in_parts(parts_of(model), inputs, labels, training)
        images = tf.cast(tf.shape(labels["boxes"])[0], sums.rois.dtype)
        counts = tf.stack([tf.reduce_sum(sums.rois), tf.reduce_sum(sums.anchors), images])
        rois, anchors, all_images = tf.unstack(_of_all_replicas(tf.stop_gradient(counts)))

        def mean(losses, count):
            return all_images * tf.math.divide_no_nan(tf.reduce_sum(losses), count)

        of_each = [
            mean(sums.classifier, rois),
            mean(sums.box_reg, rois),
            mean(sums.objectness, anchors),
            mean(sums.rpn_box_reg, anchors),
        ]
        loss = mean(sums.of_rois, rois) + mean(sums.objectness + sums.rpn_box_reg, anchors)
        return tf.cast(tf.stack([loss, *map(tf.stop_gradient, of_each), images]), "float32")

    def prepare(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Return the batches as they are.

        Parameters
        ----------
        dataset : tf.data.Dataset
            Batches.

        Returns
        -------
        tf.data.Dataset
        """
        return dataset

    def suspects(self, model: keras.Model, inputs: Mapping, labels: Mapping) -> list[str]:
        """Name the images of a batch whose loss or gradient, by themselves, is not finite.

        Parameters
        ----------
        model : keras.Model
            The detector.
        inputs, labels : mapping of str to tensor
            Images and boxes, as `detection.batches` makes them.

        Returns
        -------
        list of str
        """
        variables = [each.value for each in model.trainable_variables]

        @tf.function(reduce_retracing=True)
        def is_finite(inputs, labels):
            with tf.GradientTape() as tape:
                loss = self.sums(model, inputs, labels, training=True)[0]
            gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
            finite = [tf.reduce_all(tf.math.is_finite(each)) for each in (loss, *gradients)]
            return tf.reduce_all(finite)

        found = []
        for index, seeds in enumerate(labels["seeds"]):
            its = tf.nest.map_structure(lambda each, i=index: each[i : i + 1], (inputs, labels))
            if not is_finite(*its):
                found.append(self._name(*seeds))
        return found

    def _name(self, epoch_seed, position):
        """The name of the image that came at a position of a shuffled epoch."""
        if self.split is None:
            return f"{position}"
        *_, channels = self.split.image_set.shape or (3,)
        reader = self.split.image_set.reader(np.arange(len(self.split)), channels)
        order = reader.elements(tf.cast(epoch_seed, "int64")).skip(tf.cast(position, "int64"))
        return self.split.image_set.names()[int(next(iter(order))[1])]


@dataclass(frozen=True)
class _Shown:
    """A detector is shown images in their own sizes, and resizes them itself."""

    channels: int


@dataclass(frozen=True)
class DetectionTask(Task):
    """The task of a detector: a row of `training.TASKS`, with answers of its own."""

    def check(self, model: keras.Model, source: Source) -> None:
        """Make sure that a detector can learn from a source, as `Task.check` does."""
        if not is_detector(model):
            raise ValueError(f"{model.name} {self.advice}")
        classes, count = parts_of(model).classes, len(source.class_names)
        if classes != count:
            raise ValueError(
                f"{model.name} has {classes} classes, {source.name} has {count}: build the "
                f"detector with classes={count}."
            )
        labels = source.train.labels
        if not len(labels):
            raise ValueError(f"data {source.name!r} has no training images.")
        largest = labels[..., boxes.CLASS].max(initial=-1)
        if largest >= count:
            raise ValueError(
                f"data {source.name!r} has a box of class {largest:g}; its {count} classes are "
                f"numbered from 0 to {count - 1}."
            )
        if not boxes.counted(labels).any():
            raise ValueError(
                f"data {source.name!r}: no training image has a box to learn from. (Boxes that are "
                "ignored, such as crowds, are not learned from.)"
            )

    def check_options(self, options: Mapping[str, object]) -> None:
        super().check_options(options)
        for name in VARIATION:
            if options.get(name) not in (None, getattr(Recipe, name)):
                raise ValueError(
                    f"{name}={options[name]!r} is for classes, not boxes: leave it out."
                )

    def view(self, model, source, recipe, execution) -> Any:
        for name in ("image_size", "crop"):
            if (value := getattr(execution, name)) is not None:
                raise ValueError(
                    f"{name}={value!r}: a detector is shown whole images of any size, and resizes "
                    "them itself: build it with min_size and max_size."
                )
        return _Shown(model.inputs[0].shape[-1])

    def remember(self, model: keras.Model, view: Any) -> None:
        pass  # the detector's options say it

    def policy(self, source: Source, recipe: Recipe) -> Augmentation:
        return policy_of(recipe.augmentation or source.augmentation) or Augmentation()

    def mixes(self, policy: Any) -> bool:
        return False

    def settings(self, view: Any, policy: Any) -> dict[str, Any]:
        return {"augmentation": dataclasses.asdict(policy)}

    def objective(self, source, recipe, class_weight=None, *, mixed=False) -> Any:
        if class_weight:
            raise ValueError(
                f"class_weight={dict(class_weight)!r} is for classes and labels of whole images, "
                "not for boxes: leave it out."
            )
        self.losses_of(recipe.loss)
        if recipe.layer_decay != 1.0:
            raise ValueError(
                f"layer_decay={recipe.layer_decay!r} is for models that answer for a whole image: "
                "give a detector's layers rates={'conv2': 0.1, ...}."
            )
        return DetectionObjective(source.train)


def _of_all_replicas(counts):
    """Sums over all devices."""
    context = tf.distribute.get_replica_context()
    return context.all_reduce("SUM", counts) if context.num_replicas_in_sync > 1 else counts


def _batches(split, *, classes=None, **options):
    """Batches of a split, called as `data.batches` is."""
    return batches(split, **options)


def _no_head(*_):
    raise ValueError(
        "a detector has heads of its own: build it with keras_resnet.detection.FasterRCNN."
    )


TASKS["detection"] = DetectionTask(
    "detection",
    labels="classes",
    activation=None,
    outputs=("detections",),
    advice="finds no boxes: build a detector with keras_resnet.detection.FasterRCNN.",
    head=_no_head,
    losses=_no_head,
    metrics=dict.fromkeys(LOSSES, _no_head),
    plausible=lambda outputs: False,
    decide=lambda outputs: outputs,
    describe=boxes.summary,
    compiled=None,
    weighted=False,
    batches=_batches,
    recipe="detection",
    in_stages=False,
)
POLICIES["boxes"] = AUGMENTATIONS
DIRECTIONS.update(dict.fromkeys(LOSSES, "min"))
