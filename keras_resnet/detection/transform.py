"""From images of any size to a batch."""

import dataclasses

import keras
import tensorflow as tf

from keras_resnet.detection.options import Options, serializable
from keras_resnet.layers import Preprocessing


@serializable
class Transform(Preprocessing):
    """Normalize, resize and pad the images of a batch.

    Takes images, padded to one size, and the height and width of each. Returns a batch whose sides
    are multiples of `divisor`, padded with zeros, and the height and width of each image in it.

    Parameters
    ----------
    mode : {"torch", "caffe", "detectron2", "tf"}
        How images are normalized, as in `Preprocessing`.
    options : Options or dict
        `min_size` and `max_size` are used.
    divisor : int, default 32
        What the sides of a batch are a multiple of.
    **kwargs
        `name` and other arguments of `keras.layers.Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet import detection
    >>> layer = detection.Transform("torch", detection.Options(min_size=100, max_size=150))
    >>> batch, sizes = layer(np.zeros((1, 50, 60, 3)), np.array([[50, 60]]))
    >>> batch.shape, sizes.numpy().tolist()
    (TensorShape([1, 128, 128, 3]), [[100, 120]])
    """

    def __init__(self, mode, options, divisor=32, **kwargs):
        for name in ("crop", "image_size", "interpolation"):  # of any size, and seen whole
            kwargs.pop(name, None)
        super().__init__(mode, **kwargs)
        self.options = options if isinstance(options, Options) else Options(**options)
        self.divisor = divisor

    def build(self, images_shape, sizes_shape):
        super().build(images_shape)

    def call(self, images, sizes):
        if images.shape[0] == 0:  # of which `tf.map_fn` makes nothing
            raise ValueError("images is a batch of 0: a detector takes one image or more at once.")
        images, sizes = super().call(images), tf.cast(sizes, "int32")
        resized = resized_sizes(sizes, self.options.min_size, self.options.max_size)
        largest = -(-tf.reduce_max(resized, 0) // self.divisor) * self.divisor

        def shown(of_image):
            image, (height, width), (rows, columns) = (
                of_image[0], *(tf.unstack(each) for each in of_image[1:])
            )  # fmt: skip
            image = tf.image.resize(image[:height, :width], (rows, columns))
            return tf.pad(image, [[0, largest[0] - rows], [0, largest[1] - columns], [0, 0]])

        spec = tf.TensorSpec((None, None, images.shape[-1]), images.dtype)
        batch = tf.map_fn(shown, (images, sizes, resized), fn_output_signature=spec)
        return batch, resized

    def compute_output_spec(self, images, sizes):
        shape = (images.shape[0], None, None, images.shape[-1])
        return keras.KerasTensor(shape, "float32"), keras.KerasTensor(sizes.shape, "int32")

    def get_config(self):
        config = super().get_config()
        return {**config, "options": dataclasses.asdict(self.options), "divisor": self.divisor}


def resized_sizes(sizes: tf.Tensor, min_size: int, max_size: int) -> tf.Tensor:
    """Heights and widths of images after resizing, rounded as torchvision rounds them.

    Parameters
    ----------
    sizes : int tensor of shape (images, 2)
        Heights and widths before.
    min_size, max_size : int
        As in `Options`.

    Returns
    -------
    int32 tensor of shape (images, 2)

    Examples
    --------
    >>> from keras_resnet.detection.transform import resized_sizes
    >>> resized_sizes([[100, 140]], 128, 192).numpy().tolist()
    [[128, 179]]
    """
    sides = tf.cast(sizes, "float64")  # in which torchvision's Python computes
    scale = tf.minimum(min_size / tf.reduce_min(sides, -1), max_size / tf.reduce_max(sides, -1))
    return tf.maximum(tf.cast(tf.floor(sides * scale[:, None]), "int32"), 1)
