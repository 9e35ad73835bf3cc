"""The size and the crop of the photographs that a pretrained model is fine-tuned on."""

import os
from pathlib import Path
from typing import Any

from keras_resnet import zoo
from keras_resnet.data import Source
from keras_resnet.pretrained import registry
from keras_resnet.resnet import STEMS

_USUAL = 224  # pixels: `Source.image_size` of photographs, and what most weights were trained at
_LARGER = 288  # pixels: where such weights are most accurate on whole images
_LARGEST = 320  # pixels: anything larger is not worth the time


def view_for(
    source: Source, weights: str | os.PathLike | None = None, model: str = "ResNet50"
) -> dict[str, Any]:
    """Choose the size and the crop of photographs to fine-tune a pretrained model on.

    Weights that were trained on random windows of 224 pixels, in which objects look larger, are
    more accurate on whole images of 288 pixels. Weights that were published with their own test
    size are shown that, up to 320 pixels. Small images, and models for them, keep the size of the
    data.

    Parameters
    ----------
    source : Source
        The data.
    weights : str or path, optional
        The weights. Default: any that were trained at 224 pixels.
    model : str, default "ResNet50"
        Name of the builder.

    Returns
    -------
    dict
        `image_size` and `crop`, as `fine_tune` and `Execution` take them: `crop` is None for what
        the model remembers.

    Raises
    ------
    ValueError
        For a tag that the registry does not know.

    References
    ----------
    Touvron et al., Fixing the train-test resolution discrepancy, NeurIPS 2019.

    Examples
    --------
    >>> from keras_resnet import data, transfer
    >>> transfer.view_for(data.load("digits"))
    {'image_size': 16, 'crop': None}
    """
    if source.image_size != _USUAL or STEMS[zoo.architecture(model).stem].image_size != _USUAL:
        return {"image_size": source.image_size, "crop": None}
    row = _row(weights, model) if isinstance(weights, str | os.PathLike) else None
    if row and row.test_image_size:
        size, crop = row.test_image_size, row.test_crop
    elif row and row.image_size not in (None, _USUAL):
        size, crop = row.image_size, None
    else:
        size, crop = _LARGER, 1.0
    return {"image_size": min(size, _LARGEST), "crop": crop}


def _row(weights, model):
    """What the registry knows of weights, if it does."""
    if isinstance(weights, str) and registry.is_tag(weights):
        return registry.find_tag(weights, zoo.builder(model).__name__)
    return registry.find_file(Path(weights).name)
