"""Transfer learning: a pretrained net becomes a classifier of other images."""

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.blocks import check_activation, check_positive
from keras_resnet.data import Source, batches
from keras_resnet.data.pipeline import policy_of
from keras_resnet.data.readers import by_index
from keras_resnet.files import written_beside
from keras_resnet.preprocessing import crop_of
from keras_resnet.resnet import deep_graphs
from keras_resnet.training import strategies
from keras_resnet.training.recipes import Recipe
from keras_resnet.training.recipes import recipe as find
from keras_resnet.training.trainer import (
    Result,
    architecture_digest,
    check_classifier,
    fit,
    train,
)

_HEAD_LAYERS = (
    keras.layers.Dense,
    keras.layers.Dropout,
    keras.layers.Activation,
    keras.layers.Softmax,
)
# A head of MobileNets: convolutions of features that are still a map of one pixel.
_MAP_HEAD_LAYERS = (
    keras.layers.Conv2D,
    keras.layers.Dropout,
    keras.layers.Activation,
    keras.layers.Reshape,
    keras.layers.Flatten,
)
_POOLING = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)


@deep_graphs()
def classifier(
    backbone: keras.Model,
    classes: int,
    dropout: float = 0.0,
    *,
    pooling: Literal["avg", "max"] = "avg",
    classifier_activation: str | None = "softmax",
    name: str | None = None,
) -> keras.Model:
    """Put a new head on a pretrained net.

    Parameters
    ----------
    backbone : keras.Model
        A functional model of images, of this package or of `keras.applications`. Where it ends in a
        classifier, that is left out. Its layers and weights are shared, not copied.
    classes : int
        Outputs of the new head.
    dropout : float, default 0.0
        Part of the features that is dropped in training.
    pooling : {"avg", "max"}, default "avg"
        How a feature map becomes features, where the backbone ends in a feature map.
    classifier_activation : str or None, default "softmax"
        Activation of the head; None for logits.
    name : str, optional
        Name of the model. Default: the backbone's.

    Returns
    -------
    keras.Model
        A functional model of the same input. Its new layers are "head_dropout" and "predictions".

    Raises
    ------
    ValueError
        For an argument out of its range, or a backbone that gives neither a feature map nor
        features.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import transfer
    >>> backbone = keras_resnet.ResNet18(include_top=False, weights=None, input_shape=(64, 64, 3))
    >>> model = transfer.classifier(backbone, classes=2)
    >>> transfer.freeze(model)
    >>> [variable.path for variable in model.trainable_variables]
    ['predictions/kernel', 'predictions/bias']
    """
    check_positive(classes=classes)
    check_activation(classifier_activation)
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout!r} must be at least 0 and below 1.")
    if pooling not in ("avg", "max"):
        raise ValueError(f"pooling={pooling!r} must be 'avg' or 'max'.")
    x = features_of(backbone)
    if len(x.shape) == 4:
        pool = _POOLING[("avg", "max").index(pooling)]
        x = pool(name=f"{pooling}_pool")(x)
    if len(x.shape) != 2:
        raise ValueError(
            f"backbone {backbone.name} gives {x.shape}: expected a feature map (batch, height, "
            "width, channels) or features (batch, channels)."
        )
    if dropout:
        x = keras.layers.Dropout(dropout, name="head_dropout")(x)
    # Probabilities in float32 whatever the net computes in.
    x = keras.layers.Dense(
        int(classes), activation=classifier_activation, dtype="float32", name="predictions"
    )(x)
    model = keras.Model(backbone.input, x, name=name or backbone.name)
    if hasattr(backbone, "preprocessing"):
        model.preprocessing = backbone.preprocessing
    return model


def features_of(model: keras.Model) -> keras.KerasTensor:
    """What enters the head of a model: the output of the last layer that is not part of it.

    Parameters
    ----------
    model : keras.Model
        A functional model of images, with a classifier or without.

    Returns
    -------
    keras.KerasTensor
        Pooled features, or a feature map where nothing pools it.

    Raises
    ------
    ValueError
        If the model has several outputs.
    """
    x = model.output
    if not keras.backend.is_keras_tensor(x):
        raise ValueError(
            f"{model.name} has several outputs: choose one of them, as "
            "keras.Model(model.input, model.output[...])."
        )
    # An activation behind a feature map belongs to the feature map.
    while isinstance(layer := _layer_of(x), _HEAD_LAYERS) and len(layer.input.shape) == 2:
        x = layer.input
    pooled = x
    while isinstance(layer := _layer_of(pooled), _MAP_HEAD_LAYERS):
        if tuple(layer.input.shape[1:-1]) not in ((), (1, 1)):
            break
        pooled = layer.input
    return pooled if isinstance(layer, _POOLING) else x


def _layer_of(tensor):
    return tensor._keras_history.operation


def freeze(model: keras.Model, up_to: str | None = None) -> None:
    """Hold the weights of a model's first layers, up to a stage and with it.

    A frozen BatchNormalization also normalizes with its moving statistics in training, and does
    not move them. Were it left to use the statistics of the batch, frozen convolutions would feed
    features of another distribution to the layers behind them than in prediction, and their
    learned statistics would drift away from ImageNet's with every small batch, though nothing in
    them is meant to learn. So the layer's `trainable` is what tells it, as in Keras.

    Compile the model afterwards, or again.

    Parameters
    ----------
    model : keras.Model
        A functional model.
    up_to : str, optional
        Name of a layer or of a stage, such as "conv4"; a stage ends with the last layer whose name
        begins with it. Default: all but the head.

    Raises
    ------
    ValueError
        If there is no such layer or stage.

    See Also
    --------
    unfreeze : The inverse.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import transfer
    >>> net = keras_resnet.CIFARResNet(8)
    >>> transfer.freeze(net, up_to="conv3")
    >>> sorted({variable.path.partition("_")[0] for variable in net.trainable_variables})
    ['conv4', 'predictions/bias', 'predictions/kernel']
    """
    layers = _layers(model)
    if up_to is None:
        last = layers.index(_layers(_layer_of(features_of(model)))[-1])
    else:
        last = max(layers.index(layer) for layer in _named(model, up_to, "up_to"))
    for layer in layers[: last + 1]:
        layer.trainable = False


def unfreeze(model: keras.Model, back_to: str | None = None, normalization: bool = True) -> None:
    """Let a model's last layers learn, from a stage on.

    Compile the model afterwards, or again.

    Parameters
    ----------
    model : keras.Model
        A functional model.
    back_to : str, optional
        Name of a layer or of a stage, such as "conv5": the first layer that is to learn, or whose
        name begins with it. Default: all layers.
    normalization : bool, default True
        Whether BatchNormalization may learn, too, and goes on to move its statistics. Without,
        small batches cannot disturb it, and a step is quicker.

    Raises
    ------
    ValueError
        If there is no such layer or stage.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import transfer
    >>> net = keras_resnet.CIFARResNet(8)
    >>> transfer.freeze(net)
    >>> transfer.unfreeze(net, back_to="conv4")
    >>> net.get_layer("conv4_block1_out").trainable, net.get_layer("conv3_block1_out").trainable
    (True, False)
    """
    layers = _layers(model)
    learning = [layer.trainable for layer in layers]
    first = 0
    if back_to is not None:
        first = min(layers.index(layer) for layer in _named(model, back_to, "back_to"))
    model.trainable = True  # and so is all that it consists of
    for layer, former in zip(layers[:first], learning, strict=False):
        layer.trainable = former
    for layer in layers[first:]:
        layer.trainable = normalization or not isinstance(layer, keras.layers.BatchNormalization)


def _layers(layer):
    """The layers of a model and, in their place, of models among them; of a layer, itself."""
    if not isinstance(layer, keras.Model):
        return [layer]
    return [each for inner in layer.layers for each in _layers(inner)]


def _named(model, name, argument):
    """The layer of a name, or those of a stage."""
    layers = _layers(model)
    found = [layer for layer in layers if layer.name == name]
    found = found or [layer for layer in layers if layer.name.startswith(f"{name}_")]
    if not found:
        stages = dict.fromkeys(layer.name.partition("_")[0] for layer in layers)
        raise ValueError(
            f"{argument}={name!r}: {model.name} has no such layer or stage. Its layers begin with "
            f"{', '.join(stages)}."
        )
    return found


@deep_graphs()
def extractor_of(model: keras.Model) -> keras.Model:
    """Everything but a model's head, with the same weights.

    Parameters
    ----------
    model : keras.Model
        A classifier, as `classifier` makes it.

    Returns
    -------
    keras.Model
    """
    return keras.Model(model.input, features_of(model))


def features(model: keras.Model, images: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Run images through everything but a model's head, once.

    Parameters
    ----------
    model : keras.Model
        A classifier, as `classifier` makes it.
    images : tf.data.Dataset
        Batches of (images, labels), as `data.batches` makes them: of one epoch, or of several
        in which the images look different.

    Returns
    -------
    tuple of (features, labels)
        Arrays of shape (images, channels), float32, and (images,) or (images, classes).

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import data, transfer
    >>> net = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 1))
    >>> digits = data.load("digits").test
    >>> found, labels = transfer.features(net, data.batches(digits, image_size=8, channels=1))
    >>> found.shape, labels.shape
    ((359, 64), (359,))
    """
    extractor = extractor_of(model)
    found, labels = zip(
        *((extractor.predict_on_batch(batch), labels) for batch, labels in images), strict=True
    )
    return np.concatenate(found).astype("float32"), np.concatenate(labels)


@dataclass(frozen=True)
class Stage:
    """A part of fine-tuning.

    Parameters
    ----------
    back_to : str
        Where learning begins: "head", a stage of the net such as "conv5", "last" for the last of
        them, or "all".
    recipe : Recipe
        How to train.
    views : int, default 0
        For the head alone: instead of running every image through the frozen layers in every epoch,
        run so many variations of it through them once, and train on the features.
    normalization : bool, default False
        As in `unfreeze`.
    """

    back_to: str
    recipe: Recipe
    views: int = 0
    normalization: bool = False


def stages(**changes) -> tuple[Stage, ...]:
    """The three stages of fine-tuning: the head, then the last stage with it, then all layers.

    Parameters
    ----------
    **changes
        Fields of `Recipe` that are to be other than in the recipe "finetune". The learning rate is
        the head's, the others' are slower; `epochs` are those of the second and the third stage
        together, a third of them the third's.

    Returns
    -------
    tuple of Stage

    Examples
    --------
    >>> from keras_resnet import transfer
    >>> [(stage.back_to, stage.recipe.epochs) for stage in transfer.stages(epochs=3)]
    [('head', 20), ('last', 2), ('all', 1)]
    """
    recipe = find("finetune", **changes)
    of_all = recipe.epochs // 3
    slow, slower = (
        replace(recipe, learning_rate=part * recipe.learning_rate) for part in (0.3, 0.1)
    )
    found = [
        Stage("head", replace(recipe, epochs=20, patience=5), views=2),
        Stage("last", replace(slow, epochs=recipe.epochs - of_all)),
        Stage("all", replace(slower, epochs=max(of_all, 1), rates=DISCRIMINATIVE)),
    ]
    return tuple(found if of_all else found[:2])


# The earlier a stage, the more general what it has learned, and the slower it learns.
DISCRIMINATIVE = {"conv1": 0.05, "conv2": 0.1, "conv3": 0.2, "conv4": 0.4, "conv5": 0.7}


def fine_tune(
    model: keras.Model,
    source: Source,
    plan: Sequence[Stage] | None = None,
    strategy: tf.distribute.Strategy | str | None = None,
    *,
    image_size: int | None = None,
    crop: float | None = None,
    checkpoints: str | os.PathLike | None = None,
    features_folder: str | os.PathLike | None = None,
    **options,
) -> Result:
    """Fine-tune a pretrained classifier in stages, and keep the best weights of them all.

    Parameters
    ----------
    model : keras.Model
        A classifier of the source's classes on a pretrained backbone, which takes raw images.
    source : Source
        The data; its test images are not touched.
    plan : sequence of Stage, optional
        What learns, and how, one after the other. Default: `stages()`.
    strategy : tf.distribute.Strategy or str, optional
        As in `keras_resnet.training.train`. Several processes train the head as they do all else,
        not on features computed once.
    features_folder : path, optional
        A folder to keep the features of frozen layers in, for other runs that need the same ones.
        Default: with the checkpoints.
    image_size, crop, checkpoints, **options
        As in `keras_resnet.training.train`. An interrupted run goes on in the stage that it was in.

    Returns
    -------
    Result
        The epochs of all stages one after the other. Afterwards all layers may learn again.

    Raises
    ------
    ValueError
        As `train` does, and for a stage that the model lacks.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import data, training, transfer
    >>> digits = data.load("digits")
    >>> model = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 1), include_preprocessing=True)
    >>> recipe = training.Recipe(epochs=2)
    >>> plan = [transfer.Stage("head", recipe, views=1), transfer.Stage("conv4", recipe)]
    >>> transfer.fine_tune(model, digits, plan, verbose=0).stages
    {'head': 2, 'conv4': 2}
    """
    check_classifier(model, source)
    plan = stages() if plan is None else plan
    if not plan:
        raise ValueError(f"plan={plan!r} must have a stage at least; left out, it is stages().")
    if isinstance(strategy, str):
        strategy = strategies.strategy(strategy)
    strategy = strategy or model.distribute_strategy
    if strategies.workers(strategy)[0] > 1 or tf.distribute.has_strategy():
        plan = [replace(stage, views=0) for stage in plan]
    last = _last_stage(model)
    plan = [replace(stage, back_to=last) if stage.back_to == "last" else stage for stage in plan]
    for stage in plan:
        if stage.back_to not in ("head", "all"):
            _named(model, stage.back_to, "back_to")
    size = image_size or model.input_shape[1] or source.image_size
    crop = crop_of(model) if crop is None else crop
    results, best_loss = {}, np.inf
    try:
        for number, stage in enumerate(plan, start=1):
            unfreeze(model)
            freeze(model)
            if stage.back_to != "head":
                back_to = None if stage.back_to == "all" else stage.back_to
                unfreeze(model, back_to, normalization=stage.normalization)
            former = model.get_weights() if results else None
            if stage.views:
                learn = functools.partial(_train_head, features_folder=features_folder)
            else:
                learn = _train_layers
            result = learn(
                model,
                source,
                stage,
                strategy,
                image_size=size,
                crop=crop,
                checkpoints=checkpoints and Path(checkpoints) / f"{number}-{stage.back_to}",
                **options,
            )
            name = f"{number}-{stage.back_to}" if stage.back_to in results else stage.back_to
            results[name] = result
            loss = _loss(result)
            if loss <= best_loss:
                best_loss = loss
            else:
                model.set_weights(former)
    finally:
        unfreeze(model)
    return _joined(results)


def _last_stage(model):
    """What the names of the layers begin with that make the last feature map."""
    x = features_of(model)
    while isinstance(layer := _layer_of(x), keras.Model) or len(x.shape) == 2:
        x = layer.output if isinstance(layer, keras.Model) else layer.input
    return layer.name.partition("_")[0]


def _train_layers(model, source, stage, strategy, **options):
    return train(model, source, stage.recipe, strategy, **options)


@deep_graphs()
def _train_head(
    model,
    source,
    stage,
    _strategy,
    *,
    image_size,
    crop,
    checkpoints,
    features_folder,
    seed=0,
    cache=None,
    synchronized=None,
    **options,
):
    """Train the head on features that are computed once; one device is enough for that."""
    if stage.back_to != "head":
        raise ValueError(f"views={stage.views} is for the head alone, not for {stage.back_to!r}.")
    recipe, classes = stage.recipe, len(source.class_names)
    policy = policy_of(recipe.augmentation or source.augmentation).with_mixup(recipe.mixup)
    views = dict(
        image_size=image_size, channels=source.channels, batch_size=recipe.batch_size, cache=cache
    )

    def compute():
        varied = batches(
            source.train,
            augmentation=policy,
            seed=seed,
            epochs=range(stage.views),
            classes=classes,
            **views,
        )
        if not len(source.validation):
            return features(model, varied)
        plain = batches(source.validation, crop=crop, **views)
        return *features(model, varied), *features(model, plain)

    settings = {
        "data": source.name,
        "images": [len(split) for split in source.splits.values()],
        "fingerprint": source.fingerprint(),
        "image_size": image_size,
        "crop": crop,
        "views": stage.views,
        "augmentation": recipe.augmentation or source.augmentation,
        "mixup": recipe.mixup,
        "layers": architecture_digest(extractor_of(model)),
        "weights": _digest(extractor_of(model)),
        "seed": seed,
    }
    made_how = json.dumps(settings)
    path = checkpoints and checkpoints / "features.npz"
    if features_folder is not None:
        path = Path(features_folder) / f"{hashlib.sha256(made_how.encode()).hexdigest()[:16]}.npz"
    inputs, labels, *validation = _kept(path, made_how, compute)
    rows = by_index(np.arange(len(labels)), lambda index: index)

    def training(epochs, batch_size, first_step=0, **_):
        def epoch(number):
            order = rows.elements(seed + 1 + number).map(lambda index, _: index)
            return order.batch(batch_size).map(
                lambda chosen: (tf.gather(inputs, chosen), tf.gather(labels, chosen))
            )

        steps = -(-len(labels) // batch_size) * len(epochs)
        dataset = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(epoch)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(4)
        return dataset.skip(first_step)

    return fit(
        keras.Model(features_of(model), model.output, name=f"{model.name}_head"),
        training,
        (lambda **_: tf.data.Dataset.from_tensor_slices(tuple(validation)).batch(256))
        if validation
        else None,
        recipe,
        classes=classes,
        mixed=labels.ndim > 1,
        settings=settings,
        checkpoints=checkpoints,
        **options,
    )


def _digest(model):
    """Of the weights of a model."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight))
    return digest.hexdigest()[:16]


def _kept(path, made_how, compute):
    """Arrays from a file; computed and written first where it is missing, or of another run."""
    if path is None:
        return compute()
    if path.exists():
        with np.load(path) as arrays:
            former, *found = (arrays[name] for name in arrays.files)
        if former == made_how:
            return found
    found = compute()
    with written_beside(path) as partial:
        np.savez(partial, made_how, *found)
    return found


def _loss(result):
    """What stages are compared by; where nothing was validated, the later one is the better."""
    if "val_loss" not in result.history:
        return -np.inf
    return result.history["val_loss"][result.best_epoch - 1]


def _joined(results):
    """One result of several stages."""
    first = next(iter(results.values()))
    before, best_epoch, best_loss = 0, 0, np.inf
    for result in results.values():
        loss = _loss(result)
        if loss <= best_loss:
            best_epoch, best_loss = before + result.best_epoch, loss
        before += len(result.history["loss"])
    return Result(
        {name: [v for r in results.values() for v in r.history[name]] for name in first.history},
        best_epoch,
        sum(result.seconds for result in results.values()),
        list(results.values())[-1].images_per_second,
        {name: len(result.history["loss"]) for name, result in results.items()},
    )
