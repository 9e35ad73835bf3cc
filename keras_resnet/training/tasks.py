"""Tasks: what is learned, what its loss is, and what a model of it ends in."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.data import Augmentation, Source, batches
from keras_resnet.data.labels import LABELS
from keras_resnet.data.pipeline import policy_of
from keras_resnet.graphs import (
    answer_of,
    head_of,
    is_functional,
    present,
    remember_view,
    thresholds_of,
    view_of,
    wants_of,
)
from keras_resnet.layers.view import short
from keras_resnet.training.losses import LOSSES, loss_of
from keras_resnet.training.recipes import Recipe
from keras_resnet.training.values import in_rows, moments

if TYPE_CHECKING:
    from keras_resnet.training.execution import Execution

_logger = logging.getLogger("keras_resnet")

DIRECTIONS = {"accuracy": "max", "mean_absolute_error": "min", "loss": "min"}
"""Whether more of what the tasks measure is better."""


@dataclass(frozen=True)
class Objective:
    """What a training step computes: a task, on the labels of one data set.

    Any object with `totals`, `sums`, `prepare`, `compiled` and `suspects` can be trained.

    Parameters
    ----------
    loss, training_loss : callable
        The loss of each image, given labels and outputs: in validation, and in training, where
        classes may be weighted and labels smoothed.
    metrics : mapping of str to callable
        What else is measured of each image, given labels and outputs.
    compiled : tuple of (str, str) or None
        The loss and the metric that Keras' own `evaluate` is to use, if it can measure them.
    classes : int, optional
        Number of classes, if labels have to become probabilities of them.
    smoothed_loss : callable, optional
        The loss in validation as earlier versions measured it, for runs that they began.
    suspects : callable, optional
        Names the images whose loss or gradient is not finite, given a model, inputs and labels. A
        step whose gradient is not finite then changes no weights, and ends the run.
    """

    loss: Callable
    training_loss: Callable
    metrics: Mapping[str, Callable]
    compiled: tuple[str, str] | None
    classes: int | None = None
    smoothed_loss: Callable | None = None
    suspects: Callable[..., list[str]] | None = None

    @property
    def totals(self) -> tuple[str, ...]:
        """Names of what `sums` returns: "loss", the metrics, and "images"."""
        return ("loss", *self.metrics, "images")

    def sums(self, model: keras.Model, inputs, labels, training: bool) -> tf.Tensor:
        """Run a model on some images.

        Parameters
        ----------
        model : keras.Model
            The model.
        inputs : tensor of shape (images, ...)
            The images.
        labels : tensor of shape (images, ...)
            Their labels.
        training : bool
            Whether the model is to learn from the loss.

        Returns
        -------
        float32 tensor
            `totals`: sums over the images, and the number of images.
        """
        outputs = tf.cast(model(inputs, training=training), "float32")
        losses = (self.training_loss if training else self.loss)(labels, outputs)
        columns = [losses, *(metric(labels, outputs) for metric in self.metrics.values())]
        # Of the last one: ones like the losses would take a useless part in differentiation.
        columns.append(tf.ones_like(columns[-1]))
        return tf.stack([tf.reduce_sum(each) for each in columns])

    def prepare(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Turn the labels of a data set into what the loss takes.

        Parameters
        ----------
        dataset : tf.data.Dataset
            Of (images, labels).

        Returns
        -------
        tf.data.Dataset
        """
        if self.classes is None or dataset.element_spec[1].shape.rank == 2:
            return dataset
        return dataset.map(lambda inputs, labels: (inputs, tf.one_hot(labels, self.classes)))


@dataclass(frozen=True)
class Task:
    """What a model learns: a row of `TASKS`.

    Parameters
    ----------
    name : str
        Its key in `TASKS`.
    labels : str
        What `Source.class_names` are the names of: a plural.
    activation : str or None
        Activation of a new head.
    outputs : tuple of str
        What may come out of a model, as `graphs.head_of` calls it.
    advice : str
        What to do about a model of other outputs.
    head : callable
        Makes the layers behind the features, given the features, the source and a dropout rate.
    losses : callable
        Makes the loss of each image, given the source, the recipe, class weights or None, and
        whether labels are probabilities. A recipe may name another one.
    metrics : mapping of str to callable
        What is measured of each image beside the loss, given labels and outputs.
    plausible : callable
        Whether the outputs of a model that does not say what they are, an array, can be answers.
    decide : callable
        Makes predictions, in the form of labels, of outputs: both arrays. Of several labels it
        takes their thresholds, too, as `graphs.thresholds_of` returns them.
    describe : callable
        The text of one image's label, given that and the names of classes, labels or values.
    compiled : tuple of (str, str) or None
        As in `Objective`.
    one_hot : bool
        Whether labels are whole numbers that smoothing turns into probabilities.
    weighted : bool
        Whether classes or labels may be weighted, and smoothed.
    batches : callable
        Makes batches of a split, called as `data.batches` is.
    recipe : str, optional
        The key of `RECIPES` to train by if no recipe is given. Default: `Recipe()`.
    in_stages : bool
        Whether a model consists of features and a head, which `transfer.fine_tune` trains apart.
    """

    name: str
    labels: str
    activation: str | None
    outputs: tuple[str, ...]
    advice: str
    head: Callable
    losses: Callable
    metrics: Mapping[str, Callable]
    plausible: Callable[[np.ndarray], bool]
    decide: Callable[..., np.ndarray]
    describe: Callable[..., str]
    compiled: tuple[str, str] | None
    one_hot: bool = False
    weighted: bool = True
    batches: Callable[..., tf.data.Dataset] = field(default=batches, repr=False)
    recipe: str | None = None
    in_stages: bool = True

    def check(self, model: keras.Model, source: Source) -> None:
        """Make sure that a model can learn this task from a source.

        Parameters
        ----------
        model : keras.Model
            The model.
        source : Source
            The data.

        Raises
        ------
        ValueError
            If it has another number of outputs, outputs of another kind, or wants images that are
            normalized.
        """
        if len(model.outputs) > 1:
            raise ValueError(
                f"{model.name} gives {len(model.outputs)} outputs, as detectors do; data "
                f"{source.name!r} is for {self.name}, with one answer for each image."
            )
        head, count = head_of(model), len(source.class_names)
        if head.units != count:
            of_these = LABELS[self.name].noun if count == 1 else self.labels
            raise ValueError(
                f"{model.name} has {head.units} outputs, {source.name} has {count} {of_these}: "
                f"build the model with classes={count}."
            )
        if head.output not in self.outputs:
            raise ValueError(f"{model.name} {self.advice}")
        # Served, it would be given normalized images, as its backbone's weights want them.
        wanted = wants_of(model).normalization
        if wanted not in ("raw", None):
            raise ValueError(
                f"{model.name} takes images that are normalized as {wanted!r}, and a source's are "
                "raw: build it, or its backbone, with include_preprocessing=True."
            )
        if thresholds_of(model) is not None:
            _logger.warning(
                "%s keeps thresholds of labels that were chosen before this training: choose them "
                "again.",
                model.name,
            )

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Make sure that options that were given have an effect.

        Parameters
        ----------
        options : mapping of str to value
            Fields of `Recipe` that were given one by one; a recipe by name may suit other tasks.

        Raises
        ------
        ValueError
            If one of them has no effect on this task.
        """
        for name in ("label_smoothing", "cutmix"):
            if options.get(name) and not self.weighted:
                raise ValueError(
                    f"{name}={options[name]!r} is for classes and labels, not for {self.name}: "
                    "leave it out."
                )
        self.losses_of(options.get("loss"))

    def losses_of(self, name: str | None) -> Callable:
        """Find what makes the loss that a recipe asks for.

        Parameters
        ----------
        name : str or None
            `Recipe.loss`.

        Returns
        -------
        callable
            As `losses`.

        Raises
        ------
        ValueError
            If it is for other tasks.
        """
        return loss_of(self.name, name) if name else self.losses

    def view(
        self, model: keras.Model, source: Source, recipe: Recipe, execution: "Execution"
    ) -> Any:
        """Decide how a run shows images, in training and in tests.

        Parameters
        ----------
        model : keras.Model
            The model.
        source : Source
            The data.
        recipe : Recipe
            The recipe. If its augmentation cuts windows, tests keep the model's crop; if not, both
            show the whole image.
        execution : Execution
            With `image_size` and `crop`, if they are given.

        Returns
        -------
        View
            Or another object whose attributes are keywords of `batches`.

        Raises
        ------
        ValueError
            As `graphs.view_of` does.
        """
        size, crop = execution.image_size, execution.crop
        if size is None and model.inputs[0].shape[1:3] == (None, None):
            size = source.image_size
        if crop is None and not self.policy(source, recipe).area:
            crop = 1.0
        return view_of(model, image_size=size, crop=crop)

    def remember(self, model: keras.Model, view: Any) -> None:
        """Make a model remember how images are shown to it.

        Parameters
        ----------
        model : keras.Model
            The model.
        view : View
            As `view` returns it.
        """
        remember_view(model, view)

    def policy(self, source: Source, recipe: Recipe) -> Any:
        """Decide how a recipe varies the training images of a source.

        Parameters
        ----------
        source : Source
            The data, with a default augmentation.
        recipe : Recipe
            The recipe, which may have another one, and mixes, erases and repeats images.

        Returns
        -------
        Augmentation
            Or whatever `batches` takes.
        """
        policy = policy_of(recipe.augmentation or source.augmentation) or Augmentation()
        return replace(
            policy,
            erasing=recipe.erasing or policy.erasing,
            repeats=recipe.repeats if recipe.repeats > 1 else policy.repeats,
        ).with_mixing(
            mixup=recipe.mixup,
            cutmix=recipe.cutmix,
            probability=recipe.mix_probability,
            switch=recipe.switch_probability,
        )

    def mixes(self, policy: Any) -> bool:
        """Tell whether a policy mixes the labels of images.

        Parameters
        ----------
        policy : Augmentation
            As `policy` returns it.

        Returns
        -------
        bool
        """
        return bool(policy.mixes())

    def settings(self, view: Any, policy: Any) -> dict[str, Any]:
        """Describe a view, as checkpoints and kept features record it.

        Parameters
        ----------
        view : View
            How images are shown.
        policy : Augmentation
            How training images are varied.

        Returns
        -------
        dict of str to JSON value
        """
        settings = {"image_size": short(view.image_size), "crop": view.crop}
        # Earlier versions recorded no more. Where that still means the same, their runs go on.
        if view.crop != 1.0 and not policy.area:
            settings["training_crop"] = view.crop
        if view.interpolation != "bilinear":
            settings["interpolation"] = view.interpolation
        return settings

    def answers_of(self, model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
        """Make a function that turns the outputs of a model into those of this task.

        Logits become probabilities, and the probability of the second of two classes those of
        both.

        Parameters
        ----------
        model : keras.Model
            A model, made by whatever means.

        Returns
        -------
        callable
            From an array of outputs to another one. It raises ValueError for outputs that are
            something else.

        Examples
        --------
        >>> import keras, numpy as np
        >>> from keras_resnet import training
        >>> layers = [keras.Input((4,)), keras.layers.Dense(1, "sigmoid")]
        >>> answers = training.TASKS["classification"].answers_of(keras.Sequential(layers))
        >>> answers(np.array([[0.25]]))
        array([[0.75, 0.25]])
        """
        head = head_of(model) if is_functional(model) else None
        answer = head and answer_of(head, self.name)
        unknown = head is None or (head.output == "unknown" and not head.linear)

        def answers(outputs):
            if answer:
                return np.asarray(answer(outputs))
            if unknown and self.plausible(outputs):
                return outputs
            raise ValueError(f"{model.name} {self.advice}")

        return answers

    def objective(
        self,
        source: Source,
        recipe: Recipe,
        class_weight: Mapping[int, float] | None = None,
        *,
        mixed: bool = False,
    ) -> Objective:
        """Decide what a training step computes.

        Parameters
        ----------
        source : Source
            The data.
        recipe : Recipe
            How to train.
        class_weight : mapping of int to float, optional
            Weight of each class; for several labels, of each label in the images that have it.
        mixed : bool, default False
            Whether augmentation mixes the labels of training images.

        Returns
        -------
        Objective

        Raises
        ------
        ValueError
            For weights of what is no class or label, a loss that is for other tasks, or training
            values that are all the same.
        """
        count = len(source.class_names)
        if class_weight and not self.weighted:
            raise ValueError(
                f"class_weight={dict(class_weight)!r} is for classes and labels; {source.name} has "
                "numbers."
            )
        if unknown := set(class_weight or ()) - set(range(count)):
            raise ValueError(
                f"class_weight has {sorted(unknown, key=str)!r}: {self.labels} are the numbers "
                f"from 0 to {count - 1}."
            )
        weights = class_weight and [class_weight.get(index, 1.0) for index in range(count)]
        losses = self.losses_of(recipe.loss)
        soft = mixed or recipe.label_smoothing > 0
        plain = recipe.changed(label_smoothing=0.0)  # or runs could not be compared
        return Objective(
            losses(source, plain, None, soft),
            losses(source, recipe, weights, soft),
            self.metrics,
            self.compiled,
            count if soft and self.one_hot else None,
            losses(source, recipe, None, soft),
        )


def task_of(source: Source) -> Task:
    """Find the task of a source.

    Parameters
    ----------
    source : Source
        The data.

    Returns
    -------
    Task

    Examples
    --------
    >>> from keras_resnet import data, training
    >>> training.task_of(data.load("digits")).name
    'classification'
    """
    return TASKS[source.task]


def _dropped(features, dropout):
    return keras.layers.Dropout(dropout, name="head_dropout")(features) if dropout else features


def _precision(features):
    """At least float32, whatever the model computes in."""
    return "float64" if features.dtype == "float64" else "float32"


def _dense(activation):
    """A maker of heads of one Dense layer."""

    def head(features, source, dropout=0.0):
        return keras.layers.Dense(
            len(source.class_names),
            activation=activation,
            dtype=_precision(features),
            name="predictions",
        )(_dropped(features, dropout))

    return head


def _rescaled(features, source, dropout=0.0):
    """A head that gives values in their own unit, whatever their mean and spread."""
    mean, spread = moments(source)
    standardized = keras.layers.Dense(
        len(source.class_names), dtype=_precision(features), name="standardized"
    )(_dropped(features, dropout))
    return keras.layers.Rescaling(
        spread[0] if len(spread) == 1 else spread,
        mean[0] if len(mean) == 1 else mean,
        dtype=_precision(features),
        name="predictions",
    )(standardized)


def _are_of_classes(outputs):
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(-1), 1, atol=1e-2))


def _are_of_labels(outputs):
    return bool(((outputs >= 0) & (outputs <= 1)).all())


def _is_right(labels, outputs):
    classes = tf.argmax(labels, -1) if labels.shape.rank == 2 else tf.cast(labels, "int64")
    return tf.cast(tf.argmax(outputs, -1) == classes, "float32")


def _labels_right(labels, outputs):
    right = present(tf.cast(labels, "float32")) == present(outputs)
    return tf.reduce_mean(tf.cast(right, "float32"), -1)


def _absolute_error(labels, outputs):
    return tf.reduce_mean(tf.abs(in_rows(labels) - outputs), -1)


def _labels_text(label, names):
    found = (name for name, is_there in zip(names, label, strict=True) if is_there > 0.5)
    return ", ".join(found) or "none"


TASKS = {
    task.name: task
    for task in (
        Task(
            "classification",
            labels="classes",
            activation="softmax",
            outputs=("probabilities",),
            advice="gives no probabilities: build it with classifier_activation='softmax'.",
            head=_dense("softmax"),
            losses=LOSSES["cross_entropy"]["classification"],
            metrics={"accuracy": _is_right},
            plausible=_are_of_classes,
            decide=lambda outputs: outputs.argmax(-1),
            describe=lambda label, names: names[label],
            compiled=("sparse_categorical_crossentropy", "accuracy"),
            one_hot=True,
        ),
        Task(
            "multilabel",
            labels="labels",
            activation="sigmoid",
            outputs=("multilabel",),
            advice="gives no probability of each label: build it with "
            "classifier_activation='sigmoid'.",
            head=_dense("sigmoid"),
            losses=LOSSES["binary_cross_entropy"]["multilabel"],
            metrics={"accuracy": _labels_right},
            plausible=_are_of_labels,
            decide=lambda outputs, thresholds=None: present(outputs, thresholds).astype("float32"),
            describe=_labels_text,
            compiled=("binary_crossentropy", "binary_accuracy"),
        ),
        Task(
            "regression",
            labels="numbers",
            activation=None,
            outputs=("number", "unknown"),
            advice="gives no numbers: put a head on its features with "
            "keras_resnet.transfer.model_for.",
            head=_rescaled,
            losses=LOSSES["squared_error"]["regression"],
            metrics={"mean_absolute_error": _absolute_error},
            plausible=lambda outputs: True,
            decide=lambda outputs: outputs,
            describe=lambda label, _: ", ".join(f"{value:.4g}" for value in np.atleast_1d(label)),
            compiled=("mean_squared_error", "mean_absolute_error"),
            weighted=False,
        ),
    )
}
"""The tasks by name."""
