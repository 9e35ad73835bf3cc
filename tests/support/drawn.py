"""A detector that is small and was never trained, but finds this and that in any picture."""

import detectors
import keras
import numpy as np
import tensorflow as tf

from keras_resnet import detection

NAMES = ["cat", "dog", "bird"]

# Standard deviations of what the last layers give, over a few pictures.
_SPREADS = {"rpn_logits": 2.0, "rpn_deltas": 0.3, "box_logits": 2.0, "box_deltas": 1.0}


def drawn(head="fpn", classes=3, **options):
    """A detector whose weights are drawn, so that no score is like another."""
    model = detectors.tiny(head, classes, **options)
    generator = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            for name, mean, spread in (
                ("gamma", 1.0, 0.2), ("beta", 0.0, 0.2), ("moving_mean", 0.0, 0.2),
            ):  # fmt: skip
                weight = getattr(layer, name)
                weight.assign(generator.normal(mean, spread, weight.shape))
            layer.moving_variance.assign(generator.uniform(0.5, 2.0, layer.gamma.shape))
    _spread(model)
    return model


def _spread(model):
    """Scale the last layers so that their outputs are spread as they are in a trained model."""
    parts = detection.parts_of(model)
    images = np.stack([picture(number) for number in range(3)]).astype("float32")
    batch, sizes = parts.transform(images, np.tile(images.shape[1:3], (3, 1)))
    levels = parts.levels(batch)
    for layer in _named(parts.rpn, "rpn_logits", "rpn_deltas"):
        _scale(layer, parts.rpn(levels)[layer.name == "rpn_deltas"])
    boxes, counts = parts.anchors(batch, levels)
    proposals, _ = parts.proposals(*parts.rpn(levels), boxes, counts, sizes)
    regions = parts.pooled(levels, batch, proposals)
    for layer in _named(parts.box_head, "box_logits", "box_deltas"):
        _scale(layer, parts.box_head(regions)[layer.name == "box_deltas"])


def _named(model, *names):
    return [layer for layer in model._flatten_layers() if layer.name in names]


def _scale(layer, outputs):
    outputs = np.asarray(outputs).reshape(-1, layer.bias.shape[0])
    factor = _SPREADS[layer.name] / np.std(outputs - outputs.mean(0))
    layer.kernel.assign(layer.kernel * factor)
    layer.bias.assign(-factor * outputs.mean(0))


def picture(number=0, height=48, width=64):
    """A picture of coloured spots, uint8."""
    points = np.random.default_rng(number).uniform(0, 256, (1, 5, 6, 3))
    return tf.image.resize(points, (height, width))[0].numpy().astype("uint8")
