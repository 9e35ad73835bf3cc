"""Ordinary convolutions."""

import keras

from keras_resnet.checks import check_choice
from keras_resnet.layers import notes, pointwise
from keras_resnet.layers.devices import serializable
from keras_resnet.layers.preprocessing import NORMALIZATIONS
from keras_resnet.layers.view import checked_view, noted, view_config


# Keras numbers the layers in a .weights.h5 file by the names of their classes. Under any other name
# than Conv2D, the file would not fit models whose convolutions are Keras' own.
@serializable
class Conv2D(keras.layers.Conv2D):
    """A convolution that may also say which images the model wants to be shown.

    Computes what `keras.layers.Conv2D` does. On CPUs with AMX, a 1x1 convolution in bfloat16 trains
    faster: its filter gradient is one matrix product. The environment variable
    `KERAS_RESNET_MATMUL_GRADIENTS` overrides this: "1" turns it on for any CPU and type, "0" off.

    In models without a `Preprocessing` layer, the first convolution says which images the model
    wants: the configuration of a layer is all that survives saving, cloning and nesting of a model.
    `graphs.wants_of` reads what it says, `graphs.remember` changes it.

    Parameters
    ----------
    *args
        Those of `keras.layers.Conv2D`.
    normalization : {"torch", "caffe", "detectron2", "tf"}, optional
        How images are normalized before they enter the model, as in `preprocess_input`. Default:
        not known.
    crop, image_size, interpolation
        As for `Preprocessing`.
    **kwargs
        Those of `keras.layers.Conv2D`.

    Raises
    ------
    ValueError
        As `Preprocessing` does.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet.layers import Conv2D
    >>> layer = Conv2D(64, 7, normalization="torch", crop=0.875)
    >>> Conv2D.from_config(layer.get_config()).normalization
    'torch'
    """

    def __init__(
        self,
        *args,
        normalization=None,
        crop=1.0,
        image_size=None,
        interpolation="bilinear",
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        check_choice((None, *NORMALIZATIONS), normalization=normalization)
        self.normalization = normalization
        for name, value in checked_view(crop, image_size, interpolation).items():
            setattr(self, name, value)

    def convolution_op(self, inputs, kernel):
        if pointwise.takes_over(self, inputs):
            return pointwise.convolution(inputs, kernel, self.strides)
        return super().convolution_op(inputs, kernel)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        if self.normalization:
            notes.write(store, preprocessing=self.normalization, **noted(view_config(self)))

    def load_own_variables(self, store):
        notes.check(store, self.normalization)
        super().load_own_variables(store)

    def get_config(self):
        return {
            **super().get_config(),
            "normalization": self.normalization,
            **view_config(self),
        }
