"""Test-time augmentation: several views of an image, and the mean of what a model says of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import keras

from keras_resnet import names
from keras_resnet.graphs import View, thresholds_of
from keras_resnet.layers import Thresholds
from keras_resnet.resnet import deep_graphs


@dataclass(frozen=True)
class Views:
    """The views of an image: a row of `VIEWS`.

    Parameters
    ----------
    of : callable
        Makes the views, given images and the (height, width) of a view: a list of tensors.
    around : bool, default False
        Whether the images have to show what is around the view that the model is shown otherwise.
    """

    of: Callable
    around: bool = False


def _mirrored(views):
    """Views, and the same mirrored."""
    return [*views, *(keras.ops.flip(view, axis=2) for view in views)]


def _crops(images, size):
    """The middle, and the four corners."""
    (height, width), (_, rows, columns, _) = size, images.shape
    bottom, right = rows - height, columns - width
    places = [(bottom // 2, right // 2), (0, 0), (0, right), (bottom, 0), (bottom, right)]
    return [images[:, top : top + height, left : left + width] for top, left in places]


VIEWS = {
    "flip": Views(lambda images, _: _mirrored([images])),
    # Krizhevsky et al. 2012, and He et al. 2016, table 4.
    "five_crops": Views(_crops, around=True),
    "ten_crops": Views(lambda images, size: _mirrored(_crops(images, size)), around=True),
}
"""The views of test-time augmentation, by name."""


def find_views(tta: str) -> str:
    """Find the name of some views as it is written in `VIEWS`.

    Parameters
    ----------
    tta : str
        The name; case, "-" and "_" do not matter.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        For an unknown name.
    """
    return names.find("tta", tta, VIEWS)


@deep_graphs()
def over_views(model: keras.Model, tta: str, view: View) -> tuple[keras.Model, View]:
    """Make a model that answers with the mean of a model's answers to several views of an image.

    Parameters
    ----------
    model : keras.Model
        A model of images whose answers can be averaged: probabilities rather than logits.
    tta : {"flip", "five_crops", "ten_crops"}
        The views: an image and its mirror image; the middle and the four corners of the image, each
        as large as what the model is shown otherwise; or these and their mirror images.
    view : View
        How images are shown to the model.

    Returns
    -------
    model : keras.Model
    view : View
        How images are shown to that: for crops, whole and larger.

    Raises
    ------
    ValueError
        For unknown views, and for crops of a model that is shown whole images, around which there
        is nothing.

    References
    ----------
    Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012,
    section 4.1: ten crops.

    Examples
    --------
    >>> import keras_resnet, numpy as np
    >>> from keras_resnet import graphs
    >>> from keras_resnet.analysis.views import over_views
    >>> model = keras_resnet.CIFARResNet(8, include_preprocessing=True)
    >>> both, _ = over_views(model, "flip", graphs.view_of(model))
    >>> images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    >>> np.allclose(both(images), (model(images) + model(images[:, :, ::-1])) / 2, atol=1e-6)
    True
    """
    tta = find_views(tta)
    views, size = VIEWS[tta], view.image_size
    if views.around:
        if view.crop == 1.0:
            raise ValueError(
                f"tta={tta!r}: {model.name!r} is shown whole images, and crops of them would be "
                "larger than what it was trained on: give a crop below 1, or tta='flip'."
            )
        height, width = (round(side / view.crop) for side in size)
        view = replace(view, image_size=(height, width), crop=1.0)
    images = keras.Input((*view.image_size, view.channels))
    answers = keras.layers.average([model(each) for each in views.of(images, size)])
    if thresholds := thresholds_of(model):
        answers = Thresholds(thresholds, dtype=answers.dtype)(answers)
    return keras.Model(images, answers, name=model.name), view
