"""The first convolution of a model that is shown normalized images."""

import keras

from keras_resnet.checks import check_choice
from keras_resnet.layers import notes
from keras_resnet.layers.devices import serializable
from keras_resnet.layers.preprocessing import NORMALIZATIONS
from keras_resnet.layers.view import checked_view, noted, view_config


# Keras numbers the layers in a .weights.h5 file by the names of their classes. Under any other name
# than Conv2D, the file would not fit models whose first convolution is one of Keras' own.
@serializable
class Conv2D(keras.layers.Conv2D):
    """A convolution that also says which images the model wants to be shown.

    Computes exactly what `keras.layers.Conv2D` does. In models without a `Preprocessing` layer, it
    is the first convolution: the configuration of a layer is all that survives saving, cloning and
    nesting of a model. `graphs.wants_of` reads what it says, `graphs.remember` changes it.

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
