"""Features computed once, and a head trained on them."""

import hashlib
import json
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.data import batches
from keras_resnet.data.pipeline import policy_of
from keras_resnet.data.readers import by_index
from keras_resnet.files import written_beside
from keras_resnet.graphs import architecture_digest, extractor_of, head_model_of
from keras_resnet.resnet import deep_graphs
from keras_resnet.training.execution import Execution
from keras_resnet.training.tasks import task_of
from keras_resnet.training.trainer import fit


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


@deep_graphs()
def train_head(
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
        head_model_of(model),
        training,
        (lambda **_: tf.data.Dataset.from_tensor_slices(tuple(validation)).batch(256))
        if validation
        else None,
        recipe,
        objective=task_of(source).objective(
            source, recipe, options.get("class_weight"), mixed=bool(policy.mixes())
        ),
        settings=settings,
        execution=Execution(checkpoints=checkpoints, **options),
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
